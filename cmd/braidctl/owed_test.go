package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// TestR12OwedIsListed: of the node's attachments those that are owed, and no others.
func TestR12OwedIsListed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	code, stdout, stderr := call(t, "braidctl owed --state-dir "+dir)
	if code != 0 || !strings.HasPrefix(stdout, "POD ") {
		t.Errorf("on a node without state: code %d: %s%s", code, stdout, stderr)
	}
	sandbox, err := record.New(dir).Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	err = sandbox.Save(&record.Record{
		Pod: record.Pod{Namespace: "default", Name: "p"},
		Attachments: []record.Attachment{
			{
				Attachment: plan.Attachment{Name: "default/a", Network: "a", IfName: "net1"},
				State:      record.Added,
			},
			{
				Attachment: plan.Attachment{Name: "default/b", Network: "b", IfName: "net2"},
				State:      record.Owed,
				Refusal:    &record.Refusal{Since: since, Text: "no such mode"},
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	sandbox.Unlock()
	code, stdout, _ = call(t, "braidctl owed --state-dir "+dir)
	lines := squeeze(stdout)
	if code != 1 || len(lines) != 2 ||
		lines[1] != "default/p c1 default/b net2 2026-01-02T03:04:05Z no such mode" {
		t.Errorf("code %d: %q", code, lines)
	}
	code, stdout, _ = call(t, "braidctl owed -o json --state-dir "+dir)
	if code != 1 || !strings.Contains(stdout, `"network": "default/b"`) ||
		strings.Contains(stdout, "default/a") {
		t.Errorf("code %d: %s", code, stdout)
	}
	damaged := filepath.Join(dir, "sandboxes", "c0.json")
	if err := os.WriteFile(damaged, []byte(`{"version":`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, "braidctl owed --state-dir "+dir)
	if code != 2 || !strings.Contains(stderr, damaged) || !strings.Contains(stdout, "no such mode") {
		t.Errorf("with a damaged record: code %d: %s%s", code, stdout, stderr)
	}
}
