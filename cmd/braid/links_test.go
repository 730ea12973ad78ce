package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
)

// Items of real networks that are about links of the node and of the pod.

// R10: what no bridge can have is refused with the field and what to write.
func TestR10BridgeVLANBeyondTheLast(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":"br7","vlan":4095,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.7.0.0/24"}}`, h.path("leases")))
	p := h.pod("p", "a")
	h.fails("ADD", p, 7, "field vlan 4095", "must be from 0 to 4094", "default/a")
	h.must("DEL", p)
	h.clean(p)
}

// gatewayNetwork is a bridge network whose node is the gateway.
func (h *host) gatewayNetwork(bridge, ranges string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":%q,"isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":%s}}`, bridge, h.path("leases"), ranges)
}

// R16: a bridge that others made and whose last port has left has no MAC of its own.
func TestR16GatewayOnABridgeWithoutPorts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.node.Bridge("br7")
	h.node.Veth("port", h.node, "other")
	h.node.Master("port", "br7")
	if err := h.node.Netlink().LinkDel(h.node.Link("port")); err != nil {
		t.Fatal(err)
	}
	h.nad("a", h.gatewayNetwork("br7", `[[{"subnet":"10.7.0.0/24"}]]`))
	first, second := h.pod("first", "a"), h.pod("second", "a")
	h.add(first)
	mac := h.node.Link("br7").Attrs().HardwareAddr.String()
	h.add(second)
	h.must("CHECK", first)
	h.must("DEL", first)
	h.must("CHECK", second)
	if now := h.node.Link("br7").Attrs().HardwareAddr.String(); now != mac {
		t.Errorf("the gateway's MAC was %s and is %s", mac, now)
	}
	h.must("DEL", second)
	same(t, "interfaces of pods", append(interfaces(first), interfaces(second)...), []string(nil))
}

// R17: the gateways of a network's own ranges do not conflict with each other, whether a pod has an
// address of each or of one.
func TestR17GatewaysOfSeveralRanges(t *testing.T) {
	t.Parallel()
	for name, ranges := range map[string]string{
		"each": `[[{"subnet":"10.7.0.0/24"}],[{"subnet":"10.8.0.0/24"}]]`,
		"either": `[[{"subnet":"10.7.0.0/24","rangeStart":"10.7.0.2","rangeEnd":"10.7.0.2"},
			{"subnet":"10.8.0.0/24","gateway":"10.8.0.254"}]]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", h.gatewayNetwork("br7", ranges))
			for i := range 3 {
				p := h.pod(fmt.Sprint("p", i), "a")
				h.add(p)
				h.must("CHECK", p)
			}
			addrs := h.node.Addrs()
			for _, want := range []string{"addr br7 10.7.0.1/24", "addr br7 10.8.0."} {
				if !strings.Contains(addrs, want) {
					t.Errorf("no %q in\n%s", want, addrs)
				}
			}
		})
	}
}

// R17: an address that is not of the network's own gateways is still in the way.
func TestR17OtherAddressStaysAConflict(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.node.Add(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7", TxQLen: -1}})
	h.node.Addr("br7", "10.9.0.1/24")
	h.nad("a", h.gatewayNetwork("br7", `[[{"subnet":"10.7.0.0/24"}],[{"subnet":"10.8.0.0/24"}]]`))
	p := h.pod("p", "a")
	h.fails("ADD", p, 999, "br7", "10.9.0.1/24", "forceAddress",
		"choose a bridge of the network's own")
	h.must("DEL", p)
}

// R21: a parameter of an interface whose name has a dot, in both forms of sysctl.d(5).
func TestR21SysctlOfAnInterfaceWithADot(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	tuned := func(name, key, value string) {
		h.nad(name, fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[%s,{"type":"tuning","dataDir":%q,`+
			`"sysctl":{%q:%q}}]}`,
			h.macvlan(11, ""), h.path("tuning"), key, value))
	}
	tuned("a", "net/ipv4/conf/net1.5/arp_announce", "1")
	tuned("b", "net.ipv4.conf.net2/5.arp_announce", "2")
	p := h.pod("p", "a@net1.5,b@net2.5")
	h.add(p)
	for key, want := range map[string]string{"net1.5": "1", "net2.5": "2"} {
		same(t, key, sysctlOf(t, p.Namespace, "net/ipv4/conf/"+key+"/arp_announce"), want)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// sysctlOf is a parameter of the kernel in a namespace.
func sysctlOf(t *testing.T, n *nettest.Namespace, key string) string {
	t.Helper()
	var value []byte
	err := n.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/" + key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

// learns is what a pod's default routes by router advertisements are, after one has reached a link.
func learns(t *testing.T, p *pod, router *nettest.Namespace, wire, link string) []string {
	t.Helper()
	// When the second has been counted, the first has had its effect.
	for range 2 {
		before := p.Advertisements(link)
		router.Advertise(wire)
		for end := time.Now().
			Add(20 * time.Second); p.Advertisements(link) == before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("no router advertisement reaches %s", link)
			}
		}
	}
	var routes []string
	for line := range strings.Lines(p.Routes()) {
		if strings.Contains(line, "proto ra") {
			_, device, _ := strings.Cut(line, " dev ")
			routes = append(routes, strings.Fields(device)[0])
		}
	}
	return routes
}

// R19: a router on a secondary network does not get the pod's IPv6 default route by an
// advertisement, whoever made the interface, unless the pod asks for the default route there.
func TestR19RouterAdvertisements(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		networks string
		exec     bool
		kind     string // macvlan where it is empty
		more     string // further plugins of the chain
		want     []string
	}{
		"in process": {networks: "a"},
		"exec'd":     {networks: "a", exec: true},
		"default route": {
			networks: `[{"name":"a","default-route":["10.11.0.1"]}]`,
			want:     []string{"net1"},
		},
		"sbr": {networks: "a", more: `,{"type":"sbr"}`},
		// The advertisement came while the chain was at work.
		"earlier": {networks: "a", kind: "early"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			dual(h)
			router := nettest.New(t)
			h.node.Veth("nic1", router, "wire")
			if test.exec {
				h.execs("macvlan")
			}
			h.script("early", `"$BRAID_PLUGINS/macvlan" || exit 1
[ "$CNI_COMMAND" != ADD ] || nsenter --net="$CNI_NETNS" ip -6 route add default via fe80::1 dev net1 proto ra metric 512 >&2
`)
			h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":%q,"master":"nic1",
				"ipam":{"type":"static","addresses":[{"address":"10.11.0.2/24","gateway":"10.11.0.1"},{"address":"fd11::2/64"}]}}%s]}`,
				cmp.Or(test.kind, "macvlan"), test.more))
			p := h.pod("p", test.networks)
			h.add(p)
			same(t, "default routes by advertisements", learns(t, p, router, "wire", "net1"), test.want)
			same(t, "accept_ra_defrtr of eth0",
				sysctlOf(t, p.Namespace, "net/ipv6/conf/eth0/accept_ra_defrtr"), "1")
			h.must("CHECK", p)
			h.must("DEL", p)
			if err := h.node.Netlink().LinkDel(h.node.Link("nic1")); err != nil {
				t.Fatal(err)
			}
			h.clean(p)
		})
	}
}
