package bridge_test

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

func TestPodsReachEachOtherAndTheGateway(t *testing.T) {
	t.Parallel()
	n := node(t)
	c := conf{
		"type": "bridge", "isGateway": true, "macspoofchk": true,
		"ipam": ipam("10.1.0.2/24", "fd00::2/64"),
	}
	a, b := n.Pod("a"), n.Pod("+5")
	add(t, a, c)
	add(t, b, c)
	for _, family := range []struct{ a, b, gateway string }{
		{"10.1.0.2", "10.1.0.7", "10.1.0.1"}, {"fd00::2", "fd00::7", "fd00::1"},
	} {
		inA, inB := listen(t, a.Namespace, net.JoinHostPort(family.a, "0")), listen(t, b.Namespace,
			net.JoinHostPort(family.b, "0"))
		talk(t, inA, inB)
		talk(t, inB, inA)
		// Duplicate address detection of the bridge's own address takes its time.
		awaitAddr(t, n.Host, family.gateway)
		onNode := listen(t, n.Host, net.JoinHostPort(family.gateway, "0"))
		talk(t, inA, onNode)
		talk(t, onNode, inB)
	}
}

func awaitAddr(t *testing.T, n *nettest.Namespace, address string) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		addrs, err := n.Netlink().AddrList(nil, netlink.FAMILY_ALL)
		for _, a := range addrs {
			if err == nil && a.IP.String() == address && a.Flags&unix.IFA_F_TENTATIVE == 0 {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("address %s cannot be used", address)
		}
	}
}

// With ipMasq the world sees the node's address, other pods see the pod's, and without it the world
// does, too.
func TestIPMasq(t *testing.T) {
	t.Parallel()
	n := node(t)
	world := nettest.New(t)
	n.Host.Veth("nic0", world, "wire")
	n.Host.Addr("nic0", "192.0.2.1/24", "2001:db8::1/64")
	world.Addr("wire", "192.0.2.2/24", "2001:db8::2/64")
	world.Route("10.1.0.0/24", "192.0.2.1", "wire", 0)
	world.Route("fd00::/64", "2001:db8::1", "wire", 0)
	c := conf{
		"type": "bridge", "isDefaultGateway": true, "ipMasq": true,
		"ipam": ipam("10.1.0.2/24", "fd00::2/64"),
	}
	a, b, plain := n.Pod("a"), n.Pod("+5"), n.Pod("+7")
	add(t, a, c)
	add(t, b, c)
	add(t, plain, c.With(conf{"ipMasq": false}))
	for _, family := range []struct{ a, b, plain, node, world string }{
		{"10.1.0.2", "10.1.0.7", "10.1.0.9", "192.0.2.1", "192.0.2.2"},
		{"fd00::2", "fd00::7", "fd00::9", "2001:db8::1", "2001:db8::2"},
	} {
		out := listen(t, world, net.JoinHostPort(family.world, "0"))
		inA, inB := listen(t, a.Namespace, net.JoinHostPort(family.a, "0")), listen(t, b.Namespace,
			net.JoinHostPort(family.b, "0"))
		if from := talk(t, inA, out); from != family.node {
			t.Errorf("the world sees %s, want %s", from, family.node)
		}
		if from := talk(t, inA, inB); from != family.a {
			t.Errorf("another pod sees %s, want %s", from, family.a)
		}
		from := talk(t, listen(t, plain.Namespace, net.JoinHostPort(family.plain, "0")), out)
		if from != family.plain {
			t.Errorf("without ipMasq the world sees %s, want %s", from, family.plain)
		}
	}
}

func TestMACSpoofCheckDropsFrames(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "ipam": ipam("10.1.0.2/24")}
	checked, free, other := n.Pod("a"), n.Pod("+1"), n.Pod("+2")
	add(t, checked, c.With(conf{"macspoofchk": true}))
	add(t, free, c)
	add(t, other, c)
	atOther := tap(t, other.Namespace, "net1")
	foreign := net.HardwareAddr{2, 0, 0, 0, 0, 99}
	w := tap(t, free.Namespace, "net1")
	w.send(foreign, broadcast, "free, foreign MAC")
	atOther.expect("free, foreign MAC")
	w = tap(t, checked.Namespace, "net1")
	w.send(foreign, broadcast, "checked, foreign MAC")
	w.send(w.mac, broadcast, "checked, own MAC")
	atOther.expect("checked, own MAC")
}

func TestPortIsolationKeepsPodsApart(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "isGateway": true, "ipam": ipam("10.1.0.2/24")}
	a, b, open := n.Pod("a"), n.Pod("+1"), n.Pod("+2")
	add(t, a, c.With(conf{"portIsolation": true}))
	add(t, b, c.With(conf{"portIsolation": true}))
	add(t, open, c)
	atA, atB := tap(t, a.Namespace, "net1"), tap(t, b.Namespace, "net1")
	atOpen, atNode := tap(t, open.Namespace, "net1"), tap(t, n.Host, "cni0")
	atA.send(atA.mac, broadcast, "isolated")
	atOpen.expect("isolated")
	atNode.expect("isolated")
	atOpen.send(atOpen.mac, broadcast, "open")
	atB.expect("open")
	atNode.send(atNode.mac, broadcast, "gateway")
	atB.expect("gateway")
}

func TestVLANsKeepPodsApart(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan", "vlan")
	n := node(t)
	c := conf{"type": "bridge"}
	pods := map[string]*plugintest.Pod{}
	at := map[string]*wire{}
	for _, pod := range []struct {
		name string
		more conf
	}{
		{"10", conf{"vlan": 10}},
		{"other10", conf{"vlan": 10}},
		{"20", conf{"vlan": 20}},
		{"keep", conf{"vlan": 20, "preserveDefaultVlan": true}},
		{"trunk", conf{"vlanTrunk": []conf{{"minID": 9, "maxID": 11}, {"id": 20}}}},
		{"plain", conf{}},
	} {
		pods[pod.name] = n.Pod(pod.name)
		add(t, pods[pod.name], c.With(pod.more))
		at[pod.name] = tap(t, pods[pod.name].Namespace, "net1")
		if err := pods[pod.name].Check(c.With(pod.more)); err != nil {
			t.Errorf("%s: %v", pod.name, err)
		}
	}
	trunk := pods["trunk"]
	for _, id := range []int{10, 20, 30} {
		name := "net1." + strconv.Itoa(id)
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = name, trunk.Link("net1").Attrs().Index
		trunk.Namespace.Add(&netlink.Vlan{LinkAttrs: attrs, VlanId: id})
		trunk.Up(name)
		at[name] = tap(t, trunk.Namespace, name)
	}
	send := func(from string) { at[from].send(at[from].mac, broadcast, from) }

	send("10")
	at["other10"].expect("10")
	at["net1.10"].expect("10")
	send("20")
	at["net1.20"].expect("20")
	at["keep"].expect("20")
	// The trunk's untagged frames are of VLAN 1, the bridge's default. The wire would hear tagged
	// ones, too.
	at["trunk"] = tap(t, trunk.Namespace, "net1")
	send("plain")
	at["trunk"].expect("plain")
	at["keep"].expect("plain")
	send("net1.30")
	send("net1.10")
	at["10"].expect("net1.10")
	at["other10"].expect("net1.10")
	send("keep")
	at["20"].expect("keep")
	send("trunk")
	at["plain"].expect("trunk")
}

func TestVLANGateway(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan")
	n := node(t)
	c := conf{
		"type": "bridge", "bridge": "br0", "vlan": 100, "isGateway": true, "ipam": ipam("10.1.0.2/24"),
	}
	a, other := n.Pod("a"), n.Pod("+5")
	result := add(t, a, c)
	gateway := n.Host.Link("br0.100").Attrs()
	if len(result.Interfaces) != 4 || result.Interfaces[3].Name != "br0.100" ||
		result.Interfaces[3].Mac != gateway.HardwareAddr.String() {
		t.Fatalf("result %s", a.Prev)
	}
	add(t, other, c.With(conf{"vlan": 200, "ipam": ipam("10.2.0.2/24")}))
	has(t, n.Host, "addr br0.100 10.1.0.1/24", "addr br0.200 10.2.0.1/24")
	inA, onNode := listen(t, a.Namespace, "10.1.0.2:0"), listen(t, n.Host, "10.1.0.1:0")
	talk(t, inA, onNode)
	talk(t, onNode, inA)
	if err := a.Check(c); err != nil {
		t.Error(err)
	}
	// A second pod finds everything there.
	before := state(t, n)
	second := n.Pod("+1")
	add(t, second, c)
	if err := second.Del(c); err != nil {
		t.Fatal(err)
	}
	if after := state(t, n); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
}

// read reads a parameter below /proc/sys/net in a namespace.
func read(t *testing.T, n *nettest.Namespace, key string) string {
	t.Helper()
	var value []byte
	err := n.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/net/" + key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

func write(t *testing.T, n *nettest.Namespace, key, value string) {
	t.Helper()
	if err := n.Run(func() error {
		return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
	}); err != nil {
		t.Fatal(err)
	}
}

// M22: a pod that says on the bridge that it is a router does not become the node's. That its
// advertisements arrive, the kernel's counter says, and what would come of it otherwise, the end of
// the test.
func TestM22PodIsNotTheNodesRouter(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]conf{
		"bridge": {}, "existing bridge": {},
		"VLAN": {"vlan": 100, "isGateway": true, "ipam": ipam("10.1.0.2/24")},
	} {
		t.Run(name, func(t *testing.T) {
			n := node(t)
			link := "br0"
			switch name {
			case "VLAN":
				nettest.NeedsLink(t, "bridge-vlan")
				link = "br0.100"
			case "existing bridge":
				n.Host.Bridge(link)
			}
			p := n.Pod("a")
			add(t, p, conf{"type": "bridge", "bridge": "br0"}.With(more))
			for _, l := range []string{"br0", link, hostLink(t, p).Attrs().Name} {
				if got := read(t, n.Host, "ipv6/conf/"+l+"/accept_ra"); got != "0" {
					t.Errorf("%s has accept_ra %s", l, got)
				}
			}
			advertise(t, n.Host, p.Namespace)
			if routes := n.Host.Routes(); strings.Contains(routes, "proto ra") {
				t.Errorf("the pod is a router of the node:\n%s", routes)
			}
			write(t, n.Host, "ipv6/conf/"+link+"/accept_ra", "1")
			for end := time.Now().Add(within); !strings.Contains(n.Host.Routes(), "proto ra"); {
				if time.Now().After(end) {
					t.Fatal("the advertisements have no effect even where they are allowed to: the test shows " +
						"nothing")
				}
				advertise(t, n.Host, p.Namespace)
			}
		})
	}
	// The interface of the node in the VLAN is the one that the reference forgets.
	t.Run("reference", func(t *testing.T) {
		nettest.NeedsLink(t, "bridge-vlan")
		n := plugintest.New(t, plugintest.Reference{})
		p := n.Pod("a")
		add(t, p, conf{"type": "bridge", "bridge": "br0", "vlan": 100, "isGateway": true, "ipam": conf{
			"type": "static", "addresses": []conf{{"address": "10.1.0.2/24"}},
		}})
		for end := time.Now().Add(within); !strings.Contains(n.Host.Routes(), "proto ra"); {
			if time.Now().After(end) {
				t.Fatal("the reference does not let a pod become the node's router any more")
			}
			advertise(t, n.Host, p.Namespace)
		}
	})
}

// advertise sends router advertisements from net1 of a pod until the node has got another one.
func advertise(t *testing.T, host, pod *nettest.Namespace) {
	t.Helper()
	before := received(t, host)
	for end := time.Now().Add(within); received(t, host) == before; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the node gets no router advertisement")
		}
		pod.Advertise("net1")
	}
}

// received is the number of router advertisements that a node has got.
func received(t *testing.T, n *nettest.Namespace) string {
	t.Helper()
	out, err := command(t, n, "cat", "/proc/net/snmp6")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(out, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 2 && fields[0] == "Icmp6InRouterAdvertisements" {
			return fields[1]
		}
	}
	t.Fatal("no counter of router advertisements")
	return ""
}
