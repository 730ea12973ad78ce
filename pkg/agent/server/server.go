// Package server lets an agent do the calls that clients hand to it (pkg/agent/wire).
//
// Contract: a call is accepted when it is queued, and nothing is done for it before its client says
// "go". What is not accepted is refused with a reason, logged, and the client's own matter. How
// many calls are at work, and how many wait, is bounded, and DELs come first. A client that leaves
// ends its call. A connection is closed only when nothing is done for its call any more.
//
// Nobody but root, or the user of this process, is listened to, and nobody who sees another node:
// its mount namespace, network namespace and root directory are to be this process's.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/braid-cni/braid/pkg/agent/wire"
	"github.com/braid-cni/braid/pkg/weaken"
)

const (
	// helloWithin is how long a client may take for its hello, goWithin for its "go", and
	// takeWithin to take a frame.
	helloWithin = 5 * time.Second
	goWithin    = 5 * time.Second
	takeWithin  = 5 * time.Second
	// maxConnections bounds the connections at once: twice what a kubelet starts on a node of 500
	// pods.
	maxConnections = 1024
	// DefaultWorkers is how many calls are at work at once.
	DefaultWorkers = 16
	// DefaultDrain is how long calls may take that are at work when the server ends.
	DefaultDrain = 20 * time.Second
)

// Call is one call of a client.
type Call struct {
	// Environ are the client's variables, and Stdin is what it read.
	Environ []string
	Stdin   []byte
	// PID is the client's process.
	PID int
	// Still returns an error if the client has left. It looks at the socket, so it knows what has
	// happened while this process was stopped.
	Still func() error
}

// Env returns the value of a variable of the client's, the last of its name.
func (c *Call) Env(name string) string {
	for i := len(c.Environ) - 1; i >= 0; i-- {
		if v := c.Environ[i]; len(v) > len(name) && v[len(name)] == '=' && v[:len(name)] == name {
			return v[len(name)+1:]
		}
	}
	return ""
}

// Result is what the client prints, and its exit code.
type Result struct {
	Stdout, Stderr []byte
	Exit           int
}

// Prepared is a call that can be done.
type Prepared struct {
	// Urgent calls are done before others.
	Urgent bool
	// Do does it. It ends soon when ctx is done.
	Do func(ctx context.Context) *Result
	// After, if set, is called once the client has its result, or has left. It does not wait.
	After func()
}

// Handler does calls.
type Handler interface {
	// Prepare judges a call, and changes nothing. The error is why it is the client's own matter.
	Prepare(call *Call) (*Prepared, error)
}

// Observer is told what becomes of calls, for metrics. It is called from several goroutines.
type Observer interface {
	// Accepted calls have been told to go, and Refused ones are the client's own matter.
	Accepted()
	Refused()
	// Queue is how many calls wait, and how many are at work.
	Queue(waiting, working int)
}

// Server serves one socket. Its fields but Handler, Socket and Log may be zero.
type Server struct {
	Socket   string
	Handler  Handler
	Log      *slog.Logger
	Observer Observer
	// Workers and Drain are DefaultWorkers and DefaultDrain if zero.
	Workers int
	Drain   time.Duration
}

// Listen makes the socket. One that is there, of an agent that is still at work or of one that is
// gone, is replaced in one step: who has connected to it stays with its owner.
func (s *Server) Listen(ctx context.Context) (*net.UnixListener, error) {
	dir := filepath.Dir(s.Socket)
	if err := ownDir(dir); err != nil {
		return nil, err
	}
	temporary := filepath.Join(dir, fmt.Sprintf(".%d.sock", os.Getpid()))
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make the agent's socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", temporary)
	if err != nil {
		return nil, fmt.Errorf("make the agent's socket: %w", err)
	}
	listener := l.(*net.UnixListener) //nolint:errcheck,forcetypeassert // it is of "unix"
	listener.SetUnlinkOnClose(false)  // the next agent's may be there by then
	err = os.Chmod(temporary, private(0o600, 0o066))
	if err == nil {
		err = os.Rename(temporary, s.Socket)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the agent's socket: %w", err), listener.Close(),
			os.Remove(temporary))
	}
	return listener, nil
}

// private is the mode of what is this user's alone. others are the bits that would let all use it.
func private(mode, others fs.FileMode) fs.FileMode {
	if weaken.Off(weaken.Private) {
		return mode | others
	}
	return mode
}

// ownDir makes the directory, which is this user's alone.
func ownDir(dir string) error {
	mode := private(0o700, 0o055)
	if err := os.MkdirAll(dir, mode); err != nil {
		return fmt.Errorf("make the directory of the agent's socket: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("make the directory of the agent's socket: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm() != mode || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("make the agent's socket: %s is %v, and not a directory of mode 0700 that "+
			"belongs to this user; remove it", dir, info.Mode())
	}
	return nil
}

// Serve answers clients until ctx is done, and then goes on until the calls that were told to go
// have ended, or Drain is over. It closes the listener.
func (s *Server) Serve(ctx context.Context, listener *net.UnixListener) error {
	here, err := viewOf("self")
	if err != nil {
		return errors.Join(fmt.Errorf("find out which node the agent sees: %w", err), listener.Close())
	}
	r := &run{Server: s, here: here, queue: newQueue(or(s.Workers, DefaultWorkers), s.Observer)}
	calls, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	stop := context.AfterFunc(ctx, func() {
		r.end()
		listener.Close() //nolint:errcheck // it is not used any more
	})
	defer stop()
	err = r.accept(calls, listener)
	if ctx.Err() == nil {
		r.end()
		end(err)
	}
	late := time.AfterFunc(or(s.Drain, DefaultDrain), func() { end(errors.New("the agent ends")) })
	defer late.Stop()
	r.all.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve the agent's socket: %w", err)
}

func or[T int | time.Duration](value, def T) T {
	if value > 0 {
		return value
	}
	return def
}

// run is a server at work.
type run struct {
	*Server
	here  view
	queue *queue
	all   sync.WaitGroup

	mu    sync.Mutex
	open  map[*conn]struct{}
	ended bool
}

// end closes connections whose calls were not told to go; no others come.
func (r *run) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for c := range r.open {
		c.Close() //nolint:errcheck // nobody is told
	}
}

// keep has end close the connection, as long as its call was not told to go.
func (r *run) keep(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || len(r.open) >= maxConnections {
		return false
	}
	if r.open == nil {
		r.open = map[*conn]struct{}{}
	}
	r.open[c] = struct{}{}
	return true
}

// goes reports that the connection's call was told to go; false if end was first.
func (r *run) goes(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, c)
	return !r.ended
}

func (r *run) accept(ctx context.Context, listener *net.UnixListener) error {
	for {
		uc, err := listener.AcceptUnix()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) ||
			errors.Is(err, syscall.ECONNABORTED) {
			time.Sleep(10 * time.Millisecond) // the client does not wait for long
			continue
		}
		if err != nil {
			return err
		}
		c := &conn{UnixConn: uc}
		if !r.keep(c) {
			c.Close() //nolint:errcheck // the client does without
			continue
		}
		r.all.Go(func() { r.serve(ctx, c) })
	}
}

// serve does one client's call.
func (r *run) serve(ctx context.Context, c *conn) {
	defer c.Close() //nolint:errcheck // all was written, or nobody reads it
	defer r.goes(c)
	defer c.release()
	defer func() {
		if p := recover(); p != nil { // of this call alone; the client has braid-full go on
			r.Log.ErrorContext(ctx, "a call failed, and its client does it alone",
				"panic", p, "stack", string(debug.Stack()))
		}
	}()
	hello, err := c.hello()
	if err != nil {
		r.Log.WarnContext(ctx, "a client's call cannot be read", "error", err)
		return
	}
	prepared, err := r.prepare(c, hello)
	if err != nil {
		r.refuse(ctx, c, err)
		return
	}
	if err := c.send(&wire.Frame{Type: wire.Accepted, Version: wire.Version}); err != nil {
		return // the client has left
	}
	if err := c.awaitGo(); err != nil {
		return // the client does it alone
	}
	if !r.goes(c) {
		return
	}
	if r.Observer != nil {
		r.Observer.Accepted()
	}
	r.work(ctx, c, hello, prepared)
}

// refuse tells the client to do it alone.
func (r *run) refuse(ctx context.Context, c *conn, why error) {
	if r.Observer != nil {
		r.Observer.Refused()
	}
	r.Log.WarnContext(ctx, "a call is left to its client", "reason", why)
	//nolint:errcheck // it does it alone all the same
	c.send(&wire.Frame{Type: wire.Refused, Version: wire.Version, Reason: why.Error()})
}

// prepare judges a call.
func (r *run) prepare(c *conn, hello *wire.Frame) (*Prepared, error) {
	switch {
	case hello.Type != wire.Hello:
		return nil, fmt.Errorf("it begins with %.40q in the place of %q", hello.Type, wire.Hello)
	case hello.Oldest > wire.Version:
		return nil, fmt.Errorf("it needs version %d of the protocol, and this agent has %d",
			hello.Oldest, wire.Version)
	case hello.Verb != wire.CNI:
		return nil, fmt.Errorf("the verb %.40q is not known", hello.Verb)
	}
	peer, err := c.peer()
	if err != nil {
		return nil, err
	}
	if int(peer.Uid) != os.Geteuid() && peer.Uid != 0 && !weaken.Off(weaken.Peer) {
		return nil, fmt.Errorf("its client is of user %d", peer.Uid)
	}
	if err := r.here.sameAs(int(peer.Pid)); err != nil {
		return nil, err
	}
	call := &Call{
		Environ: wire.Variables(hello.Environ), Stdin: hello.Stdin, PID: int(peer.Pid), Still: c.still,
	}
	if err := sameNetNS(call.Env("CNI_NETNS"), c.netns, hello.NetNS); err != nil {
		return nil, err
	}
	return r.Handler.Prepare(call)
}

// work does a call that was told to go.
func (r *run) work(ctx context.Context, c *conn, hello *wire.Frame, prepared *Prepared) {
	if prepared.After != nil {
		defer prepared.After()
	}
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	if hello.Millis > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(hello.Millis)*time.Millisecond)
		defer cancel()
	}
	go c.awaitEnd(func() { leave(errors.New("the client has left")) })
	done := make(chan *Result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				r.Log.ErrorContext(ctx, "a call failed, and its client does it alone",
					"panic", p, "stack", string(debug.Stack()))
				close(done)
			}
		}()
		done <- r.queued(ctx, prepared)
	}()
	pulse := time.NewTicker(wire.Pulse)
	defer pulse.Stop()
	for {
		select {
		case <-pulse.C:
			c.send(&wire.Frame{Type: wire.Working}) //nolint:errcheck // awaitEnd sees the same
		case result := <-done:
			if result == nil || result.Exit != 0 && ctx.Err() != nil {
				return // it was stopped: the client, if it is there, finds the connection closed
			}
			f := &wire.Frame{
				Type: wire.Result, Version: wire.Version, Stdout: result.Stdout, Stderr: result.Stderr,
				Exit: result.Exit,
			}
			if err := c.send(f); err != nil {
				r.Log.WarnContext(ctx, "a client did not take its result", "error", err)
			}
			return
		}
	}
}

// queued does the call when it is its turn; nil if the client does not wait for that.
func (r *run) queued(ctx context.Context, prepared *Prepared) *Result {
	leave, err := r.queue.enter(ctx, prepared.Urgent)
	if err != nil {
		return nil
	}
	defer leave()
	return prepared.Do(ctx)
}
