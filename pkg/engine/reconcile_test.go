package engine_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/agent/cri"
	"github.com/braid-cni/braid/pkg/agent/cri/critest"
	"github.com/braid-cni/braid/pkg/agent/reconcile"
	"github.com/braid-cni/braid/pkg/nodeid"
)

// agentID is the agent's own sandbox, agentUID its pod.
const agentID, agentUID = "id-agent", "uid-agent"

// reconciled is a node with an agent that compares its records with a runtime's list.
type reconciled struct {
	*node

	runtime    *critest.Server
	reconciler *reconcile.Reconciler
	said       bytes.Buffer
	removed    int
	clock      time.Time
}

// reconciles makes such a node. The runtime is the test itself.
func reconciles(t *testing.T) *reconciled {
	t.Helper()
	r := &reconciled{node: newNode(t), clock: time.Now()}
	dir, err := os.MkdirTemp("/tmp", "cri") //nolint:usetesting // a socket needs a short path
	r.must(err)
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary directory
	socket := filepath.Join(dir, "cri.sock")
	r.runtime = critest.Listen(t, socket)
	r.runtime.Run(agentID, agentUID)
	r.reconciler = &reconcile.Reconciler{
		Runtime: &cri.Runtime{Sockets: []string{socket}, Pod: agentUID}, Sandboxes: r.engine,
		Log: slog.New(slog.NewTextHandler(&r.said, nil)),
		Now: func() time.Time { return r.clock }, Removed: func() { r.removed++ },
	}
	return r
}

// runs attaches a pod as a runtime of that name does, and has the test's runtime list it.
func (r *reconciled) runs(name, runtime string) *pod {
	r.t.Helper()
	p := r.pod(name, "a")
	req := r.request(p)
	req.Runtime = runtime
	_, err := r.engine.Add(r.t.Context(), req)
	r.must(err)
	r.runtime.Run(p.id, "uid-"+name)
	return p
}

// pass has the agent pass after that time.
func (r *reconciled) pass(after time.Duration) {
	r.clock = r.clock.Add(after)
	r.reconciler.Pass(r.t.Context())
}

// TestReconcileForgotten: of a sandbox that its runtime has forgotten links, record and cache go,
// although no DEL ever comes. Others, of this and of other runtimes, stay.
func TestReconcileForgotten(t *testing.T) {
	r := reconciles(t)
	r.nads("a")
	me := nodeid.Program(os.Getpid())
	live, lost := r.runs("live", me), r.runs("lost", me)
	others, unknown := r.runs("others", "podman"), r.runs("unknown", "")
	for _, p := range []*pod{lost, others, unknown} {
		r.runtime.Forget(p.id)
	}
	r.pass(0)
	r.pass(time.Minute)
	r.pass(reconcile.Every)
	same(t, "removed", r.removed, 1)
	same(t, "links of what was forgotten", lost.interfaces(), nil)
	for _, p := range []*pod{live, others, unknown} {
		same(t, "links of "+p.name, p.interfaces(), []string{"eth0", "net1"})
		r.must(r.check(p))
	}
	for _, p := range []*pod{live, others, unknown, lost} {
		r.must(r.del(p))
	}
	r.left([]*pod{live, lost, others, unknown})
}

// A runtime that lies, is empty or fails is no reason to touch a pod.
func TestReconcileNothingByABadList(t *testing.T) {
	r := reconciles(t)
	r.nads("a")
	p := r.runs("p", nodeid.Program(os.Getpid()))
	r.runtime.Forget(p.id)
	r.runtime.Forget(agentID) // empty
	r.pass(0)
	r.pass(time.Minute)
	r.runtime.Run("another", "uid-another") // of another node, or made up
	r.pass(reconcile.Every)
	r.pass(reconcile.Every)
	r.runtime.Fail(os.ErrDeadlineExceeded)
	r.pass(reconcile.Every)
	r.pass(reconcile.Every)
	same(t, "links", p.interfaces(), []string{"eth0", "net1"})
	r.must(r.check(p))
	if !strings.Contains(r.said.String(), "sandboxes are not compared with those of the runtime") {
		t.Errorf("the log does not say so: %s", &r.said)
	}
	r.runtime.Fail(nil)
	r.runtime.Run(agentID, agentUID)
	r.pass(reconcile.Every)
	same(t, "links after one good list", p.interfaces(), []string{"eth0", "net1"})
	r.pass(reconcile.Every)
	r.left([]*pod{p})
}

// A sandbox that an operation is at work on is left alone, and removed once nobody is.
func TestReconcileWaitsForOperations(t *testing.T) {
	r := reconciles(t)
	r.nads("a")
	p := r.runs("p", nodeid.Program(os.Getpid()))
	r.runtime.Forget(p.id)
	r.pass(0)
	locked, err := r.engine.Records.Lock(t.Context(), p.id)
	r.must(err)
	r.pass(time.Minute)
	same(t, "links", p.interfaces(), []string{"eth0", "net1"})
	locked.Release()
	r.pass(reconcile.Every)
	r.left([]*pod{p})
}

// TestReconcileOwed: the agent finishes what plugins refused to remove, and sandboxes whose
// operation was killed. It needs no operation of a pod.
func TestReconcileOwed(t *testing.T) {
	r := reconciles(t)
	r.nads("a")
	p := r.runs("p", nodeid.Program(os.Getpid()))
	r.plugin.fails("DEL net1", types.ErrInvalidNetworkConfig)
	p.Unmount()
	if err := r.del(p); err == nil {
		t.Fatal("the DEL succeeded")
	}
	r.engine.Now = func() time.Time { return time.Now().Add(time.Hour) }
	r.must(r.del(p))
	records, err := r.engine.Records.Read()
	r.must(err)
	if len(records) != 1 || len(records[0].Owed()) != 1 {
		t.Fatalf("records %+v, want one with what is owed", records)
	}
	r.pass(0)
	r.plugin.called()
	r.pass(time.Minute) // too early for another try
	same(t, "calls", r.plugin.called(), nil)
	r.plugin.on("DEL net1", nil)
	r.pass(reconcile.Every)
	r.left(nil)
}
