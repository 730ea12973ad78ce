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
func (h *host) vlanNetwork(kind, master string, vlan, net int, extra string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","type":%q,"master":%q,"vlan":%d%s,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/24"}}`, kind, master, vlan, extra, h.path("leases"), net)
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
func (h *host) gone(name string) {
	h.t.Helper()
	if h.node.HasLink(name) {
		h.t.Errorf("%s is still there", name)
	}
}

// The first attachment makes the link and the last removes it, whichever network it is of.
func TestR7VLANLinkIsShared(t *testing.T) {
	for _, kind := range vlanKinds {
		t.Run(kind, func(t *testing.T) {
			nettest.NeedsLink(t, "vlan", kind)
			h := newHost(t)
			h.nad("a", h.vlanNetwork(kind, nic, 500, 11, ""))
			h.nad("b", h.vlanNetwork(kind, nic, 500, 12, ""))
			h.nad("c", h.vlanNetwork(kind, nic, 4094, 13, ""))
			one, two := h.pod("one", "a,a,c"), h.pod("two", "b")
			h.add(one)
			h.add(two)
			isVLAN(t, h.node, nic+".500", nic, 500)
			isVLAN(t, h.node, nic+".4094", nic, 4094)
			same(t, "IPv6 of the node in the VLAN",
				sysctlOf(t, h.node, "net/ipv6/conf/"+nic+".500/disable_ipv6"), "1")
			for _, p := range []*pod{one, two} {
				if got := p.Link("net1").Attrs().ParentIndex; got != h.node.Link(nic+".500").Attrs().Index {
					t.Errorf("pod %s is not on the VLAN's link", p.name)
				}
				h.must("CHECK", p)
			}
			h.must("DEL", one)
			h.gone(nic + ".4094")
			isVLAN(t, h.node, nic+".500", nic, 500)
			h.must("CHECK", two)
			two.Unmount()
			for range 2 {
				h.must("DEL", two)
			}
			h.clean(one)
		})
	}
}

// Packets have the VLAN's tag on the wire.
func TestR7FramesAreTagged(t *testing.T) {
	for _, kind := range vlanKinds {
		t.Run(kind, func(t *testing.T) {
			nettest.NeedsLink(t, "vlan", kind)
			h := newHost(t)
			far := nettest.New(t)
			h.node.Veth("trunk", far, "wire")
			far.Add(&netlink.Vlan{
				LinkAttrs: netlink.LinkAttrs{Name: "wire.7", ParentIndex: far.Link("wire").Attrs().Index},
				VlanId:    7,
			})
			far.Up("wire.7")
			far.Addr("wire.7", "10.11.0.200/24")
			h.nad("a", h.vlanNetwork(kind, "trunk", 7, 11, ""))
			p := h.pod("p", "a")
			h.add(p)
			reach(t, p, "10.11.0.200", &pod{Namespace: far})
			h.must("DEL", p)
			h.gone("trunk.7")
		})
	}
}

// A link for the VLAN that an administrator made is used, under whatever name, and stays.
func TestR7LinkOfOthersIsUsedAndStays(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	for _, name := range []string{nic + ".500", "storage"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.node.Add(&netlink.Vlan{
				LinkAttrs: netlink.LinkAttrs{Name: name, ParentIndex: h.node.Link(nic).Attrs().Index},
				VlanId:    500,
			})
			h.node.Up(name)
			before := h.node.Link(name).Attrs()
			h.nad("a", h.vlanNetwork("macvlan", nic, 500, 11, ""))
			p := h.pod("p", "a")
			h.add(p)
			same(t, "parent", p.Link("net1").Attrs().ParentIndex, before.Index)
			h.must("CHECK", p)
			h.must("DEL", p)
			after := h.node.Link(name).Attrs()
			same(t, "index and alias", fmt.Sprint(after.Index, after.Alias),
				fmt.Sprint(before.Index, before.Alias))
			same(t, "holders", globbed(t, h.path("state/vlans/*")), []string(nil))
		})
	}
}

// A name that is another link's is no VLAN, and says so.
func TestR7NameOfAnotherLink(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	h.node.Bridge(nic + ".500")
	h.nad("a", h.vlanNetwork("macvlan", nic, 500, 11, ""))
	p := h.pod("p", "a")
	h.fails("ADD", p, 999, nic+".500 exists and is not VLAN 500 of "+nic, "rename that interface")
	h.must("DEL", p)
	if !h.node.HasLink(nic + ".500") {
		t.Error("it was removed")
	}
	same(t, "holders", globbed(t, h.path("state/vlans/*")), []string(nil))
}

// A name that would be too long is a derived one, the same for all.
func TestR7LongNameOfTheMaster(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	const master = "enp175s0f0np1x"
	h.node.Veth(master, nettest.New(t), "wire")
	h.nad("a", h.vlanNetwork("macvlan", master, 500, 11, ""))
	h.nad("b", h.vlanNetwork("macvlan", master, 500, 12, ""))
	p := h.pod("p", "a,b")
	h.add(p)
	var links []string
	for line := range strings.Lines(h.node.Links()) {
		if name := strings.Fields(line)[1]; strings.HasSuffix(name, ".500") {
			links = append(links, name)
		}
	}
	if len(links) != 1 || !strings.HasPrefix(links[0], "enp1") {
		t.Fatalf("links %q, want one whose name begins as the master's", links)
	}
	isVLAN(t, h.node, links[0], master, 500)
	h.must("CHECK", p)
	h.must("DEL", p)
	h.gone(links[0])
}

// With linkInContainer the link is in the pod, where its attachments share it.
func TestR7LinkInContainer(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	h.nad("a", h.vlanNetwork("macvlan", "eth0", 500, 11, `,"linkInContainer":true`))
	p, other := h.pod("p", "a,a"), h.pod("other", "a")
	h.add(p)
	h.add(other)
	h.has(p, "eth0", "eth0.500", "net1", "net2")
	h.has(other, "eth0", "eth0.500", "net1")
	h.gone("eth0.500")
	h.must("CHECK", p)
	h.must("DEL", p)
	other.Unmount()
	h.must("DEL", other)
	h.clean(p)
}

// GC removes what attachments had that are gone, of its own network alone.
func TestR7GC(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	h.nad("a", h.vlanNetwork("macvlan", nic, 500, 11, ""))
	h.nad("b", h.vlanNetwork("macvlan", nic, 500, 12, ""))
	h.nad("c", h.vlanNetwork("macvlan", nic, 600, 13, ""))
	stays, goes, lost := h.pod("stays", "a"), h.pod("goes", "b,c"), h.pod("lost", "a,c")
	for _, p := range []*pod{stays, goes, lost} {
		h.add(p)
	}
	// Braid's own record is lost, too: the plugins' GC is all that is left.
	if err := os.Remove(h.path("state/sandboxes", lost.id+".json")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(h.path("state/cni/results")); err != nil {
		t.Fatal(err)
	}
	goes.Unmount()
	lost.Unmount()
	h.valid(stays)
	h.must("GC", nil)
	h.gone(nic + ".600")
	isVLAN(t, h.node, nic+".500", nic, 500)
	same(t, "holders", len(globbed(t, h.path("state/vlans/*/*"))), 1)
	h.must("CHECK", stays)
	h.must("DEL", stays)
	h.gone(nic + ".500")
}

// An ADD that fails removes the link, unless another pod uses it.
func TestR7RollBack(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	// one address
	h.nad("a", strings.Replace(h.vlanNetwork("macvlan", nic, 500, 11, ""), "10.11.0.0/24",
		"10.11.0.0/30", 1))
	h.nad("b", h.vlanNetwork("macvlan", nic, 600, 12, `,"mtu":1501`))
	first, second, third := h.pod("first", "a"), h.pod("second", "a"), h.pod("third", "b")
	h.add(first)
	h.fails("ADD", second, 999, "no address is free")
	isVLAN(t, h.node, nic+".500", nic, 500)
	h.must("CHECK", first)
	h.fails("ADD", third, 7, "field mtu 1501")
	h.gone(nic + ".600")
	h.must("DEL", first)
	h.clean(first, second, third)
	h.script("full", `[ "$CNI_COMMAND" != ADD ] || { echo '{"code":100,`+
		`"msg":"no address"}'; exit 1; }`)
	h.nad("c", strings.Replace(h.vlanNetwork("macvlan", nic, 500, 11, ""), "host-local", "full", 1))
	fourth := h.pod("fourth", "c")
	h.fails("ADD", fourth, 100, "no address")
	h.clean(fourth)
}

// What no VLAN can be is refused before anything is made; 0 is none.
func TestR7BadVLAN(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, vlan := range []int{-1, 4095, 5000} {
		for _, kind := range vlanKinds {
			h.nad("a", h.vlanNetwork(kind, nic, vlan, 11, ""))
			p := h.pod("p", "a")
			h.fails("ADD", p, 7, fmt.Sprintf("field vlan %d", vlan), "must be from 0 to 4094")
			h.must("DEL", p)
			h.clean(p)
		}
	}
	h.nad("a", h.vlanNetwork("macvlan", nic, 0, 11, ""))
	p := h.pod("p", "a")
	h.add(p)
	same(t, "holders", globbed(t, h.path("state/vlans/*")), []string(nil))
	h.must("DEL", p)
	h.clean(p)
}

// Called under its own name the plugin shares the links with Braid.
func TestR7Standalone(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	h.nad("a", h.vlanNetwork("macvlan", nic, 500, 11, ""))
	p, alone := h.pod("p", "a"), &pod{Namespace: nettest.New(t), id: "id-alone"}
	h.add(p)
	conf := strings.Replace(h.vlanNetwork("macvlan", nic, 500, 12, ""), "{", `{"name":"alone",`, 1)
	if _, failed := h.standalone("macvlan", "ADD", alone, conf); failed != nil {
		t.Fatal(failed)
	}
	h.must("DEL", p)
	isVLAN(t, h.node, nic+".500", nic, 500)
	if _, failed := h.standalone("macvlan", "DEL", alone, conf); failed != nil {
		t.Fatal(failed)
	}
	h.clean(p)
}

// vlanFaultHost is a node with a pod in a VLAN by two networks.
func vlanFaultHost(t *testing.T) (*host, *pod) {
	t.Helper()
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	h.nad("a", h.vlanNetwork("macvlan", nic, 500, 11, ""))
	h.nad("b", h.vlanNetwork("macvlan", nic, 500, 12, ""))
	return h, h.pod("p", "a,b")
}

// eachVLANPoint has a subtest for each change of VLAN links or their holders among the points,
// which have to have these.
func (h *host) eachVLANPoint(points []string, want []string, test func(h *host, n int)) {
	h.t.Helper()
	for n, point := range points {
		name, ok := strings.CutPrefix(point, "vlans: ")
		if !ok {
			continue
		}
		want = slices.DeleteFunc(want, func(w string) bool { return w == name })
		h.t.Run(fmt.Sprintf("%02d %s", n, name), func(t *testing.T) {
			node := *h
			node.t = t
			test(&node, n)
		})
	}
	if len(want) > 0 {
		h.t.Errorf("no points %q among %q", want, points)
	}
}

// TestR7FaultAdd kills an ADD before each change. The runtime's DEL leaves nothing.
func TestR7FaultAdd(t *testing.T) {
	h, p := vlanFaultHost(t)
	points, failed := h.points("ADD", p)
	if failed != nil {
		t.Fatal(failed)
	}
	h.must("DEL", p)
	h.clean(p)
	h.eachVLANPoint(points, []string{"hold nic0.500", "add nic0.500", "complete nic0.500"},
		func(h *host, n int) {
			h.killedAt("ADD", p, points, n)
			if points[n] == "vlans: hold nic0.500" { // in the middle of the write
				if err := os.MkdirAll(h.path("state/vlans/nic0.500"), 0o700); err != nil {
					t.Fatal(err)
				}
				h.write(filepath.Join("state", "vlans", ":new"), `{"netw`)
			}
			h.must("DEL", p)
			h.clean(p)
		})
}

// TestR7FaultDel kills a DEL before each change. The repeated DEL leaves nothing.
func TestR7FaultDel(t *testing.T) {
	h, p := vlanFaultHost(t)
	h.must("ADD", p)
	points, failed := h.points("DEL", p)
	if failed != nil {
		t.Fatal(failed)
	}
	h.clean(p)
	h.eachVLANPoint(points, []string{"remove nic0.500", "release nic0.500"}, func(h *host, n int) {
		h.must("ADD", p)
		h.killedAt("DEL", p, points, n)
		h.must("DEL", p)
		h.clean(p)
	})
}

// TestR7StateIsLost: who uses a link is not known any more, so it stays, also after the DEL of
// those that are.
func TestR7StateIsLost(t *testing.T) {
	nettest.NeedsLink(t, "vlan", "macvlan")
	h := newHost(t)
	h.nad("a", h.vlanNetwork("macvlan", nic, 500, 11, ""))
	forgotten, p := h.pod("forgotten", "a"), h.pod("p", "a")
	h.add(forgotten)
	if err := os.RemoveAll(h.path("state")); err != nil {
		t.Fatal(err)
	}
	h.add(p)
	h.must("DEL", p)
	isVLAN(t, h.node, nic+".500", nic, 500)
	h.has(forgotten, "eth0", "net1")
}
