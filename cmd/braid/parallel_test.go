package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"go.uber.org/goleak"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
)

const (
	manyPods = 64
	// racers work on one sandbox, each with raceCalls operations.
	racers, raceCalls = 8, 25
)

// The engine serves one process, too: a daemon. So the test binary becomes, with inProcess in its
// environment, a process of the node's network namespace that runs all operations in one engine at
// the same time and then looks for what it has leaked. It prints errors, one a line, and exits with
// 1 if there are any; the race detector has its own exit code.
const inProcess = "BRAID_TEST_IN_PROCESS"

// inProcessJob is what that process reads from stdin.
type inProcessJob struct {
	Conf json.RawMessage
	Path string
	// Races says that all calls are in random order and may find what others have left; else each has
	// to succeed.
	Races bool
	Calls []inProcessCall
}

type inProcessCall struct{ Command, ID, NetNS, Args string }

func (c inProcessCall) perform(ctx context.Context, e *engine.Engine, job *inProcessJob) error {
	cfg, err := conf.Load(job.Conf)
	if err != nil {
		return err
	}
	req, err := engine.NewRequest(&skel.CmdArgs{
		ContainerID: c.ID, Netns: c.NetNS, IfName: "eth0", Args: c.Args, Path: job.Path,
	}, &cfg.Call)
	if err != nil {
		return err
	}
	switch c.Command {
	case "ADD":
		_, err = e.Add(ctx, req)
		if job.Races && failure.ReasonOf(err) == failure.InterfaceConflict {
			return nil // it is attached
		}
	case "CHECK":
		err = e.Check(ctx, req)
		if job.Races && failure.ReasonOf(err) == failure.UnknownSandbox {
			return nil // it is not
		}
	case "DEL":
		err = e.Del(ctx, req)
	}
	return err
}

func runInProcess() int {
	if err := inOneProcess(context.Background(), os.Stdin); err != nil {
		fmt.Fprintln(os.Stdout, err) //nolint:errcheck // nobody to tell
		return 1
	}
	return 0
}

func inOneProcess(ctx context.Context, stdin io.Reader) error {
	job := &inProcessJob{}
	if err := json.NewDecoder(stdin).Decode(job); err != nil {
		return err
	}
	cfg, err := conf.Load(job.Conf)
	if err != nil {
		return err
	}
	e, closeLog, err := node.NewEngine(node.Options{Node: &cfg.Node, Policy: &cfg.Policy})
	if err != nil {
		return err
	}
	// The first use of a poller, and of the network, leaves descriptors that belong to the runtime.
	if conn, err := net.ListenPacket("udp", "127.0.0.1:0"); err == nil {
		conn.Close() //nolint:errcheck // never used
	}
	before, err := openFiles()
	if err != nil {
		return err
	}
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}

	errs := make([]error, len(job.Calls))
	var wg sync.WaitGroup
	each := len(job.Calls)
	if job.Races {
		each = racers
	}
	for first := range each {
		wg.Go(func() {
			for i := first; i < len(job.Calls); i += each {
				if err := job.Calls[i].perform(ctx, e, job); err != nil {
					errs[i] = fmt.Errorf("%s %s: %w", job.Calls[i].Command, job.Calls[i].ID, err)
				}
			}
		})
	}
	wg.Wait()
	errs = append(errs, closeLog(), goleak.Find(
		// The log's goroutine, one in a process, has no end.
		goleak.IgnoreAnyFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun")))

	after, err := openFiles()
	if !slices.Equal(before, after) {
		errs = append(errs, fmt.Errorf("open files before %q, after %q", before, after))
	}
	return errors.Join(append(errs, err, threadsIn(home))...)
}

// openFiles are the descriptors of this process but that of the listing itself.
func openFiles() ([]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	var files []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			files = append(files, e.Name()+" "+to)
		}
	}
	slices.Sort(files)
	return files, err
}

// threadsIn fails if a thread of this process is in another network namespace than home.
func threadsIn(home string) error {
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	for _, thread := range threads {
		if at, lerr := os.Readlink(thread); lerr == nil && at != home {
			err = errors.Join(err, fmt.Errorf("%s is in %s, not in %s", thread, at, home))
		}
	}
	return err
}

// inOne runs the calls in one process in the node's namespace.
func (h *host) inOne(races bool, calls ...inProcessCall) {
	h.t.Helper()
	conf, err := json.Marshal(h.conf)
	if err != nil {
		h.t.Fatal(err)
	}
	job, err := json.Marshal(inProcessJob{
		Conf: conf, Path: h.path("bin") + ":" + pluginDir(h.t), Races: races, Calls: calls,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inProcess+"=1", "GORACE=atexit_sleep_ms=0")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(job), &out, &out
	if err := h.node.Run(cmd.Run); err != nil {
		h.t.Errorf("%v: %s", err, out.String())
	}
}

func (p *pod) inProcess(command string) inProcessCall {
	return inProcessCall{
		command, p.id, p.Path, fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s",
			p.namespace, p.name),
	}
}

// inMany runs the calls of all pods at the same time, each in a process of its own.
func (h *host) inMany(command string, pods []*pod) {
	h.t.Helper()
	var wg sync.WaitGroup
	for _, p := range pods {
		wg.Go(func() {
			if out, err := h.exec(command, p); err != nil {
				h.t.Errorf("%s %s: %v: %s", command, p.id, err, out)
			}
		})
	}
	wg.Wait()
}

// crowd is a node with many pods on the default network and one more.
func crowd(t *testing.T) (*host, []*pod) {
	t.Helper()
	h := newHost(t)
	h.braid = os.Args[0] // with the race detector
	h.nad("a", h.macvlan(11, ""))
	pods := make([]*pod, manyPods)
	for i := range pods {
		pods[i] = h.pod(fmt.Sprintf("p%02d", i), "a")
	}
	return h, pods
}

// attached fails the test unless each pod has its two interfaces and nobody's addresses but its
// own.
func (h *host) attached(pods []*pod) {
	h.t.Helper()
	owners := map[string]string{}
	for _, p := range pods {
		h.has(p, "eth0", "net1")
		for _, s := range h.status(p) {
			if len(s.IPs) != 1 || owners[s.IPs[0]] != "" ||
				!strings.Contains(p.Addrs(), "addr "+s.Interface+" "+s.IPs[0]+"/") {
				h.t.Errorf("%s has %v on %s, and %q has it too; the pod has %s",
					p.name, s.IPs, s.Interface, owners[strings.Join(s.IPs, " ")], p.Addrs())
				continue
			}
			owners[s.IPs[0]] = p.name
		}
	}
	if leases := h.leases(); len(leases) != 2*len(pods) {
		h.t.Errorf("%d leases, want %d: %q", len(leases), 2*len(pods), leases)
	}
}

// TestParallelProcesses: 64 ADDs and then 64 DELs of different pods at the same time, each a
// process as a runtime starts it.
func TestParallelProcesses(t *testing.T) {
	h, pods := crowd(t)
	h.inMany("ADD", pods)
	h.attached(pods)
	h.inMany("DEL", pods)
	h.clean(pods...)
}

// TestParallelOneProcess: the same in one process, which leaks neither goroutines nor files, nor
// leaves a thread in a pod.
func TestParallelOneProcess(t *testing.T) {
	h, pods := crowd(t)
	for _, command := range []string{"ADD", "CHECK", "DEL"} {
		calls := make([]inProcessCall, len(pods))
		for i, p := range pods {
			calls[i] = p.inProcess(command)
		}
		h.inOne(false, calls...)
		if command != "DEL" {
			h.attached(pods)
		}
	}
	h.clean(pods...)
}

// TestRaceOneProcess: eight racing ADDs, DELs and CHECKs of one sandbox in one process, then those
// that decide what is there.
func TestRaceOneProcess(t *testing.T) {
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	commands := []string{"ADD", "DEL", "CHECK"}
	var calls []inProcessCall
	for range racers * raceCalls {
		calls = append(calls, p.inProcess(commands[rand.IntN(len(commands))]))
	}
	h.inOne(true, calls...)
	h.settles(p)
}

// TestRaceProcesses: the same with eight processes at a time.
func TestRaceProcesses(t *testing.T) {
	h := newHost(t)
	h.braid = os.Args[0]
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	var wg sync.WaitGroup
	for range racers {
		wg.Go(func() {
			for range raceCalls / 2 {
				command := []string{"ADD", "DEL", "CHECK"}[rand.IntN(3)]
				out, err := h.exec(command, p)
				conflict := command == "ADD" && strings.Contains(out, "attached already") ||
					command == "CHECK" && strings.Contains(out, "is not attached")
				if err != nil && !conflict {
					h.t.Errorf("%s: %v: %s", command, err, out)
				}
			}
		})
	}
	wg.Wait()
	h.settles(p)
}

// settles fails the test unless, after whatever was, a DEL leaves nothing and an ADD makes
// everything.
func (h *host) settles(p *pod) {
	h.t.Helper()
	h.must("DEL", p)
	h.clean(p)
	h.must("ADD", p)
	h.attached([]*pod{p})
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}
