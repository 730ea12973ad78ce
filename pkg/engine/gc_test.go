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
func (n *node) begunLater(p *pod) {
	n.t.Helper()
	sandbox, err := n.engine.Records.Lock(n.t.Context(), p.id)
	n.must(err)
	defer sandbox.Unlock()
	rec, err := sandbox.Load()
	n.must(err)
	rec.Created = time.Now().Add(time.Hour)
	n.must(sandbox.Save(rec))
}

// valid is what the plugins of a network were last told is in use, sorted.
func (n *node) valid(network string) []types.GCAttachment {
	return slices.SortedFunc(slices.Values(n.plugin.valid[network]),
		func(a, b types.GCAttachment) int {
			return cmp.Or(cmp.Compare(a.ContainerID, b.ContainerID), cmp.Compare(a.IfName, b.IfName))
		})
}

func TestGCRemovesUnknownSandboxesAndTellsWhatTheOthersHold(t *testing.T) {
	n := newNode(t)
	n.nads("a", "b")
	live, dead, later := n.pod("live", "a,b"), n.pod("dead", "a,b"), n.pod("later", "a")
	for _, p := range []*pod{live, dead, later} {
		n.must(n.add(p))
	}
	n.begunLater(later)
	before := live.Snapshot() + later.Snapshot()
	n.must(n.gc(live))
	same(t, "links of the dead", dead.interfaces(), nil)
	same(t, "the others", live.Snapshot()+later.Snapshot(), before)
	n.left(nil, "id-later.json", "id-live.json", "a-id-later-net1", "a-id-live-net1", "b-id-live-net2",
		"pods-id-later-eth0", "pods-id-live-eth0")
	same(t, "held of pods", n.valid("pods"), []types.GCAttachment{
		{ContainerID: "id-later", IfName: "eth0"}, {ContainerID: "id-live", IfName: "eth0"},
	})
	same(t, "held of a", n.valid("a"), []types.GCAttachment{
		{ContainerID: "id-later", IfName: "net1"}, {ContainerID: "id-live", IfName: "net1"},
	})
	same(t, "held of b", n.valid("b"), []types.GCAttachment{{ContainerID: "id-live", IfName: "net2"}})
	n.must(n.check(live))
	n.must(n.check(later))
}

func TestGCGoesPastErrorsAndJoins(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	one, two := n.pod("one", ""), n.pod("two", "a")
	n.must(n.add(one))
	n.must(n.add(two))
	n.plugin.fails("DEL net1", 111)
	n.plugin.fails("GC pods", 112)
	n.fails(n.gc(), 111, "pod default/two: NAD default/a: interface net1",
		"network pods: plugin pair: told to fail GC pods")
	same(t, "held of a", n.valid("a"), nil)
	if calls := n.plugin.called(); !slices.Contains(calls, "GC a") {
		t.Errorf("calls %q", calls)
	}
	n.left([]*pod{one, two}, "id-two net1", "id-two.json", "id-two.json.lock", "a-id-two-net1")
	n.plugin.on("DEL net1", nil)
	n.plugin.on("GC pods", nil)
	n.must(n.gc())
	n.left([]*pod{one, two})
}

// An address is never presumed free because it is not known who holds it.
func TestGCFreesNothingOfSecondaryNetworksWhileARecordIsMissing(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.must(n.add(p))
	n.must(os.Remove(n.path("state", "sandboxes", "id-p.json")))
	n.plugin.called()
	n.must(n.gc(p))
	same(t, "calls", n.plugin.called(), []string{"GC pods"})
	same(t, "held of pods", n.valid("pods"),
		[]types.GCAttachment{{ContainerID: "id-p", IfName: "eth0"}})
	same(t, "links", p.interfaces(), []string{"eth0", "net1"})
}

// CRI-O counts sandboxes for valid that it has stopped, until the kubelet removes them. They hold
// nothing, so that GC goes on to all networks.
func TestGCWithStoppedSandboxes(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	live, stopped := n.pod("live", "a"), n.pod("stopped", "a")
	n.must(n.add(live))
	n.must(n.add(stopped))
	n.must(n.del(stopped))
	n.must(n.gc(live, stopped))
	same(t, "held of a", n.valid("a"), []types.GCAttachment{{ContainerID: "id-live", IfName: "net1"}})
}

// Of a record that cannot be read, and with nothing else to go by, GC says so and forgets nothing.
func TestGCOfAnUnreadableRecord(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.must(n.add(p))
	n.must(os.Truncate(n.path("state/sandboxes/id-p.json"), 10))
	n.must(os.RemoveAll(n.path("state/cni/results")))
	for _, ifname := range []string{"", "eth0"} {
		n.conf["cni.dev/valid-attachments"] = []types.GCAttachment{}
		req := n.request(nil)
		req.IfName = ifname
		n.fails(n.engine.GC(t.Context(), req), 6, "id-p.json",
			"it was changed by something other than Braid")
		same(t, "links", p.interfaces(), []string{"eth0", "net1"})
		n.left([]*pod{p}, "id-p eth0", "id-p net1", "id-p.json")
	}
}

// networks are those that the node remembers, sorted.
func (n *node) networks() (names []string) {
	n.t.Helper()
	networks, err := n.engine.Records.Networks()
	n.must(err)
	for _, n := range networks {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// TestM36NetworksAreForgotten: GC forgets a network that no sandbox has and whose plugins have
// nothing left; not the default one, not one whose GC fails, and not one that something is owed of.
func TestM36NetworksAreForgotten(t *testing.T) {
	n := newNode(t)
	n.nads("a", "b", "c")
	p, q := n.pod("p", "a,b"), n.pod("q", "b,c")
	n.must(n.add(p))
	n.must(n.add(q))
	n.must(n.gc(p, q))
	same(t, "in use", n.networks(), []string{"default/a", "default/b", "default/c", "pods"})
	n.must(n.del(p))
	n.must(n.gc(q))
	same(t, "in use by q", n.networks(), []string{"default/b", "default/c", "pods"})
	n.must(n.del(q))
	n.plugin.fails("GC b", 111)
	n.fails(n.gc(), 111)
	same(t, "whose GC fails", n.networks(), []string{"default/b", "pods"})
	n.plugin.on("GC b", nil)
	n.must(n.gc())
	same(t, "the default", n.networks(), []string{"pods"})

	n.must(n.add(p)) // whose network was forgotten meanwhile
	n.must(os.RemoveAll(n.path("state/networks")))
	n.must(n.gc(p))
	same(t, "remembered again", n.networks(), []string{"default/a", "default/b", "pods"})
}

// A network of more than any that people write is refused, and not remembered.
func TestM36LargeConfiguration(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	config := `{"cniVersion":"1.1.0","name":"large","type":"pair","x":"` +
		strings.Repeat("x", 600<<10) + `"}`
	n.object("k8s.cni.cncf.io/v1", nadv1.Kind, "large", nil, map[string]any{"config": config})
	p := n.pod("p", "a,large")
	n.fails(n.add(p), 7, "default/large", "spec.config", "131072")
	same(t, "calls", n.plugin.called(), nil)
	same(t, "remembered", n.networks(), nil)
	n.must(n.del(p))
	n.left([]*pod{p})
}
