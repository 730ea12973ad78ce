package client

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/agent/wire"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// socket is a short path, as sockets need.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "braid") //nolint:usetesting // a socket needs a short path
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a leftover in /tmp
	return filepath.Join(dir, "s")
}

// agent answers one connection with do, and closes it.
func agent(t *testing.T, do func(c net.Conn)) string {
	t.Helper()
	path := socket(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		do(c)
	}()
	t.Cleanup(func() {
		l.Close() //nolint:errcheck // the test is over
		<-done
	})
	return path
}

func say(c net.Conn, frames ...*wire.Frame) {
	for _, f := range frames {
		c.Write(wire.Append(nil, f)) //nolint:errcheck // the client may have left
	}
}

// await reads frames until one of a type comes.
func await(c net.Conn, kind string) bool {
	for {
		f, err := wire.Read(c)
		if err != nil || f.Type == kind {
			return err == nil
		}
	}
}

func hello() *wire.Frame {
	return &wire.Frame{
		Type: wire.Hello, Version: 1, Oldest: 1, Verb: wire.CNI, Stdin: []byte("{}"), Millis: 60000,
	}
}

var (
	accepted = &wire.Frame{Type: wire.Accepted, Version: 1}
	result   = &wire.Frame{Type: wire.Result, Stdout: []byte("out"), Exit: 3}
)

func TestCall(t *testing.T) {
	path := agent(t, func(c net.Conn) {
		await(c, wire.Hello)
		say(c, &wire.Frame{Type: "later"}, accepted)
		await(c, wire.Go)
		say(c, &wire.Frame{Type: wire.Working}, &wire.Frame{Type: "later"}, result)
	})
	got, err := (&Client{Socket: path}).Do(hello(), "/no/such/netns")
	must(t, err)
	if string(got.Stdout) != "out" || got.Exit != 3 {
		t.Errorf("%+v", got)
	}
}

// TestBigCall: a call that does not fit into the socket's buffer arrives whole.
func TestBigCall(t *testing.T) {
	stdin := bytes.Repeat([]byte("x"), 4<<20)
	path := agent(t, func(c net.Conn) {
		f, err := wire.Read(c)
		if err == nil && bytes.Equal(f.Stdin, stdin) {
			say(c, accepted)
			await(c, wire.Go)
			say(c, result)
		}
	})
	big := hello()
	big.Stdin = stdin
	_, err := (&Client{Socket: path, accept: 10 * time.Second}).Do(big, "")
	must(t, err)
}

// TestNoAgent: whatever is in the place of an agent, the client knows soon why it does without, and
// whether anything may have been done.
func TestNoAgent(t *testing.T) {
	const brief = 50 * time.Millisecond
	stale := socket(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", stale)
	must(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, l.Close())
	file := socket(t)
	must(t, os.WriteFile(file, nil, 0o600))
	first := func(frames ...*wire.Frame) string {
		return agent(t, func(c net.Conn) { await(c, wire.Hello); say(c, frames...); await(c, "none") })
	}
	afterGo := func(do func(c net.Conn)) string {
		return agent(t, func(c net.Conn) {
			await(c, wire.Hello)
			say(c, accepted)
			await(c, wire.Go)
			do(c)
		})
	}
	cut := wire.Append(nil, result)
	for name, tt := range map[string]struct {
		socket string
		reason Reason
		sent   bool
	}{
		"none":               {filepath.Join(t.TempDir(), "none"), Absent, false},
		"nobody listens":     {stale, Closed, false},
		"no socket":          {file, Closed, false},
		"closes at once":     {agent(t, func(net.Conn) {}), Closed, false},
		"closes after hello": {agent(t, func(c net.Conn) { await(c, wire.Hello) }), Closed, false},
		"never accepts":      {first(), Slow, false},
		"refuses":            {first(&wire.Frame{Type: wire.Refused, Reason: "no"}), Refuses, false},
		"no protocol": {agent(t, func(c net.Conn) {
			c.Write([]byte("HTTP/1.1 400\r\n\r\n"))
			await(c, "none")
		}), Strange, false},
		"result before go":   {first(result), Strange, false},
		"ends at work":       {afterGo(func(net.Conn) {}), Lost, true},
		"ends in its result": {afterGo(func(c net.Conn) { c.Write(cut[:len(cut)-1]) }), Lost, true},
		"never answers":      {afterGo(func(c net.Conn) { await(c, "none") }), Lost, true},
		"another after go":   {afterGo(func(c net.Conn) { say(c, accepted) }), Lost, true},
		"too much for a frame": {afterGo(func(c net.Conn) {
			c.Write([]byte{255, 255, 255, 255})
			await(c, "none")
		}), Lost, true},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			c := &Client{Socket: tt.socket, silence: brief}
			if tt.reason == Slow {
				c.accept = brief
			} else {
				c.accept = 10 * time.Second // the machine may be busy
			}
			f, err := c.Do(hello(), "")
			e, ok := errors.AsType[*Error](err)
			if f != nil || !ok || e.Reason != tt.reason || e.Sent != tt.sent {
				t.Errorf("%+v, %v; want %s, sent %v", f, err, tt.reason, tt.sent)
			}
			if ok && (!slices.Contains(Reasons(), e.Reason) || e.Error() == "") {
				t.Errorf("reason %q", e.Reason)
			}
		})
	}
}

// TestFullQueue: an agent that does not even accept connections is waited for no longer.
func TestFullQueue(t *testing.T) {
	path := socket(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	must(t, err)
	defer l.Close()
	for n := 0; ; n++ {
		_, err := (&Client{Socket: path, accept: 20 * time.Millisecond}).Do(hello(), "")
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Reason != Slow || e.Sent {
			t.Fatalf("call %d: %v", n, err)
		}
		if n == 20 {
			break
		}
	}
}

// TestNetNS: the namespace comes with the first byte, and what cannot be opened is not left out.
func TestNetNS(t *testing.T) {
	got := make(chan string, 1)
	path := agent(t, func(c net.Conn) {
		b, oob := make([]byte, 1<<16), make([]byte, 64)
		_, n, _, _, err := c.(*net.UnixConn).ReadMsgUnix(b, oob)
		if err != nil || n == 0 {
			got <- "no descriptor"
			return
		}
		got <- "a descriptor"
	})
	_, err := (&Client{Socket: path, accept: 5 * time.Second}).Do(hello(), "/proc/self/ns/net")
	if e, ok := errors.AsType[*Error](err); !ok || e.Reason != Closed {
		t.Errorf("it ended with %v", err)
	}
	if text := <-got; text != "a descriptor" {
		t.Error(text)
	}
	loop := filepath.Join(t.TempDir(), "loop")
	must(t, os.Symlink(loop, loop))
	quiet := agent(t, func(c net.Conn) { io.Copy(io.Discard, c) }) //nolint:errcheck // until it ends
	_, err = (&Client{Socket: quiet}).Do(hello(), loop)
	if e, ok := errors.AsType[*Error](err); !ok || e.Reason != NoNetNS || e.Sent {
		t.Errorf("a namespace that cannot be opened: %v", err)
	}
}

// TestLateLook: an answer that came in time counts, also if this process got no time to look at it.
func TestLateLook(t *testing.T) {
	path := agent(t, func(c net.Conn) {
		await(c, wire.Hello)
		say(c, accepted)
		await(c, wire.Go)
		say(c, result)
	})
	late := &conn{until: time.Now().Add(time.Minute)}
	must(t, late.connect(path))
	defer late.close()
	must(t, late.hello(hello(), ""))
	time.Sleep(100 * time.Millisecond) // the agent answers
	late.until = time.Now().Add(-time.Second)
	must(t, late.accepted())
	_, err := late.result(time.Now().Add(time.Minute), time.Minute)
	must(t, err)
}
