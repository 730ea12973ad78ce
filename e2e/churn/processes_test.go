package churn_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

const (
	churnFor = time.Minute
	nodes    = 8
	perNode  = 8
	// killEach and rebootEach are how often a process is killed and a node rebooted. The API server is
	// restarted once.
	killEach   = 150 * time.Millisecond
	rebootEach = 7 * time.Second
	// idle is enough for blocks to be given back that are not in use.
	idle = time.Hour
)

// span is a time in which a container had an address for certain.
type span struct {
	from, to  time.Duration
	addr      netip.Addr
	container string
}

// churn is the parent of the workers.
type churn struct {
	t       *testing.T
	api     *lab.API
	workers [nodes][perNode]*running
	spans   []span
	// entries counts those of the journals, by What.
	entries map[string]int
}

type running struct {
	worker
	cmd    *exec.Cmd
	output bytes.Buffer
}

// Sixty-four processes on eight nodes assign and free addresses for a minute, are killed, their
// nodes rebooted, and the API server is taken away. No address is given twice, and in the end each
// can be given.
func TestProcesses(t *testing.T) {
	api := newAPI(t, nodes)
	config := kubeconfig(t, api)
	c := &churn{t: t, api: api, entries: map[string]int{}}
	dir := t.TempDir()
	for n := range nodes {
		for i := range perNode {
			c.start(worker{Kubeconfig: config, Dir: dir, Node: n, ID: i, Boot: "boot-0"})
		}
	}
	c.disturb()
	for n := range nodes {
		c.killNode(n)
	}
	c.collect(now(), c.all()...)
	t.Logf("%v: %v", churnFor, c.entries)
	if c.entries["gone"] < 1000 {
		t.Errorf("only %d containers came and went", c.entries["gone"])
	}
	c.noneTwice()
	c.fill(c.empty())
}

func (c *churn) start(w worker) {
	c.t.Helper()
	data, err := json.Marshal(w)
	if err != nil {
		c.t.Fatal(err)
	}
	r := &running{worker: w, cmd: exec.Command("/proc/self/exe")}
	r.cmd.Env = append(os.Environ(), asWorker+"="+string(data))
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	if err := r.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.workers[w.Node][w.ID] = r
}

// kill ends a worker, which must not have ended by itself.
func (c *churn) kill(r *running) {
	c.t.Helper()
	r.cmd.Process.Kill() //nolint:errcheck,gosec // Wait returns it
	r.cmd.Wait()         //nolint:errcheck,gosec // it was killed
	if r.cmd.ProcessState.Exited() {
		c.t.Fatalf("worker %d of node %d ended: %s", r.ID, r.Node, r.output.String())
	}
}

func (c *churn) killNode(n int) {
	c.t.Helper()
	for _, r := range c.workers[n] {
		c.kill(r)
	}
}

// disturb kills and restarts for as long as the test takes.
func (c *churn) disturb() {
	c.t.Helper()
	start, boots := time.Now(), 0
	restarted := make(chan error, 1)
	for restart := true; time.Since(start) < churnFor; time.Sleep(killEach) {
		if restart && time.Since(start) > churnFor/2 {
			restart = false
			go func() { restarted <- c.api.Restart(c.t.Context()) }()
		}
		if time.Since(start) > rebootEach*time.Duration(boots+1) {
			boots++
			c.reboot(rand.IntN(nodes), fmt.Sprintf("boot-%d", boots))
		}
		r := c.workers[rand.IntN(nodes)][rand.IntN(perNode)]
		c.kill(r)
		c.start(r.worker)
	}
	if err := <-restarted; err != nil {
		c.t.Fatal(err)
	}
}

// reboot ends all containers of a node, and what it knew.
func (c *churn) reboot(n int, boot string) {
	c.t.Helper()
	at := now()
	c.killNode(n)
	var all []*running
	for _, r := range c.workers[n] {
		all = append(all, r)
	}
	c.collect(at, all...)
	if err := os.RemoveAll(c.dirOf(n)); err != nil {
		c.t.Fatal(err)
	}
	for _, r := range all {
		w := r.worker
		w.Boot = boot
		c.start(w)
	}
}

func (c *churn) dirOf(n int) string { return c.workers[n][0].Dir + "/" + nodeName(n) }

func (c *churn) all() (all []*running) {
	for n := range c.workers {
		all = append(all, c.workers[n][:]...)
	}
	return all
}

// collect reads the journals of workers that are dead, and puts them aside. At that time their
// containers have ended, too.
func (c *churn) collect(at time.Duration, of ...*running) {
	c.t.Helper()
	for _, r := range of {
		list, err := readJournal(r.journal())
		if err != nil {
			c.t.Fatal(err)
		}
		has := map[string]entry{}
		end := func(container string, to time.Duration) {
			for _, a := range has[container].Addrs {
				c.spans = append(c.spans, span{has[container].At, to, a, container})
			}
			delete(has, container)
		}
		for _, e := range list {
			c.entries[e.What]++
			switch e.What {
			case "has":
				has[e.Container] = e
			case "leaves":
				end(e.Container, e.At)
			}
		}
		for container := range has {
			end(container, at)
		}
		if err := os.Rename(r.journal(), r.journal()+"-"+r.Boot); err != nil && !os.IsNotExist(err) {
			c.t.Fatal(err)
		}
	}
}

// noneTwice compares each time that somebody had an address with the next.
func (c *churn) noneTwice() {
	c.t.Helper()
	slices.SortFunc(c.spans, func(a, b span) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.from, b.from))
	})
	for i := 1; i < len(c.spans); i++ {
		if a, b := c.spans[i-1], c.spans[i]; a.addr == b.addr && b.from < a.to {
			c.t.Errorf("%v was given to %s from %v to %v, and to %s from %v",
				a.addr, a.container, a.from, a.to, b.container, b.from)
		}
	}
}

// empty is the end of all containers: after a while no block is left. It returns the nodes'
// managers, as they are then.
func (c *churn) empty() (managers []*block.Manager) {
	c.t.Helper()
	ctx := c.t.Context()
	for n := range nodes {
		now, err := c.workers[n][0].manager(0)
		if err != nil {
			c.t.Fatal(err)
		}
		later, err := c.workers[n][0].manager(idle)
		if err != nil {
			c.t.Fatal(err)
		}
		if err := now.GC(ctx, "churn", nil); err != nil {
			c.t.Errorf("GC of node %d: %v", n, err)
		}
		managers = append(managers, later)
	}
	for range 2 { // another node may have waited for what one frees
		for n, m := range managers {
			if err := m.Tend(ctx); err != nil {
				c.t.Errorf("node %d: %v", n, err)
			}
		}
		for _, m := range managers {
			m.Now = func() time.Time { return time.Unix(0, int64(now()+2*idle)) }
		}
	}
	left, err := managers[0].Store.Blocks(ctx, metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, b := range left {
		if b.Spec.Owner != nil || len(b.Spec.Allocations) > 0 {
			c.t.Errorf("block %s is left: %+v", b.Name, b.Spec)
		}
	}
	return managers
}

// fill has each address of the ranges that can be full given, once.
func (c *churn) fill(managers []*block.Manager) {
	c.t.Helper()
	defer c.answerRecalls(managers)()
	for _, list := range ranges()[:2] {
		want, err := wishes(list)
		if err != nil {
			c.t.Fatal(err)
		}
		seen := map[netip.Addr]bool{}
		for i := range int(want[0].Window.Size()) { //nolint:gosec // some hundred
			addrs, err := managers[i%nodes].Add(c.t.Context(), holder(fmt.Sprint("last-", list[0], i)),
				want, nil)
			if err != nil || seen[addrs[0]] {
				c.t.Fatalf("address %d of %s: %v %v", i, list, addrs, err)
			}
			seen[addrs[0]] = true
		}
	}
}

// answerRecalls has the nodes free what others recall, as their daemons will, until it is told
// to stop.
func (c *churn) answerRecalls(managers []*block.Manager) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
			for n, m := range managers {
				if err := m.Answer(c.t.Context()); err != nil {
					c.t.Errorf("node %d answers: %v", n, err)
				}
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}
