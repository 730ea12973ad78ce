package bridge_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/bridge"
)

// M17: a DEL without the network namespace removes the rules all the same.
func TestM17BridgeDelWithoutNetns(t *testing.T) {
	t.Parallel()
	gone := map[string]func(p *plugintest.Pod){
		"empty":     func(p *plugintest.Pod) { p.NetNS = "" },
		"unmounted": func(p *plugintest.Pod) { p.Unmount() },
	}
	left := func(t *testing.T, n *plugintest.Node) bool {
		t.Helper()
		got := rules(t, n.Host)
		return strings.Contains(got, "masquerade") || strings.Contains(got, "MASQUERADE") ||
			strings.Contains(got, "ether saddr")
	}
	for name, end := range gone {
		t.Run(name, func(t *testing.T) {
			n := node(t)
			c := conf{
				"type": "bridge", "ipMasq": true, "macspoofchk": true,
				"ipam": ipam("10.1.0.2/24", "fd00::2/64"),
			}
			p := n.Pod("a")
			add(t, p, c)
			if !left(t, n) {
				t.Fatal("no rules were made")
			}
			end(p)
			for range 2 {
				if err := p.Del(c); err != nil {
					t.Fatal(err)
				}
				if left(t, n) {
					t.Errorf("rules are left:\n%s", rules(t, n.Host))
				}
			}
		})
		t.Run("reference "+name, func(t *testing.T) {
			n := plugintest.New(t, plugintest.Reference{})
			c := conf{
				"type": "bridge", "ipMasq": true, "ipMasqBackend": "nftables", "macspoofchk": true,
				"ipam": conf{"type": "static", "addresses": []conf{{"address": "10.1.0.2/24"}}},
			}
			p := n.Pod("a")
			add(t, p, c)
			end(p)
			if err := p.Del(c); err != nil {
				t.Fatal(err)
			}
			if !left(t, n) {
				t.Error("the reference removes its rules by now")
			}
		})
	}
}

// Each step of ADD fails in turn, and nothing is left.
func TestRollBack(t *testing.T) {
	c := everything()
	nowhere := conf{"routes": []conf{{"dst": "10.9.0.0/16", "gw": "10.8.0.1"}}}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, n *plugintest.Node, p *plugintest.Pod)
		more    conf
		says    string
	}{
		"the name is taken": {prepare: func(_ *testing.T, _ *plugintest.Node, p *plugintest.Pod) {
			p.Bridge("net1")
		}, says: "net1"},
		"no such namespace": {
			prepare: func(_ *testing.T, _ *plugintest.Node, p *plugintest.Pod) {
				p.NetNS = "/run/no-such-netns"
			}, says: "/run/no-such-netns",
		},
		"MAC is none": {
			prepare: func(_ *testing.T, _ *plugintest.Node, p *plugintest.Pod) {
				p.Args = "IgnoreUnknown=1;MAC=01:00:5e:00:00:01"
			}, says: "01:00:5e:00:00:01",
		},
		"the bridge is none": {more: conf{"bridge": "nic0"}, says: "nic0"},
		"IPAM fails": {
			more: conf{"ipam": ipam("10.1.0.2/24").With(conf{"fail": "ADD"})},
			says: "as the test wants it",
		},
		"IPAM assigns no address": {more: conf{"ipam": ipam()}, says: "no address"},
		"no such IPAM": {
			more: conf{"ipam": conf{"type": "no-such-ipam"}},
			says: "no-such-ipam",
		},
		"an address twice": {
			more: conf{"ipam": ipam("10.1.0.2/24", "10.1.0.2/24")},
			says: "10.1.0.2/24",
		},
		"a route nowhere": {
			more: conf{"ipam": ipam("10.1.0.2/24").With(nowhere)},
			says: "10.8.0.1",
		},
		"another gateway":         {more: conf{"ipam": ipam("10.2.0.2/24")}, says: "10.2.0.1/24"},
		"no room for a gateway":   {more: conf{"ipam": ipam("10.2.0.2/32")}, says: "10.2.0.2/32"},
		"its own gateway":         {more: conf{"ipam": ipam("10.1.0.1/24")}, says: "10.1.0.1/24"},
		"gateway of other family": {more: conf{"ipam": ipam("10.1.0.2/24 via fd00::1")}, says: "fd00::1"},
		"spoof check": {prepare: func(t *testing.T, n *plugintest.Node, _ *plugintest.Pod) {
			misuse(t, n.Host, "bridge braid_spoofcheck")
		}, says: "braid_spoofcheck"},
		"masquerade": {prepare: func(t *testing.T, n *plugintest.Node, _ *plugintest.Pod) {
			misuse(t, n.Host, "inet braid_masquerade")
		}, says: "braid_masquerade"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := node(t)
			n.Host.Veth("nic0", nettest.New(t), "wire")
			other := n.Pod("+5")
			add(t, other, c)
			awaitRoutes(t, n.Host, "fd00::")
			p := n.Pod("a")
			if test.prepare != nil {
				test.prepare(t, n, p)
			}
			node, pod := state(t, n), p.Snapshot()
			_, err := p.Add(c.With(test.more))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("ADD: %v, want %q in it", err, test.says)
			}
			if got := state(t, n); got != node {
				t.Errorf("the node was\n%sand is\n%s", node, got)
			}
			if got := p.Snapshot(); got != pod {
				t.Errorf("the pod was\n%sand is\n%s", pod, got)
			}
		})
	}
}

// An ADD whose port does not come up fails as the reference's does, and leaves nothing, which the
// reference's does not.
func TestPortInErrorState(t *testing.T) {
	t.Parallel()
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Fatal(err)
	}
	for name, runner := range map[string]plugintest.Runner{
		"ours": ours(), "reference": plugintest.Reference{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := plugintest.New(t, runner)
			n.IPAM("addresses", `{"cniVersion":"1.0.0","ips":[{"address":"10.1.0.2/24"}]}`)
			n.Script("downs", fmt.Sprintf(`for link in $(%[1]s -o link show master br0 | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
	[ "$CNI_COMMAND" != ADD ] || %[1]s link set "$link" down
done
exec "${0%%/*}/addresses"
`, ip))
			c := conf{"type": "bridge", "bridge": "br0", "ipam": conf{"type": "downs"}}
			other := n.Pod("other")
			add(t, other, c.With(conf{"ipam": conf{"type": "addresses"}})) // which makes the bridge
			if err := other.Del(c.With(conf{"ipam": conf{"type": "addresses"}})); err != nil {
				t.Fatal(err)
			}
			p := n.Pod("a")
			node, pod := state(t, n)+n.Leases(), p.Snapshot()
			_, err := p.Add(c)
			if err == nil || !strings.Contains(err.Error(), "bridge port in error state") {
				t.Fatalf("ADD: %v", err)
			}
			if same := p.Snapshot() == pod && state(t, n)+n.Leases() == node; same != (name == "ours") {
				t.Errorf("nothing is left: %v\n%s\nthe node was\n%sand is\n%s",
					same, p.Snapshot(), node, state(t, n)+n.Leases())
			}
		})
	}
}

// misuse makes a table in which nothing can be done.
func misuse(t *testing.T, n *nettest.Namespace, table string) {
	t.Helper()
	nft(t, n, "delete table "+table+"; add table "+table+"; add chain "+table+
		" attachments { type filter hook input priority 0; }")
}

func nft(t *testing.T, n *nettest.Namespace, commands string) {
	t.Helper()
	if out, err := command(t, n, "nft", commands); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

func TestBadConfigurations(t *testing.T) {
	n := node(t)
	before := n.Host.Snapshot()
	for _, test := range []struct {
		conf conf
		says []string
	}{
		{conf{"hairpinMode": true, "promiscMode": true}, []string{"hairpinMode", "promiscMode"}},
		{
			conf{"disableContainerInterface": true, "ipam": ipam("10.1.0.2/24")},
			[]string{"disableContainerInterface", "ipam"},
		},
		{conf{"vlan": 4095}, []string{"vlan", "4095"}},
		{conf{"vlan": -1}, []string{"vlan", "-1"}},
		{conf{"vlan": "7"}, []string{"vlan", "7", "string"}},
		{conf{"vlanTrunk": []conf{{"id": 1}, {"id": 0}}}, []string{"vlanTrunk[1].id", "0"}},
		{conf{"vlanTrunk": []conf{{"id": 4095}}}, []string{"vlanTrunk[0].id", "4095"}},
		{conf{"vlanTrunk": []conf{{"minID": 0, "maxID": 3}}}, []string{"vlanTrunk[0].minID", "0"}},
		{conf{"vlanTrunk": []conf{{"minID": 7, "maxID": 5000}}}, []string{"vlanTrunk[0].maxID", "5000"}},
		{conf{"vlanTrunk": []conf{{"minID": 7, "maxID": 3}}}, []string{"vlanTrunk[0].minID", "7", "3"}},
		{conf{"vlanTrunk": []conf{{"minID": 7}}}, []string{"vlanTrunk[0].minID", "7", "maxID"}},
		{conf{"vlanTrunk": []conf{{"maxID": 7}}}, []string{"vlanTrunk[0].maxID", "7", "minID"}},
		{conf{"mtu": 67}, []string{"mtu", "67"}},
		{conf{"mtu": -1}, []string{"mtu", "-1"}},
		{conf{"mtu": 65536}, []string{"mtu", "65536"}},
		{conf{"bridge": "a-name-too-long0"}, []string{"bridge", "a-name-too-long0"}},
		{conf{"bridge": "../x"}, []string{"bridge", "../x"}},
		{conf{"bridge": "br%d"}, []string{"bridge", "br%d"}},
		{
			conf{"bridge": "twelve-chars", "vlan": 4000, "isGateway": true, "ipam": ipam("10.1.0.2/24")},
			[]string{"bridge", "twelve-chars.4000"},
		},
		{
			conf{"ipMasq": true, "ipMasqBackend": "ipfw", "ipam": ipam("10.1.0.2/24")},
			[]string{"ipMasqBackend", "ipfw"},
		},
		{conf{"args": conf{"cni": conf{"mac": "02:00"}}}, []string{"args.cni.mac", "02:00"}},
		{conf{"runtimeConfig": conf{"mac": "zz"}}, []string{"runtimeConfig.mac", "zz"}},
	} {
		p := n.Pod("a")
		_, err := p.Add(conf{"type": "bridge"}.With(test.conf))
		if plugintest.Code(err) != types.ErrInvalidNetworkConfig {
			t.Errorf("%s: code %d, %v", text(t, test.conf), plugintest.Code(err), err)
			continue
		}
		for _, want := range test.says {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v: lacks %q", text(t, test.conf), err, want)
			}
		}
		if p.HasLink("net1") {
			t.Errorf("%s: net1 is left", text(t, test.conf))
		}
	}
	if after := n.Host.Snapshot(); after != before {
		t.Errorf("left:\n%s", after)
	}
}

// iptables is the reference's, wherever it would be used.
func TestIPTablesIsNotOurs(t *testing.T) {
	n := node(t)
	c := conf{
		"type": "bridge", "ipMasqBackend": "iptables", "ipMasq": true, "ipam": ipam("10.1.0.2/24"),
	}
	_, err := n.Pod("a").Add(c)
	if plugintest.Code(err) != types.ErrInvalidNetworkConfig ||
		!strings.Contains(err.Error(), "ipMasqBackend") || n.Host.HasLink("cni0") {
		t.Errorf("ADD: %v", err)
	}
	add(t, n.Pod("+1"), c.With(conf{"ipMasq": false}))
	add(t, n.Pod("+2"), c.With(conf{"ipam": nil}))
	add(t, n.Pod("+3"), c.With(conf{"ipMasqBackend": "nftables"}))
}

// On a bridge without VLAN filtering, VLANs would keep nobody apart.
func TestVLANNeedsFiltering(t *testing.T) {
	n := node(t)
	n.Host.Bridge("br0")
	before := n.Host.Snapshot()
	for _, more := range []conf{{"vlan": 7}, {"vlanTrunk": []conf{{"id": 7}}}} {
		_, err := n.Pod("a").Add(conf{"type": "bridge", "bridge": "br0"}.With(more))
		if plugintest.Code(err) != types.ErrInvalidNetworkConfig ||
			!strings.Contains(err.Error(), "br0") {
			t.Errorf("%s: %v", text(t, more), err)
		}
	}
	if after := n.Host.Snapshot(); after != before {
		t.Errorf("left:\n%s", after)
	}
}

// DEL does all that it can do, and says what it could not.
func TestDelGoesOnPastErrors(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "ipMasq": true, "macspoofchk": true, "ipam": ipam("10.1.0.2/24")}
	p := n.Pod("a")
	before := p.Snapshot()
	add(t, p, c)
	err := p.Del(c.With(conf{"ipam": ipam().With(conf{"fail": "DEL"})}))
	if err == nil || !strings.Contains(err.Error(), "as the test wants it") {
		t.Errorf("DEL: %v", err)
	}
	if got := p.Snapshot(); got != before {
		t.Errorf("the pod has\n%s", got)
	}
	if got := rules(t, n.Host); got != "" {
		t.Errorf("rules are left:\n%s", got)
	}
}

// DEL does not need what the configuration says of rules, which may have changed since ADD.
func TestDelRemovesRulesOfAnEarlierConfiguration(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "ipMasq": true, "macspoofchk": true, "ipam": ipam("10.1.0.2/24")}
	p := n.Pod("a")
	add(t, p, c)
	if err := p.Del(c.With(conf{"ipMasq": false, "macspoofchk": false})); err != nil {
		t.Error(err)
	}
	if got := rules(t, n.Host); got != "" {
		t.Errorf("rules are left:\n%s", got)
	}
}

func TestGC(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "ipMasq": true, "macspoofchk": true, "ipam": ipam("10.1.0.2/24")}
	other := c.With(conf{"name": "other"})
	valid, stale, foreign := n.Pod("+1"), n.Pod("+2"), n.Pod("+3")
	add(t, valid, c)
	add(t, stale, c)
	add(t, foreign, other)
	second := n.Pod("+2")
	second.IfName = "net2"
	add(t, second, c.With(conf{"ipam": ipam("10.1.0.20/24")}))

	all := rules(t, n.Host)
	if err := n.GC(c, valid, stale, second); err != nil || rules(t, n.Host) != all {
		t.Errorf("GC with all valid: %v:\n%s", err, rules(t, n.Host))
	}
	for range 2 {
		if err := n.GC(c, valid, second); err != nil {
			t.Fatal(err)
		}
		got := rules(t, n.Host)
		for address, want := range map[string]bool{
			"10.1.0.3": true, "10.1.0.4": false, "10.1.0.5": true, "10.1.0.22": true,
		} {
			if strings.Contains(got, "saddr "+address+" ") != want {
				t.Errorf("rule of %s: want %t:\n%s", address, want, got)
			}
		}
		if got := strings.Count(got, "ether saddr"); got != 3 {
			t.Errorf("%d spoof checks, want 3", got)
		}
	}
	if err := n.GC(c); err != nil {
		t.Fatal(err)
	}
	got := rules(t, n.Host)
	if strings.Count(got, "ether saddr") != 1 || !strings.Contains(got, "10.1.0.5") {
		t.Errorf("the other network's rules:\n%s", got)
	}
	// The IPAM plugin is asked, and rules go even if it fails.
	if err := n.GC(other.With(conf{"ipam": ipam().With(conf{"fail": "GC"})})); err == nil {
		t.Error("no error of the IPAM plugin")
	}
	if got := rules(t, n.Host); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

func TestStatusIsTheIPAMPlugins(t *testing.T) {
	n := node(t)
	c := conf{"type": "bridge", "ipam": ipam()}
	if err := n.Status(c); err != nil {
		t.Error(err)
	}
	if err := n.Status(conf{"type": "bridge"}); err != nil {
		t.Error(err)
	}
	err := n.Status(c.With(conf{"ipam": ipam().With(conf{"fail": "STATUS"})}))
	if plugintest.Code(err) != types.ErrPluginNotAvailable {
		t.Errorf("STATUS: %v", err)
	}
}

// CHECK notices whatever is not as ADD left it.
func TestCheckNotices(t *testing.T) {
	t.Parallel()
	noticed(t, map[string]damage{
		"nothing":            {do: func(*testing.T, *plugintest.Pod) {}},
		"port not in bridge": {onPort((*netlink.Handle).LinkSetNoMaster), "not connected to bridge br0"},
		"port in other bridge": {func(t *testing.T, p *plugintest.Pod) {
			p.Node.Host.Bridge("br1")
			p.Node.Host.Master(hostLink(t, p).Attrs().Name, "br1")
		}, "not connected to bridge br0"},
		"port down": {onPort((*netlink.Handle).LinkSetDown), "is down"},
		"port renamed": {onPort(func(h *netlink.Handle, l netlink.Link) error {
			return h.LinkSetName(l, "renamed")
		}), "renamed"},
		"hairpin off": {onPort(func(h *netlink.Handle, l netlink.Link) error {
			return h.LinkSetHairpin(l, false)
		}), "hairpin"},
		"isolated off": {onPort(func(h *netlink.Handle, l netlink.Link) error {
			return h.LinkSetIsolated(l, false)
		}), "isolated"},
		"bridge down": {func(_ *testing.T, p *plugintest.Pod) { p.Node.Host.Down("br0") }, "br0"},
		"bridge's MAC": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, p.Node.Host.Netlink().
				LinkSetHardwareAddr(p.Node.Host.Link("br0"), []byte{2, 0, 0, 0, 0, 1}))
		}, "br0"},
		"bridge gone": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, p.Node.Host.Netlink().LinkDel(p.Node.Host.Link("br0")))
		}, "br0"},
		"gateway's address": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, delAddr(p.Node.Host, "br0", "fd00::1/64"))
		}, "fd00::1/64"},
		"masquerade": {func(t *testing.T, p *plugintest.Pod) {
			nft(t, p.Node.Host, "flush chain inet braid_masquerade attachments")
		}, "braid_masquerade"},
		"spoof check": {func(t *testing.T, p *plugintest.Pod) {
			nft(t, p.Node.Host, "flush chain bridge braid_spoofcheck attachments")
		}, "braid_spoofcheck"},
		"jump": {func(t *testing.T, p *plugintest.Pod) {
			nft(t, p.Node.Host, "flush chain bridge braid_spoofcheck prerouting")
		}, "braid_spoofcheck"},
	})
	c := checkedConf()
	t.Run("IPAM", func(t *testing.T) {
		p := node(t).Pod("a")
		add(t, p, c)
		if err := p.Check(c.With(conf{"ipam": ipam().With(conf{"fail": "CHECK"})})); err == nil {
			t.Error("no error of the IPAM plugin")
		}
	})
	t.Run("no prevResult", func(t *testing.T) {
		if err := node(t).Pod("a").Check(c); plugintest.Code(err) != types.ErrInvalidNetworkConfig {
			t.Errorf("CHECK: %v", err)
		}
	})
}

func TestCheckNoticesInThePod(t *testing.T) {
	t.Parallel()
	noticed(t, map[string]damage{
		"pod's address": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, delAddr(p.Namespace, "net1", "fd00::2/64"))
		}, "fd00::2/64"},
		"pod's route": {func(t *testing.T, p *plugintest.Pod) {
			_, err := command(t, p.Namespace, "ip", "route", "del", "172.16.0.0/12")
			fail(t, err)
		}, "172.16.0.0/12"},
		"pod's link down": {func(_ *testing.T, p *plugintest.Pod) { p.Down("net1") }, "is down"},
		"pod's link gone": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, p.Netlink().LinkDel(p.Link("net1")))
		}, "net1"},
		"pod's MAC": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, p.Netlink().LinkSetHardwareAddr(p.Link("net1"), []byte{2, 0, 0, 0, 0, 1}))
		}, "MAC"},
		"pod's link another": {func(t *testing.T, p *plugintest.Pod) {
			fail(t, p.Netlink().LinkDel(p.Link("net1")))
			p.Bridge("net1")
		}, "not a veth"},
	})
}

// damage is what is done after an ADD, and what a CHECK says of it.
type damage struct {
	do   func(t *testing.T, p *plugintest.Pod)
	says string
}

func checkedConf() conf {
	return conf{
		"type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true, "macspoofchk": true,
		"hairpinMode": true, "portIsolation": true,
		"ipam": ipam("10.1.0.2/24", "fd00::2/64").With(conf{"routes": []conf{{"dst": "172.16.0.0/12"}}}),
	}
}

// noticed fails unless a CHECK notices each damage, and changes nothing.
func noticed(t *testing.T, cases map[string]damage) {
	t.Helper()
	c := checkedConf()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			p := node(t).Pod("a")
			// What the kernel does with new addresses is done before anything is compared.
			write(t, p.Node.Host, "ipv6/conf/default/accept_dad", "0")
			add(t, p, c)
			awaitRoutes(t, p.Node.Host, "fd00::")
			test.do(t, p)
			before := state(t, p.Node) + p.Snapshot()
			err := p.Check(c)
			if test.says == "" && err != nil ||
				test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("CHECK: %v, want %q in it", err, test.says)
			}
			if after := state(t, p.Node) + p.Snapshot(); after != before {
				t.Error("CHECK has changed something")
			}
		})
	}
}

// onPort is a change of the node's end of the pod's link.
func onPort(change func(*netlink.Handle, netlink.Link) error) func(*testing.T, *plugintest.Pod) {
	return func(t *testing.T, p *plugintest.Pod) {
		fail(t, change(p.Node.Host.Netlink(), hostLink(t, p)))
	}
}

func delAddr(n *nettest.Namespace, link, cidr string) error {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return n.Netlink().AddrDel(n.Link(link), a)
}

func fail(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCheckNoticesVLANs(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan")
	for name, damage := range map[string]func(h *netlink.Handle, l netlink.Link) error{
		"missing": func(h *netlink.Handle, l netlink.Link) error {
			return h.BridgeVlanDel(l, 101, false, false, false, true)
		},
		"tagged": func(h *netlink.Handle, l netlink.Link) error {
			return h.BridgeVlanAdd(l, 100, false, false, false, true)
		},
		"another": func(h *netlink.Handle, l netlink.Link) error {
			return h.BridgeVlanAdd(l, 102, false, false, false, true)
		},
	} {
		n := node(t)
		p := n.Pod("a")
		c := conf{"type": "bridge", "vlan": 100, "vlanTrunk": []conf{{"id": 101}}}
		add(t, p, c)
		if err := p.Check(c); err != nil {
			t.Fatal(err)
		}
		if err := damage(n.Host.Netlink(), hostLink(t, p)); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(c); err == nil || !strings.Contains(err.Error(), "VLAN") {
			t.Errorf("%s: CHECK: %v", name, err)
		}
	}
}

func TestNothingOfThePodIsOnTheNodeAfterwards(t *testing.T) {
	t.Parallel()
	n := node(t)
	c := everything()
	first := n.Pod("+100")
	add(t, first, c)
	awaitRoutes(t, n.Host, "fd00::")
	before := state(t, n)
	for i := range 20 {
		p := n.Pod(fmt.Sprintf("+%d", i))
		add(t, p, c)
		if err := p.Del(c); err != nil {
			t.Fatal(err)
		}
		nettest.NoThreadIn(t, p.Namespace, n.Host)
	}
	if after := state(t, n); after != before {
		t.Errorf("the node was\n%sand is\n%s", before, after)
	}
}

// withoutVLANs are configurations that have every key together with withVLANs.
func withoutVLANs() []conf {
	return []conf{
		everything().With(conf{
			"isDefaultGateway": true, "forceAddress": true, "ipMasqBackend": "nftables", "mtu": 1400,
			"hairpinMode": true, "enabledad": false,
			"portIsolation": true, "ipam": ipam("10.1.0.2/24"), "dns": conf{"domain": "x"},
			"runtimeConfig": conf{"mac": "02:00:00:00:00:07"},
		}),
		{
			"type": "bridge", "bridge": "br1", "promiscMode": true, "disableContainerInterface": true,
			"macspoofchk": true,
		},
	}
}

func withVLANs() []conf {
	return []conf{
		{
			"type": "bridge", "bridge": "br2", "vlan": 100, "vlanTrunk": []conf{{"id": 7}},
			"preserveDefaultVlan": true, "isGateway": true,
			"ipam": ipam("10.2.0.2/24"),
		},
	}
}

// DEL removes what ADD has made, whatever key has gone from the configuration since. The addresses
// are the IPAM plugin's: without the key ipam nobody knows which that is.
func TestDelWithoutEachKey(t *testing.T) {
	plugintest.WithoutEachKey[bridge.Conf](t, "", withoutVLANs(), delWithout, withVLANs()...)
}

// The user-mode kernel, which has VLANs where this one has not, has no NAT.
func TestDelWithoutEachKeyOfVLANs(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan")
	plugintest.WithoutEachKey[bridge.Conf](t, "", withVLANs(), delWithout, withoutVLANs()...)
}

func delWithout(t *testing.T, _ string, with, without conf) {
	n := node(t)
	first := with.With(conf{"runtimeConfig": conf{}})
	add(t, n.Pod("+5"), first)
	p := n.Pod("a")
	node, pod := state(t, n), p.Snapshot()
	add(t, p, with)
	if state(t, n) == node {
		t.Fatal("ADD changes nothing")
	}
	p.Prev = nil
	if err := p.Del(without); err != nil {
		t.Error(err)
	}
	if got := state(t, n); got != node {
		t.Errorf("the node was\n%sand is\n%s", node, got)
	}
	if got := p.Snapshot(); got != pod {
		t.Errorf("the pod was\n%sand is\n%s", pod, got)
	}
}
