package netns_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
)

func TestOpen(t *testing.T) {
	n := nettest.New(t)
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	if ns.Fd() < 0 || ns.Inode() != n.Inode() || ns.Path() != n.Path {
		t.Errorf("fd %d, inode %d, path %s; want inode %d, path %s",
			ns.Fd(), ns.Inode(), ns.Path(), n.Inode(), n.Path)
	}
	flags, err := unix.FcntlInt(uintptr(ns.Fd()), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v: processes would inherit it", flags, err)
	}
	ns.Close()
	ns.Close()
	if ns.Fd() != -1 {
		t.Errorf("Fd after Close is %d", ns.Fd())
	}
}

// Runtimes pass /var/run/netns/NAME, where /var/run is a link, and /proc/PID/ns/net, which is one.
func TestOpenFollowsLinks(t *testing.T) {
	n := nettest.New(t)
	dir := t.TempDir()
	if err := os.Symlink(filepath.Dir(n.Path), filepath.Join(dir, "run")); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(filepath.Join(dir, "run", filepath.Base(n.Path)))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if ns.Inode() != n.Inode() {
		t.Errorf("inode %d, want %d", ns.Inode(), n.Inode())
	}
	own, err := netns.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	own.Close()
}

func TestOpenGone(t *testing.T) {
	n := nettest.New(t)
	n.Unmount()
	for _, path := range []string{n.Path, "/proc/4194305/ns/net", ""} {
		_, err := netns.Open(path)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"`+path+`"`) {
			t.Errorf("Open(%q) = %v, want fs.ErrNotExist and the path", path, err)
		}
	}
	if _, err := os.Lstat(n.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open left something at %s", n.Path)
	}
}

func TestOpenSomethingElse(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("target", "x"), link); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		dir:                        "a directory",
		file("left", ""):           "unmounted namespace",
		file("file", "x"):          "a regular file",
		link:                       "a regular file",
		fifo:                       "a FIFO",
		"/dev/null":                "a device",
		"/proc/self/ns/mnt":        "another type",
		"/proc/self/status":        "a",
		"/proc/self/ns":            "a directory",
		"/proc/thread-self/ns/uts": "another type",
	} {
		ns, err := netns.Open(path)
		if err == nil {
			ns.Close()
		}
		if !errors.Is(err, netns.ErrNotNamespace) || !strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("Open(%s) = %v, want ErrNotNamespace with %q", path, err, says)
		}
	}
}

func TestOpenLeaksNothing(t *testing.T) {
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	before := count()
	for range 100 {
		if ns, err := netns.Open("/dev/null"); err == nil {
			ns.Close()
		}
		ns, err := netns.Open("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		ns.Close()
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
