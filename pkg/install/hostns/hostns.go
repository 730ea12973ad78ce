// Package hostns moves a process from its container's mount namespace to the node's. Paths then
// mean to it, and to the plugins that it starts, what they mean to the container runtime, with no
// mounts to propagate and no chroot.
//
// It is the program's own file that is executed, by its descriptor: a copy in memory would count as
// the container's memory, and kernels with vm.memfd_noexec=2 execute none.
//
// Contract: Enter executes the program anew, in the other namespace, with the same arguments and
// environment and the working directory "/". Directories of the container that are to be kept are
// handed over as descriptors; they can be read for as long as the process lives, and what changes
// in them is seen, although nothing mounts them any more. A failure before the namespace was
// entered leaves the process as it was.
package hostns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
)

// handed is the environment variable with the kept directories, as "name=descriptor,...".
const handed = "BRAID_HOSTNS"

// Namespace is an open mount namespace.
type Namespace struct{ file *os.File }

// Close closes it.
func (n Namespace) Close() { n.file.Close() }

// OfPeer opens the mount namespace of the process that listens on a unix socket, as a container
// runtime does.
func OfPeer(socket string) (Namespace, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Namespace{}, fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return Namespace{}, fmt.Errorf("connect to %s: %w", socket, err)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Namespace{}, fmt.Errorf("ask for the peer of %s: %w", socket, err)
	}
	if peer.Pid <= 0 {
		return Namespace{}, fmt.Errorf(
			"the peer of %s is in a process namespace that is not seen from here", socket)
	}
	return OfProcess(int(peer.Pid))
}

// OfProcess opens the mount namespace of a process.
func OfProcess(pid int) (Namespace, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	if err != nil {
		return Namespace{}, fmt.Errorf("open mount namespace: %w", err)
	}
	return Namespace{file}, nil
}

// Host opens the node's mount namespace: that of the first runtime that listens on one of the
// sockets, else that of process 1.
func Host(sockets []string) (Namespace, error) {
	var all error
	for _, socket := range sockets {
		ns, err := OfPeer(socket)
		if err == nil {
			return ns, nil
		}
		all = errors.Join(all, err)
	}
	ns, err := OfProcess(1)
	if err != nil {
		return ns, &failure.Error{
			Reason: failure.InvalidEnvironment,
			Err:    fmt.Errorf("find the node's mount namespace: %w", errors.Join(all, err)),
			Fix:    "run privileged with hostPID, and mount the container runtime's socket",
		}
	}
	return ns, nil
}

// Sockets returns where container runtimes listen by default.
func Sockets() []string {
	return []string{
		"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/k3s/containerd/containerd.sock",
		"/var/snap/microk8s/common/run/containerd.sock",
	}
}

// Enter moves the process to the namespace. It returns nil when the process is in it, which is so
// in the second life of the program, and an error otherwise. keep are directories of the container
// by the names that Dirs returns them by.
func Enter(ns Namespace, keep map[string]string) error {
	inside, err := within(ns)
	if err != nil || inside {
		return err
	}
	self, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own program: %w", err)
	}
	defer unix.Close(self)
	env, done, err := hand(keep)
	if err != nil {
		return err
	}
	defer done()
	if err := join(ns); err != nil {
		return err
	}
	return fmt.Errorf("execute own program in the node's mount namespace: %w",
		execFD(self, os.Args, env))
}

// join moves the thread to the namespace, and its working directory to the root there. The thread
// stays locked for good if the namespace was entered: it is of no use to others.
func join(ns Namespace) error {
	runtime.LockOSThread()
	// A process whose threads share root and working directory cannot change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("unshare the working directory: %w", err)
	}
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNS); err != nil {
		return &failure.Error{
			Reason: failure.InvalidEnvironment, Err: fmt.Errorf("enter the node's mount namespace: %w", err),
			Fix: "run privileged",
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the node's root directory: %w", err)
	}
	return nil
}

// within reports whether the process is in the namespace.
func within(ns Namespace) (bool, error) {
	var there, here unix.Stat_t
	if err := unix.Fstat(int(ns.file.Fd()), &there); err != nil {
		return false, fmt.Errorf("look at mount namespace: %w", err)
	}
	if err := unix.Stat("/proc/self/ns/mnt", &here); err != nil {
		return false, fmt.Errorf("look at own mount namespace: %w", err)
	}
	return there.Dev == here.Dev && there.Ino == here.Ino, nil
}

// hand opens the directories so that they outlive the execution, and returns the environment that
// names them. done closes them.
func hand(keep map[string]string) (env []string, done func(), err error) {
	var fds []int
	done = func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	var names []string
	for name, path := range keep {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			done()
			return nil, nil, fmt.Errorf("keep directory %s: %w", path, err)
		}
		fds = append(fds, fd)
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			done()
			return nil, nil, fmt.Errorf("keep directory %s: %w", path, err)
		}
		names = append(names, name+"="+strconv.Itoa(fd))
	}
	return append(os.Environ(), handed+"="+strings.Join(names, ",")), done, nil
}

// Dirs returns the paths by which the kept directories are read, by their names; none in a process
// that did not come from an Enter. Children do not inherit them: it is called once, before any is
// started.
func Dirs() (map[string]string, error) {
	value, ok := os.LookupEnv(handed)
	if !ok {
		return nil, nil //nolint:nilnil // none
	}
	if err := os.Unsetenv(handed); err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for pair := range strings.SplitSeq(value, ",") {
		name, number, isPair := strings.Cut(pair, "=")
		if !isPair {
			continue // nothing is kept
		}
		fd, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", handed, err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("read %s: descriptor %d: %w", handed, fd, err)
		}
		dirs[name] = "/proc/self/fd/" + number
	}
	return dirs, nil
}

// execFD executes an open file. It returns only with an error.
func execFD(fd int, args, env []string) error {
	argv, err := pointers(args)
	if err != nil {
		return err
	}
	envp, err := pointers(env)
	if err != nil {
		return err
	}
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	runtime.KeepAlive(argv)
	runtime.KeepAlive(envp)
	return errno
}

// pointers makes a vector of C's.
func pointers(texts []string) ([]*byte, error) {
	all := make([]*byte, len(texts)+1)
	for i, text := range texts {
		p, err := unix.BytePtrFromString(text)
		if err != nil {
			return nil, err
		}
		all[i] = p
	}
	return all, nil
}
