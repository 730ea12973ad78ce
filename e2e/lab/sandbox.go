package lab

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sandbox is a set of namespaces, held by a first process (nodeinit). It ends with that process. A
// nil *sandbox stands for the namespaces of the test itself.
type sandbox struct {
	init  *exec.Cmd
	gone  chan struct{}
	pidfd int
	flags int // CLONE_NEW*: the namespaces that it has of its own
}

const (
	controlPlaneNamespaces = unix.CLONE_NEWNET
	nodeNamespaces         = unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
		unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
)

// newSandbox makes namespaces and waits until nodeinit, given args, has furnished them.
func newSandbox(nodeinit, log string, flags int, args ...string) (*sandbox, error) {
	logFile, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	defer logFile.Close()
	ready, readyWriter, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	defer ready.Close()
	cmd := exec.Command(nodeinit, args...)
	cmd.Stdout, cmd.Stderr = readyWriter, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: uintptr(flags)}
	gone, err := (*sandbox)(nil).start(cmd)
	readyWriter.Close()
	if err != nil {
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	s := &sandbox{init: cmd, gone: gone, pidfd: -1, flags: flags}
	// End of file instead of a line: nodeinit has given up, and its log says why.
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		s.stop()
		return nil, fmt.Errorf("make sandbox: %s", tail(log, 5))
	}
	if s.pidfd, err = unix.PidfdOpen(cmd.Process.Pid, 0); err != nil {
		s.stop()
		return nil, fmt.Errorf("make sandbox: %w", err)
	}
	return s, nil
}

// stop kills the first process and, where it has a process namespace, with it all others. It
// returns when they are gone.
func (s *sandbox) stop() {
	if s == nil {
		return
	}
	s.init.Process.Kill()
	<-s.gone
	if s.pidfd >= 0 {
		unix.Close(s.pidfd)
		s.pidfd = -1
	}
}

// enter moves the calling thread, which must be locked and must never be unlocked again, into the
// namespaces. The process namespace is that of children started from here on.
func (s *sandbox) enter() error {
	if s == nil {
		return nil
	}
	return s.join(s.flags)
}

func (s *sandbox) join(flags int) error {
	if flags&unix.CLONE_NEWNS != 0 {
		// Threads share root and working directory; the kernel refuses to change the mount namespace of
		// one that does.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file system attributes: %w", err)
		}
	}
	if err := unix.Setns(s.pidfd, flags); err != nil {
		return fmt.Errorf("enter sandbox: %w", err)
	}
	return nil
}

// dial connects from inside the network namespace. The connection may be used from anywhere.
func (s *sandbox) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s == nil {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	var conn net.Conn
	err := s.inNetns(func() (err error) {
		// The address is an IP address, so the dialer makes the socket on this very thread.
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// inNetns calls fn on a thread in the network namespace, which ends with the call.
func (s *sandbox) inNetns(fn func() error) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, see start
		err := s.join(unix.CLONE_NEWNET)
		if err == nil {
			err = fn()
		}
		failed <- err
	}()
	return <-failed
}

// ip runs a batch of iproute2 commands, one a line, in the network namespace.
func (s *sandbox) ip(ctx context.Context, batch ...string) error {
	netOnly := &sandbox{pidfd: s.pidfd, flags: unix.CLONE_NEWNET}
	_, err := netOnly.output(ctx, strings.Join(batch, "\n")+"\n", "ip", "-batch", "-")
	return err
}

// path returns where something of the sandbox is found from outside.
func (s *sandbox) path(inside string) string {
	return "/proc/" + strconv.Itoa(s.init.Process.Pid) + "/root" + inside
}

// netns returns a path to the network namespace that processes outside can open.
func (s *sandbox) netns() string {
	return "/proc/" + strconv.Itoa(s.init.Process.Pid) + "/ns/net"
}
