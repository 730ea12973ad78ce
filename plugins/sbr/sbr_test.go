package sbr_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/sbr"
)

type conf = plugintest.Conf

func ours() plugintest.Runner { return plugintest.Plugins{"sbr": plugin.New(sbr.Plugin{})} }

// address is one of net1, with its gateway.
type address struct{ cidr, gateway string }

// pod makes a pod with eth0 and net1, which has the addresses and routes ("to" or "to via
// gateway"), as the plugin before sbr leaves it, and a configuration of sbr with its result.
func pod(
	t testing.TB, n *plugintest.Node, id string, addrs []address, routes ...string,
) (*plugintest.Pod, conf) {
	t.Helper()
	p := n.Pod(id)
	router := nettest.New(t)
	for _, name := range []string{"eth0", "net1"} {
		p.Veth(name, router, "to"+name)
	}
	p.Addr("eth0", "192.168.0.2/24", "fd99::2/64")
	p.Route("default", "192.168.0.1", "eth0", 0)
	p.Route("default", "fd99::1", "eth0", 0)
	ips, list := []conf{}, []conf{}
	for _, a := range addrs {
		p.Addr("net1", a.cidr)
		ip := conf{"address": a.cidr, "interface": 0}
		if a.gateway != "" {
			ip["gateway"] = a.gateway
		}
		ips = append(ips, ip)
	}
	for _, r := range routes {
		to, gateway, _ := strings.Cut(r, " via ")
		p.Route(to, gateway, "net1", 0)
		route := conf{"dst": to}
		if gateway != "" {
			route["gw"] = gateway
		}
		list = append(list, route)
	}
	awaitLinkLocal(t, p)
	return p, conf{"type": "sbr", "prevResult": conf{
		"cniVersion": "1.1.0", "interfaces": []conf{{"name": "net1", "sandbox": p.NetNS}}, "ips": ips,
		"routes": list,
	}}
}

// linkLocal are the routes of net1 that a snapshot leaves out.
func linkLocal(p *plugintest.Pod) []string {
	var lines []string
	routes, err := p.Netlink().
		RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Table: unix.RT_TABLE_UNSPEC},
			netlink.RT_FILTER_TABLE)
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP.IsLinkLocalUnicast() && r.Type == unix.RTN_UNICAST &&
			r.LinkIndex == p.Link("net1").Attrs().Index {
			lines = append(lines, fmt.Sprintf("%s table %d metric %d %s",
				r.Dst, r.Table, r.Priority, r.Protocol))
		}
	}
	if err != nil {
		lines = append(lines, err.Error())
	}
	slices.Sort(lines)
	return lines
}

func awaitLinkLocal(t testing.TB, p *plugintest.Pod) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); len(linkLocal(p)) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("net1 gets no link-local address")
		}
	}
}

var dual = []address{{"10.1.0.2/24", "10.1.0.1"}, {"fd00::2/64", "fd00::1"}}

// rule is that packets from a prefix look into a table.
type rule struct{ from, table string }

// likeTheReference are attachments to which sbr does what the reference does.
var likeTheReference = map[string]struct {
	addrs  []address
	routes []string
	conf   conf
	rules  []rule // that are there before
	pick   func(prev conf)
}{
	"IPv4": {addrs: dual[:1], routes: []string{"172.16.0.0/12 via 10.1.0.1"}},
	"IPv6": {addrs: dual[1:], routes: []string{"fd01::/64 via fd00::1"}},
	"dual stack": {addrs: dual, routes: []string{
		"172.16.0.0/12 via 10.1.0.1", "172.30.0.0/16", "fd01::/64 via fd00::1", "fd02::/64",
	}},
	"default routes": {
		addrs:  dual,
		routes: []string{"0.0.0.0/0 via 10.1.0.9", "0.0.0.0/0 via 10.1.0.1", "::/0 via fd00::1"},
	},
	"no gateways": {
		addrs:  []address{{"10.1.0.2/24", ""}, {"fd00::2/64", ""}},
		routes: []string{"172.16.0.0/12 via 10.1.0.1"},
	},
	"one subnet": {
		addrs:  []address{{"10.1.0.2/24", "10.1.0.1"}, {"10.1.0.3/24", "10.1.0.1"}},
		routes: []string{"172.16.0.0/12 via 10.1.0.1"},
	},
	"two subnets": {
		addrs:  []address{{"10.1.0.2/24", "10.1.0.1"}, {"10.2.0.2/16", "10.2.0.1"}},
		routes: []string{"172.16.0.0/12 via 10.1.0.1", "172.32.0.0/12 via 10.2.0.1", "172.48.0.0/12"},
	},
	"host addresses": {
		addrs:  []address{{"10.1.0.2/32", ""}, {"fd00::2/128", ""}},
		routes: []string{"172.16.0.0/12"},
	},
	"table": {
		addrs: dual, conf: conf{"table": 7},
		routes: []string{"172.16.0.0/12 via 10.1.0.1"},
	},
	"large table":   {addrs: dual, conf: conf{"table": 70000}},
	"tables in use": {addrs: dual, rules: []rule{{"10.9.9.9/32", "100"}, {"fd09::9/128", "102"}}},
	"one of two":    {addrs: dual, pick: func(prev conf) { prev["ips"] = prev["ips"].([]conf)[:1] }},
	"no interface": {addrs: dual, pick: func(prev conf) {
		delete(prev["ips"].([]conf)[0], "interface")
	}},
	"others' addresses": {addrs: dual, pick: func(prev conf) {
		prev["interfaces"] = append(prev["interfaces"].([]conf), conf{"name": "br0"})
		prev["ips"].([]conf)[1]["interface"] = 1
	}},
}

// What ADD and DEL leave is what the reference leaves.
func TestMatchesReference(t *testing.T) {
	for name, c := range likeTheReference {
		t.Run(name, func(t *testing.T) {
			var twins [2][]string
			for i, runner := range []plugintest.Runner{ours(), plugintest.Reference{}} {
				p, conf := pod(t, plugintest.New(t, runner), "a", c.addrs, c.routes...)
				conf = conf.With(c.conf)
				if c.pick != nil {
					c.pick(conf["prevResult"].(plugintest.Conf))
				}
				for _, r := range c.rules {
					addRule(t, p, r.from, r.table)
				}
				before := p.Snapshot()
				result, err := p.Add(conf)
				if err != nil {
					t.Fatal(err)
				}
				if p.Snapshot() == before {
					t.Error("ADD changed nothing")
				}
				if err := p.Check(conf); err != nil {
					t.Error(err)
				}
				printed, err := json.Marshal(result)
				if err != nil {
					t.Fatal(err)
				}
				twins[i] = append(state(p), strings.ReplaceAll(string(printed), p.NetNS, "NETNS"))
				for range 2 {
					if err := p.Del(conf); err != nil {
						t.Fatal(err)
					}
				}
				// The reference leaves its tables.
				left := slices.DeleteFunc(state(p), func(line string) bool { return i == 1 && ownTable(line) })
				twins[i] = append(append(twins[i], "after DEL"), left...)
			}
			if diff := cmp.Diff(twins[1], twins[0]); diff != "" {
				t.Errorf("the reference - and ours +:\n%s", diff)
			}
		})
	}
}

// state is all that sbr could change in a pod. The reference overlooks an IPv6 default route of the
// interface that the kernel lists as one with that of another: it leaves it in the main table.
func state(p *plugintest.Pod) []string {
	snapshot := strings.ReplaceAll(p.Snapshot(),
		"nexthop via fd99::1 dev eth0 nexthop via fd00::1 dev net1", "via fd99::1 dev eth0")
	return append(strings.Split(snapshot, "\n"), linkLocal(p)...)
}

func addRule(t testing.TB, p *plugintest.Pod, from, table string) {
	t.Helper()
	rule := netlink.NewRule()
	rule.Src = ipNet(t, from)
	if _, err := fmt.Sscan(table, &rule.Table); err != nil {
		t.Fatal(err)
	}
	if err := p.Netlink().RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
}

// out says by which link, gateway and table the kernel would send a packet from src to dst.
func out(t *testing.T, p *plugintest.Pod, src, dst string) string {
	t.Helper()
	routes, err := p.Netlink().
		RouteGetWithOptions(net.ParseIP(dst), &netlink.RouteGetOptions{SrcAddr: net.ParseIP(src)})
	if err != nil {
		return err.Error()
	}
	link, err := p.Netlink().LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s via %s table %d", link.Attrs().Name, routes[0].Gw, routes[0].Table)
}

func TestPacketsLeaveByTheirSource(t *testing.T) {
	p, conf := pod(t, plugintest.New(t, ours()), "a", dual)
	if _, err := p.Add(conf); err != nil {
		t.Fatal(err)
	}
	for _, packet := range []struct{ from, to, want string }{
		{"192.168.0.2", "1.2.3.4", "eth0 via 192.168.0.1 table 254"},
		{"10.1.0.2", "1.2.3.4", "net1 via 10.1.0.1 table 100"},
		{"10.1.0.2", "10.1.0.7", "net1 via <nil> table 100"},
		{"fd99::2", "2001:db8::1", "eth0 via fd99::1 table 254"},
		{"fd00::2", "2001:db8::1", "net1 via fd00::1 table 101"},
		{"fd00::2", "fd00::7", "net1 via <nil> table 101"},
	} {
		if got := out(t, p, packet.from, packet.to); got != packet.want {
			t.Errorf("%+v: %s", packet, got)
		}
	}
}

func TestFailureOfEachStepLeavesNothing(t *testing.T) {
	routes := []string{
		"0.0.0.0/0 via 10.1.0.1", "10.7.0.0/16", "172.16.0.0/12 via 10.1.0.1", "fd01::/64 via fd00::1",
		"fd02::/64", "::/0 via fd00::1",
	}
	for name, more := range map[string]conf{
		"tables": {}, "table": {"table": 7},
		"hints": {"addSourceHints": true, "gateways": []string{"10.1.0.8", "fd00::8"}},
	} {
		p, c := pod(t, plugintest.New(t, ours()), "a", dual, routes...)
		steps := p.FailEachStep(t, c.With(more), func() string { return strings.Join(state(p), "\n") })
		if err := p.Check(c.With(more)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %d steps", name, steps)
	}
}

// A rule that is there already is not made twice, as the reference does, and not taken away by a
// failure.
func TestRuleThatExists(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		rules  int
	}{"ours": {ours(), 1}, "the reference": {plugintest.Reference{}, 2}} {
		p, good := pod(t, plugintest.New(t, c.runner), "a", dual)
		addRule(t, p, "fd00::2/128", "7")
		if c.rules == 1 {
			p.FailEachStep(t, good.With(conf{"table": 7}), p.Snapshot)
		} else if _, err := p.Add(good.With(conf{"table": 7})); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(p.Rules(), "from fd00::2/128 table 7"); got != c.rules {
			t.Errorf("%s: %d rules, want %d", name, got, c.rules)
		}
	}
}

// A table that has routes, but no rule, is not free: an IPAM plugin can fill one.
func TestTableWithRoutesIsNotFree(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		want   string
	}{
		"ours": {ours(), "table 101"}, "the reference shares it": {plugintest.Reference{}, "table 100"},
	} {
		p, conf := pod(t, plugintest.New(t, c.runner), "a", dual[:1])
		route := &netlink.Route{
			LinkIndex: p.Link("eth0").Attrs().Index, Table: 100, Dst: ipNet(t, "172.16.0.0/12"),
			Scope: netlink.SCOPE_LINK,
		}
		if err := p.Netlink().RouteAdd(route); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Add(conf); err != nil {
			t.Fatal(err)
		}
		if want := "from 10.1.0.2/32 " + c.want; !strings.Contains(p.Rules(), want) {
			t.Errorf("%s: lacks %q:\n%s", name, want, p.Rules())
		}
	}
}

// A route via the address's own gateway belongs to the address also where the gateway is in no
// subnet, as a link-local one.
func TestRouteViaLinkLocalGateway(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		keeps  bool
	}{"ours": {ours(), true}, "the reference loses it": {plugintest.Reference{}, false}} {
		p, conf := pod(t, plugintest.New(t, c.runner), "a", []address{{"fd00::2/64", "fe80::1"}},
			"fd01::/64 via fe80::1")
		if _, err := p.Add(conf); err != nil {
			t.Fatal(err)
		}
		got := strings.Contains(p.Routes(), "route6 table 100 fd01::/64 via fe80::1 dev net1")
		if got != c.keeps {
			t.Errorf("%s: %v\n%s", name, got, p.Routes())
		}
		if c.keeps {
			if err := p.Check(conf); err != nil {
				t.Error(err)
			}
		}
	}
}

// With addresses of other interfaces only, nothing can be routed by a source; the reference takes
// the interface's routes away all the same.
func TestAddressesOfOthersOnly(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		fails  bool
	}{"ours": {ours(), true}, "the reference": {plugintest.Reference{}, false}} {
		p, conf := pod(t, plugintest.New(t, c.runner), "a", dual)
		conf["prevResult"].(plugintest.Conf)["interfaces"].([]plugintest.Conf)[0]["name"] = "net2"
		before := p.Snapshot()
		if _, err := p.Add(conf); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
		if kept := p.Snapshot() == before; kept != c.fails {
			t.Errorf("%s: state kept: %v", name, kept)
		}
	}
}

func ipNet(t testing.TB, cidr string) *net.IPNet {
	t.Helper()
	n, err := netlink.ParseIPNet(cidr)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGateways(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a", dual, "0.0.0.0/0 via 10.1.0.1",
		"172.16.0.0/12 via 10.1.0.1")
	c = c.With(conf{"gateways": []string{"10.1.0.7"}})
	if _, err := p.Add(c); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"route4 table 100 default via 10.1.0.7 dev net1",
		"route4 table 100 172.16.0.0/12 via 10.1.0.1 dev net1",
		"route6 table 101 default via fd00::1 dev net1",
	} {
		if !strings.Contains(p.Routes(), want) {
			t.Errorf("lacks %q:\n%s", want, p.Routes())
		}
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
}

func TestAddSourceHints(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a", dual, "172.16.0.0/12 via 10.1.0.1",
		"fd01::/64 via fd00::1")
	c = c.With(conf{"addSourceHints": true})
	if _, err := p.Add(c); err != nil {
		t.Fatal(err)
	}
	var main []string
	for line := range strings.Lines(p.Routes()) {
		if strings.Contains(line, "table main") && strings.Contains(line, "net1") {
			main = append(main, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff([]string{
		"route4 table main 10.1.0.0/24 dev net1 scope link src 10.1.0.2",
		"route6 table main fd00::/64 dev net1 src fd00::2 metric 1024",
	}, main); diff != "" {
		t.Errorf("routes of the main table:\n%s", diff)
	}
	for _, packet := range []struct{ to, want string }{
		{"10.1.0.7", "net1 via <nil> table 254"}, {"fd00::7", "net1 via <nil> table 254"},
	} {
		if got := out(t, p, "", packet.to); got != packet.want {
			t.Errorf("%+v: %s", packet, got)
		}
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
}

// CHECK finds what is missing; the reference finds nothing.
func TestCheckIsReal(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(p *plugintest.Pod) error
		says   []string
	}{
		"rule": {func(p *plugintest.Pod) error {
			rule := netlink.NewRule()
			rule.Src, rule.Table = ipNet(t, "10.1.0.2/32"), 100
			return p.Netlink().RuleDel(rule)
		}, []string{"10.1.0.2", "net1"}},
		"default route": {func(p *plugintest.Pod) error {
			return p.Netlink().RouteDel(&netlink.Route{
				Dst: ipNet(t, "::/0"), Gw: net.ParseIP("fd00::1"), LinkIndex: p.Link("net1").Attrs().Index,
				Table: 101,
			})
		}, []string{"101", "fd00::2", "default route"}},
		"route": {func(p *plugintest.Pod) error {
			return p.Netlink().RouteDel(&netlink.Route{
				Dst: ipNet(t, "172.16.0.0/12"), LinkIndex: p.Link("net1").Attrs().Index, Table: 100,
			})
		}, []string{"172.16.0.0/12"}},
		"link": {func(p *plugintest.Pod) error {
			return p.Netlink().LinkDel(p.Link("net1"))
		}, []string{"net1"}},
	} {
		p, conf := pod(t, plugintest.New(t, ours()), "a", dual, "172.16.0.0/12 via 10.1.0.1")
		if _, err := p.Add(conf); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(conf); err != nil {
			t.Fatal(err)
		}
		if err := c.breaks(p); err != nil {
			t.Fatal(err)
		}
		err := p.Check(conf)
		for _, text := range c.says {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: CHECK says %v, want %q in it", name, err, text)
			}
		}
	}
	p, conf := pod(t, plugintest.New(t, plugintest.Reference{}), "a", dual)
	if err := p.Check(conf); err != nil {
		t.Errorf("the reference checks something: %v", err)
	}
}

func TestCheckOfTable(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a", dual, "172.16.0.0/12 via 10.1.0.1")
	c = c.With(conf{"table": 7})
	if _, err := p.Add(c); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
	if err := p.Check(c.With(conf{"table": 8})); err == nil {
		t.Error("CHECK takes a rule for another table")
	}
}

// M16: DEL makes no file where the network namespace was, and succeeds without one. So does it when
// the interface went first.
func TestM16SbrMissingNetns(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		fails  bool
	}{"ours": {ours(), false}, "the reference": {plugintest.Reference{}, true}} {
		t.Run(name, func(t *testing.T) {
			p, conf := pod(t, plugintest.New(t, c.runner), "a", dual)
			if _, err := p.Add(conf); err != nil {
				t.Fatal(err)
			}
			gone := filepath.Join(t.TempDir(), "netns")
			p.NetNS = gone
			err := p.Del(conf)
			_, statErr := os.Stat(gone)
			if left := statErr == nil; left != c.fails {
				t.Errorf("DEL of a namespace that is gone: %v; a file is there: %v", err, left)
			}
			p.NetNS = ""
			if err := p.Del(conf); (err != nil) != c.fails {
				t.Errorf("DEL without a namespace: %v", err)
			}
			p.NetNS = filepath.Join(t.TempDir(), "left")
			if err := os.WriteFile(p.NetNS, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := p.Del(conf); (err != nil) != c.fails {
				t.Errorf("DEL of the file that a namespace was mounted on: %v", err)
			}
		})
	}
}

// ADD makes no file either.
func TestAddToMissingNetns(t *testing.T) {
	p, conf := pod(t, plugintest.New(t, ours()), "a", dual)
	p.NetNS = filepath.Join(t.TempDir(), "netns")
	if _, err := p.Add(conf); !errors.Is(err, plugin.ErrNoPod) {
		t.Errorf("ADD: %v", err)
	}
	if _, err := os.Stat(p.NetNS); err == nil {
		t.Error("ADD made a file")
	}
}

// The engine removes the links of a sandbox first; the reference then leaves the rules.
func TestDelAfterTheLink(t *testing.T) {
	for name, c := range map[string]struct {
		runner plugintest.Runner
		leaks  bool
	}{"ours": {ours(), false}, "the reference": {plugintest.Reference{}, true}} {
		p, conf := pod(t, plugintest.New(t, c.runner), "a", dual)
		before := p.Rules()
		addRule(t, p, "10.9.9.9/32", "100") // somebody else's
		if _, err := p.Add(conf); err != nil {
			t.Fatal(err)
		}
		if err := p.Netlink().LinkDel(p.Link("net1")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.Del(conf); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		rule := netlink.NewRule()
		rule.Src, rule.Table = ipNet(t, "10.9.9.9/32"), 100
		if err := p.Netlink().RuleDel(rule); err != nil {
			t.Errorf("%s: the rule of somebody else is gone", name)
		}
		if got := p.Rules(); (got != before) != c.leaks {
			t.Errorf("%s: rules after DEL:\n%s", name, got)
		}
	}
}

// ownTable reports whether a line of a snapshot is a route of a table that ADD chose.
func ownTable(line string) bool {
	return !strings.HasPrefix(line, "rule") && strings.Contains(line, " table 10")
}

// second makes a second network of the pod, net2 with an address of each family.
func second(t *testing.T, p *plugintest.Pod) (*plugintest.Pod, conf) {
	t.Helper()
	other := *p
	other.IfName, other.Prev = "net2", nil
	p.Veth("net2", nettest.New(t), "tonet2")
	p.Addr("net2", "10.2.0.2/24", "fd02::2/64")
	return &other, conf{"type": "sbr", "prevResult": conf{
		"cniVersion": "1.1.0", "interfaces": []conf{{"name": "net2", "sandbox": p.NetNS}},
		"ips": []conf{
			{"address": "10.2.0.2/24", "interface": 0, "gateway": "10.2.0.1"},
			{"address": "fd02::2/64", "interface": 0, "gateway": "fd02::1"},
		},
	}}
}

// R13: DEL without prevResult leaves neither rules nor tables, whatever became of the link, of its
// addresses and of the configuration, and those of the pod's other networks stay.
func TestR13DelLeavesNothing(t *testing.T) {
	linkGone := func(p *plugintest.Pod) error { return p.Netlink().LinkDel(p.Link("net1")) }
	for name, c := range map[string]struct {
		conf   conf
		breaks func(p *plugintest.Pod) error
	}{
		"link":        {nil, nil},
		"link gone":   {nil, linkGone},
		"table":       {conf{"table": 7}, nil},
		"table, gone": {conf{"table": 7}, linkGone},
		"address gone": {nil, func(p *plugintest.Pod) error {
			return p.Netlink().AddrDel(p.Link("net1"), &netlink.Addr{IPNet: ipNet(t, "10.1.0.2/24")})
		}},
		"gateways": {conf{"gateways": []string{"10.1.0.7"}}, linkGone},
		"hints":    {conf{"addSourceHints": true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, good := pod(t, plugintest.New(t, ours()), "a", dual, "172.16.0.0/12 via 10.1.0.1")
			p.Route("172.20.0.0/16", "192.168.0.1", "eth0", 7)
			addRule(t, p, "10.9.9.9/32", "100") // somebody else's
			other, otherConf := second(t, p)
			awaitLinkLocal(t, p)
			if _, err := other.Add(otherConf); err != nil {
				t.Fatal(err)
			}
			rules, tables := p.Rules(), filter(p.Routes(), ownTable)
			if _, err := p.Add(good.With(c.conf)); err != nil {
				t.Fatal(err)
			}
			if p.Rules() == rules {
				t.Fatal("ADD made no rule")
			}
			if c.breaks != nil {
				if err := c.breaks(p); err != nil {
					t.Fatal(err)
				}
			}
			p.Prev = nil
			for range 2 {
				if _, err := p.Call("DEL", conf{"type": "sbr", "cniVersion": "0.3.1"}); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(rules, p.Rules()); diff != "" {
					t.Errorf("rules after DEL:\n%s", diff)
				}
				if diff := cmp.Diff(tables, filter(p.Routes(), ownTable)); diff != "" {
					t.Errorf("tables after DEL:\n%s", diff)
				}
			}
			if _, err := other.Call("DEL", conf{"type": "sbr", "cniVersion": "0.3.1"}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(p.Rules(), "from 10.2.") || len(filter(p.Routes(), ownTable)) > 0 {
				t.Errorf("after the DEL of net2:\n%s%s", p.Rules(), p.Routes())
			}
		})
	}
}

func filter(text string, want func(line string) bool) []string {
	return slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return !want(line) })
}

// Without prevResult, as CNI before 0.4.0 has DEL, the link says which addresses it had.
func TestDelWithoutPrevResult(t *testing.T) {
	p, c := pod(t, plugintest.New(t, ours()), "a", dual)
	before := p.Rules()
	if _, err := p.Add(c); err != nil {
		t.Fatal(err)
	}
	p.Prev = nil
	if err := p.Del(conf{"type": "sbr"}); err != nil {
		t.Fatal(err)
	}
	if got := p.Rules(); got != before {
		t.Errorf("rules after DEL:\n%s", got)
	}
}

func TestGCAndStatus(t *testing.T) {
	n := plugintest.New(t, ours())
	p, c := pod(t, n, "a", dual)
	if _, err := p.Add(c); err != nil {
		t.Fatal(err)
	}
	before := p.Snapshot()
	if err := errors.Join(n.GC(conf{"type": "sbr"}), n.Status(conf{"type": "sbr"})); err != nil {
		t.Error(err)
	}
	if p.Snapshot() != before {
		t.Error("GC or STATUS changed something")
	}
}

func TestReadme(t *testing.T) { plugintest.Readme[sbr.Conf](t, plugin.New(sbr.Plugin{})) }

// DEL removes the rules and the tables, whatever key has gone from the configuration since, or has
// come to it.
func TestDelWithoutEachKey(t *testing.T) {
	confs := []conf{
		{"type": "sbr", "table": 7},
		{
			"type": "sbr", "gateways": []string{"10.1.0.7"}, "addSourceHints": true,
			"dns": conf{"domain": "x"},
		},
	}
	plugintest.WithoutEachKey[sbr.Conf](t, "", confs,
		func(t *testing.T, key string, with, without conf) {
			for _, linkGone := range []bool{false, true} {
				p, good := pod(t, plugintest.New(t, ours()), "a", dual, "172.16.0.0/12 via 10.1.0.1")
				before := p.Rules()
				if _, err := p.Add(good.With(with)); err != nil {
					t.Fatal(err)
				}
				if p.Rules() == before {
					t.Fatal("ADD made no rule")
				}
				if linkGone {
					if err := p.Netlink().LinkDel(p.Link("net1")); err != nil {
						t.Fatal(err)
					}
				}
				p.Prev = nil
				for _, del := range []conf{without, without.With(conf{"table": 9})} {
					if err := p.Del(del); err != nil {
						t.Errorf("without %s: %v", key, err)
					}
				}
				if got := p.Rules(); got != before || len(filter(p.Routes(), ownTable)) > 0 {
					t.Errorf("without %s, link gone %v:\n%s%s", key, linkGone, got, p.Routes())
				}
			}
		})
}
