package engine_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// asks changes the annotation of a pod, and returns the pod as it is then.
func (n *node) asks(p *pod, networks string) *podv1.Pod {
	n.t.Helper()
	annotations := map[string]string{}
	if networks != "" {
		annotations[nadv1.NetworksAnnotation] = networks
	}
	n.object("v1", "Pod", p.name, annotations, map[string]any{})
	pod, err := n.source.Directory.Pod(n.t.Context(), "default", p.name)
	n.must(err)
	return pod
}

// update has a pod ask for networks, and does what an agent does then.
func (n *node) update(p *pod, networks string) error {
	n.t.Helper()
	pod := n.asks(p, networks)
	req := n.request(nil)
	req.ContainerID = p.id
	return n.engine.Update(n.t.Context(), req, pod)
}

// hotplugs makes a node with networks and a pod on the default network, which is attached.
func hotplugs(t *testing.T, networks string) (*node, *pod) {
	t.Helper()
	n := newNode(t)
	n.conf["braid"].(map[string]any)["hotplug"] = true
	n.nads("a", "b", "c")
	p := n.pod("p", networks)
	n.must(n.add(p))
	n.plugin.called()
	n.source.said()
	return n, p
}

// statusOf is the pod's network-status, as "network interface".
func (n *node) statusOf(p *pod) string {
	n.t.Helper()
	pod, err := n.source.Directory.Pod(n.t.Context(), "default", p.name)
	n.must(err)
	var entries []string
	for _, part := range strings.Split(pod.Annotations[nadv1.StatusAnnotation], `"name"`)[1:] {
		fields := strings.Split(part, `"`)
		entries = append(entries, fields[1])
	}
	return strings.Join(entries, ",")
}

// TestHotPlug: a pod that had no annotation gets networks, keeps the names of those that stay, and
// loses what it does not ask for any more.
func TestHotPlug(t *testing.T) {
	n, p := hotplugs(t, "")
	n.must(n.update(p, "a,b"))
	same(t, "calls", n.plugin.called(), []string{"ADD net1", "ADD net2"})
	same(t, "links", p.interfaces(), []string{"eth0", "net1", "net2"})
	same(t, "status", n.statusOf(p), "pods,default/a,default/b")
	n.must(n.check(p))
	n.plugin.called()
	n.must(n.update(p, "b"))
	same(t, "calls", n.plugin.called(), []string{"DEL net1"})
	same(t, "links", p.interfaces(), []string{"eth0", "net2"})
	same(t, "status", n.statusOf(p), "pods,default/b")
	n.must(n.update(p, "b"))
	same(t, "calls for nothing", n.plugin.called(), nil)
	n.must(n.update(p, ""))
	same(t, "links", p.interfaces(), []string{"eth0"})
	same(t, "status", n.statusOf(p), "pods")
	said := strings.Join(n.source.said(), "\n")
	if !strings.Contains(said, "AddedInterface Add net2") ||
		!strings.Contains(said, "RemovedInterface Del net1 from default/a") {
		t.Errorf("events: %s", said)
	}
	n.must(n.del(p))
	n.left([]*pod{p})
}

// TestM10HotPluggedGoesWithThePod: what was added to a running pod is removed with it.
func TestM10HotPluggedGoesWithThePod(t *testing.T) {
	n, p := hotplugs(t, "a")
	n.must(n.update(p, "a,b@data"))
	n.left([]*pod{p}, p.whole("pods eth0", "a net1", "b data")...)
	n.plugin.called()
	p.Unmount()
	n.must(n.del(p))
	same(t, "calls", n.plugin.called(), []string{"DEL data", "DEL net1", "DEL eth0"})
	n.left(nil)
}

// A network under an interface name that another has is swapped: DEL, then ADD.
func TestHotPlugSwap(t *testing.T) {
	n, p := hotplugs(t, "a@data,b")
	n.must(n.update(p, "c@data,b"))
	same(t, "calls", n.plugin.called(), []string{"DEL data", "ADD data"})
	same(t, "status", n.statusOf(p), "pods,default/b,default/c")
	n.must(n.del(p))
	n.left([]*pod{p})
}

// A failure is of its element alone, and leaves nothing of it; the next try makes what is missing.
func TestHotPlugFailure(t *testing.T) {
	n, p := hotplugs(t, "")
	n.plugin.fails("ADD net2", 111)
	n.fails(n.update(p, "a,b,c"), 111, "default/p", "default/b", "net2")
	same(t, "calls", n.plugin.called(), []string{"ADD net1", "ADD net2", "DEL net2", "ADD net3"})
	n.left([]*pod{p}, p.whole("pods eth0", "a net1", "c net3")...)
	same(t, "status", n.statusOf(p), "pods,default/a,default/c")
	if len(n.source.warnings()) != 1 {
		t.Error("there is not one warning")
	}
	n.must(n.check(p))
	n.plugin.called()
	n.plugin.on("ADD net2", nil)
	n.must(n.update(p, "a,b,c"))
	same(t, "calls", n.plugin.called(), []string{"ADD net2"})
	n.must(n.del(p))
	n.left([]*pod{p})
}

// What a plugin cannot remove is tried again, and not taken for what the pod has.
func TestHotPlugDelFails(t *testing.T) {
	n, p := hotplugs(t, "a,b")
	n.plugin.fails("DEL net1", 111)
	n.fails(n.update(p, "b,c"), 111, "default/a", "net1")
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "ADD net3"})
	same(t, "status", n.statusOf(p), "pods,default/b,default/c")
	n.plugin.on("DEL net1", nil)
	n.must(n.update(p, "b,c,a")) // by now it is wanted again, and what is half there is no help
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "ADD net1"})
	n.must(n.check(p))
	n.must(n.del(p))
	n.left([]*pod{p})
}

// A network-status that cannot be written is written later, and no plugin runs again for it.
func TestHotPlugStatusFails(t *testing.T) {
	n, p := hotplugs(t, "")
	n.source.publishing = func(context.Context) { n.source.away = true }
	n.fails(n.update(p, "a"), 11)
	same(t, "calls", n.plugin.called(), []string{"ADD net1"})
	n.source.publishing, n.source.away = nil, false
	ids, attached, err := n.engine.Outdated(n.asks(p, "a"))
	if err != nil || !attached || !slices.Equal(ids, []string{p.id}) {
		t.Errorf("outdated are %v, attached %v, %v", ids, attached, err)
	}
	n.must(n.update(p, "a"))
	same(t, "calls", n.plugin.called(), nil)
	same(t, "status", n.statusOf(p), "pods,default/a")
	ids, _, err = n.engine.Outdated(n.asks(p, "a"))
	if err != nil || len(ids) > 0 {
		t.Errorf("outdated are %v, %v", ids, err)
	}
	n.must(n.del(p))
	n.left([]*pod{p})
}

// What ADD would refuse changes nothing, and neither does a NAD that is gone of a pod that has it.
func TestHotPlugRefused(t *testing.T) {
	n, p := hotplugs(t, "a")
	for networks, reason := range map[string]failure.Reason{
		"other/x,a": failure.NADForbidden, "a,none": failure.NADNotFound,
		"a@eth0": failure.InterfaceConflict, "a,[": failure.InvalidAnnotation,
	} {
		if got := failure.ReasonOf(n.update(p, networks)); got != reason {
			t.Errorf("%s: reason %q, want %q", networks, got, reason)
		}
	}
	n.nads("gone")
	n.must(n.update(p, "a,gone"))
	n.plugin.called()
	n.object("k8s.cni.cncf.io/v1", nadv1.Kind, "gone", nil, map[string]any{"config": "{"})
	n.must(n.update(p, "gone,a"))
	same(t, "calls", n.plugin.called(), nil)
	same(t, "links", p.interfaces(), []string{"eth0", "net1", "net2"})
	n.must(n.del(p))
	n.left([]*pod{p})
}

// A sandbox that Braid did not make, or not yet, is left alone.
func TestHotPlugOfOthers(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.must(n.update(p, "a"))
	ids, attached, err := n.engine.Outdated(n.asks(p, "a"))
	if err != nil || attached || len(ids) > 0 {
		t.Errorf("outdated are %v, attached %v, %v", ids, attached, err)
	}
	n.plugin.fails("ADD net1", 111)
	n.plugin.fails("DEL net1", 111)
	n.fails(n.add(p), 111)
	n.plugin.called()
	n.must(n.update(p, ""))
	same(t, "calls", n.plugin.called(), nil)
	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	n.must(n.update(p, "a"))
	n.left([]*pod{p})
}

// KubeVirt renames the links of a pod, and puts links of its own in their places. The
// pod's own links go, and KubeVirt's stay.
func TestHotPlugRenamedLinks(t *testing.T) {
	n, p := hotplugs(t, "")
	const name, renamed = "pod16367", "16367-nic" // with its suffix the far end has 15 bytes at most
	n.must(n.update(p, `[{"name":"a","namespace":"default","interface":"`+name+`"}]`))
	p.Rename(name, renamed)
	n.must(p.Netlink().
		LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "tap" + farEnd}))
	n.must(n.update(p, ""))
	same(t, "links", p.interfaces(), []string{"eth0", name})
	same(t, "status", n.statusOf(p), "pods")
	records, err := n.engine.Records.Read()
	n.must(err)
	if len(records) != 1 || len(records[0].Attachments) != 1 || !records[0].Complete {
		t.Errorf("records: %+v", records)
	}
}

// An update waits for the operation on its sandbox, and finds the sandbox gone after a DEL.
func TestHotPlugIsSerialised(t *testing.T) {
	n, p := hotplugs(t, "")
	inside, open := make(chan struct{}), make(chan struct{})
	n.plugin.on("DEL eth0", func(context.Context, *call) error {
		close(inside)
		<-open
		return nil
	})
	req := n.request(p)
	deleted := make(chan error, 1)
	go func() { deleted <- n.engine.Del(t.Context(), req) }()
	<-inside
	updated := make(chan error, 1)
	asking := n.asks(p, "a")
	go func() { updated <- n.engine.Update(t.Context(), req, asking) }()
	close(open)
	n.must(<-deleted)
	n.must(<-updated)
	same(t, "overlaps", n.plugin.overlaps, nil)
	n.left([]*pod{p})
}
