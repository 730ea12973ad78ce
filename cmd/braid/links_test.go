package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
)

// Items of real networks that are about links of the node and of the pod.

// R10: what no bridge can have is refused with the field and what to write.
func TestR10BridgeVLANBeyondTheLast(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":"br7","vlan":4095,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.7.0.0/24"}}`, r.path("leases")))
	p := r.pod("p", "a")
	r.fails("ADD", p, 7, "field vlan 4095", "must be from 0 to 4094", "default/a")
	r.must("DEL", p)
	r.clean(p)
}

// gatewayNetwork is a bridge network whose node is the gateway.
func (r *rig) gatewayNetwork(bridge, ranges string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":%q,"isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":%s}}`, bridge, r.path("leases"), ranges)
}

// R16: a bridge that others made and whose last port has left has no MAC of its own.
func TestR16GatewayOnABridgeWithoutPorts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.node.Bridge("br7")
	r.node.Veth("port", r.node, "other")
	r.node.Master("port", "br7")
	if err := r.node.Netlink().LinkDel(r.node.Link("port")); err != nil {
		t.Fatal(err)
	}
	r.nad("a", r.gatewayNetwork("br7", `[[{"subnet":"10.7.0.0/24"}]]`))
	first, second := r.pod("first", "a"), r.pod("second", "a")
	r.add(first)
	mac := r.node.Link("br7").Attrs().HardwareAddr.String()
	r.add(second)
	r.must("CHECK", first)
	r.must("DEL", first)
	r.must("CHECK", second)
	if now := r.node.Link("br7").Attrs().HardwareAddr.String(); now != mac {
		t.Errorf("the gateway's MAC was %s and is %s", mac, now)
	}
	r.must("DEL", second)
	same(t, "interfaces of pods", append(interfaces(first), interfaces(second)...), []string(nil))
}

// R17: the gateways of a network's own ranges do not conflict with each other, whether a pod has an address of each or of one.
func TestR17GatewaysOfSeveralRanges(t *testing.T) {
	t.Parallel()
	for name, ranges := range map[string]string{
		"each": `[[{"subnet":"10.7.0.0/24"}],[{"subnet":"10.8.0.0/24"}]]`,
		"either": `[[{"subnet":"10.7.0.0/24","rangeStart":"10.7.0.2","rangeEnd":"10.7.0.2"},
			{"subnet":"10.8.0.0/24","gateway":"10.8.0.254"}]]`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nad("a", r.gatewayNetwork("br7", ranges))
			for i := range 3 {
				p := r.pod(fmt.Sprint("p", i), "a")
				r.add(p)
				r.must("CHECK", p)
			}
			addrs := r.node.Addrs()
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
	r := newRig(t)
	r.node.Add(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br7", TxQLen: -1}})
	r.node.Addr("br7", "10.9.0.1/24")
	r.nad("a", r.gatewayNetwork("br7", `[[{"subnet":"10.7.0.0/24"}],[{"subnet":"10.8.0.0/24"}]]`))
	p := r.pod("p", "a")
	r.fails("ADD", p, 999, "br7", "10.9.0.1/24", "forceAddress")
	r.must("DEL", p)
}

// R21: a parameter of an interface whose name has a dot, in both forms of sysctl.d(5).
func TestR21SysctlOfAnInterfaceWithADot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tuned := func(name, key, value string) {
		r.nad(name, fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[%s,{"type":"tuning","dataDir":%q,"sysctl":{%q:%q}}]}`,
			r.macvlan(11, ""), r.path("tuning"), key, value))
	}
	tuned("a", "net/ipv4/conf/net1.5/arp_announce", "1")
	tuned("b", "net.ipv4.conf.net2/5.arp_announce", "2")
	p := r.pod("p", "a@net1.5,b@net2.5")
	r.add(p)
	for key, want := range map[string]string{"net1.5": "1", "net2.5": "2"} {
		same(t, key, sysctlOf(t, p.Namespace, "net/ipv4/conf/"+key+"/arp_announce"), want)
	}
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
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
