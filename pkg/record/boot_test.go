package record_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/braid-cni/braid/pkg/record"
)

// TestR31Boot: all who share the directory have the name that one of them has chosen, until the
// next boot.
func TestR31Boot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	names := make([]string, 20)
	var all sync.WaitGroup
	for i := range names {
		all.Go(func() {
			var err error
			if names[i], err = record.New(dir).Boot("id-1", func() string {
				return fmt.Sprint("chosen by ", i)
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, name := range names {
		if name == "" || name != names[0] {
			t.Fatalf("names %q", names)
		}
	}
	next, err := record.New(dir).Boot("id-2", func() string { return "next" })
	if err != nil || next != "next" {
		t.Errorf("after a boot: %q %v", next, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("names kept: %v %v", entries, err)
	}
}
