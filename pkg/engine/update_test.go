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
func (r *rig) asks(p *pod, networks string) *podv1.Pod {
	r.t.Helper()
	annotations := map[string]string{}
	if networks != "" {
		annotations[nadv1.NetworksAnnotation] = networks
	}
	r.object("v1", "Pod", p.name, annotations, map[string]any{})
	pod, err := r.source.Directory.Pod(r.t.Context(), "default", p.name)
	r.must(err)
	return pod
}

// update has a pod ask for networks, and does what an agent does then.
func (r *rig) update(p *pod, networks string) error {
	r.t.Helper()
	pod := r.asks(p, networks)
	req := r.request(nil)
	req.ContainerID = p.id
	return r.engine.Update(r.t.Context(), req, pod)
}

// hotplugs makes a rig with networks and a pod on the default network, which is attached.
func hotplugs(t *testing.T, networks string) (*rig, *pod) {
	t.Helper()
	r := newRig(t)
	r.conf["braid"].(map[string]any)["hotplug"] = true
	r.nads("a", "b", "c")
	p := r.pod("p", networks)
	r.must(r.add(p))
	r.plugin.called()
	r.source.said()
	return r, p
}

// statusOf is the pod's network-status, as "network interface".
func (r *rig) statusOf(p *pod) string {
	r.t.Helper()
	pod, err := r.source.Directory.Pod(r.t.Context(), "default", p.name)
	r.must(err)
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
	r, p := hotplugs(t, "")
	r.must(r.update(p, "a,b"))
	same(t, "calls", r.plugin.called(), []string{"ADD net1", "ADD net2"})
	same(t, "links", p.interfaces(), []string{"eth0", "net1", "net2"})
	same(t, "status", r.statusOf(p), "pods,default/a,default/b")
	r.must(r.check(p))
	r.plugin.called()
	r.must(r.update(p, "b"))
	same(t, "calls", r.plugin.called(), []string{"DEL net1"})
	same(t, "links", p.interfaces(), []string{"eth0", "net2"})
	same(t, "status", r.statusOf(p), "pods,default/b")
	r.must(r.update(p, "b"))
	same(t, "calls for nothing", r.plugin.called(), nil)
	r.must(r.update(p, ""))
	same(t, "links", p.interfaces(), []string{"eth0"})
	same(t, "status", r.statusOf(p), "pods")
	said := strings.Join(r.source.said(), "\n")
	if !strings.Contains(said, "AddedInterface Add net2") ||
		!strings.Contains(said, "RemovedInterface Del net1 from default/a") {
		t.Errorf("events: %s", said)
	}
	r.must(r.del(p))
	r.left([]*pod{p})
}

// TestM10HotPluggedGoesWithThePod: what was added to a running pod is removed with it.
func TestM10HotPluggedGoesWithThePod(t *testing.T) {
	r, p := hotplugs(t, "a")
	r.must(r.update(p, "a,b@data"))
	r.left([]*pod{p}, p.whole("pods eth0", "a net1", "b data")...)
	r.plugin.called()
	p.Unmount()
	r.must(r.del(p))
	same(t, "calls", r.plugin.called(), []string{"DEL data", "DEL net1", "DEL eth0"})
	r.left(nil)
}

// A network under an interface name that another has is swapped: DEL, then ADD.
func TestHotPlugSwap(t *testing.T) {
	r, p := hotplugs(t, "a@data,b")
	r.must(r.update(p, "c@data,b"))
	same(t, "calls", r.plugin.called(), []string{"DEL data", "ADD data"})
	same(t, "status", r.statusOf(p), "pods,default/b,default/c")
	r.must(r.del(p))
	r.left([]*pod{p})
}

// A failure is of its element alone, and leaves nothing of it; the next try makes what is missing.
func TestHotPlugFailure(t *testing.T) {
	r, p := hotplugs(t, "")
	r.plugin.fails("ADD net2", 111)
	r.fails(r.update(p, "a,b,c"), 111, "default/p", "default/b", "net2")
	same(t, "calls", r.plugin.called(), []string{"ADD net1", "ADD net2", "DEL net2", "ADD net3"})
	r.left([]*pod{p}, p.whole("pods eth0", "a net1", "c net3")...)
	same(t, "status", r.statusOf(p), "pods,default/a,default/c")
	if len(r.source.warnings()) != 1 {
		t.Error("there is not one warning")
	}
	r.must(r.check(p))
	r.plugin.called()
	r.plugin.on("ADD net2", nil)
	r.must(r.update(p, "a,b,c"))
	same(t, "calls", r.plugin.called(), []string{"ADD net2"})
	r.must(r.del(p))
	r.left([]*pod{p})
}

// What a plugin cannot remove is tried again, and not taken for what the pod has.
func TestHotPlugDelFails(t *testing.T) {
	r, p := hotplugs(t, "a,b")
	r.plugin.fails("DEL net1", 111)
	r.fails(r.update(p, "b,c"), 111, "default/a", "net1")
	same(t, "calls", r.plugin.called(), []string{"DEL net1", "ADD net3"})
	same(t, "status", r.statusOf(p), "pods,default/b,default/c")
	r.plugin.on("DEL net1", nil)
	r.must(r.update(p, "b,c,a")) // by now it is wanted again, and what is half there is no help
	same(t, "calls", r.plugin.called(), []string{"DEL net1", "ADD net1"})
	r.must(r.check(p))
	r.must(r.del(p))
	r.left([]*pod{p})
}

// A network-status that cannot be written is written later, and no plugin runs again for it.
func TestHotPlugStatusFails(t *testing.T) {
	r, p := hotplugs(t, "")
	r.source.publishing = func(context.Context) { r.source.away = true }
	r.fails(r.update(p, "a"), 11)
	same(t, "calls", r.plugin.called(), []string{"ADD net1"})
	r.source.publishing, r.source.away = nil, false
	ids, attached, err := r.engine.Outdated(r.asks(p, "a"))
	if err != nil || !attached || !slices.Equal(ids, []string{p.id}) {
		t.Errorf("outdated are %v, attached %v, %v", ids, attached, err)
	}
	r.must(r.update(p, "a"))
	same(t, "calls", r.plugin.called(), nil)
	same(t, "status", r.statusOf(p), "pods,default/a")
	ids, _, err = r.engine.Outdated(r.asks(p, "a"))
	if err != nil || len(ids) > 0 {
		t.Errorf("outdated are %v, %v", ids, err)
	}
	r.must(r.del(p))
	r.left([]*pod{p})
}

// What ADD would refuse changes nothing, and neither does a NAD that is gone of a pod that has it.
func TestHotPlugRefused(t *testing.T) {
	r, p := hotplugs(t, "a")
	for networks, reason := range map[string]failure.Reason{
		"other/x,a": failure.NADForbidden, "a,none": failure.NADNotFound,
		"a@eth0": failure.InterfaceConflict, "a,[": failure.InvalidAnnotation,
	} {
		if got := failure.ReasonOf(r.update(p, networks)); got != reason {
			t.Errorf("%s: reason %q, want %q", networks, got, reason)
		}
	}
	r.nads("gone")
	r.must(r.update(p, "a,gone"))
	r.plugin.called()
	r.object("k8s.cni.cncf.io/v1", nadv1.Kind, "gone", nil, map[string]any{"config": "{"})
	r.must(r.update(p, "gone,a"))
	same(t, "calls", r.plugin.called(), nil)
	same(t, "links", p.interfaces(), []string{"eth0", "net1", "net2"})
	r.must(r.del(p))
	r.left([]*pod{p})
}

// A sandbox that Braid did not make, or not yet, is left alone.
func TestHotPlugOfOthers(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.must(r.update(p, "a"))
	ids, attached, err := r.engine.Outdated(r.asks(p, "a"))
	if err != nil || attached || len(ids) > 0 {
		t.Errorf("outdated are %v, attached %v, %v", ids, attached, err)
	}
	r.plugin.fails("ADD net1", 111)
	r.plugin.fails("DEL net1", 111)
	r.fails(r.add(p), 111)
	r.plugin.called()
	r.must(r.update(p, ""))
	same(t, "calls", r.plugin.called(), nil)
	r.plugin.on("DEL net1", nil)
	r.must(r.del(p))
	r.must(r.update(p, "a"))
	r.left([]*pod{p})
}

// KubeVirt gives the links of a pod other names, and puts links of its own in their places. The
// pod's own links go, and KubeVirt's stay.
func TestHotPlugRenamedLinks(t *testing.T) {
	r, p := hotplugs(t, "")
	const name, renamed = "pod16367", "16367-nic" // with its suffix the far end has 15 bytes at most
	r.must(r.update(p, `[{"name":"a","namespace":"default","interface":"`+name+`"}]`))
	p.Rename(name, renamed)
	r.must(p.Netlink().
		LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "tap" + farEnd}))
	r.must(r.update(p, ""))
	same(t, "links", p.interfaces(), []string{"eth0", name})
	same(t, "status", r.statusOf(p), "pods")
	records, err := r.engine.Records.Read()
	r.must(err)
	if len(records) != 1 || len(records[0].Attachments) != 1 || !records[0].Complete {
		t.Errorf("records: %+v", records)
	}
}

// An update waits for the operation on its sandbox, and finds the sandbox gone after a DEL.
func TestHotPlugIsSerialised(t *testing.T) {
	r, p := hotplugs(t, "")
	inside, open := make(chan struct{}), make(chan struct{})
	r.plugin.on("DEL eth0", func(context.Context, *call) error {
		close(inside)
		<-open
		return nil
	})
	req := r.request(p)
	deleted := make(chan error, 1)
	go func() { deleted <- r.engine.Del(t.Context(), req) }()
	<-inside
	updated := make(chan error, 1)
	asking := r.asks(p, "a")
	go func() { updated <- r.engine.Update(t.Context(), req, asking) }()
	close(open)
	r.must(<-deleted)
	r.must(<-updated)
	same(t, "overlaps", r.plugin.overlaps, nil)
	r.left([]*pod{p})
}
