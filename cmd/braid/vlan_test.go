package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
)

// R7: the key vlan of macvlan and ipvlan.

// vlanNetwork is the configuration of a network in a VLAN of a master, with host-local addresses of
// 10.<net>.0.0/24.
func (r *rig) vlanNetwork(kind, master string, vlan, net int, extra string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","type":%q,"master":%q,"vlan":%d%s,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/24"}}`, kind, master, vlan, extra, r.path("leases"), net)
}

// vlanKinds are the plugins with the key, which share their links.
var vlanKinds = []string{"macvlan", "ipvlan"}

// isVLAN fails the test unless the link is one for a VLAN of a master, up.
func isVLAN(t *testing.T, n *nettest.Namespace, name, master string, id int) {
	t.Helper()
	if !n.HasLink(name) {
		t.Errorf("there is no link %s:\n%s", name, n.Links())
		return
	}
	link, ok := n.Link(name).(*netlink.Vlan)
	if !ok || link.VlanId != id || link.ParentIndex != n.Link(master).Attrs().
		Index || link.VlanProtocol != netlink.VLAN_PROTOCOL_8021Q {
		t.Errorf("%s is no link for VLAN %d of %s: %+v", name, id, master, n.Link(name))
	}
	if !strings.Contains(n.Links(), "link "+name+" vlan mtu 1500 up\n") {
		t.Errorf("%s is not up:\n%s", name, n.Links())
	}
}

// gone fails the test if the node still has the link.
func (r *rig) gone(name string) {
	r.t.Helper()
	if r.node.HasLink(name) {
		r.t.Errorf("%s is still there", name)
	}
}

// The first attachment makes the link and the last removes it, whichever network it is of.
func TestR7VLANLinkIsShared(t *testing.T) {
	for _, kind := range vlanKinds {
		t.Run(kind, func(t *testing.T) {
			nettest.NeedsLink(t, "vlan", kind)
			r := newRig(t)
			r.nad("a", r.vlanNetwork(kind, nic, 500, 11, ""))
			r.nad("b", r.vlanNetwork(kind, nic, 500, 12, ""))
			r.nad("c", r.vlanNetwork(kind, nic, 4094, 13, ""))
			one, two := r.pod("one", "a,a,c"), r.pod("two", "b")
			r.add(one)
			r.add(two)
			isVLAN(t, r.node, nic+".500", nic, 500)
			isVLAN(t, r.node, nic+".4094", nic, 4094)
			same(t, "IPv6 of the node in the VLAN",
				sysctlOf(t, r.node, "net/ipv6/conf/"+nic+".500/disable_ipv6"), "1")
			for _, p := range []*pod{one, two} {
				if got := p.Link("net1").Attrs().ParentIndex; got != r.node.Link(nic+".500").Attrs().Index {
					t.Errorf("pod %s is not on the VLAN's link", p.name)
				}
				r.must("CHECK", p)
			}
			r.must("DEL", one)
			r.gone(nic + ".4094")
			isVLAN(t, r.node, nic+".500", nic, 500)
			r.must("CHECK", two)
			two.Unmount()
			for range 2 {
				r.must("DEL", two)
			}
			r.clean(one)
		})
	}
}

// Packets have the VLAN's tag on the wire.
func TestR7FramesAreTagged(t *testing.T) {
	for _, kind := range vlanKinds {
		t.Run(kind, func(t *testing.T) {
			nettest.NeedsLink(t, "vlan", kind)
			r := newRig(t)
			far := nettest.New(t)
			r.node.Veth("trunk", far, "wire")
			far.Add(&netlink.Vlan{
				LinkAttrs: netlink.LinkAttrs{Name: "wire.7", ParentIndex: far.Link("wire").Attrs().Index},
				VlanId:    7,
			})
			far.Up("wire.7")
			far.Addr("wire.7", "10.11.0.200/24")
			r.nad("a", r.vlanNetwork(kind, "trunk", 7, 11, ""))
			p := r.pod("p", "a")
			r.add(p)
			reach(t, p, "10.11.0.200", &pod{Namespace: far})
			r.must("DEL", p)
			r.gone("trunk.7")
		})
	}
}

// A link for the VLAN that an administrator made is used, under whatever name, and stays.
func TestR7LinkOfOthersIsUsedAndStays(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	for _, name := range []string{nic + ".500", "storage"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.node.Add(&netlink.Vlan{
				LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: r.node.Link(nic).Attrs().Index},
				VlanId:    500,
			})
			r.node.Up(name)
			before := r.node.Link(name).Attrs()
			r.nad("a", r.vlanNetwork("macvlan", nic, 500, 11, ""))
			p := r.pod("p", "a")
			r.add(p)
			same(t, "parent", p.Link("net1").Attrs().ParentIndex, before.Index)
			r.must("CHECK", p)
			r.must("DEL", p)
			after := r.node.Link(name).Attrs()
			same(t, "index and alias", fmt.Sprint(after.Index, after.Alias),
				fmt.Sprint(before.Index, before.Alias))
			same(t, "holders", globbed(t, r.path("state/vlans/*")), []string(nil))
		})
	}
}

// A name that is another link's is no VLAN, and says so.
func TestR7NameOfAnotherLink(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	r.node.Bridge(nic + ".500")
	r.nad("a", r.vlanNetwork("macvlan", nic, 500, 11, ""))
	p := r.pod("p", "a")
	r.fails("ADD", p, 999, nic+".500 exists and is not VLAN 500 of "+nic, "rename that interface")
	r.must("DEL", p)
	if !r.node.HasLink(nic + ".500") {
		t.Error("it was removed")
	}
	same(t, "holders", globbed(t, r.path("state/vlans/*")), []string(nil))
}

// A name that would be too long is a derived one, the same for all.
func TestR7LongNameOfTheMaster(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	const master = "enp175s0f0np1x"
	r.node.Veth(master, nettest.New(t), "wire")
	r.nad("a", r.vlanNetwork("macvlan", master, 500, 11, ""))
	r.nad("b", r.vlanNetwork("macvlan", master, 500, 12, ""))
	p := r.pod("p", "a,b")
	r.add(p)
	var links []string
	for line := range strings.Lines(r.node.Links()) {
		if name := strings.Fields(line)[1]; strings.HasSuffix(name, ".500") {
			links = append(links, name)
		}
	}
	if len(links) != 1 || !strings.HasPrefix(links[0], "enp1") {
		t.Fatalf("links %q, want one whose name begins as the master's", links)
	}
	isVLAN(t, r.node, links[0], master, 500)
	r.must("CHECK", p)
	r.must("DEL", p)
	r.gone(links[0])
}

// With linkInContainer the link is in the pod, where its attachments share it.
func TestR7LinkInContainer(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	r.nad("a", r.vlanNetwork("macvlan", "eth0", 500, 11, `,"linkInContainer":true`))
	p, other := r.pod("p", "a,a"), r.pod("other", "a")
	r.add(p)
	r.add(other)
	r.has(p, "eth0", "eth0.500", "net1", "net2")
	r.has(other, "eth0", "eth0.500", "net1")
	r.gone("eth0.500")
	r.must("CHECK", p)
	r.must("DEL", p)
	other.Unmount()
	r.must("DEL", other)
	r.clean(p)
}

// GC removes what attachments had that are gone, of its own network alone.
func TestR7GC(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	r.nad("a", r.vlanNetwork("macvlan", nic, 500, 11, ""))
	r.nad("b", r.vlanNetwork("macvlan", nic, 500, 12, ""))
	r.nad("c", r.vlanNetwork("macvlan", nic, 600, 13, ""))
	stays, goes, lost := r.pod("stays", "a"), r.pod("goes", "b,c"), r.pod("lost", "a,c")
	for _, p := range []*pod{stays, goes, lost} {
		r.add(p)
	}
	// Braid's own record is lost, too: the plugins' GC is all that is left.
	if err := os.Remove(r.path("state/sandboxes", lost.id+".json")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.path("state/cni/results")); err != nil {
		t.Fatal(err)
	}
	goes.Unmount()
	lost.Unmount()
	r.valid(stays)
	r.must("GC", nil)
	r.gone(nic + ".600")
	isVLAN(t, r.node, nic+".500", nic, 500)
	same(t, "holders", len(globbed(t, r.path("state/vlans/*/*"))), 1)
	r.must("CHECK", stays)
	r.must("DEL", stays)
	r.gone(nic + ".500")
}

// An ADD that fails removes the link, unless another pod uses it.
func TestR7RollBack(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	// one address
	r.nad("a", strings.Replace(r.vlanNetwork("macvlan", nic, 500, 11, ""), "10.11.0.0/24",
		"10.11.0.0/30", 1))
	r.nad("b", r.vlanNetwork("macvlan", nic, 600, 12, `,"mtu":1501`))
	first, second, third := r.pod("first", "a"), r.pod("second", "a"), r.pod("third", "b")
	r.add(first)
	r.fails("ADD", second, 999, "no address is free")
	isVLAN(t, r.node, nic+".500", nic, 500)
	r.must("CHECK", first)
	r.fails("ADD", third, 7, "field mtu 1501")
	r.gone(nic + ".600")
	r.must("DEL", first)
	r.clean(first, second, third)
	r.script("full", `[ "$CNI_COMMAND" != ADD ] || { echo '{"code":100,`+
		`"msg":"no address"}'; exit 1; }`)
	r.nad("c", strings.Replace(r.vlanNetwork("macvlan", nic, 500, 11, ""), "host-local", "full", 1))
	fourth := r.pod("fourth", "c")
	r.fails("ADD", fourth, 100, "no address")
	r.clean(fourth)
}

// What no VLAN can be is refused before anything is made; 0 is none.
func TestR7BadVLAN(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, vlan := range []int{-1, 4095, 5000} {
		for _, kind := range vlanKinds {
			r.nad("a", r.vlanNetwork(kind, nic, vlan, 11, ""))
			p := r.pod("p", "a")
			r.fails("ADD", p, 7, fmt.Sprintf("field vlan %d", vlan), "must be from 0 to 4094")
			r.must("DEL", p)
			r.clean(p)
		}
	}
	r.nad("a", r.vlanNetwork("macvlan", nic, 0, 11, ""))
	p := r.pod("p", "a")
	r.add(p)
	same(t, "holders", globbed(t, r.path("state/vlans/*")), []string(nil))
	r.must("DEL", p)
	r.clean(p)
}

// Called under its own name the plugin shares the links with Braid.
func TestR7Standalone(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	r.nad("a", r.vlanNetwork("macvlan", nic, 500, 11, ""))
	p, alone := r.pod("p", "a"), &pod{Namespace: nettest.New(t), id: "id-alone"}
	r.add(p)
	conf := strings.Replace(r.vlanNetwork("macvlan", nic, 500, 12, ""), "{", `{"name":"alone",`, 1)
	if _, failed := r.standalone("macvlan", "ADD", alone, conf); failed != nil {
		t.Fatal(failed)
	}
	r.must("DEL", p)
	isVLAN(t, r.node, nic+".500", nic, 500)
	if _, failed := r.standalone("macvlan", "DEL", alone, conf); failed != nil {
		t.Fatal(failed)
	}
	r.clean(p)
}

// vlanFaultRig is a node with a pod in a VLAN by two networks.
func vlanFaultRig(t *testing.T) (*rig, *pod) {
	t.Helper()
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	r.nad("a", r.vlanNetwork("macvlan", nic, 500, 11, ""))
	r.nad("b", r.vlanNetwork("macvlan", nic, 500, 12, ""))
	return r, r.pod("p", "a,b")
}

// eachVLANPoint has a subtest for each change of VLAN links or their holders among the points,
// which have to have these.
func (r *rig) eachVLANPoint(points []string, want []string, test func(r *rig, n int)) {
	r.t.Helper()
	for n, point := range points {
		name, ok := strings.CutPrefix(point, "vlans: ")
		if !ok {
			continue
		}
		want = slices.DeleteFunc(want, func(w string) bool { return w == name })
		r.t.Run(fmt.Sprintf("%02d %s", n, name), func(t *testing.T) {
			node := *r
			node.t = t
			test(&node, n)
		})
	}
	if len(want) > 0 {
		r.t.Errorf("no points %q among %q", want, points)
	}
}

// TestR7FaultAdd kills an ADD before each change. The runtime's DEL leaves nothing.
func TestR7FaultAdd(t *testing.T) {
	r, p := vlanFaultRig(t)
	points, failed := r.points("ADD", p)
	if failed != nil {
		t.Fatal(failed)
	}
	r.must("DEL", p)
	r.clean(p)
	r.eachVLANPoint(points, []string{"hold nic0.500", "add nic0.500", "complete nic0.500"},
		func(r *rig, n int) {
			r.killedAt("ADD", p, points, n)
			if points[n] == "vlans: hold nic0.500" { // in the middle of the write
				if err := os.MkdirAll(r.path("state/vlans/nic0.500"), 0o700); err != nil {
					t.Fatal(err)
				}
				r.write(filepath.Join("state", "vlans", ":new"), `{"netw`)
			}
			r.must("DEL", p)
			r.clean(p)
		})
}

// TestR7FaultDel kills a DEL before each change. The repeated DEL leaves nothing.
func TestR7FaultDel(t *testing.T) {
	r, p := vlanFaultRig(t)
	r.must("ADD", p)
	points, failed := r.points("DEL", p)
	if failed != nil {
		t.Fatal(failed)
	}
	r.clean(p)
	r.eachVLANPoint(points, []string{"remove nic0.500", "release nic0.500"}, func(r *rig, n int) {
		r.must("ADD", p)
		r.killedAt("DEL", p, points, n)
		r.must("DEL", p)
		r.clean(p)
	})
}

// TestR7StateIsLost: who uses a link is not known any more, so it stays, also after the DEL of
// those that are.
func TestR7StateIsLost(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	r := newRig(t)
	r.nad("a", r.vlanNetwork("macvlan", nic, 500, 11, ""))
	forgotten, p := r.pod("forgotten", "a"), r.pod("p", "a")
	r.add(forgotten)
	if err := os.RemoveAll(r.path("state")); err != nil {
		t.Fatal(err)
	}
	r.add(p)
	r.must("DEL", p)
	isVLAN(t, r.node, nic+".500", nic, 500)
	r.has(forgotten, "eth0", "net1")
}
