package main

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
)

// tenantHost is a node with an uplink, in both families and with a table of its own, on which a pod
// of the operator's runs.
func tenantHost(t *testing.T) (h *host, bystander *pod) {
	t.Helper()
	h, bystander = hostileHost(t)
	h.wire.Up("wire")
	h.node.Up(nic)
	h.node.Addr(nic, "192.168.7.2/24", "2001:db8:7::2/64")
	h.node.Route("default", "192.168.7.1", nic, 0)
	h.node.Route("default", "2001:db8:7::1", nic, 1024)
	h.route("198.18.5.0/24", 100, 0)
	h.route("10.96.0.0/12", 0, 6) // blackhole
	h.route("fd00:7::/32", 0, 0)
	return h, bystander
}

// route adds a route by the uplink in a table, 0 for main, of a type, 0 for unicast.
func (h *host) route(to string, table, kind int) {
	h.t.Helper()
	_, dst, err := net.ParseCIDR(to)
	if err != nil {
		h.t.Fatal(err)
	}
	route := &netlink.Route{Dst: dst, Table: table, Type: kind}
	if kind == 0 {
		route.LinkIndex, route.Scope = h.node.Link(nic).Attrs().Index, netlink.SCOPE_LINK
	}
	if err := h.node.Netlink().RouteAdd(route); err != nil {
		h.t.Fatal(err)
	}
}

// tenantBridge is the configuration of a gateway on a bridge with addresses of host-local; extra is
// put into it.
func (h *host) tenantBridge(bridge, subnet, extra string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":%q,"isGateway":true%s,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":%q}}`, bridge, extra, h.path("leases"), subnet)
}

// denied is an ADD that has to fail with a text that has all the words, and that leaves the node as
// it was, as does its DEL.
func (h *host) denied(p *pod, code uint, words ...string) {
	h.t.Helper()
	before := h.node.Snapshot()
	h.fails("ADD", p, code, words...)
	if diff := cmp.Diff(before, h.node.Snapshot()); diff != "" {
		h.t.Errorf("the ADD changed the node:\n%s", diff)
	}
	h.must("DEL", p)
	if diff := cmp.Diff(before, h.node.Snapshot()); diff != "" {
		h.t.Errorf("the DEL changed the node:\n%s", diff)
	}
}

// TestM27GatewayCoversNoRoute: no prefix of a tenant's gateway takes what the node has a route for.
func TestM27GatewayCoversNoRoute(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	for name, c := range map[string]struct{ subnet, word string }{
		"the uplink's":           {"192.168.7.0/25", "192.168.7.0/24"},
		"half of all":            {"128.0.0.0/1", "the node has the route"},
		"the internet's":         {"8.8.8.0/24", "default route"},
		"metadata":               {"169.254.169.0/24", "default route"},
		"loopback":               {"127.1.0.0/16", "127.0.0.0/8"},
		"another bridge's":       {"10.1.128.0/24", "10.1.0.0/16"},
		"a table's":              {"198.18.0.0/16", "198.18.5.0/24"},
		"a blackhole's":          {"10.100.0.0/16", "10.96.0.0/12"},
		"an IPv6 route's":        {"fd00:7:1::/64", "fd00:7::/32"},
		"the uplink's IPv6":      {"2001:db8:7::/96", "2001:db8:7::/64"},
		"half of IPv6":           {"2000::/3", "2001:db8:7::"},
		"the internet's of IPv6": {"2a00:1450::/64", "default route"},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			for i, extra := range []string{"", `,"forceAddress":true,"isDefaultGateway":true`} {
				name := fmt.Sprintf("team/x%d", i)
				h.nad(name, h.tenantBridge("br-team", c.subnet, extra))
				h.denied(h.pod(name, name), types.ErrInvalidNetworkConfig, name, c.word)
			}
		})
	}
	t.Run("in a VLAN", func(t *testing.T) {
		nettest.NeedsLink(t, "bridge-vlan")
		h := h.sub(t)
		h.nad("team/x", h.tenantBridge("br-team", "192.168.7.0/25", `,"vlan":5`))
		h.denied(h.pod("team/x", "x"), types.ErrInvalidNetworkConfig, "team/x", "192.168.7.0/24")
	})
	// The second gateway is refused: the first one goes.
	h.nad("team/two", strings.Replace(h.tenantBridge("br-team", "", ""), `"subnet":""`,
		`"ranges":[[{"subnet":"10.7.0.0/24"}],[{"subnet":"fd00:7:2::/64"}]]`, 1))
	h.denied(h.pod("team/two", "two"), types.ErrInvalidNetworkConfig, "fd00:7::/32")
	h.survives(bystander)
}

// TestM27GatewayGoes: a tenant's bridge with its addresses goes with its last attachment, also
// where the ADD fails behind the plugin that made it.
func TestM27GatewayGoes(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	for name, extra := range map[string]string{"plain": "", "VLAN": `,"vlan":5`} {
		t.Run(name, func(t *testing.T) {
			if name == "VLAN" {
				nettest.NeedsLink(t, "bridge-vlan")
			}
			h := h.sub(t)
			before := h.node.Links() + h.node.Addrs() + h.node.Routes()
			unchanged := func() {
				t.Helper()
				if diff := cmp.Diff(before, h.node.Links()+h.node.Addrs()+h.node.Routes()); diff != "" {
					t.Errorf("the node was changed:\n%s", diff)
				}
			}
			config := h.tenantBridge("br-team", "10.7.0.0/24", extra)
			h.nad("team/x", config)
			h.script("fails", `[ "$CNI_COMMAND" = ADD ] && echo '{"code":107,`+
				`"msg":"as the test wants it"}' && exit 1; exit 0`)
			h.nad("team/y", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[%s,{"type":"fails"}]}`, config))
			h.fails("ADD", h.pod("team/c", "y"), 107, "as the test wants it")
			unchanged()
			a, b := h.pod("team/a", "x"), h.pod("team/b", "x")
			h.must("ADD", a)
			h.must("ADD", b)
			h.must("CHECK", a)
			h.must("DEL", a)
			h.must("CHECK", b)
			if !strings.Contains(h.node.Addrs(), "10.7.0.1/24") {
				t.Error("the gateway went with an attachment that was not the last")
			}
			h.must("DEL", b)
			unchanged()
			// A runtime that lost the sandbox only calls GC.
			h.must("ADD", a)
			h.valid(bystander)
			h.must("GC", nil)
			unchanged()
		})
	}
	h.survives(bystander)
}

// TestM27BridgeRace: ADDs and DELs at once on one bridge.
func TestM27BridgeRace(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	before := h.node.Links() + h.node.Addrs()
	h.nad("team/x", h.tenantBridge("br-team", "10.7.0.0/24", ""))
	h.nad("rival/x", h.tenantBridge("br-rival", "10.7.0.128/25", ""))
	for round := range 8 {
		var group sync.WaitGroup
		pods := []*pod{h.pod("team/a", "x"), h.pod("team/b", "x"), h.pod("team/c", "x")}
		for i, p := range pods {
			group.Go(func() {
				for range 2 + i%2 {
					if _, err := h.call("ADD", p); err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
					if _, err := h.call("CHECK", p); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
					if _, err := h.call("DEL", p); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				}
			})
		}
		group.Wait()
		if diff := cmp.Diff(before, h.node.Links()+h.node.Addrs()); diff != "" {
			t.Fatalf("left:\n%s", diff)
		}
		// Of two with overlapping prefixes one is refused, or they came one after the other.
		for _, p := range []*pod{pods[0], h.pod("rival/d", "x")} {
			group.Go(func() { h.call("ADD", p) }) //nolint:errcheck // one of them fails
		}
		group.Wait()
		addrs := h.node.Addrs()
		if strings.Contains(addrs, "10.7.0.1/24") == strings.Contains(addrs, "10.7.0.129/25") {
			t.Errorf("not one of the two gateways is there:\n%s", addrs)
		}
		h.must("DEL", pods[0])
		h.must("DEL", &pod{pods[1].Namespace, "id-d", "rival", "d"})
	}
	h.survives(bystander)
}

// TestM28ForeignBridge: a tenant changes nothing of a bridge that was not made for its namespace.
func TestM28ForeignBridge(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	h.node.Bridge("br-admin")
	h.node.Up("br-admin")
	h.nad("rival/x", h.tenantBridge("br-rival", "10.7.0.0/24", ""))
	rival := h.pod("rival/r", "x")
	h.must("ADD", rival)
	for name, c := range map[string]struct{ bridge, extra, word string }{
		"forceAddress on cni0": {"cni0", `,"forceAddress":true`, "cni0"},
		"address on cni0":      {"cni0", ``, "cni0"},
		"without addresses":    {"br-admin", `,"forceAddress":true`, "br-admin"},
		"another tenant's":     {"br-rival", `,"forceAddress":true`, "br-rival"},
		"promiscuous mode":     {"br-admin", `,"promiscMode":true`, "promiscMode"},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			h.nad("team/x", h.tenantBridge(c.bridge, "10.5.0.0/24", c.extra))
			h.denied(h.pod("team/p", "x"), types.ErrInvalidNetworkConfig, "team/x", c.word)
		})
	}
	t.Run("in a VLAN", func(t *testing.T) {
		nettest.NeedsLink(t, "bridge-vlan")
		h := h.sub(t)
		h.nad("rival/vlan", h.tenantBridge("br-vlan", "10.6.0.0/24", `,"vlan":6`))
		vlan := h.pod("rival/vlan", "vlan")
		h.must("ADD", vlan)
		h.nad("team/x", h.tenantBridge("br-vlan", "10.5.0.0/24", `,"vlan":8`))
		h.denied(h.pod("team/p", "x"), types.ErrInvalidNetworkConfig, "team/x", "br-vlan")
		h.must("DEL", vlan)
	})
	// IPv6 addresses stand beside each other: the tenant's is one too many all the same.
	h.nad("team/six", h.tenantBridge("cni0", "fd00:99::/64", ""))
	h.denied(h.pod("team/six", "six"), types.ErrInvalidNetworkConfig, "cni0")
	// A bridge that was there is not the tenant's to remove, and may be joined where nothing changes.
	h.nad("team/join", strings.Replace(h.tenantBridge("br-admin", "10.5.0.0/24", ""),
		`"isGateway":true`, `"isGateway":false`, 1))
	joined := h.pod("team/join", "join")
	h.must("ADD", joined)
	h.must("DEL", joined)
	if !h.node.HasLink("br-admin") {
		t.Error("the administrator's bridge is gone")
	}
	h.node.Addr("br-admin", "10.4.0.1/24")
	h.nad("team/same", h.tenantBridge("br-admin", "10.4.0.0/24", ""))
	same := h.pod("team/same", "same")
	h.must("ADD", same)
	h.must("CHECK", same)
	h.must("DEL", same)
	h.must("CHECK", rival)
	h.must("DEL", rival)
	if err := h.node.Netlink().LinkDel(h.node.Link("br-admin")); err != nil {
		t.Fatal(err)
	}
	h.survives(bystander)
}

// TestM28OperatorsBridge: the operator's networks do what they did.
func TestM28OperatorsBridge(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	h.node.Bridge("br-admin")
	h.node.Addr("br-admin", "10.4.0.1/24")
	for i, subnet := range []string{"10.5.0.0/24", "192.168.7.128/25", "8.8.8.0/24"} {
		name := fmt.Sprintf("o%d", i)
		h.nad(name, h.tenantBridge("br-admin", subnet, `,"forceAddress":true`))
		p := h.pod(name, name)
		h.must("ADD", p)
		h.must("DEL", p)
	}
	h.nad("new", h.tenantBridge("br-new", "10.97.0.0/24", ""))
	p := h.pod("new", "new")
	h.must("ADD", p)
	h.must("DEL", p)
	if !strings.Contains(h.node.Addrs(), "10.97.0.1/24") {
		t.Error("the operator's bridge lost its address with its last attachment")
	}
	for _, name := range []string{"br-admin", "br-new"} {
		if err := h.node.Netlink().LinkDel(h.node.Link(name)); err != nil {
			t.Fatal(err)
		}
	}
	h.survives(bystander)
}

// TestM29TenantsPorts: a tenant gets no port that somebody else has, and none of loopback
// addresses.
func TestM29TenantsPorts(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	err := h.node.Run(func() error {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "[::]:10250")
		if err == nil {
			t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.nad("team/ports", h.ported(29, "1.0.0"))
	h.nad("ports", h.ported(30, "1.0.0"))
	ask := func(name, mapping string) *pod {
		return h.pod(name, `[{"name":"ports","portMappings":[{"containerPort":80,"protocol":"tcp",`+
			mapping+`}]}]`)
	}
	operators := ask("first", `"hostPort":8029`)
	h.must("ADD", operators)
	rules := h.nft()
	for _, c := range []struct {
		mapping string
		code    uint
		word    string
	}{
		{`"hostPort":10250`, types.ErrTryAgainLater, "listens on [::]:10250"},
		{`"hostPort":10250,"hostIP":"192.168.7.2"`, types.ErrTryAgainLater, "listens on [::]:10250"},
		{`"hostPort":22,"hostIP":"127.0.0.1"`, types.ErrInvalidNetworkConfig, "the node's own processes"},
		{`"hostPort":8029`, types.ErrTryAgainLater, "first"},
	} {
		h.denied(ask("team/p", c.mapping), c.code, "team/ports", "portMappings[0]", c.word)
		same(t, "rules", h.nft(), rules)
	}
	p := ask("team/p", `"hostPort":8030`)
	h.must("ADD", p)
	h.must("CHECK", p)
	for _, p := range []*pod{p, operators} {
		h.must("DEL", p)
	}
	if rules := h.nft(); strings.Contains(rules, "80") {
		t.Errorf("rules left: %s", rules)
	}
	h.bridgeGone("br30")
	h.survives(bystander)
}

// linksOfNode makes links that the node lives by: its uplink has another name, too, and there are a
// VXLAN, a bridge, and links with an address or in a bridge. It can do without here0.
func linksOfNode(h *host) {
	h.t.Helper()
	if err := h.node.Netlink().LinkAddAltName(h.node.Link(nic), "enp-uplink"); err != nil {
		h.t.Fatal(err)
	}
	h.node.Add(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 7})
	h.node.Veth("here0", h.node, "here1")
	h.node.Veth("addr0", h.node, "addr1")
	h.node.Addr("addr0", "10.44.0.1/24")
	h.node.Veth("port0", h.node, "port1")
	h.node.Bridge("br-admin")
	h.node.Master("port0", "br-admin")
}

// noLinksOfNode takes back what linksOfNode did.
func noLinksOfNode(h *host) {
	h.t.Helper()
	for _, name := range []string{"vx0", "here0", "addr0", "port0", "br-admin"} {
		if err := h.node.Netlink().LinkDel(h.node.Link(name)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// hostDevice is a network that moves a link into the pod.
func hostDevice(key, value string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","type":"host-device",%q:%q}`, key, value)
}

// TestM26UplinkStays: nothing that a tenant writes moves or takes over a link that the node lives
// by.
func TestM26UplinkStays(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	linksOfNode(h)
	h.script("taker", "exit 1")
	uplink := h.node.Link(nic).Attrs()
	mac, index := uplink.HardwareAddr.String(), fmt.Sprint(uplink.Index)
	veth := strings.Fields(lineOf(h.node.Links(), "master cni0"))[1]
	for name, c := range map[string]struct{ config, word string }{
		"device":           {hostDevice("device", nic), nic},
		"alternative name": {hostDevice("device", "enp-uplink"), nic},
		"index":            {hostDevice("device", index), nic},
		"MAC":              {hostDevice("hwaddr", mac), nic},
		"MAC in other words": {
			hostDevice("hwaddr", strings.ToUpper(strings.ReplaceAll(mac, ":", "-"))), nic,
		},
		"key in other case":    {hostDevice("Device", nic), nic},
		"cni0":                 {hostDevice("device", "cni0"), "cni0"},
		"loopback":             {hostDevice("device", "lo"), "lo"},
		"vxlan":                {hostDevice("device", "vx0"), "vx0"},
		"port of a bridge":     {hostDevice("device", "port0"), "port0"},
		"bridge":               {hostDevice("device", "br-admin"), "br-admin"},
		"link with an address": {hostDevice("device", "addr0"), "addr0"},
		"another pod's link":   {hostDevice("device", veth), veth},
		"passthru":             {h.macvlan(26, ""), nic},
		"passthru by altname": {
			strings.Replace(h.macvlan(26, ""), `"`+nic+`"`, `"enp-uplink"`, 1),
			nic,
		},
		"passthru by default route": {strings.Replace(h.macvlan(26, ""), `"`+nic+`"`, `""`, 1), nic},
		"passthru by a binary":      {h.macvlan(26, `,"unheardOf":1`), nic},
		"master of an unknown type": {`{"cniVersion":"1.0.0","type":"taker","master":"` + nic +
			`"}`, nic},
		"in the second plugin": {`{"cniVersion":"1.0.0","plugins":[{"type":"passthru"},` +
			hostDevice("device", nic) + `]}`, nic},
		"nested": {`{"cniVersion":"1.0.0","type":"taker",` +
			`"runtimeConfig":{"deviceID":"` + nic + `"}}`, nic},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			if strings.HasPrefix(name, "passthru") {
				c.config = strings.Replace(c.config, `"mode":"bridge"`, `"mode":"passthru"`, 1)
			}
			h.nad("team/x", c.config)
			h.denied(h.pod("team/p", "x"), types.ErrInvalidNetworkConfig, "team/x", c.word)
		})
	}
	noLinksOfNode(h)
	h.survives(bystander)
}

// TestM26OtherLinks: a tenant may have a link that the node does without, and children of the
// uplink. The operator may have any link.
func TestM26OtherLinks(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	linksOfNode(h)
	for i, config := range []string{
		hostDevice("device", "here0"), h.macvlan(26, ""), h.macvlan(26, `,"unheardOf":1`),
		`{"cniVersion":"1.0.0","type":"macvlan","master":"here0","mode":"passthru"}`,
	} {
		name := fmt.Sprintf("team/ok%d", i)
		h.nad(name, config)
		p := h.pod(name, fmt.Sprintf("ok%d", i))
		h.must("ADD", p)
		h.must("DEL", p)
		if !h.node.HasLink("here0") {
			t.Fatal("the spare link did not come back")
		}
	}
	h.nad("moved", hostDevice("device", "addr0"))
	moved := h.pod("moved", "moved")
	h.must("ADD", moved)
	if h.node.HasLink("addr0") {
		t.Error("the operator's link was not moved")
	}
	h.must("DEL", moved)
	noLinksOfNode(h)
	h.survives(bystander)
}

// TestM26UplinkComesBack: a plugin that takes the uplink though its configuration does not name it
// is asked to return it.
func TestM26UplinkComesBack(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	h.script("thief", `case "$CNI_COMMAND" in
ADD) ip link set `+nic+` netns "$CNI_NETNS" && echo '{"cniVersion":"1.0.0"}' ;;
DEL) nsenter --net="$CNI_NETNS" ip link set `+nic+` netns $$ ;;
esac`)
	h.nad("team/x", `{"cniVersion":"1.0.0","type":"thief"}`)
	p := h.pod("team/p", "x")
	h.fails("ADD", p, types.ErrInvalidNetworkConfig, "team/x", "thief", nic)
	if !h.node.HasLink(nic) {
		t.Error("the uplink is gone")
	}
	h.must("DEL", p)
	h.survives(bystander)
}

// lineOf is the first line that has a text.
func lineOf(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// TestM28BinaryInPlace: where the reference's plugin runs in place of the built-in one, as for a
// key that only it may know, it does no more to the node.
func TestM28BinaryInPlace(t *testing.T) {
	t.Parallel()
	h, bystander := tenantHost(t)
	err := h.node.Run(func() error {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", ":10250")
		if err == nil {
			t.Cleanup(func() { l.Close() }) //nolint:errcheck // the test is over
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const unknown = `,"unheardOf":1`
	for name, c := range map[string]struct{ config, word string }{
		"address": {
			h.tenantBridge("cni0", "10.5.0.0/24", unknown+`,"forceAddress":true`),
			"isGateway",
		},
		"new bridge": {h.tenantBridge("br-team", "8.8.8.0/24", unknown), "isGateway"},
		"default gateway": {
			strings.Replace(h.tenantBridge("br-team", "8.8.8.0/24", unknown),
				"isGateway", "isDefaultGateway", 1),
			"isGateway",
		},
		"promiscuous mode": {
			strings.Replace(h.tenantBridge("cni0", "10.5.0.0/24", unknown),
				"isGateway", "promiscMode", 1),
			"promiscMode",
		},
		"iptables": {
			h.tenantBridge("br-team", "10.5.0.0/24", `,"ipMasq":true,"ipMasqBackend":"iptables"`),
			"isGateway",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			h.nad("team/x", c.config)
			h.denied(h.pod("team/p", "x"), types.ErrInvalidNetworkConfig, "team/x", c.word, "a binary")
		})
	}
	t.Run("port", func(t *testing.T) {
		h := h.sub(t)
		h.nad("team/x", strings.Replace(h.ported(28, "1.0.0"), `"type":"portmap"`,
			`"type":"portmap","backend":"iptables"`, 1))
		h.denied(h.pod("team/p", `[{"name":"x","portMappings":[{"hostPort":10250,"containerPort":80,`+
			`"protocol":"tcp"}]}]`),
			types.ErrTryAgainLater, "team/x", "10250", "listens on")
	})
	// A bridge that it only joins is as with the built-in one.
	h.nad("team/x", strings.Replace(h.tenantBridge("cni0", "10.5.0.0/24", unknown), `"isGateway":true`,
		`"isGateway":false`, 1))
	p := h.pod("team/ok", "x")
	h.must("ADD", p)
	h.must("DEL", p)
	h.survives(bystander)
}
