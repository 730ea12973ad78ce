package nodeid_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/pkg/nodeid"
)

// Whoever asks gets the same answer, also after the loss of the state in the same boot.
func TestBoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := nodeid.Boot(dir)()
	if err != nil || first == "" {
		t.Fatalf("%q, %v", first, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if again, err := nodeid.Boot(dir)(); err != nil || again != first {
		t.Errorf("%q, %v after the loss of the state, before %q", again, err, first)
	}
}

// The parent of this process is the one that its own system call says, and has a name.
func TestParent(t *testing.T) {
	t.Parallel()
	if got := nodeid.Parent(os.Getpid()); got != os.Getppid() {
		t.Errorf("the parent is %d, want %d", got, os.Getppid())
	}
	if nodeid.Program(os.Getppid()) == "" || nodeid.Program(0) != "" || nodeid.Parent(0) != 0 {
		t.Errorf("names %q and %q, parent %d",
			nodeid.Program(os.Getppid()), nodeid.Program(0), nodeid.Parent(0))
	}
}
