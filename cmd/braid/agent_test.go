package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/cmd/internal/warm"
	"github.com/braid-cni/braid/pkg/agent/client"
	"github.com/braid-cni/braid/pkg/agent/server"
	"github.com/braid-cni/braid/pkg/agent/trace"
	"github.com/braid-cni/braid/pkg/agent/trace/tracetest"
	"github.com/braid-cni/braid/pkg/conf"
)

// The tests of this file call braid through the client and an agent, which is the test binary with
// asAgent in its environment; braid-full is the test binary, too.

// asAgent is the socket that the test binary serves.
const asAgent = "BRAID_TEST_AS_AGENT"

// runAgent serves until it gets a signal.
func runAgent() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	tracer, err := trace.New(ctx, "test", "node-1")
	if err != nil {
		log.Error("trace", "error", err)
		return 1
	}
	defer tracer.Stop(context.WithoutCancel(ctx))
	engines := &warm.Engines{
		Version: "test", Trace: fault(), Observer: tracer,
		Open: func(n *conf.Node) (node.Source, error) { return node.OpenSource(n, "test") },
	}
	s := &server.Server{
		Socket: os.Getenv(asAgent), Handler: &warm.Handler{Engines: engines, Tracer: tracer}, Log: log,
	}
	listener, err := s.Listen(ctx)
	if err != nil {
		log.Error("listen", "error", err)
		return 1
	}
	fmt.Println("ready")
	go engines.SendEvents(ctx)
	go engines.ReserveAhead(ctx)
	defer engines.Close()
	if err := s.Serve(ctx, listener); err != nil {
		log.Error("serve", "error", err)
		return 1
	}
	return 0
}

// builtClient is the client's binary, which is built once.
var builtClient = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "client")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "client")
	cmd := exec.Command("go", "build", "-o", path, "github.com/braid-cni/braid/cmd/braid-client")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(path)
})

// agent is an agent at work on the host.
type agent struct {
	t   *testing.T
	cmd *exec.Cmd
	log string
}

// viaAgent has the host call braid by the client. There is no agent yet.
func (h *host) viaAgent() {
	h.t.Helper()
	binary, err := builtClient()
	if err != nil {
		h.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "braid") //nolint:usetesting // a socket needs a short path
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a leftover in /tmp
	h.socket = filepath.Join(dir, "agent", "agent.sock")
	h.env = append(h.env, "BRAID_AGENT_SOCKET="+h.socket)
	h.full = filepath.Join(dir, "braid-full")
	err = errors.Join(os.WriteFile(filepath.Join(dir, "braid"), binary, 0o700),
		os.Symlink(h.braid, h.full))
	if err != nil {
		h.t.Fatal(err)
	}
	h.braid = filepath.Join(dir, "braid")
}

// agent starts an agent.
func (h *host) agent(env ...string) *agent {
	h.t.Helper()
	a := &agent{t: h.t, cmd: exec.Command(os.Args[0]), log: h.path("agent.log")}
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	a.cmd.Env, a.cmd.Stderr, a.cmd.Dir = append(
		append(os.Environ(), asAgent+"="+h.socket, "GORACE=atexit_sleep_ms=0"), env...), log, "/"
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.node.Run(a.cmd.Start); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { a.cmd.Process.Kill() }) //nolint:errcheck // it may have ended
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		h.t.Fatalf("the agent says %q, %v; its log: %s", line, err, a.said())
	}
	return a
}

func (a *agent) said() string {
	text, _ := os.ReadFile(a.log)
	return string(text)
}

// end ends the agent by a signal, and returns how it ended.
func (a *agent) end(sig syscall.Signal) *os.ProcessState {
	a.t.Helper()
	if err := a.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.t.Fatal(err)
	}
	a.cmd.Wait() //nolint:errcheck // it is in the state
	return a.cmd.ProcessState
}

// without takes braid-full away while do runs: what it does is the agent's work.
func (h *host) without(do func()) {
	h.t.Helper()
	away := h.full + ".away"
	if err := os.Rename(h.full, away); err != nil {
		h.t.Fatal(err)
	}
	defer os.Rename(away, h.full) //nolint:errcheck // later calls fail
	do()
}

// patient repeats what a busy machine kept from the agent: without braid-full nothing was done.
func (h *host) patient(command string, p *pod, env ...string) string {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		out, err := h.exec(command, p, env...)
		if err == nil {
			return out
		}
		if !strings.Contains(out, "braid-client") || time.Now().After(deadline) {
			h.t.Fatalf("%s: %v: %s\n%s", command, err, out, h.log())
		}
	}
}

// fallbacks are the reasons that clients noted.
func (h *host) fallbacks() []string {
	text, _ := os.ReadFile(filepath.Join(filepath.Dir(h.socket), "fallbacks"))
	return strings.Fields(string(text))
}

// TestThroughTheAgent: what the agent does is what braid does alone, and braid-full is not needed.
func TestThroughTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", `env >"$dir/env-$CNI_COMMAND"`)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", `{"cniVersion":"1.0.0","type":"one"}`)
	h.conf["logToStderr"] = true
	alone, p := h.pod("alone", "a"), h.pod("p", "a,b")
	want := h.add(alone)
	h.viaAgent()
	a := h.agent("OF_THE_AGENT=1")
	h.without(func() {
		got := &types100.Result{}
		if err := json.Unmarshal([]byte(h.patient("ADD", p, "OF_THE_RUNTIME=1")), got); err != nil {
			t.Fatal(err)
		}
		if got.Interfaces[2].Sandbox != p.Path || len(got.Interfaces) != len(want.Interfaces) ||
			got.CNIVersion != want.CNIVersion {
			t.Errorf("the result is %v, want one like %v", got, want)
		}
		h.has(p, "eth0", "net1")
		h.patient("CHECK", p)
	})
	env, err := os.ReadFile(h.path("calls", "env-ADD"))
	if err != nil || !strings.Contains(string(env), "OF_THE_RUNTIME=1\n") ||
		strings.Contains(string(env), "OF_THE_AGENT") ||
		!strings.Contains(string(env), "CNI_NETNS="+p.Path+"\n") {
		t.Errorf("a binary's environment: %v\n%s", err, env)
	}
	if len(h.status(p)) != 3 {
		t.Errorf("network-status is %v", h.status(p))
	}
	record, err := os.ReadFile(h.path("state/sandboxes", p.id+".json"))
	if err != nil || !strings.Contains(string(record), `"netns":"`+p.Path+`"`) {
		t.Errorf("the record: %v\n%s", err, record)
	}
	h.without(func() {
		h.patient("DEL", p)
		h.patient("DEL", alone)
		h.patient("DEL", p)
	})
	h.clean(p, alone)
	if state := a.end(syscall.SIGTERM); state.ExitCode() != 0 {
		t.Errorf("the agent ended with %v; its log:\n%s", state, a.said())
	}
	if log := h.log(); strings.Count(log, "msg=ADD") != 2 || strings.Count(log, "msg=DEL") < 3 {
		t.Errorf("the log:\n%s", log)
	}
}

// TestBlocksAheadOfNeed: an agent has the next block of addresses before the last one is used up,
// so that ADDs do not wait for it; and none of a network that the node does not use.
func TestBlocksAheadOfNeed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for name, cidr := range map[string]string{"a": "10.20.0.0/16", "unused": "10.21.0.0/16"} {
		h.nad(name, `{"cniVersion":"1.0.0","plugins":[`+
			h.whereabouts("macvlan", `"range":"`+cidr+`"`, "")+`]}`)
	}
	h.viaAgent()
	h.agent()
	pods := 0
	add := func(n int) {
		for range n {
			pods++
			h.patient("ADD", h.pod(fmt.Sprint("p", pods), "a"))
		}
	}
	add(13)
	for deadline := time.Now().Add(time.Minute); len(h.blocks()) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 13 ADDs there is no block but %s", h.owners())
		}
	}
	back := h.cutOff()
	add(12)
	back()
	for _, b := range h.blocks() {
		if len(h.blocks()) != 2 || b.Spec.Owner == nil || !strings.HasPrefix(b.Spec.CIDR, "10.20.") {
			t.Errorf("blocks are %s", h.owners())
		}
	}
}

// TestTracesOfTheAgent: the agent continues the runtime's trace, down to the attachments.
func TestTracesOfTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.viaAgent()
	var collector *tracetest.Collector
	var endpoint string
	if err := h.node.Run(func() error { // where the agent is
		collector, endpoint = tracetest.Collect(t)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	a := h.agent(trace.Endpoint + "=" + endpoint)
	const id = "0af7651916cd43dd8448eb211c80319c"
	h.without(func() {
		h.patient("ADD", p, "TRACEPARENT=00-"+id+"-b7ad6b7169203331-01")
	})
	a.end(syscall.SIGTERM)
	spans := collector.Spans()
	for _, name := range []string{"ADD", "ADD eth0", "ADD net1"} {
		if span := spans[name]; span == nil || hex.EncodeToString(span.GetTraceId()) != id {
			t.Errorf("%s: no span of the runtime's trace, but %v", name, span)
		}
	}
	if got := tracetest.Texts(spans["ADD net1"].GetAttributes())["braid.network"]; got != "default/a" {
		t.Errorf("the network of net1 is %q", got)
	}
	h.must("DEL", p)
	h.clean(p)
}

// TestErrorsOfTheAgent are those of braid alone.
func TestErrorsOfTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "missing")
	want, _ := h.exec("ADD", p)
	h.viaAgent()
	h.agent()
	h.without(func() {
		var got string
		for deadline := time.Now().Add(time.Minute); got == "" ||
			strings.Contains(got, "braid-client") && time.Now().Before(deadline); {
			got, _ = h.exec("ADD", p)
		}
		if got != want || !strings.Contains(got, "default/missing") {
			t.Errorf("the error is\n%s\nwant\n%s", got, want)
		}
	})
	h.fails("ADD", nil, 4, "CNI_CONTAINERID") // the CNI library's words
	h.clean(p)
}

// TestWithoutTheAgent: whatever is wrong with the agent, pods have their networks.
func TestWithoutTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.viaAgent()
	round := func(name string) {
		t.Helper()
		p := h.pod(name, "a")
		h.add(p)
		h.has(p, "eth0", "net1")
		h.must("CHECK", p)
		h.must("DEL", p)
		h.clean(p)
	}
	round("never-there")
	a := h.agent()
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	round("stopped")
	p := h.pod("left", "a")
	h.add(p)
	if err := a.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.must("CHECK", p) // it did nothing when it went on
	h.must("DEL", p)
	h.clean(p)
	a.end(syscall.SIGKILL)
	round("gone")
	reasons := h.fallbacks()
	if !slices.Contains(reasons, string(client.Slow)) ||
		!slices.Contains(reasons, string(client.Closed)) {
		t.Errorf("the notes are %q", reasons)
	}
}

// TestNeverTheAgent: VERSION and STATUS, and plugins under their own names, never ask the agent.
func TestNeverTheAgent(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.viaAgent()
	a := h.agent()
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if out := h.must("VERSION", nil); !strings.Contains(out, `"supportedVersions"`) {
		t.Errorf("VERSION: %s", out)
	}
	h.must("STATUS", nil)
	link := filepath.Join(filepath.Dir(h.braid), "bridge")
	if err := os.Symlink(h.braid, link); err != nil {
		t.Fatal(err)
	}
	h.braid = link
	if out := h.must("VERSION", nil); !strings.Contains(out, `"0.1.0"`) {
		t.Errorf("VERSION of bridge: %s", out)
	}
	if notes := h.fallbacks(); len(notes) > 0 {
		t.Errorf("fallbacks were noted: %q", notes)
	}
}

// TestAgentKilledAtEachPoint: an agent that is killed, wherever it is in an ADD or a DEL, costs the
// pod nothing: the client ends the work alone.
func TestAgentKilledAtEachPoint(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.viaAgent()
	file := h.path("points")
	trace := func(command string) []string {
		a := h.agent(killAt+"="+neverKilled, traceTo+"="+file)
		h.without(func() { h.patient(command, p) })
		a.end(syscall.SIGTERM)
		return h.readPoints(file, p)
	}
	add := trace("ADD")
	del := trace("DEL")
	h.clean(p)
	covers(t, add, "record ", "ADD eth0", "ADD net1", "publish ")
	covers(t, del, "record ", "DEL eth0", "remove links")
	for command, points := range map[string][]string{"ADD": add, "DEL": del} {
		h.eachPoint(points, 0, func(h *host, n int) {
			if command == "DEL" {
				h.add(p)
			}
			a := h.agent(fmt.Sprintf("%s=%d", killAt, n), traceTo+"="+file)
			for { // a busy machine may keep the call from the agent
				h.must(command, p)
				if h.killed(a) {
					break
				}
				if command == "ADD" {
					h.must("DEL", p, killAt+"=")
				} else {
					h.add(p)
				}
			}
			if command == "ADD" {
				h.has(p, "eth0", "net1")
				h.must("CHECK", p)
				h.must("DEL", p)
			}
			h.clean(p)
			if err := os.Remove(file); err != nil {
				h.t.Error(err)
			}
		})
	}
}

// killed reports whether the agent has ended, as it was to.
func (h *host) killed(a *agent) bool {
	h.t.Helper()
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
	if err == nil && !strings.Contains(string(state), ") Z ") {
		return false
	}
	ended := a.end(syscall.SIGKILL).Sys().(syscall.WaitStatus)
	if !ended.Signaled() || ended.Signal() != syscall.SIGKILL {
		h.t.Errorf("the agent ended with %v; its log:\n%s", ended, a.said())
	}
	return true
}

// TestConfigurationOfTheCall: a call has the configuration that the runtime passes with it.
func TestConfigurationOfTheCall(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.viaAgent()
	h.agent()
	first, second := h.pod("first", ""), h.pod("second", "")
	h.without(func() {
		h.patient("ADD", first)
		h.setBraid("stateDir", h.path("other"))
		h.patient("ADD", second)
		if _, err := os.Stat(h.path("other/sandboxes", second.id+".json")); err != nil {
			t.Error(err)
		}
		h.patient("DEL", second)
		h.setBraid("stateDir", h.path("state"))
		h.patient("DEL", first)
	})
	h.clean(first, second)
}
