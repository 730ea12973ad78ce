package hostfile_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
		read, linked string // what it gives, or the error
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
		gives(t, hostfile.Read, p, test.limit, test.read)
		gives(t, hostfile.ReadLinked, p, test.limit, test.linked)
	}
	if _, err := hostfile.Read(path("nothing"), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	_, err = hostfile.Read(path("dir"), 5)
	if e, ok := errors.AsType[*hostfile.NotRegularError](err); !ok || e.Limit != 5 {
		t.Errorf("directory: %v", err)
	}
}

// gives reads a file, of which the content, or the error beside the path, is to be this.
func gives(t *testing.T, read func(string, int64) ([]byte, error), path string, limit int64, want string) {
	t.Helper()
	data, err := read(path, limit)
	switch {
	case err != nil && (!strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path)):
		t.Errorf("%s: error %q does not say %q and the path", path, err, want)
	case err == nil && string(data) != want:
		t.Errorf("%s: %q, want %q", path, data, want)
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
	time.AfterFunc(20*time.Millisecond, func() { unix.Flock(first, unix.LOCK_UN) }) //nolint:errcheck // then the test does not end
	must(t, hostfile.Lock(t.Context(), third))                                      // second, which waits in vain still, gives it back
	if _, err := hostfile.TryLock(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("no file: %v", err)
	}
}

// Who waits gets the lock, though others take it again as soon as they have given it back.
func TestLockStarvesNobody(t *testing.T) {
	const others, waits, turns = 16, 20, 8
	dir := t.TempDir()
	open := func() *os.File {
		f, err := os.Open(dir)
		must(t, err)
		return f
	}
	var done atomic.Bool
	var taken atomic.Int64
	var all sync.WaitGroup
	for range others {
		all.Go(func() {
			for !done.Load() {
				f := open()
				must(t, hostfile.Lock(t.Context(), int(f.Fd())))
				taken.Add(1)
				time.Sleep(100 * time.Microsecond)
				must(t, f.Close())
			}
		})
	}
	f := open()
	defer f.Close()
	var longest int64
	for range waits {
		time.Sleep(time.Millisecond)
		before := taken.Load()
		must(t, hostfile.Lock(t.Context(), int(f.Fd())))
		longest = max(longest, taken.Load()-before)
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
	}
	done.Store(true)
	all.Wait()
	if longest > turns*others {
		t.Errorf("%d others had the lock %d times while one waited", others, longest)
	}
}
