package portmap_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/portmap"
)

func both() []string { return []string{"tcp", "udp"} }

func twoPorts() []conf { return []conf{port("tcp", 8080, 80), port("udp", 8080, 80)} }

func TestAddCheckDel(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	serve(t, p.Namespace, ":80", "pod")
	before := w.state()
	c := chain(p, 2, nil, twoPorts()...)
	result, err := p.Add(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.IPs) != 4 || len(result.Interfaces) != 2 || len(result.DNS.Nameservers) != 1 {
		t.Errorf("result %s is not prevResult", p.Prev)
	}
	for _, network := range both() {
		expect(t, w.client, network, "192.0.2.1:8080", "pod saw 192.0.2.2")
		expect(t, w.client, network, "192.0.2.9:8080", "pod saw 192.0.2.2")
		expect(t, w.client, network, "198.51.100.1:8080", "pod saw 192.0.2.2")
		expect(t, w.client, network, "[2001:db8:1::1]:8080", "pod saw 2001:db8:1::2")
		expect(t, w.Host, network, "192.0.2.1:8080", "pod saw 192.0.2.1")
		expect(t, w.Host, network, "127.0.0.1:8080", "pod saw 10.1.0.1")
		expect(t, w.Host, network, "[2001:db8:1::1]:8080", "pod saw 2001:db8:1::1")
	}
	same(t, w.Host, `table inet braid_hostport {
		chain hostports {
			meta nfproto ipv4 tcp dport 8080 dnat ip to 10.1.0.2:80
			meta nfproto ipv4 udp dport 8080 dnat ip to 10.1.0.2:80
			meta nfproto ipv6 tcp dport 8080 dnat ip6 to [fd00:1::2]:80
			meta nfproto ipv6 udp dport 8080 dnat ip6 to [fd00:1::2]:80
		}
		chain masquerading {
			ip saddr 10.1.0.0/24 ip daddr 10.1.0.2 tcp dport 80 ct original proto-dst 8080 masquerade
			ip saddr 10.1.0.0/24 ip daddr 10.1.0.2 udp dport 80 ct original proto-dst 8080 masquerade
			ip saddr 127.0.0.0/8 ip daddr 10.1.0.2 masquerade
			ip6 saddr fd00:1::/64 ip6 daddr fd00:1::2 tcp dport 80 ct original proto-dst 8080 masquerade
			ip6 saddr fd00:1::/64 ip6 daddr fd00:1::2 udp dport 80 ct original proto-dst 8080 masquerade
		}
		chain prerouting {
			type nat hook prerouting priority dstnat; policy accept;
			ip daddr 127.0.0.0/8 iifname != "lo" drop
			fib daddr type local jump hostports
		}
		chain output {
			type nat hook output priority -100; policy accept;
			ip6 daddr ::1 return
			fib daddr type local jump hostports
		}
		chain postrouting {
			type nat hook postrouting priority srcnat; policy accept;
			ct status dnat jump masquerading
		}
	}`)
	if got := get(t, w.Host, "net/ipv4/conf/br0/route_localnet"); got != "1" {
		t.Errorf("route_localnet of the bridge is %s", got)
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := p.Del(c); err != nil {
			t.Fatal(err)
		}
		w.is(before)
	}
}

func TestVersions(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		c := chain(p, 2, conf{"cniVersion": version}, twoPorts()...)
		ip := conf{"address": "10.1.0.2/24", "interface": 0}
		if version < "1" {
			ip["version"] = "4"
		}
		c["prevResult"] = conf{
			"cniVersion": version, "interfaces": list{conf{"name": "net1", "sandbox": p.NetNS}},
			"ips": list{ip},
		}
		add(t, p, c)
		if got := object(t, p.Prev); got["cniVersion"] != version || len(got["ips"].([]any)) != 1 {
			t.Errorf("%s: result %s", version, p.Prev)
		}
		if err := errors.Join(p.Check(c), p.Del(c)); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
}

// A repeated ADD leaves the rules of one.
func TestAddAgain(t *testing.T) {
	for name, runner := range runners() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, runner)
			p := w.pod("a", 2)
			c := chain(p, 2, conf{"backend": "nftables"}, twoPorts()...)
			add(t, p, c)
			once := rules(t, w.Host)
			add(t, p, c)
			failsOnly(t, name, rules(t, w.Host) == once, "the rules of two ADDs:\n"+rules(t, w.Host))
		})
	}
	t.Run("other ports", func(t *testing.T) {
		w := newWorld(t, ours())
		p := w.pod("a", 2)
		add(t, p, chain(p, 2, nil, twoPorts()...))
		add(t, p, chain(p, 2, nil, port("tcp", 9090, 80)))
		got := rules(t, w.Host)
		if strings.Contains(got, "8080") || strings.Count(got, "9090 dnat") != 2 {
			t.Errorf("rules:\n%s", got)
		}
	})
}

// Without mappings nothing changes but what an ADD before has left (R14).
func TestR14NoMappings(t *testing.T) {
	w := newWorld(t, ours())
	p, other := w.pod("a", 2), w.pod("b", 3)
	add(t, other, chain(other, 3, nil, port("tcp", 9090, 80)))
	before := w.state()
	for _, runtime := range []any{
		nil, conf{}, conf{"portMappings": nil}, conf{"portMappings": list{}},
	} {
		c := chain(p, 2, conf{"runtimeConfig": runtime})
		add(t, p, c)
		w.is(before)
		want, err := json.Marshal(c["prevResult"])
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(object(t, p.Prev), object(t, want)) {
			t.Errorf("result %s, want prevResult %s", p.Prev, want)
		}
		if err := errors.Join(p.Check(c), p.Node.Status(c)); err != nil {
			t.Error(err)
		}
		for command, c := range map[string]conf{
			"ADD": c, "DEL": c.With(conf{"prevResult": nil, "cniVersion": "0.3.1"}),
			"DEL ": {"type": "portmap", "runtimeConfig": conf{"portMappings": "x"}},
		} {
			add(t, p, chain(p, 2, nil, twoPorts()...))
			if w.state() == before {
				t.Fatal("ADD made no rule")
			}
			if _, err := p.Call(strings.TrimSpace(command), c); err != nil {
				t.Errorf("%s: %v", command, err)
			}
			w.is(before)
		}
	}
}

// mapped are mappings of a pod beside those of another pod, or beside a process that listens. code
// and says are those of the error, if there is one.
type mapped struct {
	others, conf conf
	listens      string
	mappings     []conf
	code         uint
	says         []string
}

// tried fails unless an ADD of p has the outcome that each case wants, also when it is repeated.
// Nothing may be left of it. The other pod is there meanwhile.
func tried(t *testing.T, w *world, p, other *plugintest.Pod, cases map[string]mapped) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.others != nil {
				add(t, other, c.others)
				defer func() {
					if err := other.Del(c.others); err != nil {
						t.Error(err)
					}
				}()
			}
			if c.listens != "" {
				defer serve(t, w.Host, c.listens, "node")()
			}
			before := w.state()
			wanted := chain(p, 2, c.conf, c.mappings...)
			for range 2 { // the runtime repeats an ADD
				_, err := p.Add(wanted)
				if plugintest.Code(err) != c.code {
					t.Errorf("code %d, want %d: %v", plugintest.Code(err), c.code, err)
				}
				for _, text := range c.says {
					if err == nil || !strings.Contains(err.Error(), text) {
						t.Errorf("%v, want %q in it", err, text)
					}
				}
				if c.code != 0 {
					w.is(before)
				}
			}
			if err := p.Del(wanted); err != nil {
				t.Error(err)
			}
			w.is(before)
		})
	}
}

// at is a mapping of port 8080 of a hostIP.
func at(protocol, ip string) conf { return port(protocol, 8080, 80).With(conf{"hostIP": ip}) }

// addressed is what net1 of the pod has as addresses.
func addressed(p *plugintest.Pod, ips ...string) conf {
	prev := list{}
	for _, ip := range ips {
		prev = append(prev, conf{"address": ip, "interface": 0})
	}
	return conf{
		"prevResult": conf{
			"cniVersion": "1.1.0", "interfaces": list{conf{"name": "net1", "sandbox": p.NetNS}},
			"ips": prev,
		},
	}
}

// R24: a mapping that leads nowhere is an error that names field and remedy, and changes nothing.
func TestR24LeadsNowhere(t *testing.T) {
	w := newWorld(t, ours())
	p, other := w.pod("a", 2), w.pod("b", 3)
	v4 := addressed(p, "10.1.0.2/24")
	v6 := addressed(p, "fd00:1::2/64")
	tried(t, w, p, other, map[string]mapped{
		"IPv6 hostIP": {
			conf: v4, mappings: []conf{port("udp", 53, 53), at("tcp", "fd00::1")}, code: 7,
			says: []string{"portMappings[1].hostIP", "fd00::1", "IPv6", "leave hostIP out"},
		},
		"::": {
			conf: v4, mappings: []conf{at("tcp", "::")}, code: 7,
			says: []string{"portMappings[0].hostIP", "IPv6"},
		},
		"IPv4 hostIP": {
			conf: v6, mappings: []conf{at("tcp", "192.0.2.1")}, code: 7,
			says: []string{"portMappings[0].hostIP", "192.0.2.1", "IPv4"},
		},
		"no address": {
			conf: addressed(p), mappings: []conf{at("tcp", "")}, code: 7,
			says: []string{"portMappings[0]", "net1", "IPAM"},
		},
		"twice": {conf: v4, mappings: []conf{
			at("tcp", ""), at("tcp", "").With(conf{"containerPort": 81}),
		}, code: 7, says: []string{"portMappings[1].hostPort 8080", "portMappings[0]"}},
	})
}

// R24: a port that another pod has is an error, too.
func TestR24TakenByAPod(t *testing.T) {
	w := newWorld(t, ours())
	p, other := w.pod("a", 2), w.pod("b", 3)
	v4 := addressed(p, "10.1.0.2/24")
	v6 := addressed(p, "fd00:1::2/64")
	dual := addressed(p, "10.1.0.2/24", "fd00:1::2/64")
	limited := conf{
		"conditionsV4": list{"ip", "saddr", "192.0.2.3"},
		"conditionsV6": list{"ip6", "saddr", "2001:db8:1::3"},
	}
	tried(t, w, p, other, map[string]mapped{
		"pod": {
			others: chain(other, 3, nil, at("tcp", "")), conf: dual, mappings: []conf{at("tcp", "")},
			code: 11,
			says: []string{
				"portMappings[0].hostPort 8080", "tcp port 8080", "net net1 b", "choose another hostPort",
			},
		},
		"pod, one family": {
			others: chain(other, 3, nil, at("tcp", "192.0.2.1")), conf: v6,
			mappings: []conf{at("tcp", "")},
		},
		"pod, other protocol": {
			others: chain(other, 3, nil, at("udp", "")), conf: v4,
			mappings: []conf{at("tcp", "")},
		},
		"pod, other address": {
			others: chain(other, 3, nil, at("tcp", "192.0.2.9")), conf: v4,
			mappings: []conf{at("tcp", "192.0.2.1")},
		},
		"pod, same address": {
			others: chain(other, 3, nil, at("tcp", "192.0.2.1")), conf: v4,
			mappings: []conf{at("tcp", "192.0.2.1")}, code: 11, says: []string{"192.0.2.1"},
		},
		"pod, any": {
			others: chain(other, 3, nil, at("tcp", "0.0.0.0")), conf: v4,
			mappings: []conf{at("tcp", "192.0.2.1")}, code: 11, says: []string{"192.0.2.1"},
		},
		"pod, one of any": {
			others: chain(other, 3, nil, at("tcp", "192.0.2.1")), conf: v4,
			mappings: []conf{at("tcp", "")}, code: 11, says: []string{"8080"},
		},
		"pod, conditions": {
			others: chain(other, 3, limited, at("tcp", "")), conf: v4,
			mappings: []conf{at("tcp", "")},
		},
		"pod, same conditions": {
			others: chain(other, 3, limited, at("tcp", "")), conf: v4.With(limited),
			mappings: []conf{at("tcp", "")}, code: 11, says: []string{"8080"},
		},
		"pod before conditions": {
			others: chain(other, 3, nil, at("tcp", "")), conf: v4.With(limited),
			mappings: []conf{at("tcp", "")}, code: 11, says: []string{"8080"},
		},
	})
}

// R24: a port that a process of the node listens on is an error, too.
func TestR24TakenByAProcess(t *testing.T) {
	w := newWorld(t, ours())
	p, other := w.pod("a", 2), w.pod("b", 3)
	v4 := addressed(p, "10.1.0.2/24")
	v6 := addressed(p, "fd00:1::2/64")
	dual := addressed(p, "10.1.0.2/24", "fd00:1::2/64")
	tried(t, w, p, other, map[string]mapped{
		"listens": {listens: ":8080", conf: dual, mappings: []conf{
			port("tcp", 8081, 80), at("tcp", ""),
		}, code: 11, says: []string{
			"portMappings[1].hostPort 8080", "listens on [::]:8080", "stop that process",
		}},
		"listens, UDP": {
			listens: "192.0.2.1:8080", conf: v4, mappings: []conf{at("udp", "")},
			code: 11, says: []string{"udp port 8080", "192.0.2.1:8080"},
		},
		"listens, loopback": {
			listens: "127.0.0.1:8080", conf: v4, mappings: []conf{at("tcp", "")},
			code: 11, says: []string{"127.0.0.1:8080"},
		},
		"listens, ::1": {listens: "[::1]:8080", conf: dual, mappings: []conf{at("tcp", "")}},
		"listens, elsewhere": {
			listens: "192.0.2.9:8080", conf: v4,
			mappings: []conf{at("tcp", "192.0.2.1")},
		},
		"listens, other family": {listens: "192.0.2.9:8080", conf: v6, mappings: []conf{at("tcp", "")}},
		"SCTP":                  {listens: ":8080", conf: v4, mappings: []conf{at("sctp", "")}},
	})
}

// R24: an ADD that finds the port taken leaves the rules of the ADD before.
func TestR24KeepsWhatWasThere(t *testing.T) {
	w := newWorld(t, ours())
	p, other := w.pod("a", 2), w.pod("b", 3)
	add(t, other, chain(other, 3, nil, port("tcp", 9090, 80)))
	add(t, p, chain(p, 2, nil, port("tcp", 8080, 80)))
	before := w.state()
	_, err := p.Add(chain(p, 2, nil, port("tcp", 9090, 80)))
	if plugintest.Code(err) != types.ErrTryAgainLater {
		t.Errorf("error %v", err)
	}
	w.is(before)
}

// M18: attachments of one pod do not see each other, nor do those of several pods.
func TestM18TwoAttachments(t *testing.T) {
	for name, runner := range runners() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, runner)
			first := w.pod("a", 2, 3)
			serve(t, first.Namespace, ":80", "pod")
			second := *first
			second.IfName = "net2"
			a := chain(first, 2, conf{"backend": "nftables"}, port("tcp", 8080, 80))
			b := chain(&second, 3, conf{"backend": "nftables"}, port("tcp", 9090, 80))
			add(t, first, a)
			add(t, &second, b)
			expect(t, w.client, "tcp", "192.0.2.1:8080", "pod saw 192.0.2.2")
			if err := first.Del(a); err != nil {
				t.Fatal(err)
			}
			got := rules(t, w.Host)
			failsOnly(t, name, strings.Contains(got, "9090") && !strings.Contains(got, "8080"),
				"rules:\n"+got)
			if name != "ours" {
				return
			}
			expect(t, w.client, "tcp", "192.0.2.1:9090", "pod saw 192.0.2.2")
			if err := second.Check(b); err != nil {
				t.Error(err)
			}
		})
	}
}

// M18: conditions are those of the pod that they are configured for.
func TestM18Conditions(t *testing.T) {
	for name, runner := range runners() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, runner)
			open, limited := w.pod("open", 2), w.pod("limited", 3)
			serve(t, open.Namespace, ":80", "open")
			serve(t, limited.Namespace, ":80", "limited")
			add(t, open, chain(open, 2, conf{"backend": "nftables"}, port("tcp", 8080, 80)))
			add(t, limited, chain(limited, 3, conf{
				"backend": "nftables", "conditionsV4": list{"ip", "saddr", "192.0.2.3"},
			}, port("tcp", 9090, 80)))
			serve(t, w.Host, ":8080", "node")
			serve(t, w.Host, ":9090", "node")
			reach := func(address, to string) string { return ask(t, w.client, "tcp", to, from(address)) }
			for _, c := range []struct{ from, to, want string }{
				{"192.0.2.3:0", "192.0.2.1:9090", "limited saw 192.0.2.3"},
				{"192.0.2.2:0", "192.0.2.1:9090", "node saw 192.0.2.2"},
			} {
				if got := reach(c.from, c.to); got != c.want {
					t.Errorf("%s to %s: %q, want %q", c.from, c.to, got, c.want)
				}
			}
			got := reach("192.0.2.2:0", "192.0.2.1:8080")
			failsOnly(t, name, got == "open saw 192.0.2.2", got)
		})
	}
}

// M18: what the reference does on the same node is neither harmed by ours nor the other way round.
func TestM18BesideTheReference(t *testing.T) {
	choice := &either{}
	w := newWorld(t, choice)
	a, b := w.pod("a", 2), w.pod("b", 3)
	serve(t, a.Namespace, ":80", "a")
	serve(t, b.Namespace, ":80", "b")
	run := func(reference bool, do func() error) {
		t.Helper()
		choice.reference = reference
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	ours := chain(a, 2, nil, port("tcp", 8080, 80))
	// The same container ID and interface, so that comments might be mistaken for each other.
	b.ID = a.ID
	theirs := chain(b, 3, conf{"backend": "nftables"}, port("tcp", 9090, 80))
	reaches := func(a, b bool) {
		t.Helper()
		if a {
			expect(t, w.client, "tcp", "192.0.2.1:8080", "a saw 192.0.2.2")
		}
		if b {
			expect(t, w.client, "tcp", "192.0.2.1:9090", "b saw 192.0.2.2")
		}
	}
	run(false, func() error { _, err := a.Add(ours); return err })
	run(true, func() error { _, err := b.Add(theirs); return err })
	reaches(true, true)
	run(false, func() error { return a.Del(ours) })
	reaches(false, true)
	run(false, func() error { return w.GC(ours) })
	reaches(false, true)
	run(false, func() error { _, err := a.Add(ours); return err })
	run(true, func() error { return b.Del(theirs) })
	reaches(true, false)
}

func TestGC(t *testing.T) {
	w := newWorld(t, ours())
	kept, gone, elsewhere := w.pod("kept", 2), w.pod("gone", 3), w.pod("elsewhere", 4)
	before := w.state()
	second := *gone
	second.IfName = "net2"
	add(t, kept, chain(kept, 2, nil, port("tcp", 8080, 80)))
	add(t, gone, chain(gone, 3, nil, port("tcp", 8081, 80)))
	add(t, &second, chain(&second, 3, nil, port("tcp", 8082, 80)))
	add(t, elsewhere, chain(elsewhere, 4, conf{"name": "other"}, port("tcp", 8083, 80)))
	has := func(ports ...string) {
		t.Helper()
		got := rules(t, w.Host)
		for _, p := range []string{"8080", "8081", "8082", "8083"} {
			want := strings.Contains(strings.Join(ports, " "), p)
			if strings.Contains(got, "dport "+p) != want {
				t.Errorf("rules of port %s: want %v:\n%s", p, want, got)
			}
		}
	}
	c := conf{"type": "portmap"}
	for _, step := range []struct {
		conf  conf
		valid []*plugintest.Pod
		left  []string
	}{
		{c, []*plugintest.Pod{kept, gone, &second}, []string{"8080", "8081", "8082", "8083"}},
		{c, []*plugintest.Pod{kept, &second}, []string{"8080", "8082", "8083"}},
		{c, []*plugintest.Pod{kept}, []string{"8080", "8083"}},
		{c.With(conf{"name": "other"}), nil, []string{"8080"}},
		{c.With(conf{"name": "third"}), nil, []string{"8080"}},
		{c, nil, nil},
	} {
		for range 2 {
			if err := w.GC(step.conf, step.valid...); err != nil {
				t.Fatal(err)
			}
			has(step.left...)
		}
	}
	w.is(before)
}

// The rules are the node's: DEL removes them without the pod.
func TestDelWithoutNetNS(t *testing.T) {
	for _, how := range []string{"empty", "missing", "nothing but the mappings"} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, ours())
			p := w.pod("a", 2)
			c := chain(p, 2, nil, twoPorts()...)
			before := rules(t, w.Host)
			add(t, p, c)
			switch how {
			case "empty":
				p.NetNS = ""
			case "missing":
				p.Unmount()
			default:
				p.NetNS, p.Prev = "", nil
				delete(c, "prevResult")
			}
			if err := p.Del(c); err != nil {
				t.Fatal(err)
			}
			if got := rules(t, w.Host); got != before {
				t.Errorf("left:\n%s", got)
			}
		})
	}
}

func TestCheckSees(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	c := chain(p, 2, nil, twoPorts()...)
	handle := func(chain, rule string) string {
		for line := range strings.Lines(
			nftables(t, w.Host, "-a", "list", "chain", "inet", "braid_hostport", chain)) {
			if strings.Contains(line, rule) {
				_, h, _ := strings.Cut(strings.TrimSpace(line), "# handle ")
				return h
			}
		}
		t.Fatalf("no rule %q", rule)
		return ""
	}
	table := []string{"inet", "braid_hostport"}
	for name, damage := range map[string]func(){
		"all gone": func() { nftables(t, w.Host, "flush", "ruleset") },
		"chain empty": func() {
			nftables(t, w.Host, append([]string{"flush", "chain"}, append(table, "hostports")...)...)
		},
		"no jump": func() {
			nftables(t, w.Host, append([]string{"flush", "chain"}, append(table, "prerouting")...)...)
		},
		"rule gone": func() {
			nftables(t, w.Host, "delete", "rule", "inet", "braid_hostport", "hostports", "handle",
				handle("hostports", "udp dport 8080 dnat ip6"))
		},
		"masquerade gone": func() {
			nftables(t, w.Host, "delete", "rule", "inet", "braid_hostport", "masquerading", "handle",
				handle("masquerading", "127.0.0.0"))
		},
		"other port": func() {
			h := handle("hostports", "tcp dport 8080 dnat ip to")
			tag := comments.FindString(rules(t, w.Host))
			nftables(t, w.Host, "replace rule inet braid_hostport hostports handle "+h+
				" meta nfproto ipv4 tcp dport 8080 dnat ip to 10.1.0.2:81"+tag)
		},
		"rule twice": func() {
			nftables(t, w.Host, "add rule inet braid_hostport hostports tcp dport 8080 drop"+
				comments.FindString(rules(t, w.Host)))
		},
		"sysctl": func() { set(t, w.Host, "net/ipv4/conf/br0/route_localnet", "0") },
	} {
		t.Run(name, func(t *testing.T) {
			add(t, p, c)
			if err := p.Check(c); err != nil {
				t.Fatal(err)
			}
			damage()
			if err := p.Check(c); err == nil {
				t.Errorf("CHECK sees nothing of it:\n%s", rules(t, w.Host))
			}
		})
	}
	add(t, p, c)
	if err := p.Check(c.With(conf{"snat": false})); err == nil {
		t.Error("CHECK does not see that the configuration is another one")
	}
}

// Each step that can fail leaves nothing of those before it.
func TestRollBack(t *testing.T) {
	t.Run("table is somebody else's", func(t *testing.T) {
		w := newWorld(t, ours())
		p := w.pod("a", 2)
		nftables(t, w.Host, "add table inet braid_hostport; add chain inet braid_hostport prerouting { "+
			"type filter hook forward priority 0; }")
		before := w.state()
		_, err := p.Add(chain(p, 2, nil, twoPorts()...))
		if err == nil || !strings.Contains(err.Error(), "prerouting") {
			t.Errorf("error %v does not name the chain", err)
		}
		w.is(before)
	})
	t.Run("route to the pod", func(t *testing.T) {
		w := newWorld(t, ours())
		p := w.pod("a", 2)
		prohibit := &netlink.Route{Dst: netlink.NewIPNet([]byte{10, 1, 0, 2}), Type: unix.RTN_PROHIBIT}
		if err := w.Host.Netlink().RouteAdd(prohibit); err != nil {
			t.Fatal(err)
		}
		before := w.state()
		if _, err := p.Add(chain(p, 2, nil, twoPorts()...)); !errors.Is(err, unix.EACCES) {
			t.Errorf("error %v, want %v", err, unix.EACCES)
		}
		w.is(before)
		// Others' rules stay.
		q := w.pod("b", 3)
		add(t, q, chain(q, 3, nil, twoPorts()...))
		before = w.state()
		if _, err := p.Add(chain(p, 2, nil, twoPorts()...)); err == nil {
			t.Error("no error")
		}
		w.is(before)
	})
}

// good is a mapping that is correct.
var good = port("tcp", 8080, 80)

// badInput are configurations and port mappings that ADD refuses. DEL refuses only those that are
// unreadable for it, too.
var badInput = map[string]struct {
	more       conf
	mappings   []conf
	names      []string // what the error names
	unreadable bool
}{
	"protocol": {
		mappings: []conf{good, good.With(conf{"protocol": "icmp"})},
		names:    []string{"portMappings[1].protocol", `"icmp"`},
	},
	"no protocol": {
		mappings: []conf{good.With(conf{"protocol": nil})},
		names:    []string{"portMappings[0].protocol", `""`},
	},
	"hostPort 0": {
		mappings: []conf{good.With(conf{"hostPort": 0})},
		names:    []string{"portMappings[0].hostPort", "0"},
	},
	"hostPort high": {
		mappings: []conf{good.With(conf{"hostPort": 65536})},
		names:    []string{"hostPort", "65536"},
	},
	"hostPort text": {
		mappings: []conf{good.With(conf{"hostPort": "80"})},
		names:    []string{"hostPort", "string"},
	},
	"containerPort": {
		mappings: []conf{good.With(conf{"containerPort": -1})},
		names:    []string{"containerPort", "-1"},
	},
	"hostIP": {
		mappings: []conf{good.With(conf{"hostIP": "localhost"})},
		names:    []string{"hostIP", `"localhost"`},
	},
	"hostIP, zone": {
		mappings: []conf{good.With(conf{"hostIP": "fe80::1%eth0"})},
		names:    []string{"hostIP", "fe80::1%eth0"},
	},
	"mappings object": {
		more:  conf{"runtimeConfig": conf{"portMappings": conf{}}},
		names: []string{"portMappings", "object"},
	},
	"runtimeConfig": {
		more:  conf{"runtimeConfig": "x"},
		names: []string{"runtimeConfig", "x"},
	},
	"markMasqBit": {
		more:     conf{"markMasqBit": 32},
		mappings: []conf{good},
		names:    []string{"markMasqBit", "32"},
	},
	"snat": {
		more:       conf{"snat": "yes"},
		mappings:   []conf{good},
		names:      []string{"snat", "yes"},
		unreadable: true,
	},
	"no prevResult": {
		more:     conf{"prevResult": nil},
		mappings: []conf{good},
		names:    []string{"prevResult"},
	},
	"no prevResult, no mappings": {more: conf{"prevResult": nil}, names: []string{"prevResult"}},
}

func TestBadInput(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	before := w.state()
	for name, c := range badInput {
		t.Run(name, func(t *testing.T) {
			bad := chain(p, 2, c.more, c.mappings...)
			_, err := p.Add(bad)
			if plugintest.Code(err) != types.ErrInvalidNetworkConfig {
				t.Errorf("error %v, want code %d", err, types.ErrInvalidNetworkConfig)
			}
			for _, want := range c.names {
				if err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not name %s", err, want)
				}
			}
			w.is(before)
			p.Prev = nil
			if err := p.Del(bad); (err != nil) != c.unreadable {
				t.Errorf("DEL: %v", err)
			}
		})
	}
}

// What is for iptables, or says more than this plugin understands, is the reference's.
func TestKnows(t *testing.T) {
	for text, knows := range map[string]bool{
		`{}`: true,
		`{"backend":"nftables","snat":false,"masqAll":true,"markMasqBit":5,"conditionsV4":null,` +
			`"conditionsV6":[]}`: true,
		`{"backend":"iptables"}`:                                                false,
		`{"backend":"ebtables"}`:                                                false,
		`{"externalSetMarkChain":"KUBE-MARK-MASQ"}`:                             false,
		`{"conditionsV4":["!","-d","192.0.2.0/24"]}`:                            true,
		`{"conditionsV4":["-s","192.0.2.1","!","-i","eth0"]}`:                   true,
		`{"conditionsV6":["!","-d","fc00::/7"]}`:                                true,
		`{"conditionsV4":["ip saddr != 10.0.0.0/8","iifname","==","\"eth0\""]}`: true,
		`{"conditionsV6":["ip6","daddr","fc00::1","meta","iifname","eth0"]}`:    true,
		`{"conditionsV4":["ip6","daddr","fc00::1"]}`:                            false,
		`{"conditionsV4":["-d","fc00::1"]}`:                                     false,
		`{"conditionsV4":["-d","example.com"]}`:                                 false,
		`{"conditionsV4":["-d","10.0.0.1,10.0.0.2"]}`:                           false,
		`{"conditionsV4":["-d"]}`:                                               false,
		`{"conditionsV4":["!"]}`:                                                false,
		`{"conditionsV4":["!","ip","saddr","10.0.0.1"]}`:                        false,
		`{"conditionsV4":["-i","eth+"]}`:                                        false,
		`{"conditionsV4":["iifname","{","a",",","b","}"]}`:                      false,
		`{"conditionsV4":["ip","saddr","{","10.0.0.1","}"]}`:                    false,
		`{"conditionsV4":["-m","mac","--mac-source","x"]}`:                      false,
		`{"conditionsV4":["ct","state","new"]}`:                                 false,
		`{"something":1}`:                                                       false,
	} {
		_, err := ours().Run(t.Context(), plugintest.New(t, nil), "portmap",
			[]string{"CNI_COMMAND=STATUS"}, []byte(text))
		if (err == nil) != knows {
			t.Errorf("%s: error %v, want known %v", text, err, knows)
		}
	}
}

func TestManyMappings(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	before := w.state()
	serve(t, p.Namespace, ":80", "pod")
	var many []conf
	for i := range 2000 {
		many = append(many, port("tcp", 10000+i, 80))
	}
	c := chain(p, 2, nil, many...)
	add(t, p, c)
	expect(t, w.client, "tcp", "192.0.2.1:10000", "pod saw 192.0.2.2")
	expect(t, w.client, "tcp", "[2001:db8:1::1]:11999", "pod saw 2001:db8:1::2")
	if err := errors.Join(p.Check(c), p.Del(c)); err != nil {
		t.Error(err)
	}
	w.is(before)
}

// Pods come and go at the same time.
func TestParallel(t *testing.T) {
	w := newWorld(t, ours())
	before := w.state()
	var wg sync.WaitGroup
	for i := range 16 {
		p := w.Pod(fmt.Sprintf("pod%d", i))
		c := chain(p, 10+i, nil, port("tcp", 8000+i, 80), port("udp", 8000+i, 80))
		wg.Go(func() {
			for range 10 {
				_, err := p.Add(c)
				if err := errors.Join(err, p.Check(c), p.Del(c)); err != nil {
					t.Errorf("%s: %v", p.ID, err)
				}
			}
		})
	}
	wg.Wait()
	w.is(before)
}

// The table is gone with the last attachment, and never before.
func TestTableLivesAsLongAsItsRules(t *testing.T) {
	w := newWorld(t, ours())
	a, b := w.pod("a", 2), w.pod("b", 3)
	before := w.state()
	add(t, a, chain(a, 2, nil, twoPorts()...))
	add(t, b, chain(b, 3, nil, port("tcp", 9090, 80)))
	if err := a.Del(chain(a, 2, nil, twoPorts()...)); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(chain(b, 3, nil, port("tcp", 9090, 80))); err != nil {
		t.Error(err)
	}
	if err := b.Del(chain(b, 3, nil, port("tcp", 9090, 80))); err != nil {
		t.Fatal(err)
	}
	w.is(before)
}

// BenchmarkAddDel is an ADD and a DEL with two ports, in the form of the protocol, beside pods that
// have two each. The medians are told, in microseconds.
func BenchmarkAddDel(b *testing.B) {
	for _, others := range []int{1, 10, 100} {
		w := newWorld(b, ours())
		for i := range others {
			p := w.Pod(fmt.Sprint("other", i))
			add(b, p, chain(p, 10+i, nil, twoPorts()...))
		}
		for _, protocol := range both() {
			p := w.Pod("a")
			c := chain(p, 2, nil, port(protocol, 8080, 80), port(protocol, 8443, 443))
			c["prevResult"] = conf{"cniVersion": "1.1.0", "ips": list{conf{"address": "10.1.0.2/24"}}}
			b.Run(fmt.Sprintf("%s/others=%d", protocol, others), func(b *testing.B) {
				var adds, dels []time.Duration
				for b.Loop() {
					begin := time.Now()
					add(b, p, c)
					added := time.Now()
					if err := p.Del(c); err != nil {
						b.Fatal(err)
					}
					adds, dels = append(adds, added.Sub(begin)), append(dels, time.Since(added))
				}
				for name, list := range map[string][]time.Duration{"ADD-µs": adds, "DEL-µs": dels} {
					slices.Sort(list)
					b.ReportMetric(float64(list[len(list)/2].Nanoseconds())/1000, name)
				}
			})
		}
	}
}

// DEL removes the rules, whatever key has gone from the configuration since.
func TestDelWithoutEachKey(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	before := w.state()
	confs := []conf{
		chain(p, 2, conf{
			"backend": "nftables", "snat": true, "masqAll": true,
			"conditionsV4": list{"ip", "saddr", "192.0.2.3"},
			"conditionsV6": list{"ip6", "saddr", "2001:db8:1::3"}, "markMasqBit": 14,
			"capabilities": conf{"portMappings": true},
		}, twoPorts()...),
		chain(p, 2, conf{"snat": false, "externalSetMarkChain": "X"}, twoPorts()...),
	}
	plugintest.WithoutEachKey[portmap.Conf](t, "", confs,
		func(t *testing.T, key string, with, without conf) {
			with = maps.Clone(with)
			delete(with, "externalSetMarkChain") // is for the binary, which ADD runs
			add(t, p, with)
			if w.state() == before {
				t.Fatal("ADD made no rule")
			}
			p.Prev = nil
			without = maps.Clone(without)
			delete(without, "externalSetMarkChain")
			if err := p.Del(without); err != nil {
				t.Errorf("without %s: %v", key, err)
			}
			w.is(before)
		})
}
