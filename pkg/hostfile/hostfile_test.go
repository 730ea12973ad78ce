package hostfile_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(path("file"), []byte("12345"), 0o600))
	must(t, os.Symlink("file", path("link")))
	must(t, os.Symlink("nowhere", path("dangling")))
	must(t, os.Symlink("loop", path("loop")))
	l, err := net.Listen("unix", path("socket"))
	must(t, err)
	defer l.Close()
	must(t, unix.Mkfifo(path("fifo"), 0o600))
	must(t, os.Mkdir(path("dir"), 0o700))
	for _, test := range []struct {
		name         string
		limit        int64
		read, linked string // what it returns, or the error
	}{
		{"file", 5, "12345", "12345"},
		{"file", 4, "regular file of at most 4 bytes", "regular file of at most 4 bytes"},
		{"link", 5, "regular file", "12345"},
		{"dangling", 5, "regular file", "no such file"},
		{"loop", 5, "regular file", "too many levels of symbolic links"},
		{"socket", 5, "regular file", "regular file"},
		{"nothing", 5, "no such file", "no such file"},
		{"fifo", 5, "regular file", "regular file"},
		{"dir", 5, "regular file", "regular file"},
		{"/dev/zero", 5, "regular file", "regular file"},
		{"/proc/self/status", 5, "regular file", "regular file"}, // says that it is empty
	} {
		p := test.name
		if !filepath.IsAbs(p) {
			p = path(p)
		}
		returns(t, hostfile.Read, p, test.limit, test.read)
		returns(t, hostfile.ReadLinked, p, test.limit, test.linked)
	}
	if _, err := hostfile.Read(path("nothing"), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	_, err = hostfile.Read(path("dir"), 5)
	if e, ok := errors.AsType[*hostfile.NotRegularError](err); !ok || e.Limit != 5 {
		t.Errorf("directory: %v", err)
	}
}

// returns checks what reading a file returns: its content, or the error beside the path.
func returns(
	t *testing.T, read func(string, int64) ([]byte, error), path string, limit int64, want string,
) {
	t.Helper()
	data, err := read(path, limit)
	switch {
	case err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path)):
		t.Errorf("%s: error %q does not say %q and the path", path, err, want)
	case err == nil && string(data) != want:
		t.Errorf("%s: %q, want %q", path, data, want)
	}
}

// A path in a Dir goes through no symbolic link, and not out of it.
func TestDirPath(t *testing.T) {
	root := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "a/b/file"), []byte("1"), 0o600))
	must(t, os.Symlink("b", filepath.Join(root, "a/link")))
	must(t, os.Symlink("a", filepath.Join(root, "link")))
	at, err := hostfile.OpenDir(root)
	must(t, err)
	defer at.Close()
	for path, want := range map[string]string{
		"a/b": "", "a/./b": "", "a/b/..": "", "a/link": "symbolic links are not followed",
		"link/b":   "symbolic links are not followed",
		"a/b/file": "not a directory", "a/nothing/b": "no such file", "..": "cross-device",
		"a/../..": "cross-device", "/": "cross-device",
	} {
		dir, err := at.Dir(path)
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", path, err, want)
		case err == nil:
			for range 2 { // each time from the start
				if names, err := dir.Names(); err != nil || len(names) == 0 {
					t.Errorf("%s: names %q %v", path, names, err)
				}
			}
			dir.Close()
		}
	}
	_, err = hostfile.OpenDir(filepath.Join(root, "link"))
	if err == nil || !strings.Contains(err.Error(), "not followed") {
		t.Errorf("a link opened: %v", err)
	}
}

func TestLock(t *testing.T) {
	open := func() int {
		f, err := os.Open(t.TempDir() + "/..")
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	first, second, third := open(), open(), open()
	must(t, hostfile.Lock(t.Context(), first))
	if ok, err := hostfile.TryLock(second); ok || err != nil {
		t.Errorf("taken twice: %v %v", ok, err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	if err := hostfile.Lock(ctx, second); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { unix.Flock(first, unix.LOCK_UN) })
	// second, which still waits in vain, unlocks it.
	must(t, hostfile.Lock(t.Context(), third))
	if _, err := hostfile.TryLock(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no file: %v", err)
	}
}

// Who waits stands in the kernel's queue: others that take the lock again as soon as they have
// given it back would starve who looks now and then.
func TestLockQueues(t *testing.T) {
	dir := t.TempDir()
	open := func() *os.File {
		f, err := os.Open(dir)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	holder, waiter := open(), open()
	must(t, hostfile.Lock(t.Context(), int(holder.Fd())))
	locked := make(chan error, 1)
	go func() { locked <- hostfile.Lock(t.Context(), int(waiter.Fd())) }()
	var st unix.Stat_t
	must(t, unix.Fstat(int(holder.Fd()), &st))
	waits := regexp.MustCompile(fmt.Sprintf(`-> FLOCK .*:%d 0 EOF`, st.Ino))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		must(t, err)
		if waits.Match(locks) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("nobody waits for the lock:\n%s", locks)
		}
	}
	must(t, holder.Close())
	must(t, <-locked)
}
