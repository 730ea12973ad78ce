package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// network4 and network6 are IPAM configurations with a default route of the family, or of both.
const (
	network4 = `"ipam":{"type":"host-local","dataDir":"DIR","subnet":"10.11.0.0/24",` +
		`"gateway":"10.11.0.1","routes":[{"dst":"172.31.0.0/16"},{"dst":"0.0.0.0/0"}]}`
	network6 = `"ipam":{"type":"host-local","dataDir":"DIR","subnet":"fd00:11::/64",` +
		`"routes":[{"dst":"::/0","gw":"fd00:11::1"}]}`
	twofold = `"ipam":{"type":"host-local","dataDir":"DIR","ranges":[[{"subnet":"10.11.0.0/24"}],` +
		`[{"subnet":"fd00:11::/64"}]]EXTRA}`
)

// on puts a network's IPAM, with its directory, into a plugin's configuration.
func (h *host) on(plugin, ipam string) string {
	ipam = strings.ReplaceAll(strings.ReplaceAll(ipam, "DIR", h.path("leases")), "EXTRA", "")
	return strings.TrimSuffix(plugin, "}") + "," + ipam + "}"
}

// dualStack has the default network assign addresses and default routes of both families.
func (h *host) dualStack() {
	h.conf["delegates"] = []any{with(h.defaultNetwork(), "ipam", map[string]any{
		"type": "host-local", "dataDir": h.path("leases"),
		"ranges": []any{
			[]any{map[string]any{"subnet": "10.1.0.0/16"}}, []any{map[string]any{"subnet": "fd00:1::/64"}},
		},
		"routes": []any{map[string]any{"dst": "0.0.0.0/0"}, map[string]any{"dst": "::/0"}},
	})}
}

// withoutDefault takes the default route from the default network.
func (h *host) withoutDefault() {
	h.conf["delegates"] = []any{
		with(h.defaultNetwork(), "ipam",
			map[string]any{"type": "host-local", "dataDir": h.path("leases"), "subnet": "10.1.0.0/16"}),
	}
}

// plainMacvlan is a macvlan plugin without IPAM, the default bridge in its place.
const plainMacvlan = `{"type":"macvlan","master":"nic0"}`

// allDefaults are the pod's default routes of both families.
func allDefaults(p *pod) []string {
	return append(defaults(table(p, 4, "main")), defaults(table(p, 6, "main"))...)
}

// kept are the warnings about default routes that a pod got.
func (h *host) kept(p *pod) (messages []string) {
	for _, e := range h.events(p) {
		if e.Reason == "DefaultRouteKept" {
			messages = append(messages, e.Type+" "+e.Message)
		}
	}
	return messages
}

// recorded is the pod's record.
func (h *host) recorded(p *pod) string {
	h.t.Helper()
	data, err := os.ReadFile(h.path("state", "sandboxes", p.id+".json"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

// A plugin that replaces another's default route with one of the pod's interface, as a DHCP
// client may.
const greedy = `case $CNI_COMMAND in
ADD)
	n="nsenter --net=$CNI_NETNS ip"
	$n link add $CNI_IFNAME type veth peer name ${CNI_IFNAME}p || exit 1
	$n addr add 10.9.0.9/24 dev $CNI_IFNAME
	$n link set $CNI_IFNAME up
	$n link set ${CNI_IFNAME}p up
	$n route replace default via 10.9.0.1 dev $CNI_IFNAME
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"interface":0,"address":"10.9.0.9/24"}],
		"routes":[{"dst":"0.0.0.0/0","gw":"10.9.0.1"},{"dst":"10.9.0.0/24"}]}' ;;
DEL) [ -e "$CNI_NETNS" ] && nsenter --net=$CNI_NETNS ip link del $CNI_IFNAME 2>/dev/null ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
esac
exit 0`

// learning is an IPAM plugin that learns a default route, as dhcp does.
const learning = `case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.9/24","gateway":"10.9.0.1"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.9.0.1"},{"dst":"10.8.0.0/16"}]}' ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
esac
exit 0`

// adding is a plugin after another one that adds a default route to what that gave, as
// route-override does.
const adding = `case $CNI_COMMAND in
ADD)
	nsenter --net=$CNI_NETNS ip route add default dev $CNI_IFNAME metric 5 || exit 1
	cat >/dev/null
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"interface":0,"address":"10.11.0.2/24"}],"routes":[{"dst":"0.0.0.0/0"}]}' ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}' ;;
esac
exit 0`

const viaEth0 = "default via 10.1.0.1 dev eth0"

// The default route stays where the default network put it, whichever way another network brings
// one; who asked is told.
func TestR3Keep(t *testing.T) {
	t.Parallel()
	keep(t, map[string]kept{
		"routes of IPAM": {
			func(h *host) string {
				return h.on(plainMacvlan, network4)
			}, nil, "plugins[0].ipam.routes[1]",
			[]string{viaEth0},
			[]string{"172.31.0.0/16 via 10.11.0.1 dev net1"},
		},
		"routes of IPAM, exec'd": {
			func(h *host) string {
				return h.on(plainMacvlan, network4)
			}, func(h *host) { h.execs("macvlan", "host-local") }, "plugins[0].ipam.routes[1]",
			[]string{viaEth0},
			[]string{"172.31.0.0/16 via 10.11.0.1 dev net1"},
		},
		"isDefaultGateway": {
			func(h *host) string {
				return h.on(`{"type":"bridge","bridge":"br1","isDefaultGateway":true}`,
					strings.Replace(network4, `,{"dst":"0.0.0.0/0"}`, "", 1))
			}, nil, "plugins[0].isDefaultGateway",
			[]string{viaEth0},
			[]string{"172.31.0.0/16 via 10.11.0.1 dev net1"},
		},
		"isDefaultGateway of both families": {
			func(h *host) string {
				return h.on(`{"type":"bridge","bridge":"br1","isDefaultGateway":true}`, twofold)
			}, nil, "has brought an IPv4 default route",
			[]string{viaEth0, "default via fd00:11::1 dev net1 metric 1024"},
			nil,
		},
		"IPv6": {
			func(h *host) string {
				return h.on(plainMacvlan, network6)
			}, (*host).dualStack, "IPv6 default route",
			[]string{viaEth0, "default via fd00:1::1 dev eth0 metric 1024"},
			nil,
		},
		"IPv6, exec'd": {
			func(h *host) string {
				return h.on(plainMacvlan, network6)
			}, func(h *host) { h.dualStack(); h.execs("macvlan", "host-local") }, "IPv6 default route",
			[]string{viaEth0, "default via fd00:1::1 dev eth0 metric 1024"},
			nil,
		},
		"IPv6 alone": {
			func(h *host) string {
				return h.on(plainMacvlan, network6)
			}, nil, "", []string{viaEth0, "default via fd00:11::1 dev net1 metric 1024"}, nil,
		},
	})
}

// The same where another plugin than IPAM brings the route, and where there is nothing to keep.
func TestR3KeepOfOthers(t *testing.T) {
	t.Parallel()
	keep(t, map[string]kept{
		"learned by IPAM": {
			func(*host) string {
				return `{"type":"macvlan","master":"nic0","ipam":{"type":"learning"}}`
			}, nil, "has brought an IPv4 default route",
			[]string{viaEth0},
			[]string{"10.8.0.0/16 via 10.9.0.1 dev net1"},
		},
		"replaced by a plugin": {func(*host) string {
			return `{"type":"greedy"}`
		}, nil, "has brought an IPv4 default route", []string{viaEth0}, nil},
		"added by a chained plugin": {
			func(h *host) string {
				return `{"plugins":[` + h.on(plainMacvlan, network4) + `,{"type":"adding"}]}`
			}, nil, "has brought an IPv4 default route", []string{viaEth0}, nil,
		},
		"table of its own": {
			func(h *host) string {
				return h.on(plainMacvlan,
					strings.Replace(network4, `{"dst":"0.0.0.0/0"`, `{"dst":"0.0.0.0/0","table":100`, 1))
			}, nil, "", []string{viaEth0}, []string{"172.31.0.0/16 via 10.11.0.1 dev net1"},
		},
		"the pod has none": {
			func(h *host) string {
				return h.on(plainMacvlan, network4)
			}, (*host).withoutDefault, "", []string{"default via 10.11.0.1 dev net1"}, nil,
		},
		"the pod has none, exec'd": {
			func(h *host) string {
				return h.on(plainMacvlan, network4)
			}, func(h *host) { h.withoutDefault(); h.execs("macvlan", "host-local") }, "",
			[]string{"default via 10.11.0.1 dev net1"},
			nil,
		},
	})
}

// kept is a network that brings a default route.
type kept struct {
	config func(*host) string
	setup  func(*host)
	word   string // of the warning; empty for none
	want   []string
	routes []string // of net1 that stay
}

// keep fails unless each pod keeps its default routes, with a warning, and nothing is left of it.
func keep(t *testing.T, cases map[string]kept) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if tc.setup != nil {
				tc.setup(h)
			}
			for kind, body := range map[string]string{
				"greedy": greedy, "learning": learning, "adding": adding,
			} {
				h.script(kind, body)
			}
			h.nad("a", strings.Replace(tc.config(h), "{", `{"cniVersion":"1.0.0",`, 1))
			p := h.pod("p", "a")
			h.add(p)
			same(t, "default routes", allDefaults(p), tc.want)
			for _, route := range tc.routes {
				if !strings.Contains(strings.Join(table(p, 4, "main"), "\n"), route) {
					t.Errorf("no %s in %s", route, p.Routes())
				}
			}
			kept := h.kept(p)
			if tc.word == "" {
				same(t, "warnings", kept, []string(nil))
			} else if text := strings.Join(kept, "\n"); !strings.HasPrefix(text,
				"Warning NAD default/a: interface net1: ") || !strings.Contains(text, tc.word) {
				t.Errorf("no warning with %q: %q", tc.word, kept)
			}
			h.must("CHECK", p)
			h.must("DEL", p)
			if h.node.HasLink("br1") {
				if err := h.node.Netlink().LinkDel(h.node.Link("br1")); err != nil {
					t.Fatal(err)
				}
			}
			h.clean(p)
		})
	}
}

// What was left out is in no record, so that neither DEL nor CHECK, nor a plugin that is called by
// them, hears of it.
func TestR3LeavesTheRecord(t *testing.T) {
	t.Parallel()
	for kind, config := range map[string]string{
		"configured": `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",` + network4 +
			`},{"type":"teller"}]}`,
		"learned": `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",` +
			`"ipam":{"type":"learning"}},{"type":"teller"}]}`,
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.script("learning", learning)
			h.fake("teller", passOn)
			h.nad("a", strings.Replace(config, "DIR", h.path("leases"), 1))
			p := h.pod("p", "a")
			h.add(p)
			if _, net1, _ := strings.Cut(h.recorded(p), "default/a"); strings.Contains(net1, "0.0.0.0/0") {
				t.Errorf("recorded: %s", net1)
			}
			h.must("CHECK", p)
			h.must("DEL", p)
			for _, command := range []string{"CHECK", "DEL"} {
				if told := h.noted("teller", command, p, "net1", "json"); strings.Contains(told, "0.0.0.0/0") {
					t.Errorf("%s: told %s", command, told)
				}
			}
			h.clean(p)
		})
	}
}

// With sbr the route belongs to the interface's own table.
func TestR3SourceBasedRouting(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]func(*host){
		"in-process": func(*host) {},
		"exec'd": func(h *host) {
			h.execs("macvlan", "host-local", "sbr")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			setup(h)
			h.dualStack()
			extra := `,"routes":[{"dst":"0.0.0.0/0","gw":"10.11.0.9"},{"dst":"::/0","gw":"fd00:11::9"}]`
			h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
				h.on(plainMacvlan, strings.Replace(twofold, "EXTRA", extra, 1))+`,{"type":"sbr"}]}`)
			p := h.pod("p", "a")
			h.add(p)
			same(t, "default routes", allDefaults(p),
				[]string{viaEth0, "default via fd00:1::1 dev eth0 metric 1024"})
			same(t, "warnings", h.kept(p), []string(nil))
			if own := strings.Join(defaults(table(p, 4, "100")), " "); !strings.Contains(own, "dev net1") {
				t.Errorf("table 100: %s", p.Routes())
			}
			if own := strings.Join(defaults(table(p, 6, "101")), " "); !strings.Contains(own, "dev net1") {
				t.Errorf("table 101: %s", p.Routes())
			}
			if name == "in-process" { // the reference's macvlan does not find what sbr has moved
				h.must("CHECK", p)
			}
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// A route that another network brought stays as well, and what the pod asks for counts.
func TestR3SeveralNetworks(t *testing.T) {
	t.Parallel()
	for networks, want := range map[string]string{
		"a,b": "default via 10.11.0.1 dev net1",
		"b,a": "default via 10.12.0.1 dev net1",
		`[{"name":"a"},{"name":"b","default-route":["10.12.0.1"]}]`: "default via 10.12.0.1 dev net2",
		`[{"name":"b","default-route":[]},{"name":"a"}]`:            "default via 10.12.0.1 dev net1",
	} {
		t.Run(networks, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.withoutDefault()
			a := strings.Replace(h.on(plainMacvlan, network4), "{", `{"cniVersion":"1.0.0",`, 1)
			h.nad("a", a)
			h.nad("b", strings.ReplaceAll(a, "10.11.", "10.12."))
			p := h.pod("p", networks)
			h.add(p)
			same(t, "default routes", allDefaults(p), []string{want})
			h.must("CHECK", p)
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// The last network takes the default route, as with Multus; of IPv6, too, which the kernel would
// spread over both.
func TestR3Take(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string]func(*host){
		"in-process": func(*host) {},
		"exec'd": func(h *host) {
			h.execs("macvlan", "host-local")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			setup(h)
			h.dualStack()
			h.setBraid("secondaryDefaultRoute", "take")
			extra := `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`
			for i, name := range []string{"a", "b"} {
				config := h.on(plainMacvlan, strings.Replace(twofold, "EXTRA", extra, 1))
				config = strings.NewReplacer("{\"type\":\"macvlan",
					"{\"cniVersion\":\"1.0.0\",\"type\":\"macvlan", "10.11.", fmt.Sprintf("10.1%d.", i+1), ":11:",
					fmt.Sprintf(":1%d:", i+1)).Replace(config)
				h.nad(name, config)
			}
			p := h.pod("p", "a,b")
			h.add(p)
			same(t, "first IPv4 route", first(p), "default via 10.12.0.1 dev net2")
			same(t, "IPv6 default routes", defaults(table(p, 6, "main")),
				[]string{"default via fd00:12::1 dev net2 metric 512"})
			same(t, "warnings", h.kept(p), []string(nil))
			h.must("CHECK", p)
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// first is the IPv4 default route that the kernel uses.
func first(p *pod) string {
	routes, err := p.Netlink().RouteGet([]byte{8, 8, 8, 8})
	if err != nil || len(routes) != 1 {
		return fmt.Sprint(routes, err)
	}
	link, err := p.Netlink().LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("default via %s dev %s", routes[0].Gw, link.Attrs().Name)
}

// With "refuse" a network that brings a default route does not attach, also where its configuration
// did not show it.
func TestR3Refuse(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]string{
		"configured": strings.TrimSuffix(plainMacvlan, "}") + "," + network4 + "}",
		"learned":    `{"type":"macvlan","master":"nic0","ipam":{"type":"learning"}}`,
		"replaced":   `{"type":"greedy"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.setBraid("secondaryDefaultRoute", "refuse")
			h.script("greedy", greedy)
			h.script("learning", learning)
			h.nad("a", strings.NewReplacer("DIR", h.path("leases"), `{"type":"macvlan"`,
				`{"cniVersion":"1.0.0","type":"macvlan"`, `{"type":"greedy"`,
				`{"cniVersion":"1.0.0","type":"greedy"`).Replace(config))
			p := h.pod("p", "a")
			h.fails("ADD", p, 7, "NAD default/a", "IPv4 default route", "default-route")
			same(t, "event", h.lastEvent(p).Reason, "DefaultRouteRefused")
			h.clean(p)
			p = h.pod("q", `[{"name":"a","default-route":[]}]`)
			h.add(p)
			if len(allDefaults(p)) != 1 || !strings.Contains(allDefaults(p)[0], "dev net1") {
				t.Errorf("asked for: %v", allDefaults(p))
			}
		})
	}
}

func TestR3WrongPolicy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.setBraid("secondaryDefaultRoute", "hold")
	h.fails("ADD", h.pod("p", ""), 7, "braid.secondaryDefaultRoute", `"keep", "take" or "refuse"`)
}

// A network with sbr can have the pod's default route: sbr keeps its table, and its gateway is
// reached although no route of the main table leads to its subnet.
func TestR22DefaultRouteWithSBR(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		extra, asks string
		want        []string
	}{
		"gateways of the pod": {
			"", `["10.11.0.9","fd00:11::9"]`,
			[]string{"default via 10.11.0.9 dev net1", "default via fd00:11::9 dev net1 metric 512"},
		},
		"gateways of the network": {
			"", `[]`,
			[]string{"default via 10.11.0.1 dev net1", "default via fd00:11::1 dev net1 metric 512"},
		},
		"routes of the network": {
			`,"routes":[{"dst":"0.0.0.0/0","gw":"10.11.0.9"},{"dst":"::/0","gw":"fd00:11::9"}]`, `[]`,
			[]string{"default via 10.11.0.9 dev net1", "default via fd00:11::9 dev net1 metric 512"},
		},
		"one family": {
			"", `["10.11.0.1"]`,
			[]string{"default via 10.11.0.1 dev net1", "default via fd00:1::1 dev eth0 metric 1024"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.dualStack()
			h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
				h.on(plainMacvlan, strings.Replace(twofold, "EXTRA", tc.extra, 1))+`,{"type":"sbr"}]}`)
			p := h.pod("p", `[{"name":"a","default-route":`+tc.asks+`}]`)
			h.add(p)
			var got []string
			for _, route := range allDefaults(p) {
				got = append(got, strings.Replace(route, " onlink", "", 1))
			}
			same(t, "default routes", got, tc.want)
			same(t, "routed by", first(p), strings.Replace(tc.want[0], " metric 512", "", 1))
			if own := strings.Join(defaults(table(p, 4, "100")), " "); !strings.Contains(own, "dev net1") {
				t.Errorf("table 100: %s", p.Routes())
			}
			h.must("CHECK", p)
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// A gateway in none of the interface's subnets is refused, and the remedy is one.
func TestR22GatewayElsewhere(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.on(plainMacvlan, strings.Replace(network4, `,{"dst":"0.0.0.0/0"}`, "", 1))+`,{"type":"sbr"}]}`)
	p := h.pod("p", `[{"name":"a","default-route":["10.99.0.1"]}]`)
	h.fails("ADD", p, 5, "NAD default/a", "interface net1", "field default-route", "10.99.0.1",
		"name a gateway in a subnet of the interface")
	h.clean(p)
	q := h.pod("q", `[{"name":"a","default-route":["10.11.0.200"]}]`)
	h.add(q)
	same(t, "routed by", first(q), "default via 10.11.0.200 dev net1")
}
