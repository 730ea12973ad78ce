package tally_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/braid-cni/braid/pkg/tally"
)

func TestTally(t *testing.T) {
	f := tally.File{Path: filepath.Join(t.TempDir(), "state", "counts")}
	if got := f.Read(); len(got) > 0 {
		t.Errorf("before the first: %v", got)
	}
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			for range 5 {
				if err := f.Add(t.Context(), "a", "b", "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if err := f.Add(t.Context()); err != nil {
		t.Error(err)
	}
	if got, want := f.Read(), map[string]uint64{"a": 100, "b": 50}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// Names are bounded, in length and number; those that are known go on being counted.
func TestTallyIsBounded(t *testing.T) {
	f := tally.File{Path: filepath.Join(t.TempDir(), "counts")}
	for i := range 3 * tally.MaxNames {
		if err := f.Add(t.Context(), fmt.Sprint(i), strings.Repeat("x", 1000), "0"); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.Read(); len(got) != tally.MaxNames || got["0"] != 3*tally.MaxNames+1 {
		t.Errorf("%d names, %d", len(got), got["0"])
	}
}

// What is no tally is begun anew, and no link is followed.
func TestHostileTally(t *testing.T) {
	for name, text := range map[string]string{
		"broken": `{"a": `, "large": strings.Repeat(" ", 1<<20) + `{"a": 1}`, "null": "null",
		"list": "[1]", "negative": `{"a": -1}`, "text": `{"a": "1"}`,
	} {
		f := tally.File{Path: filepath.Join(t.TempDir(), "counts")}
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := f.Read()["a"]; got != 0 {
			t.Errorf("%s: read %d", name, got)
		}
		if err := f.Add(t.Context(), "a"); err != nil || f.Read()["a"] != 1 {
			t.Errorf("%s: %v, %v", name, err, f.Read())
		}
	}
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte(`{"a": 7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"counts", "counts.new"} {
		f := tally.File{Path: filepath.Join(t.TempDir(), "counts")}
		if err := os.Symlink(target, filepath.Join(filepath.Dir(f.Path), link)); err != nil {
			t.Fatal(err)
		}
		if err := f.Add(t.Context(), "a"); err != nil || f.Read()["a"] != 1 {
			t.Errorf("%s: %v, %v", link, err, f.Read())
		}
	}
	if text, err := os.ReadFile(target); err != nil || string(text) != `{"a": 7}` {
		t.Errorf("the target is %q, %v", text, err)
	}
}
