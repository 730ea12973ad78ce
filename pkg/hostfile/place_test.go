package hostfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

func TestRoots(t *testing.T) {
	roots := hostfile.Roots{"/a", "/b/c"}
	for path, want := range map[string]string{
		"/a": "/a", "/a/": "/a", "/a/x": "/a/x", "/a/x/../y": "/a/y", "/b/c/d": "/b/c/d", "/ab": "",
		"/b": "", "/b/cd": "", "/a/../etc": "", "a": "", "": "", "/": "",
		"/etc": "", "/a/..": "", "/a/..x": "/a/..x",
	} {
		place, ok := roots.Place(path)
		if ok != (want != "") || ok && place.String() != want {
			t.Errorf("%q: %v, %v, want %q", path, place, ok, want)
		}
		if _, ok := (hostfile.Roots{}).Place(path); ok {
			t.Errorf("%q is beneath none", path)
		}
		if _, ok := hostfile.Roots(nil).Place(path); ok != filepath.IsAbs(path) {
			t.Errorf("%q anywhere: %v", path, ok)
		}
	}
}

// M34: nothing beneath a root leads out of it.
func TestM34PlaceStaysBeneath(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	root := filepath.Join(dir, "link") // the administrator's own
	real := filepath.Join(dir, "root")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(real, "d"), 0o700), os.Symlink(real, root),
		os.Symlink(outside, filepath.Join(real, "out")),
		os.Symlink("d", filepath.Join(real, "in")), os.WriteFile(filepath.Join(real, "file"), nil, 0o600),
		os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600),
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(real, "d", "secret")),
		os.WriteFile(filepath.Join(real, "text"), []byte("x"), 0o600),
		os.Symlink("../text", filepath.Join(real, "d", "text")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	roots := hostfile.Roots{root}
	for path, want := range map[string]error{
		"": nil, "d": nil, "d/new/newer": nil, "out": unix.ELOOP, "out/x": unix.ELOOP, "in": unix.ELOOP,
		"in/x": unix.ELOOP, "file": unix.ENOTDIR, "file/x": unix.ENOTDIR,
	} {
		place, ok := roots.Place(filepath.Join(root, path))
		if !ok {
			t.Fatal(path)
		}
		made, err := place.Make(0o700)
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("make %q: %v, want %v", path, err, want)
		}
		made.Close()
		opened, err := place.Open()
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("open %q: %v, want %v", path, err, want)
		}
		opened.Close()
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	if place, _ := roots.Place(root + "/none"); true {
		if _, err := place.Open(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a directory that is not there: %v", err)
		}
	}
	files := hostfile.Roots{real}
	for path, fine := range map[string]bool{
		"text": true, "d/text": true, "d/secret": false, "out/secret": false, "d": false, "none": false,
	} {
		data, err := files.Read(filepath.Join(real, path), 10)
		if (err == nil) != fine || fine && string(data) != "x" {
			t.Errorf("read %s: %q, %v", path, data, err)
		}
	}
}
