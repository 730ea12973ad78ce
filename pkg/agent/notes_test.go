package agent_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/pkg/agent"
)

func TestTakeNotes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fallbacks")
	if counts, err := agent.TakeNotes(path); len(counts) > 0 || err != nil {
		t.Errorf("without notes: %v, %v", counts, err)
	}
	if err := os.WriteFile(path, []byte("slow\nabsent\nslow\nsl\x00ow\nlo"), 0o600); err != nil {
		t.Fatal(err)
	}
	counts, err := agent.TakeNotes(path)
	if err != nil || !maps.Equal(counts, map[string]int{"slow": 2, "absent": 1, "other": 2}) {
		t.Errorf("%v, %v", counts, err)
	}
	if counts, err := agent.TakeNotes(path); len(counts) > 0 || err != nil {
		t.Errorf("they are counted again: %v, %v", counts, err)
	}
	if err := os.Symlink("/etc/passwd", path); err != nil {
		t.Fatal(err)
	}
	if counts, err := agent.TakeNotes(path); err == nil {
		t.Errorf("a link is read: %v", counts)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the link is left")
	}
}
