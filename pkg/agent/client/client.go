// Package client hands a call of the CNI protocol to the node's agent.
//
// Contract: Do returns the agent's result, or an Error after which somebody else has to do the
// call. As long as Sent is not set in it the agent does nothing for the call, now or later. It
// waits for no agent that is not there, and for none that is silent.
package client

import (
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/braid-cni/braid/pkg/agent/wire"
)

// Reason is why a call was not the agent's. The agent counts them.
type Reason string

// The reasons.
const (
	Absent  Reason = "absent"  // there is no socket: no agent, or one that does not serve
	Closed  Reason = "closed"  // nobody listens at the socket, or the agent is ending
	Slow    Reason = "slow"    // the agent did not accept the call in time
	Foreign Reason = "foreign" // the socket is not root's
	Refuses Reason = "refused" // the agent does not want the call; its log says why
	Strange Reason = "strange" // the answer is none of the protocol's
	NoNetNS Reason = "netns"   // the network namespace cannot be opened
	Lost    Reason = "lost"    // the agent ended, or fell silent, while it was at work
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{Absent, Closed, Slow, Foreign, Refuses, Strange, NoNetNS, Lost}
}

// Error is why a call was not the agent's.
type Error struct {
	Reason Reason
	// Sent is that the agent may have done the call, or a part of it. It does nothing any more,
	// unless it is stopped (SIGSTOP) and not ended; then it finds that the client has left before it
	// makes a first change.
	Sent bool
	// Text is what the agent said, or the system.
	Text string
}

// Error says that the agent is not used, and why.
func (e *Error) Error() string {
	text := "the agent is not used (" + string(e.Reason) + ")"
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// Client calls the agent at a socket. Its zero value but for Socket is right.
type Client struct {
	Socket string
	// accept and silence are for tests.
	accept, silence time.Duration
}

// Do has the agent do a call, which it waits for as long as the hello says. netns is the path of
// the sandbox's network namespace; empty for none. One that is not there is not sent: the agent
// will see the same.
func (c *Client) Do(hello *wire.Frame, netns string) (*wire.Frame, error) {
	start := time.Now()
	conn := &conn{until: start.Add(or(c.accept, wire.AcceptWithin))}
	if err := conn.connect(c.Socket); err != nil {
		return nil, err
	}
	defer conn.close()
	if err := conn.hello(hello, netns); err != nil {
		return nil, err
	}
	if err := conn.accepted(); err != nil {
		return nil, err
	}
	return conn.result(start.Add(time.Duration(hello.Millis)*time.Millisecond),
		or(c.silence, wire.Silence))
}

// or returns a time, or its default where it is 0.
func or(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}

// conn is a connection to the agent.
type conn struct {
	fd int
	// until is when sending and reading end.
	until time.Time
}

// connect connects to root's socket. A full queue of connections is waited for, no longer than for
// the rest.
func (c *conn) connect(socket string) (err error) {
	c.fd, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return &Error{Reason: Strange, Text: err.Error()}
	}
	err = c.retry(syscall.SO_SNDTIMEO, func() error {
		return syscall.Connect(c.fd, &syscall.SockaddrUnix{Name: socket})
	})
	if err == nil {
		err = rootsOwn(c.fd)
	}
	if err != nil {
		c.close()
		return refusal(err)
	}
	return nil
}

// retry does what may be interrupted until it is done or the time is over. which is the option of
// the socket that bounds it. It tries at least once: on a busy machine this process may get no time
// to look at an answer that came in time.
func (c *conn) retry(which int, do func() error) error {
	for again := false; ; again = true {
		left := time.Until(c.until)
		if left <= 0 && again {
			return os.ErrDeadlineExceeded
		}
		tv := syscall.NsecToTimeval(int64(max(left, time.Millisecond)))
		if err := syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, which, &tv); err != nil {
			return err
		}
		if err := do(); !errors.Is(err, syscall.EINTR) && !errors.Is(err, syscall.EAGAIN) {
			return err
		}
	}
}

// rootsOwn holds the peer to be root's, or this user's own: any other has put a socket in the place
// of the agent's.
func rootsOwn(fd int) error {
	cred, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		return err
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return &Error{Reason: Foreign, Text: "the socket is another user's"}
	}
	return nil
}

// refusal is the error of a connection that is not made.
func refusal(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	reason := Strange
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		reason = Absent
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = Closed
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = Slow
	case errors.Is(err, syscall.EACCES):
		reason = Foreign
	}
	return &Error{Reason: reason, Text: err.Error()}
}

func (c *conn) close() { syscall.Close(c.fd) } //nolint:errcheck // what was to be read is read

// hello sends the call, and the network namespace with its first byte.
func (c *conn) hello(hello *wire.Frame, netns string) error {
	var rights []byte
	if netns != "" {
		ns, err := syscall.Open(netns, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
		switch {
		case err == nil:
			defer syscall.Close(ns) //nolint:errcheck // opened for reading
			rights, hello.NetNS = syscall.UnixRights(ns), true
		case !errors.Is(err, syscall.ENOENT):
			return &Error{Reason: NoNetNS, Text: err.Error()}
		}
	}
	if err := c.send(hello, rights); err != nil {
		return ended(err)
	}
	return nil
}

// send sends a frame, and descriptors with its first byte.
func (c *conn) send(f *wire.Frame, rights []byte) error {
	for b := wire.Append(nil, f); len(b) > 0; {
		err := c.retry(syscall.SO_SNDTIMEO, func() error {
			n, err := syscall.SendmsgN(c.fd, b, rights, nil, syscall.MSG_NOSIGNAL)
			if n > 0 {
				b, rights = b[n:], nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ended is the error of a connection on which the agent was not told to go.
func ended(err error) *Error {
	reason := Strange
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = Slow
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ECONNRESET):
		reason = Closed
	}
	return &Error{Reason: reason, Text: err.Error()}
}

// Read is for package wire.
func (c *conn) Read(b []byte) (n int, err error) {
	err = c.retry(syscall.SO_RCVTIMEO, func() (err error) {
		n, err = syscall.Read(c.fd, b)
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// next reads the next frame that this version knows.
func (c *conn) next() (*wire.Frame, error) {
	for {
		f, err := wire.Read(c)
		if err != nil {
			return nil, err
		}
		switch f.Type {
		case wire.Accepted, wire.Refused, wire.Working, wire.Result:
			return f, nil
		}
	}
}

// accepted waits until the agent has taken the call, and tells it to go.
func (c *conn) accepted() error {
	f, err := c.next()
	if err != nil {
		return ended(err)
	}
	switch f.Type {
	case wire.Refused:
		return &Error{Reason: Refuses, Text: f.Reason}
	case wire.Accepted:
	default:
		return &Error{Reason: Strange, Text: f.Type + " in the place of " + wire.Accepted}
	}
	if err := c.send(&wire.Frame{Type: wire.Go}, nil); err != nil {
		return ended(err) // a frame of so few bytes is sent as a whole, or not at all
	}
	return nil
}

// result waits for the end of the call, at most until it is over and no longer than the agent's
// silence.
func (c *conn) result(over time.Time, silence time.Duration) (*wire.Frame, error) {
	for {
		c.until = time.Now().Add(silence)
		if over.Before(c.until) {
			c.until = over
		}
		f, err := c.next()
		if err != nil {
			return nil, &Error{Reason: Lost, Sent: true, Text: err.Error()}
		}
		switch f.Type {
		case wire.Result:
			return f, nil
		case wire.Working:
		default:
			return nil, &Error{Reason: Lost, Sent: true, Text: f.Type + " in the place of " + wire.Result}
		}
	}
}
