// Package netns opens network namespaces, and contains code that moves a thread between them.
//
// Contract: a namespace is opened by its path once per request, and everything else of the request
// works on that descriptor, so that a path that is unmounted or reused meanwhile changes nothing.
// What Open returns is a network namespace for certain. No function of this package leaves a thread
// that other goroutines run on in a namespace other than the process's.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/weaken"
)

// ErrNotNamespace says that a path exists and is no network namespace. The usual cause is a
// namespace that was unmounted: the empty file that it was mounted on is left.
var ErrNotNamespace = errors.New("not a network namespace")

// NS is an open network namespace. It keeps the namespace alive until Close. Safe for concurrent
// use, except Close.
type NS struct {
	fd    int
	inode uint64
	path  string

	mu sync.Mutex
	// dirs are the open directories of Dir.
	dirs map[string]int
}

// Open opens the network namespace at path: a bind mount as /run/netns/NAME, or /proc/PID/ns/net.
// Symbolic links on the way are followed (/var/run is one, /proc/PID/ns/net is one): what counts is
// that the end of it is a network namespace.
//
// A path that does not exist is fs.ErrNotExist; so is one of a process that is gone. A path of
// something else is ErrNotNamespace, with what it is.
func Open(path string) (*NS, error) {
	fail := func(err error) (*NS, error) {
		return nil, fmt.Errorf("open network namespace %q: %w", path, err)
	}
	// O_NONBLOCK: a FIFO would keep us waiting for its writer.
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return fail(err)
	}
	inode, err := inspect(fd)
	if err != nil {
		unix.Close(fd)
		return fail(err)
	}
	return &NS{fd: fd, inode: inode, path: path, dirs: map[string]int{}}, nil
}

// Fd returns the descriptor of the namespace, -1 after Close. It stays the property of ns.
func (ns *NS) Fd() int { return ns.fd }

// Inode identifies the namespace on this machine for as long as it lives: equal for all paths that
// lead to it.
func (ns *NS) Inode() uint64 { return ns.inode }

// IsNode reports whether this is no pod's namespace but that of the machine: of this process or of
// process 1, whatever path led to it.
func (ns *NS) IsNode() bool {
	var own unix.Stat_t
	return unix.Fstat(ns.fd, &own) == nil && isNode(&own)
}

// IsNode is NS.IsNode for what a path leads to. What cannot be looked at is not the machine's.
func IsNode(path string) bool {
	var at unix.Stat_t
	return unix.Stat(path, &at) == nil && isNode(&at)
}

func isNode(at *unix.Stat_t) bool {
	if weaken.Off(weaken.NodeNS) {
		return false
	}
	for _, path := range []string{"/proc/self/ns/net", "/proc/1/ns/net"} {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Dev == at.Dev && st.Ino == at.Ino {
			return true
		}
	}
	return false
}

// Path returns the path that was opened, for messages.
func (ns *NS) Path() string { return ns.path }

// Close lets go of the namespace. Closing twice is fine.
func (ns *NS) Close() {
	if ns.fd < 0 {
		return
	}
	// Nothing was written: there is no error that matters.
	unix.Close(ns.fd)
	ns.fd = -1
	for _, fd := range ns.dirs {
		unix.Close(fd)
	}
	clear(ns.dirs)
}

// Dir opens a directory in the namespace, once: for those below /proc/sys/net that belong to the
// namespace that they are opened in, whichever the thread is in that uses them later. The
// descriptor is closed by Close.
func (ns *NS) Dir(path string) (fd int, err error) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if fd, ok := ns.dirs[path]; ok {
		return fd, nil
	}
	err = ns.Do(func() error {
		fd, err = retry(func() (int, error) {
			return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		})
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	ns.dirs[path] = fd
	return fd, nil
}

// inspect returns the inode of a descriptor that is a network namespace, and an error that says
// what it is where it is not one.
func inspect(fd int) (inode uint64, err error) {
	var st unix.Stat_t
	if _, err := retry(func() (int, error) { return 0, unix.Fstat(fd, &st) }); err != nil {
		return 0, fmt.Errorf("stat: %w", err)
	}
	var on unix.Statfs_t
	if _, err := retry(func() (int, error) { return 0, unix.Fstatfs(fd, &on) }); err != nil {
		return 0, fmt.Errorf("statfs: %w", err)
	}
	if int64(on.Type) != unix.NSFS_MAGIC { //nolint:unconvert // int32 on some architectures
		return 0, fmt.Errorf("it is %s: %w", kind(&st), ErrNotNamespace)
	}
	// nsfs holds the mount, PID, user ... namespaces as well.
	nstype, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return 0, fmt.Errorf("get type of namespace: %w", err)
	}
	if nstype != unix.CLONE_NEWNET {
		return 0, fmt.Errorf("it is a namespace of another type (%#x): %w", nstype, ErrNotNamespace)
	}
	return st.Ino, nil
}

// kind says what a file is.
func kind(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFREG:
		if st.Size == 0 {
			return "an empty regular file, as an unmounted namespace leaves behind"
		}
		return "a regular file"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return fmt.Sprintf("a file of mode %#o", st.Mode)
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
