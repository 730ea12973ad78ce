package engine_test

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// begunLater has the pod's ADD begin after the runtime made its list.
func (r *rig) begunLater(p *pod) {
	r.t.Helper()
	sandbox, err := r.engine.Records.Lock(r.t.Context(), p.id)
	r.must(err)
	defer sandbox.Unlock()
	rec, err := sandbox.Load()
	r.must(err)
	rec.Created = time.Now().Add(time.Hour)
	r.must(sandbox.Save(rec))
}

// valid is what the plugins of a network were last told is in use, sorted.
func (r *rig) valid(network string) []types.GCAttachment {
	return slices.SortedFunc(slices.Values(r.plugin.valid[network]),
		func(a, b types.GCAttachment) int {
			return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.IfName, b.IfName))
		})
}

func TestGCRemovesUnknownSandboxesAndTellsWhatTheOthersHold(t *testing.T) {
	r := newRig(t)
	r.nads("a", "b")
	live, dead, later := r.pod("live", "a,b"), r.pod("dead", "a,b"), r.pod("later", "a")
	for _, p := range []*pod{live, dead, later} {
		r.must(r.add(p))
	}
	r.begunLater(later)
	before := live.Snapshot() + later.Snapshot()
	r.must(r.gc(live))
	same(t, "links of the dead", dead.interfaces(), nil)
	same(t, "the others", live.Snapshot()+later.Snapshot(), before)
	r.left(nil, "id-later.json", "id-live.json", "a-id-later-net1", "a-id-live-net1", "b-id-live-net2",
		"pods-id-later-eth0", "pods-id-live-eth0")
	same(t, "held of pods", r.valid("pods"), []types.GCAttachment{
		{ContainerID: "id-later", IfName: "eth0"}, {ContainerID: "id-live", IfName: "eth0"},
	})
	same(t, "held of a", r.valid("a"), []types.GCAttachment{
		{ContainerID: "id-later", IfName: "net1"}, {ContainerID: "id-live", IfName: "net1"},
	})
	same(t, "held of b", r.valid("b"), []types.GCAttachment{{ContainerID: "id-live", IfName: "net2"}})
	r.must(r.check(live))
	r.must(r.check(later))
}

func TestGCGoesPastErrorsAndJoins(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	one, two := r.pod("one", ""), r.pod("two", "a")
	r.must(r.add(one))
	r.must(r.add(two))
	r.plugin.fails("DEL net1", 111)
	r.plugin.fails("GC pods", 112)
	r.fails(r.gc(), 111, "pod default/two: NAD default/a: interface net1",
		"network pods: plugin pair: told to fail GC pods")
	same(t, "held of a", r.valid("a"), nil)
	if calls := r.plugin.called(); !slices.Contains(calls, "GC a") {
		t.Errorf("calls %q", calls)
	}
	r.left([]*pod{one, two}, "id-two net1", "id-two.json", "id-two.json.lock", "a-id-two-net1")
	r.plugin.on("DEL net1", nil)
	r.plugin.on("GC pods", nil)
	r.must(r.gc())
	r.left([]*pod{one, two})
}

// An address is never presumed free because it is not known who holds it.
func TestGCFreesNothingOfSecondaryNetworksWhileARecordIsMissing(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.must(r.add(p))
	r.must(os.Remove(r.path("state", "sandboxes", "id-p.json")))
	r.plugin.called()
	r.must(r.gc(p))
	same(t, "calls", r.plugin.called(), []string{"GC pods"})
	same(t, "held of pods", r.valid("pods"),
		[]types.GCAttachment{{ContainerID: "id-p", IfName: "eth0"}})
	same(t, "links", p.interfaces(), []string{"eth0", "net1"})
}

// Of a record that cannot be read, and with nothing else to go by, GC says so and forgets nothing.
func TestGCOfAnUnreadableRecord(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.must(r.add(p))
	r.must(os.Truncate(r.path("state/sandboxes/id-p.json"), 10))
	r.must(os.RemoveAll(r.path("state/cni/results")))
	for _, ifname := range []string{"", "eth0"} {
		r.conf["cni.dev/valid-attachments"] = []types.GCAttachment{}
		req := r.request(nil)
		req.IfName = ifname
		r.fails(r.engine.GC(t.Context(), req), 6, "id-p.json",
			"it was changed by something other than Braid")
		same(t, "links", p.interfaces(), []string{"eth0", "net1"})
		r.left([]*pod{p}, "id-p eth0", "id-p net1", "id-p.json")
	}
}

// networks are those that the node remembers, sorted.
func (r *rig) networks() (names []string) {
	r.t.Helper()
	networks, err := r.engine.Records.Networks()
	r.must(err)
	for _, n := range networks {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// TestM36NetworksAreForgotten: GC forgets a network that no sandbox has and whose plugins have
// nothing left; not the default one, not one whose GC fails, and not one that something is owed of.
func TestM36NetworksAreForgotten(t *testing.T) {
	r := newRig(t)
	r.nads("a", "b", "c")
	p, q := r.pod("p", "a,b"), r.pod("q", "b,c")
	r.must(r.add(p))
	r.must(r.add(q))
	r.must(r.gc(p, q))
	same(t, "in use", r.networks(), []string{"default/a", "default/b", "default/c", "pods"})
	r.must(r.del(p))
	r.must(r.gc(q))
	same(t, "in use by q", r.networks(), []string{"default/b", "default/c", "pods"})
	r.must(r.del(q))
	r.plugin.fails("GC b", 111)
	r.fails(r.gc(), 111)
	same(t, "whose GC fails", r.networks(), []string{"default/b", "pods"})
	r.plugin.on("GC b", nil)
	r.must(r.gc())
	same(t, "the default", r.networks(), []string{"pods"})

	r.must(r.add(p)) // whose network was forgotten meanwhile
	r.must(os.RemoveAll(r.path("state/networks")))
	r.must(r.gc(p))
	same(t, "remembered again", r.networks(), []string{"default/a", "default/b", "pods"})
}

// A network of more than any that people write is refused, and not remembered.
func TestM36LargeConfiguration(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	config := `{"cniVersion":"1.1.0","name":"large","type":"pair","x":"` +
		strings.Repeat("x", 600<<10) + `"}`
	r.object("k8s.cni.cncf.io/v1", nadv1.Kind, "large", nil, map[string]any{"config": config})
	p := r.pod("p", "a,large")
	r.fails(r.add(p), 7, "default/large", "spec.config", "131072")
	same(t, "calls", r.plugin.called(), nil)
	same(t, "remembered", r.networks(), nil)
	r.must(r.del(p))
	r.left([]*pod{p})
}
