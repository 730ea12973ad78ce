package hostfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// strangeDir is a directory with a file and what else may have a file's name. Beside it is another
// one, with a file that nobody may reach from here.
func strangeDir(t *testing.T) (d hostfile.Dir, path, beside string) {
	t.Helper()
	root := t.TempDir()
	path, beside = filepath.Join(root, "state"), filepath.Join(root, "beside")
	must(t, os.Mkdir(path, 0o755))
	must(t, os.Mkdir(beside, 0o755))
	must(t, os.WriteFile(filepath.Join(beside, "secret"), []byte("secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(path, "file"), []byte("12345"), 0o600))
	must(t, os.Symlink("../beside/secret", filepath.Join(path, "link")))
	must(t, os.Symlink("../beside", filepath.Join(path, "linkdir")))
	must(t, os.Symlink("nowhere", filepath.Join(path, "dangling")))
	must(t, os.Mkdir(filepath.Join(path, "dir"), 0o755))
	must(t, unix.Mkfifo(filepath.Join(path, "fifo"), 0o600))
	d, err := hostfile.OpenDir(path)
	must(t, err)
	t.Cleanup(d.Close)
	return d, path, beside
}

// TestM33DirOfStrangeFiles: whatever has the name of a file, no method follows it, waits for it, or
// changes anything elsewhere, and the error names the file.
func TestM33DirOfStrangeFiles(t *testing.T) {
	d, path, beside := strangeDir(t)
	for _, name := range []string{"link", "linkdir", "dangling", "dir", "fifo"} {
		for what, do := range map[string]func() error{
			"Read":      func() error { _, _, err := d.Read(name, 100); return err },
			"Write":     func() error { return d.Write(name, unix.O_TRUNC, 0, []byte("x")) },
			"Overwrite": func() error { return d.Overwrite(name, 0o600, []byte("x")) },
		} {
			err := do()
			pathError, ok := errors.AsType[*fs.PathError](err)
			if !ok || pathError.Path != filepath.Join(path, name) || !hostfile.IsNotRegular(err) {
				t.Errorf("%s of a %s: %v", what, name, err)
			}
			if link := strings.HasPrefix(name, "link"); link &&
				!strings.Contains(err.Error(), "symbolic links are not followed") {
				t.Errorf("%s of a %s does not say why: %v", what, name, err)
			}
		}
	}
	if _, _, err := d.Read("file", 4); !hostfile.IsNotRegular(err) ||
		!strings.Contains(err.Error(), "at most 4 bytes") {
		t.Errorf("a file of five bytes, four allowed: %v", err)
	}
	if data, _, err := d.Read("file", 5); err != nil || string(data) != "12345" {
		t.Errorf("the file: %q, %v", data, err)
	}
	secret, err := os.ReadFile(filepath.Join(beside, "secret"))
	if left, lerr := os.ReadDir(beside); err != nil || lerr != nil || len(left) != 1 ||
		string(secret) != "secret" {
		t.Errorf("beside the directory: %q, %v, %v, %v", secret, left, err, lerr)
	}
}

// TestM34PathsStayBeneath: a path leaves the directory neither by dots, nor from the root, nor by a
// link.
func TestM34PathsStayBeneath(t *testing.T) {
	d, path, beside := strangeDir(t)
	for _, bad := range []string{"../beside", "dir/../../beside", beside, "linkdir", "linkdir/."} {
		if dir, err := d.Dir(bad); err == nil {
			dir.Close()
			t.Errorf("%s is opened", bad)
		} else if _, ok := errors.AsType[*fs.PathError](err); !ok {
			t.Errorf("%s: %v names no path", bad, err)
		}
	}
	dir, err := d.Dir("dir")
	must(t, err)
	defer dir.Close()
	if dir.Path() != filepath.Join(path, "dir") {
		t.Errorf("its path is %s", dir.Path())
	}
}

// TestDirChanges: what changes a directory can be done again, and leaves the state that it says.
func TestDirChanges(t *testing.T) {
	d, _, _ := strangeDir(t)
	must(t, d.Overwrite("file", 0o600, []byte("123")))
	if data, _, err := d.Read("file", 100); err != nil || string(data) != "123" {
		t.Errorf("overwritten by less: %q, %v", data, err)
	}
	sub, err := d.Dir("dir")
	must(t, err)
	defer sub.Close()
	must(t, d.Rename("file", sub, "moved"))
	if err := d.Rename("file", sub, "moved"); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "moved") {
		t.Errorf("renamed again: %v", err)
	}
	for _, name := range []string{"link", "fifo", "gone"} {
		must(t, d.Remove(name))
		if there, err := d.Has(name); there || err != nil {
			t.Errorf("%s is still there: %v", name, err)
		}
	}
	if err := d.Remove("dir"); !errors.Is(err, unix.EISDIR) {
		t.Errorf("Remove of a directory: %v", err)
	}
	if err := d.RemoveAny("dir"); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("RemoveAny of a directory with a file: %v", err)
	}
	must(t, sub.Remove("moved"))
	for range 2 {
		must(t, d.RemoveAny("dir"))
		must(t, d.RemoveAny("dangling"))
	}
	names, err := d.Names()
	if err != nil || len(names) != 1 || names[0] != "linkdir" {
		t.Errorf("left: %v, %v", names, err)
	}
	if _, err := d.Stat("gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what is gone: %v", err)
	}
}
