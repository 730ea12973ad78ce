package record_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// stateOf makes a state directory with a record of each of these sandboxes, and a network.
func stateOf(t *testing.T, dir string, ids ...string) *record.Store {
	t.Helper()
	s := record.New(dir)
	for _, id := range ids {
		b := lock(t, s, id)
		if err := b.Save(sample()); err != nil {
			t.Fatal(err)
		}
		err := b.Remember(plan.Attachment{Name: "default/n", Network: "n", Conf: json.RawMessage(`{}`)},
			record.Places{})
		if err != nil {
			t.Fatal(err)
		}
		b.Unlock()
	}
	return s
}

// tree is all of a directory, with the times at which it was changed.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// reads fails the test unless the records of these sandboxes are read, and an error has this text;
// empty for none.
func reads(t *testing.T, s *record.Store, want, errText string) {
	t.Helper()
	records, err := s.Read()
	var ids []string
	for _, r := range records {
		ids = append(ids, r.ContainerID)
	}
	if got := strings.Join(ids, " "); got != want {
		t.Errorf("read %q, want %q", got, want)
	}
	if (err == nil) != (errText == "") || err != nil && !strings.Contains(err.Error(), errText) {
		t.Errorf("error %v, want %q", err, errText)
	}
}

// elsewhere runs do on a thread that ends with it.
func elsewhere(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		do()
	}()
	<-done
}

// TestReadOnlyLooks: Read waits for no lock, takes none, and makes and changes nothing.
func TestReadOnlyLooks(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	reads(t, record.New(none), "", "")
	if _, err := os.Lstat(none); !os.IsNotExist(err) {
		t.Errorf("%s: %v", none, err)
	}
	dir := filepath.Join(t.TempDir(), "state")
	s := stateOf(t, dir, "c1", "c2", "c3")
	b := lock(t, s, "c2")
	defer b.Unlock()
	err := os.WriteFile(filepath.Join(dir, "sandboxes", "c3.json"), []byte("{"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	reads(t, s, "c1 c2", filepath.Join(dir, "sandboxes", "c3.json"))
	if _, err := s.Networks(); err != nil {
		t.Error(err)
	}
	if after := tree(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestReadOnlyFileSystem: nothing has to be written.
func TestReadOnlyFileSystem(t *testing.T) {
	nettest.NeedsRoot(t)
	dir := t.TempDir()
	elsewhere(func() {
		must := func(err error) {
			if err != nil {
				t.Error(err)
			}
		}
		must(unix.Unshare(unix.CLONE_NEWNS))
		must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		must(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0700"))
		s := record.New(dir)
		b, err := s.Lock(t.Context(), "c1")
		must(err)
		must(b.Save(sample()))
		b.Unlock()
		must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		reads(t, s, "c1", "")
	})
}

// TestReadAsAnotherUser: what cannot be read is told, and is no damage.
func TestReadAsAnotherUser(t *testing.T) {
	nettest.NeedsRoot(t)
	base, err := os.MkdirTemp("/tmp", "") //nolint:usetesting // the test's may be root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(base, "state")
	s := stateOf(t, dir, "c1", "c2")
	asNobody := func(do func()) {
		elsewhere(func() {
			if _, err := unix.SetfsuidRetUid(65534); err != nil {
				t.Error(err)
			}
			do()
		})
	}
	asNobody(func() {
		reads(t, s, "", "permission denied")
		if _, err := s.Networks(); failure.ReasonOf(err) != failure.StateFailed {
			t.Errorf("networks: %v", err)
		}
	})
	for path, mode := range map[string]os.FileMode{
		"..": 0o755, "": 0o755, "sandboxes": 0o755, "sandboxes/c1.json": 0o644,
	} {
		if err := os.Chmod(filepath.Join(dir, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	asNobody(func() {
		_, err := s.Read()
		reads(t, s, "c1", "c2.json")
		if failure.ReasonOf(err) != failure.StateFailed || !strings.Contains(failure.FixOf(err), "root") {
			t.Errorf("reason %s, fix %q", failure.ReasonOf(err), failure.FixOf(err))
		}
	})
}
