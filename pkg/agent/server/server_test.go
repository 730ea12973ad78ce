package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/agent/client"
	"github.com/braid-cni/braid/pkg/agent/wire"
	"github.com/braid-cni/braid/pkg/nettest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// handler notes the calls that are done, by what their stdin is.
type handler struct {
	mu   sync.Mutex
	done []string
	// do is what the calls do; nil for nothing. after is what comes after each.
	do    func(ctx context.Context, call *Call) *Result
	after func()
}

func (h *handler) Prepare(call *Call) (*Prepared, error) {
	if strings.HasPrefix(string(call.Stdin), "no") {
		return nil, errors.New("it says no")
	}
	do := func(ctx context.Context) *Result {
		h.mu.Lock()
		h.done = append(h.done, string(call.Stdin))
		h.mu.Unlock()
		if h.do != nil {
			return h.do(ctx, call)
		}
		return &Result{Stdout: call.Stdin, Exit: 0}
	}
	return &Prepared{Urgent: call.Env("CNI_COMMAND") == "DEL", Do: do, After: h.after}, nil
}

func (h *handler) calls() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.done)
}

// logbook is a log that a test reads.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// testServer is a Server that runs.
type testServer struct {
	t      *testing.T
	server *Server
	log    *logbook
	stop   context.CancelFunc
	ended  chan error
}

func newTestServer(t *testing.T, h *handler) *testServer {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "braid") //nolint:usetesting // a socket needs a short path
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a leftover in /tmp
	log := &logbook{}
	s := &testServer{t: t, log: log, server: &Server{
		Socket: filepath.Join(dir, "agent", "s"), Handler: h,
		Log: slog.New(slog.NewTextHandler(log, nil)), Workers: 2, Drain: 10 * time.Second,
	}}
	s.start()
	t.Cleanup(func() { must(t, s.end()) })
	return s
}

func (s *testServer) start() {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	l, err := s.server.Listen(ctx)
	must(s.t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(ctx, l) }()
	s.stop, s.ended = stop, ended
}

func (s *testServer) end() error {
	s.stop()
	err := <-s.ended
	s.ended <- nil
	return err
}

func hello(stdin string, environ ...string) *wire.Frame {
	return &wire.Frame{
		Type: wire.Hello, Version: 1, Oldest: 1, Verb: wire.CNI, Environ: wire.Environ(environ),
		Stdin: []byte(stdin), Millis: 60000,
	}
}

// call is what a client does.
func (s *testServer) call(stdin string, environ ...string) (*wire.Frame, error) {
	return (&client.Client{Socket: s.server.Socket}).Do(hello(stdin, environ...), "")
}

// dial connects without a client.
func (s *testServer) dial() *net.UnixConn {
	s.t.Helper()
	c, err := new(net.Dialer).DialContext(s.t.Context(), "unix", s.server.Socket)
	must(s.t, err)
	s.t.Cleanup(func() { c.Close() }) //nolint:errcheck // the test is over
	return c.(*net.UnixConn)          //nolint:forcetypeassert // it is of "unix"
}

// await waits until what holds.
func (s *testServer) await(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within 30 s; the log:\n%s", what, s.log.String())
		}
	}
}

// serves reports whether a call is done. A client of a busy machine soon waits no longer.
func (s *testServer) serves() {
	s.t.Helper()
	s.await("a call to be done", func() bool { _, err := s.call("x"); return err == nil })
}

func TestServe(t *testing.T) {
	h := &handler{do: func(_ context.Context, call *Call) *Result {
		return &Result{
			Stdout: []byte(call.Env("A") + call.Env("B")), Stderr: []byte(fmt.Sprint(call.Still())), Exit: 7,
		}
	}}
	s := newTestServer(t, h)
	var got *wire.Frame
	s.await("a result", func() bool {
		f, err := s.call("stdin", "A=1", "A=2", "B=3", "AA=4")
		got = f
		return err == nil
	})
	if string(got.Stdout) != "23" || string(got.Stderr) != "<nil>" || got.Exit != 7 ||
		h.calls()[0] != "stdin" {
		t.Errorf("%+v of %q", got, h.calls())
	}
}

// TestNothingBeforeGo: a call that was accepted is not done until its client says so, and never if
// that leaves, after whatever byte.
func TestNothingBeforeGo(t *testing.T) {
	h := &handler{}
	s := newTestServer(t, h)
	whole := wire.Append(nil, hello("cut"))
	all := wire.Append(whole, &wire.Frame{Type: wire.Go})
	for n := range all {
		c := s.dial()
		c.Write(all[:min(n, len(whole))]) //nolint:errcheck // the server may have closed it
		if n >= len(whole) {
			if f, err := wire.Read(c); err != nil || f.Type != wire.Accepted {
				t.Fatalf("after %d bytes: %+v, %v", n, f, err)
			}
			c.Write(all[len(whole):n]) //nolint:errcheck // as above
		}
		must(t, c.Close())
	}
	s.serves()
	for _, call := range h.calls() {
		if call == "cut" {
			t.Fatalf("a call without go was done: %q", h.calls())
		}
	}
	if log := s.log.String(); !strings.Contains(log, "a client's call cannot be read") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}

// TestForeignFrames: who speaks another protocol is shown the door, and the log says so. Nobody
// else notices, nor if somebody says nothing.
func TestForeignFrames(t *testing.T) {
	frame := func(text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	}
	silent := "nothing"
	for name, sent := range map[string][]byte{
		silent: nil, "endless": {255, 255, 255, 255}, "HTTP": []byte("GET / HTTP/1.1\r\n\r\n"),
		"no object": frame("[1]"),
		"no JSON":   frame("hello"), "another kind": frame(`{"type":5}`),
		"no base64": frame(`{"type":"hello","stdin":"%"}`),
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			h := &handler{}
			s := newTestServer(t, h)
			c := s.dial()
			_, err := c.Write(sent)
			must(t, err)
			if name != silent {
				if f, err := wire.Read(c); err == nil {
					t.Errorf("it was answered by %+v", f)
				}
				s.await("log", func() bool {
					return strings.Contains(s.log.String(), "a client's call cannot be read")
				})
			}
			s.serves()
			if calls := h.calls(); slices.ContainsFunc(calls, func(call string) bool {
				return call != "x"
			}) {
				t.Errorf("%q were done", calls)
			}
		})
	}
}

// TestRefusals: what is not for this agent is refused, with the reason for both.
func TestRefusals(t *testing.T) {
	ns := nettest.New(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	opened := func(path string) []byte {
		f, err := os.Open(path)
		must(t, err)
		t.Cleanup(func() { f.Close() }) //nolint:errcheck // opened for reading
		return syscall.UnixRights(int(f.Fd()))
	}
	for name, tt := range map[string]struct {
		change func(f *wire.Frame)
		oob    []byte
		says   string
	}{
		"verb": {func(f *wire.Frame) {
			f.Verb = "dance"
		}, nil, `the verb "dance" is not known`},
		"version": {func(f *wire.Frame) {
			f.Version, f.Oldest = 9, 9
		}, nil, "it needs version 9 of the protocol, and this agent has 1"},
		"order": {func(f *wire.Frame) {
			f.Type = wire.Go
		}, nil, `it begins with "go" in the place of "hello"`},
		"handler": {func(f *wire.Frame) { f.Stdin = []byte("no") }, nil, "it says no"},
		"no namespace": {func(f *wire.Frame) {
			f.Environ = wire.Environ([]string{"CNI_NETNS=" + file})
			f.NetNS = true
		}, opened(file), "is no network namespace"},
		"not sent":      {func(f *wire.Frame) { f.NetNS = true }, nil, "announced and not sent"},
		"not announced": {func(*wire.Frame) {}, opened(ns.Path), "announced and not sent"},
		"there, not sent": {func(f *wire.Frame) {
			f.Environ = wire.Environ([]string{"CNI_NETNS=" + ns.Path})
		}, nil, "is there, and its client did not send it"},
		"sent, not there": {func(f *wire.Frame) {
			f.Environ = wire.Environ([]string{"CNI_NETNS=/none"})
			f.NetNS = true
		}, opened(ns.Path), "no such file"},
		"another namespace": {func(f *wire.Frame) {
			f.Environ = wire.Environ([]string{"CNI_NETNS=/proc/self/ns/net"})
			f.NetNS = true
		}, opened(ns.Path), "leads to another file here"},
		"relative": {func(f *wire.Frame) {
			f.Environ = wire.Environ([]string{"CNI_NETNS=ns"})
			f.NetNS = true
		}, opened(ns.Path), "is no absolute path"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			h := &handler{}
			s := newTestServer(t, h)
			f := hello("x")
			tt.change(f)
			c := s.dial()
			_, _, err := c.WriteMsgUnix(wire.Append(nil, f), tt.oob, nil)
			must(t, err)
			answer, err := wire.Read(c)
			must(t, err)
			if answer.Type != wire.Refused || !strings.Contains(answer.Reason, tt.says) {
				t.Errorf("%+v, want it to say %q", answer, tt.says)
			}
			s.await("log", func() bool {
				return strings.Contains(s.log.String(), "a call is left to its client")
			})
			if len(h.calls()) > 0 {
				t.Errorf("it was done: %q", h.calls())
			}
		})
	}
}

// TestNetNSIsTheClients: a namespace that is the same for both is taken, and one that both do not
// see.
func TestNetNSIsTheClients(t *testing.T) {
	ns := nettest.New(t)
	h := &handler{}
	s := newTestServer(t, h)
	for _, path := range []string{ns.Path, "/no/such/namespace"} {
		s.await("call in "+path, func() bool {
			_, err := (&client.Client{Socket: s.server.Socket}).Do(hello(path, "CNI_NETNS="+path), path)
			return err == nil
		})
	}
}

// TestAnotherView: who sees another node is known by it.
func TestAnotherView(t *testing.T) {
	nettest.NeedsRoot(t)
	here, err := viewOf("self")
	must(t, err)
	must(t, here.sameAs(os.Getpid()))
	for name, flags := range map[string]uintptr{
		"ns/net": syscall.CLONE_NEWNET, "ns/mnt": syscall.CLONE_NEWNS,
	} {
		other := exec.CommandContext(t.Context(), "sleep", "60")
		other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		must(t, other.Start())
		if err := here.sameAs(other.Process.Pid); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, other.Process.Kill())
		other.Wait() //nolint:errcheck // it was killed
	}
	if err := here.sameAs(0); err == nil {
		t.Error("a process that is not seen sees the same")
	}
}

// TestRemovalsFirst: with all workers at work, a DEL that comes last is done first.
func TestRemovalsFirst(t *testing.T) {
	release := make(chan struct{})
	h := &handler{}
	h.do = func(context.Context, *Call) *Result { <-release; return &Result{} }
	s := newTestServer(t, h)
	var all sync.WaitGroup
	start := func(stdin, command string, after func() bool) {
		all.Go(func() {
			c := s.dial()
			c.Write(wire.Append(nil, hello(stdin, "CNI_COMMAND="+command)))
			if f, err := wire.Read(c); err != nil || f.Type != wire.Accepted {
				t.Errorf("%+v, %v", f, err)
			}
			c.Write(wire.Append(nil, &wire.Frame{Type: wire.Go})) //nolint:errcheck // as above
			for {
				f, err := wire.Read(c)
				if err != nil || f.Type == wire.Result {
					break
				}
			}
		})
		s.await(stdin, after)
	}
	count := func(n int) func() bool { return func() bool { return len(h.calls()) == n } }
	start("add-1", "ADD", count(1))
	start("add-2", "ADD", count(2))
	start("add-3", "ADD", func() bool { return true })
	time.Sleep(50 * time.Millisecond) // it only decides which ADD comes before which
	start("del", "DEL", func() bool { return true })
	time.Sleep(200 * time.Millisecond)
	release <- struct{}{}
	s.await("the next", count(3))
	if got := h.calls()[2]; got != "del" {
		t.Errorf("%s was before the DEL", got)
	}
	close(release)
	all.Wait()
	s.await("all", count(4))
}

// TestAClientLeaves: its call is stopped, or never begun.
func TestAClientLeaves(t *testing.T) {
	stopped, still := make(chan error, 1), make(chan func() error, 1)
	h := &handler{}
	h.do = func(ctx context.Context, call *Call) *Result {
		still <- call.Still
		<-ctx.Done()
		stopped <- context.Cause(ctx)
		return &Result{Exit: 1}
	}
	s := newTestServer(t, h)
	c := s.dial()
	c.Write(wire.Append(nil, hello("left"))) //nolint:errcheck // it is read below
	if f, err := wire.Read(c); err != nil || f.Type != wire.Accepted {
		t.Fatalf("%+v, %v", f, err)
	}
	c.Write(wire.Append(nil, &wire.Frame{Type: wire.Go})) //nolint:errcheck // as above
	there := <-still
	must(t, there())
	must(t, c.Close())
	if err := <-stopped; err == nil || !strings.Contains(err.Error(), "the client has left") {
		t.Errorf("it was stopped by %v", err)
	}
}

// TestStill looks at the socket itself, whatever this process has read of it.
func TestStill(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(t, err)
	file := os.NewFile(uintptr(fds[0]), "here")
	defer file.Close()
	nc, err := net.FileConn(file)
	must(t, err)
	c := &conn{UnixConn: nc.(*net.UnixConn)} //nolint:forcetypeassert // it is of "unix"
	defer c.Close()
	must(t, c.still())
	_, err = syscall.Write(fds[1], []byte("x"))
	must(t, err)
	must(t, c.still())
	must(t, syscall.Close(fds[1]))
	if err := c.still(); err == nil {
		t.Error("a client that has left is still there")
	}
}

// TestHandOver: a new agent takes the socket, the old one ends what it has begun, and at no moment
// is there no socket.
func TestHandOver(t *testing.T) {
	release := make(chan struct{})
	h := &handler{do: func(_ context.Context, call *Call) *Result {
		if string(call.Stdin) == "long" {
			<-release
		}
		return &Result{Stdout: call.Stdin}
	}}
	s := newTestServer(t, h)
	long := make(chan error, 1)
	go func() {
		for {
			f, err := s.call("long")
			if e, ok := errors.AsType[*client.Error](err); ok && !e.Sent {
				continue // the machine is busy
			}
			if err == nil && string(f.Stdout) != "long" {
				err = fmt.Errorf("its result is %q", f.Stdout)
			}
			long <- err
			return
		}
	}()
	s.await("the long call", func() bool { return slices.Contains(h.calls(), "long") })
	stopFirst, firstEnded := s.stop, s.ended
	s.start()
	s.serves()
	stopFirst()
	for range 20 {
		s.serves()
	}
	select {
	case err := <-firstEnded:
		t.Fatalf("the first agent ended before its call: %v", err)
	default:
	}
	close(release)
	must(t, <-long)
	must(t, <-firstEnded)
	s.serves()
}

// TestDrain: what takes too long is stopped, and its client is not told that it failed: it goes on
// alone.
func TestDrain(t *testing.T) {
	h := &handler{do: func(ctx context.Context, _ *Call) *Result {
		<-ctx.Done()
		return &Result{Exit: 1}
	}}
	s := newTestServer(t, h)
	s.server.Drain = 50 * time.Millisecond
	long := make(chan error, 1)
	go func() {
		for {
			_, err := s.call("long")
			if e, ok := errors.AsType[*client.Error](err); ok && !e.Sent && len(h.calls()) == 0 {
				continue // the machine is busy
			}
			long <- err
			return
		}
	}()
	s.await("the call", func() bool { return len(h.calls()) == 1 })
	s.stop()
	err := <-long
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != client.Lost || !e.Sent {
		t.Errorf("it ended with %v", err)
	}
}

// TestAfter: what is left for the time after a call comes when the client has its result, and also
// if it gets none.
func TestAfter(t *testing.T) {
	answered, after := make(chan struct{}), make(chan struct{}, 1)
	h := &handler{after: func() {
		select {
		case <-answered:
		case <-time.After(time.Minute):
			t.Error("the client waits for what comes after its call")
		}
		after <- struct{}{}
	}}
	h.do = func(_ context.Context, call *Call) *Result {
		if string(call.Stdin) == "b" {
			panic("of a test")
		}
		return &Result{}
	}
	s := newTestServer(t, h)
	if _, err := s.call("a"); err != nil {
		t.Error(err)
	}
	close(answered)
	<-after
	if _, err := s.call("b"); err == nil {
		t.Error("a call that panics has a result")
	}
	<-after
}

// TestACallThatPanics is its client's, and no other's.
func TestACallThatPanics(t *testing.T) {
	h := &handler{do: func(_ context.Context, call *Call) *Result {
		if string(call.Stdin) == "panic" {
			panic("a bug")
		}
		return &Result{}
	}}
	s := newTestServer(t, h)
	s.await("the end", func() bool {
		_, err := s.call("panic")
		e, ok := errors.AsType[*client.Error](err)
		return ok && e.Reason == client.Lost && e.Sent
	})
	s.serves()
	if log := s.log.String(); !strings.Contains(log, "a bug") {
		t.Errorf("the log:\n%s", log)
	}
}

// TestManyAtOnce: with 500 clients at once all calls are done, no more than the workers at a time.
func TestManyAtOnce(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	h := &handler{do: func(context.Context, *Call) *Result {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return &Result{}
	}}
	s := newTestServer(t, h)
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			s.await("call", func() bool { _, err := s.call(fmt.Sprint(i)); return err == nil })
		})
	}
	all.Wait()
	if most > 2 {
		t.Errorf("%d calls were at work at once", most)
	}
	calls := h.calls()
	slices.Sort(calls)
	if n := len(slices.Compact(calls)); n != 500 || len(h.calls()) != 500 {
		t.Errorf("%d calls of %d clients", len(h.calls()), n)
	}
}

// TestListenRefuses a directory that others can use.
func TestListenRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	must(t, os.Mkdir(dir, 0o755))
	s := &Server{
		Socket: filepath.Join(dir, "s"), Handler: &handler{}, Log: slog.New(slog.DiscardHandler),
	}
	if l, err := s.Listen(t.Context()); err == nil {
		l.Close() //nolint:errcheck // it failed already
		t.Error("it listens in a directory of mode 0755")
	}
}
