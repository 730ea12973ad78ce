package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/agent/wire"
)

// conn is a client's connection.
type conn struct {
	*net.UnixConn
	// netns is the descriptor that came with the hello; nil for none.
	netns *os.File
}

func (c *conn) release() {
	if c.netns != nil {
		c.netns.Close() //nolint:errcheck // opened for reading
	}
}

// hello reads the first frame, and the descriptor with its first byte.
func (c *conn) hello() (*wire.Frame, error) {
	if err := c.SetReadDeadline(time.Now().Add(helloWithin)); err != nil {
		return nil, err
	}
	first, oob := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, flags, _, err := c.ReadMsgUnix(first, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	if err := c.takeRights(oob[:oobn], flags); err != nil {
		return nil, err
	}
	return wire.Read(&joined{first: first[:n], rest: c.UnixConn})
}

// joined is first, then the rest.
type joined struct {
	first []byte
	rest  io.Reader
}

func (j *joined) Read(b []byte) (int, error) {
	if len(j.first) == 0 {
		return j.rest.Read(b)
	}
	n := copy(b, j.first)
	j.first = j.first[n:]
	return n, nil
}

// takeRights keeps the first descriptor that was sent, and closes others.
func (c *conn) takeRights(oob []byte, flags int) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("read descriptors: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // it is of another kind
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if file := os.NewFile(uintptr(fd), "netns"); c.netns == nil { //nolint:gosec // a descriptor
				c.netns = file
			} else {
				file.Close() //nolint:errcheck // it is not looked at
			}
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return errors.New("more descriptors came than fit")
	}
	return nil
}

func (c *conn) send(f *wire.Frame) error {
	if err := c.SetWriteDeadline(time.Now().Add(takeWithin)); err != nil {
		return err
	}
	_, err := c.Write(wire.Append(nil, f))
	return err
}

// awaitGo reads until the client says so. Frames of later versions may come before.
func (c *conn) awaitGo() error {
	if err := c.SetReadDeadline(time.Now().Add(goWithin)); err != nil {
		return err
	}
	for {
		f, err := wire.Read(c.UnixConn)
		if err != nil {
			return err
		}
		if f.Type == wire.Go {
			return nil
		}
	}
}

// awaitEnd reads until the client has left.
func (c *conn) awaitEnd(left func()) {
	err := c.SetReadDeadline(time.Time{})
	for few := make([]byte, 64); err == nil; { // hundreds wait here
		_, err = c.Read(few)
	}
	left()
}

// still looks at the socket itself.
func (c *conn) still() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	left := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} //nolint:gosec // a descriptor
		n, perr := unix.Poll(fds, 0)
		for errors.Is(perr, unix.EINTR) {
			n, perr = unix.Poll(fds, 0)
		}
		left = n > 0
		err = perr
	})
	if err == nil && left {
		err = errors.New("the client has left")
	}
	return err
}

// peer returns who has connected.
func (c *conn) peer() (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(cerr, err)
}
