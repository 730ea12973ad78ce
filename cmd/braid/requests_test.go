package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/nettest"
)

// staticNAD is a macvlan network whose addresses are those that the pod asks for; extra is put into
// the plugin.
func staticNAD(extra string) string {
	return fmt.Sprintf(`{"cniVersion":"0.4.0","plugins":[{"type":"macvlan","master":%q%s,`+
		`"ipam":{"type":"static"}}]}`, nic, extra)
}

// mac is the hardware address of a pod's interface.
func mac(p *pod, name string) string { return p.Link(name).Attrs().HardwareAddr.String() }

// addressesOf are those of a pod's interface, with their prefix lengths.
func addressesOf(p *pod, name string) []string {
	var list []string
	for line := range strings.Lines(p.Addrs()) {
		if f := strings.Fields(line); f[1] == name {
			list = append(list, f[2])
		}
	}
	return list
}

// What the pod asks for reaches plugins that declare no capability, as in Multus.
func TestR2RequestsWithoutCapability(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]without{
		"static": {
			func(*host) string {
				return staticNAD("")
			}, `"ips":["10.102.1.21/24"]`, []string{"10.102.1.21/24"}, "",
		},
		"static, several": {
			func(*host) string {
				return staticNAD("")
			}, `"ips":["10.102.1.21/24","fd00:5::7/64","10.103.1.21/24"]`,
			[]string{"10.102.1.21/24", "10.103.1.21/24", "fd00:5::7/64"},
			"",
		},
		"static, capability mac only": {
			func(*host) string {
				return staticNAD(`,"capabilities":{"mac":true}`)
			}, `"mac":"00:00:00:00:00:03","ips":["10.146.252.3/24"]`,
			[]string{"10.146.252.3/24"},
			"00:00:00:00:00:03",
		},
		"capability at another plugin": {
			func(*host) string {
				return strings.Replace(staticNAD(""), "]}",
					`,{"type":"tuning","capabilities":{"ips":true,"mac":true}}]}`, 1)
			}, `"mac":"c2:b0:57:49:47:f1","ips":["10.146.252.3/24"]`,
			[]string{"10.146.252.3/24"},
			"c2:b0:57:49:47:f1",
		},
		"capability of the list": {
			func(*host) string {
				return strings.Replace(staticNAD(""), "{", `{"capabilities":{"ips":true},`, 1)
			}, `"ips":["10.102.1.21/24"]`,
			[]string{"10.102.1.21/24"},
			"",
		},
		"host-local": {
			func(h *host) string {
				return h.macvlan(11, "")
			}, `"ips":["10.11.0.77/16"],"mac":"c2:b0:57:49:47:f1"`,
			[]string{"10.11.0.77/24"},
			"c2:b0:57:49:47:f1",
		},
		"host-local, two families": {
			func(h *host) string {
				return strings.Replace(h.macvlan(11, ""), `"subnet":"10.11.0.0/24"`,
					`"ranges":[[{"subnet":"10.11.0.0/24"}],[{"subnet":"fd00:11::/64"}]]`, 1)
			}, `"ips":["10.11.0.77","fd00:11::77"]`, []string{"10.11.0.77/24", "fd00:11::77/64"}, "",
		},
		"bridge without IPAM": {
			func(*host) string {
				return `{"cniVersion":"0.3.1","type":"bridge"}`
			}, `"mac":"02:00:00:00:00:01","cni-args":null`, nil, "02:00:00:00:00:01",
		},
	} {
		t.Run(name, tc.test)
	}
}

// without is a network without a capability, and a request that it fulfils none the less.
type without struct {
	config    func(*host) string
	asks      string
	addresses []string
	mac       string
}

func (tc without) test(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", tc.config(h))
	p := h.pod("p", `[{"name":"a",`+tc.asks+`}]`)
	h.add(p)
	same(t, "addresses", addressesOf(p, "net1"), tc.addresses)
	status := h.status(p)[1]
	var bare []string
	for _, a := range tc.addresses {
		ip, _, _ := strings.Cut(a, "/")
		bare = append(bare, ip)
	}
	slices.Sort(status.IPs)
	same(t, "addresses in the status", status.IPs, bare)
	same(t, "MAC in the status", status.Mac, mac(p, "net1"))
	if tc.mac != "" {
		same(t, "MAC", mac(p, "net1"), tc.mac)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// The binaries of the reference read the same.
func TestR2RequestsReachBinaries(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.execs("macvlan", "static", "host-local", "bridge")
	h.nad("a", staticNAD(""))
	h.nad("b", h.macvlan(11, ""))
	h.nad("c", `{"cniVersion":"0.3.1","type":"bridge","bridge":"cni0"}`)
	p := h.pod("p", `[{"name":"a","ips":["10.102.1.21/24","10.103.1.21/24"],"mac":"02:00:00:00:00:01"},{"name":"b","ips":["10.11.0.77/24"]},
		{"name":"c","mac":"02:00:00:00:00:02"}]`)
	h.add(p)
	same(t, "addresses of net1", addressesOf(p, "net1"), []string{"10.102.1.21/24", "10.103.1.21/24"})
	same(t, "addresses of net2", addressesOf(p, "net2"), []string{"10.11.0.77/24"})
	same(t, "MACs", []string{mac(p, "net1"), mac(p, "net3")},
		[]string{"02:00:00:00:00:01", "02:00:00:00:00:02"})
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// ignorant is a plugin that makes an interface with an address and a MAC of its own, whatever it is
// asked for.
const ignorant = `case $CNI_COMMAND in
ADD)
	n="nsenter --net=$CNI_NETNS ip"
	$n link add $CNI_IFNAME type veth peer name ${CNI_IFNAME}p || exit 1
	$n addr add 10.9.0.9/24 dev $CNI_IFNAME
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"interface":0,"address":"'${SAYS:-10.9.0.9}'/24"}]}' ;;
DEL) [ -e "$CNI_NETNS" ] && nsenter --net=$CNI_NETNS ip link del $CNI_IFNAME 2>/dev/null ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
esac
exit 0`

// A pod does not run with another address or MAC than it asked for, whether a capability was
// declared or not.
func TestR2NotHonoured(t *testing.T) {
	t.Parallel()
	const declares = `,"capabilities":{"ips":true,"mac":true}`
	for name, tc := range map[string]struct{ config, asks, field, says string }{
		"address": {`{"type":"ignorant"%s}`, `"ips":["10.9.0.10/24"]`, "ips", ""},
		"address that is only told": {
			`{"type":"ignorant"%s}`, `"ips":["10.9.0.10/24"]`, "ips",
			"SAYS=10.9.0.10",
		},
		"address that is not told": {
			`{"type":"ignorant"%s}`, `"ips":["10.9.0.9/24"]`, "ips",
			"SAYS=10.9.0.8",
		},
		"one of two addresses": {
			`{"type":"ignorant"%s}`, `"ips":["10.9.0.9/24","fd00::1/64"]`,
			"ips", "",
		},
		"MAC": {`{"type":"ignorant"%s}`, `"mac":"02:00:00:00:00:01"`, "mac", ""},
		"address of a chain with none": {
			`{"type":"macvlan","master":"nic0"%s}`, `"ips":["10.9.0.10/24"]`,
			"ips", "",
		},
	} {
		for _, capabilities := range []string{"", declares} {
			t.Run(name+capabilities, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.script("ignorant", ignorant)
				if tc.says != "" {
					h.env = append(h.env, tc.says)
				}
				h.nad("a", `{"cniVersion":"1.0.0",`+
					strings.TrimPrefix(fmt.Sprintf(tc.config, capabilities), "{"))
				p := h.pod("p", `[{"name":"a",`+tc.asks+`}]`)
				h.fails("ADD", p, 7, "NAD default/a", "field "+tc.field, "remove "+tc.field)
				same(t, "event", h.lastEvent(p).Reason, "MissingCapability")
				h.clean(p)
			})
		}
	}
}

// An ipvlan link has the MAC of its master.
func TestR2MACOfIPVlan(t *testing.T) {
	t.Parallel()
	nettest.NeedsLink(t, "ipvlan")
	h := newHost(t)
	h.nad("a", ipvlanNAD(h.macvlan(11, "")))
	p := h.pod("p", `[{"name":"a","mac":"02:00:00:00:00:01"}]`)
	h.fails("ADD", p, 7, "field mac", "02:00:00:00:00:01")
	h.clean(p)
}

// Other requests have no other way than a capability.
func TestR2OtherRequestsNeedCapability(t *testing.T) {
	t.Parallel()
	for field, asks := range map[string]string{
		"portMappings": `[{"hostPort":8080,"containerPort":80}]`,
		"bandwidth":    `{"ingressRate":1000000,"ingressBurst":1000}`,
	} {
		h := newHost(t)
		h.nad("a", h.macvlan(11, ""))
		p := h.pod("p", fmt.Sprintf(`[{"name":"a",%q:%s}]`, field, asks))
		h.fails("ADD", p, 7, "default/a", "field "+field, `"capabilities"`)
		h.clean(p)
	}
}

// What the pod asks for the default network replaces what the runtime asks for it.
func TestR2DefaultNetwork(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("kube-system/d", strings.Replace(h.macvlan(11, ""), `"macvlan"`, `"macvlan"`, 1))
	p := h.pod("p", "", "v1.multus-cni.io/default-network",
		`[{"name":"d","ips":["10.11.0.66"],"mac":"02:00:00:00:00:09"}]`)
	h.must("ADD", p,
		fmt.Sprintf(
			"CNI_ARGS=IgnoreUnknown=1;IP=10.11.0.3;MAC=02:00:00:00:00:01;"+
				"K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s", p.namespace, p.name))
	same(t, "addresses", addressesOf(p, "eth0"), []string{"10.11.0.66/24"})
	same(t, "MAC", mac(p, "eth0"), "02:00:00:00:00:09")
}
