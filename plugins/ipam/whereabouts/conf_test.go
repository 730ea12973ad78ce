package whereabouts_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// span is from the first to the last address that a range may assign, but for those of not.
type span struct {
	prefix, first, last string
	not                 []string
}

func (s span) allows(a netip.Addr) bool {
	ok := netip.MustParsePrefix(s.prefix).Contains(a) && netip.MustParseAddr(s.first).
		Compare(a) <= 0 && a.Compare(netip.MustParseAddr(s.last)) <= 0
	for _, p := range s.not {
		ok = ok && !netip.MustParsePrefix(p).Contains(a)
	}
	return ok
}

// example is a configuration, and the addresses that each of its ranges has for pods.
type example struct {
	ipam  string
	spans []span
}

// documented are the examples of the reference's README.md, doc/ and tests, as they are there.
var documented = map[string]example{
	"README": {
		`"range": "192.168.2.225/28", "exclude": ["192.168.2.229/30", "192.168.2.236/32"]`,
		[]span{
			{
				"192.168.2.224/28", "192.168.2.225", "192.168.2.238",
				[]string{"192.168.2.228/30", "192.168.2.236/32"},
			},
		},
	},
	"README, NAD": {
		`"range": "192.168.2.225/28"`,
		[]span{{"192.168.2.224/28", "192.168.2.225", "192.168.2.238", nil}},
	},
	"README, IPv6": {
		`"range": "2001::0/116", "gateway": "2001::f:1"`,
		[]span{{"2001::/116", "2001::1", "2001::fff", nil}},
	},
	"README, several addresses": {
		`"ipRanges": [{"range": "192.168.10.1/24"}, {"range": "176.168.10.1/16"}]`,
		[]span{
			{"192.168.10.0/24", "192.168.10.1", "192.168.10.254", nil},
			{"176.168.0.0/16", "176.168.0.1", "176.168.255.254", nil},
		},
	},
	"README, both keys": {
		`"ipRanges": [{"range": "192.168.10.1/24"}, {"range": "176.168.10.1/16"}], "range": "abcd::1/64"`,
		[]span{
			{"abcd::/64", "abcd::1", "abcd::ffff:ffff:ffff:ffff", nil},
			{"192.168.10.0/24", "192.168.10.1", "192.168.10.254", nil},
			{"176.168.0.0/16", "176.168.0.1", "176.168.255.254", nil},
		},
	},
	"README, dual stack": {
		`"ipRanges": [{"range": "192.168.10.1/24"}, {"range": "abcd::1/64"}]`,
		[]span{
			{"192.168.10.0/24", "192.168.10.1", "192.168.10.254", nil},
			{"abcd::/64", "abcd::1", "abcd::ffff:ffff:ffff:ffff", nil},
		},
	},
	"README, fast IPAM": {
		`"range": "192.168.2.0/24", "node_slice_size": "/22"`,
		[]span{{"192.168.2.0/24", "192.168.2.1", "192.168.2.254", nil}},
	},
	"README, range end": {
		`"range": "192.168.2.225-192.168.2.230/28"`,
		[]span{{"192.168.2.224/28", "192.168.2.225", "192.168.2.230", nil}},
	},
	"README, network name": {
		`"range": "192.168.2.0/24", "network_name": "network-with-independent-allocation", ` +
			`"enable_overlapping_ranges": true`,
		[]span{{"192.168.2.0/24", "192.168.2.1", "192.168.2.254", nil}},
	},
	"extended-configuration": {
		`"etcd_host": "example-etcd-cluster-client.cluster.local:2379", "range": "192.168.2.225/28", "exclude": ["192.168.2.229/30", "192.168.2.236/32"],
			"log_file" : "/tmp/whereabouts.log", "log_level" : "debug", "gateway": "192.168.2.1"`,
		[]span{
			{
				"192.168.2.224/28", "192.168.2.225", "192.168.2.238",
				[]string{"192.168.2.228/30", "192.168.2.236/32"},
			},
		},
	},
	"sample_config": {
		`"range": "192.168.1.0/24", "etcd_host": "192.168.122.1",
			"routes": [{"dst":"0.0.0.0/0"}, {"dst":"192.168.0.0/16", "gw":"10.10.5.1"}, {"dst":"3ffe:ffff:0:01ff::1/64"}],
			"dns": {"nameservers": ["8.8.8.8"], "domain":"example.com", "search": ["example.com"]}`,
		[]span{{"192.168.1.0/24", "192.168.1.1", "192.168.1.254", nil}},
	},
	"developer_notes": {
		`"range": "192.168.2.225/28", "log_file" : "/tmp/whereabouts.log", "log_level" : "debug", "gateway": "192.168.2.1",
			"exclude": ["192.168.2.229/30", "192.168.2.236/32"]`,
		[]span{
			{
				"192.168.2.224/28", "192.168.2.225", "192.168.2.238",
				[]string{"192.168.2.228/30", "192.168.2.236/32"},
			},
		},
	},
	"proposal of dual stack": {
		`"ipRanges": [{"range": "192.168.2.225/28", "exclude": ["192.168.2.229/30", ` +
			`"192.168.2.236/32"]}, {"range": "2001::0/116", "exclude": ["2001::1/128"]}]`,
		[]span{
			{
				"192.168.2.224/28", "192.168.2.225", "192.168.2.238",
				[]string{"192.168.2.228/30", "192.168.2.236/32"},
			},
			{"2001::/116", "2001::1", "2001::fff", []string{"2001::1/128"}},
		},
	},
	"tests, start and end": {
		`"log_file" : "/tmp/whereabouts.log", "log_level" : "debug", "kubernetes": {"kubeconfig": "/etc/cni/net.d/whereabouts.d/whereabouts.kubeconfig"},
			"range": "192.168.1.5-192.168.1.25/24", "gateway": "192.168.10.1"`,
		[]span{{"192.168.1.0/24", "192.168.1.5", "192.168.1.25", nil}},
	},
	"tests, leader": {
		`"range": "192.168.2.230/24", "range_start": "192.168.2.223", "gateway": "192.168.10.1", "leader_lease_duration": 3000,
			"leader_renew_deadline": 2000, "leader_retry_period": 1000`,
		[]span{{"192.168.2.0/24", "192.168.2.223", "192.168.2.254", nil}},
	},
	"tests, leading zeros": {
		`"range": "00192.00168.1.5-000000192.168.1.25/24", "gateway": "192.168.10.1"`,
		[]span{{"192.168.1.0/24", "192.168.1.5", "192.168.1.25", nil}},
	},
	"tests, more leading zeros": {
		`"range": "00192.00168.1.0/24", "range_start": "00192.00168.1.44", "range_end": "00192.00168.01.209", "gateway": "192.168.10.1",
			"reconciler_cron_expression": "30 4 * * *"`,
		[]span{{"192.168.1.0/24", "192.168.1.44", "192.168.1.209", nil}},
	},
	"tests, excluded": {
		`"range": "192.168.1.0/24", "exclude": ["192.168.1.0/28", "192.168.1.16/28"], ` +
			`"gateway": "192.168.10.1", "routes": [{ "dst": "0.0.0.0/0" }]`,
		[]span{{"192.168.1.0/24", "192.168.1.1", "192.168.1.254", []string{"192.168.1.0/27"}}},
	},
	"tests, IPv6 excluded": {
		`"range": "2001::1/116", "exclude": ["2001::0/128", "2001::1/128", "2001::2/128"], ` +
			`"gateway": "2001::f:1", "routes": [{ "dst": "0.0.0.0/0" }]`,
		[]span{{"2001::/116", "2001::3", "2001::fff", nil}},
	},
	"tests, half excluded": {
		`"range": "caa5::0/112", "exclude": ["caa5::0/113"], "gateway": "2001::f:1"`,
		[]span{{"caa5::/112", "caa5::8000", "caa5::ffff", nil}},
	},
	"tests, static parameters": {
		`"range": "192.168.1.44/28", "gateway": "192.168.1.1",
			"addresses": [{"address": "10.10.0.1/24", "gateway": "10.10.0.254"}, {"address": "3ffe:ffff:0:01ff::1/64", "gateway": "3ffe:ffff:0::1"}],
			"routes": [{ "dst": "0.0.0.0/0" }, { "dst": "192.168.0.0/16", "gw": "10.10.5.1" }, { "dst": "3ffe:ffff:0:01ff::1/64" }],
			"dns": {"nameservers" : ["8.8.8.8"], "domain": "example.com", "search": [ "example.com" ]}`,
		[]span{
			{"192.168.1.32/28", "192.168.1.33", "192.168.1.46", nil},
			{"10.10.0.1/32", "10.10.0.1", "10.10.0.1", nil},
			{"3ffe:ffff:0:1ff::1/128", "3ffe:ffff:0:1ff::1", "3ffe:ffff:0:1ff::1", nil},
		},
	},
	"tests, gateway in the range": {
		`"range": "2001:db8:5422:0005::-2001:db8:5422:0005:7fff:ffff:ffff:ffff/64", ` +
			`"gateway": "2001:db8:5422:0005::1"`,
		[]span{
			{"2001:db8:5422:5::/64", "2001:db8:5422:5::2", "2001:db8:5422:5:7fff:ffff:ffff:ffff", nil},
		},
	},
	"tests, IPv6 start and end": {
		`"range": "fd00:0:0:10:0:0:3:1-fd00:0:0:10:0:0:3:6/64", "gateway": "2001::f:1"`,
		[]span{{"fd00:0:0:10::/64", "fd00:0:0:10::3:1", "fd00:0:0:10::3:6", nil}},
	},
	"tests, empty range": {
		`"range": "", "ipRanges": [{"range": "10.10.0.0/16"}], "log_level": "debug", ` +
			`"log_file": "/tmp/wb", "enable_overlapping_ranges": false`,
		[]span{{"10.10.0.0/16", "10.10.0.1", "10.10.255.254", nil}},
	},
	"tiny": {
		`"ipRanges": [{"range": "10.0.0.0/31"}, {"range": "10.0.1.1/32"}, {"range": "fd00::/127"}, ` +
			`{"range": "fd00:1::1/128"}]`,
		[]span{
			{"10.0.0.0/31", "10.0.0.0", "10.0.0.1", nil},
			{"10.0.1.1/32", "10.0.1.1", "10.0.1.1", nil},
			{"fd00::/127", "fd00::", "fd00::1", nil},
			{"fd00:1::1/128", "fd00:1::1", "fd00:1::1", nil},
		},
	},
	"beyond the first half": {
		`"range": "fd00::/64", "exclude": ["fd00::/65"]`,
		[]span{{"fd00::/64", "fd00::8000:0:0:0", "fd00::ffff:ffff:ffff:ffff", nil}},
	},
}

// What the reference documents works unchanged: the first addresses of a node, all different, are
// those that the configuration allows; the gateway, what is excluded and the network's own
// addresses are never among them.
func TestDocumentedConfigurations(t *testing.T) {
	const pods = 40
	for name, c := range documented {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ipam := conf{}
			must(t, json.Unmarshal([]byte("{"+c.ipam+"}"), &ipam))
			taken := map[netip.Addr]bool{}
			for i := range pods {
				p := w.pod(fmt.Sprint("p", i))
				_, err := p.Call("ADD", with(ipam))
				if i > 0 && plugintest.Code(err) == 11 && full(c.spans, taken) {
					return
				}
				for i, a := range addrs(t, p, with(ipam)) {
					if !c.spans[i].allows(a) || taken[a] && c.spans[i].first != c.spans[i].last {
						t.Errorf("%v is not one of %+v that is free", a, c.spans[i])
					}
					taken[a] = true
				}
				must(t, p.Check(with(ipam)))
			}
		})
	}
}

// full reports whether one of the ranges has no more addresses, which are counted one by one.
func full(spans []span, taken map[netip.Addr]bool) bool {
	for _, s := range spans {
		free := 0
		for a := netip.MustParseAddr(s.first); free == 0 && s.prefixHas(a) &&
			a.Compare(netip.MustParseAddr(s.last)) <= 0; a = a.Next() {
			if s.allows(a) && !taken[a] {
				free++
			}
		}
		if free == 0 {
			return true
		}
	}
	return false
}

func (s span) prefixHas(a netip.Addr) bool { return netip.MustParsePrefix(s.prefix).Contains(a) }

// The router's address, a next hop's and a static one are nobody's, wherever in the range they are.
func TestReservedAddresses(t *testing.T) {
	w := newWorld(t)
	c := with(conf{
		"range": "10.0.0.0/28", "gateway": "10.0.0.5",
		"routes": list{
			conf{"dst": "172.16.0.0/12", "gw": "10.0.0.6"}, conf{"dst": "fd00::/8", "gw": "fd01::1"},
		},
		"addresses": list{
			conf{"address": "10.0.0.7/28", "gateway": "10.0.0.8"}, conf{"address": "fd01::7/64"},
		},
	})
	seen := map[string]bool{}
	for i := range 10 {
		got := addrs(t, w.pod(fmt.Sprint("p", i)), c)
		seen[got[0].String()] = true
		same(t, "static address", got[1].String(), "10.0.0.7")
	}
	_, err := w.pod("last").Add(c)
	fails(t, err, 11, "no address is free")
	for _, a := range []string{
		"10.0.0.0", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.15",
	} {
		if seen[a] {
			t.Errorf("%s was given away", a)
		}
	}
	same(t, "addresses", len(seen), 10)
}

func TestGatewayGoesWithItsFamily(t *testing.T) {
	w := newWorld(t)
	dual := conf{"range": "10.0.0.7/32", "ipRanges": list{conf{"range": "fd00::7/128"}}}
	same(t, "IPv4", add(t, w.pod("a"),
		with(dual.With(conf{"gateway": "192.0.2.1", "network_name": "a"}))),
		[]string{"10.0.0.7/32 via 192.0.2.1", "fd00::7/128"})
	same(t, "IPv6", add(t, w.pod("b"),
		with(dual.With(conf{"gateway": "fd02::1", "network_name": "b"}))),
		[]string{"10.0.0.7/32", "fd00::7/128 via fd02::1"})
	same(t, "none", add(t, w.pod("c"), with(dual.With(conf{"network_name": "c"}))),
		[]string{"10.0.0.7/32", "fd00::7/128"})
}

// Addresses alone are given without asking anybody.
func TestAddressesOnly(t *testing.T) {
	w := newWorld(t)
	c := with(conf{"addresses": list{conf{"address": "10.0.0.7/24"}}, "gateway": "10.0.0.1"})
	p := w.pod("a")
	same(t, "address", add(t, p, c), []string{"10.0.0.7/24"})
	must(t, p.Check(c))
	must(t, p.Del(c))
	must(t, w.node.Status(c))
}

// badInput is a configuration that is refused: the object ipam, and more keys beside it.
type badInput struct {
	ipam conf
	more conf
	says []string
}

// withSecond returns an object ipam whose second range is c.
func withSecond(c conf) conf {
	return conf{"ipRanges": list{conf{"range": "10.1.0.0/24"}, c}}
}

// refused fails unless ADD and STATUS refuse each, and nothing is left.
func refused(t *testing.T, inputs map[string]badInput) {
	t.Helper()
	w := newWorld(t)
	for name, c := range inputs {
		t.Run(name, func(t *testing.T) {
			_, err := w.pod("a").Add(with(c.ipam).With(c.more))
			fails(t, err, 7, c.says...)
			if c.more == nil {
				fails(t, w.node.Status(with(c.ipam)), 7, c.says...)
			}
			same(t, "left", w.anything(), []string(nil))
		})
	}
}

// A range is a subnet, or two addresses of one.
func TestBadRanges(t *testing.T) {
	refused(t, map[string]badInput{
		"no range":    {ipam: conf{}, says: []string{"ipam.range", "missing"}},
		"empty range": {ipam: conf{"range": ""}, says: []string{"ipam.range", "missing"}},
		"empty list": {
			ipam: conf{"ipRanges": list{}},
			says: []string{"ipam.range", "missing"},
		},
		"empty element":   {ipam: withSecond(conf{}), says: []string{`ipam.ipRanges[1].range ""`}},
		"no range at all": {ipam: conf{"range": "router"}, says: []string{`ipam.range "router"`}},
		"no length": {
			ipam: conf{"range": "10.0.0.0"},
			says: []string{`ipam.range "10.0.0.0"`},
		},
		"wrong length": {
			ipam: conf{"range": "10.0.0.0/33"},
			says: []string{`ipam.range "10.0.0.0/33"`},
		},
		"zone": {
			ipam: conf{"range": "fe80::%eth0/64"},
			says: []string{`ipam.range "fe80::%eth0/64"`},
		},
		"start behind end": {
			ipam: conf{"range": "10.0.0.9-10.0.0.3/24"},
			says: []string{`ipam.range "10.0.0.9-10.0.0.3/24"`, "before"},
		},
		"start elsewhere": {
			ipam: conf{"range": "192.168.1.5-192.168.2.25/28"},
			says: []string{`ipam.range "192.168.1.5-192.168.2.25/28"`, "192.168.2.16/28"},
		},
		"mixed families in one": {
			ipam: conf{"range": "10.0.0.1-fd00::9/64"},
			says: []string{`ipam.range "10.0.0.1-fd00::9/64"`},
		},
	})
}

// Bounds, exclusions and the gateway are addresses of the range.
func TestBadBounds(t *testing.T) {
	refused(t, map[string]badInput{
		"range_start outside": {
			ipam: conf{"range": "10.0.0.0/24", "range_start": "10.0.1.5"},
			says: []string{`ipam.range_start "10.0.1.5"`, "outside 10.0.0.0/24"},
		},
		"range_end outside": {
			ipam: withSecond(conf{"range": "10.0.0.0/24", "range_end": "10.0.1.5"}),
			says: []string{`ipam.ipRanges[1].range_end "10.0.1.5"`, "outside 10.0.0.0/24"},
		},
		"range_start, no address": {
			ipam: conf{"range": "10.0.0.0/24", "range_start": "x"},
			says: []string{`ipam.range_start "x"`},
		},
		"range_start of IPv6": {
			ipam: conf{"range": "10.0.0.0/24", "range_start": "fd00::1"},
			says: []string{`ipam.range_start "fd00::1"`},
		},
		"range_end first": {ipam: conf{
			"range": "10.0.0.0/24", "range_start": "10.0.0.9", "range_end": "10.0.0.3",
		}, says: []string{`ipam.range_end "10.0.0.3"`, "10.0.0.9"}},
		"start without range": {ipam: withSecond(conf{"range": "10.0.0.0/24"}).
			With(conf{"range_start": "10.0.0.9"}), says: []string{`ipam.range_start "10.0.0.9"`, "range"}},
		"end without range": {ipam: withSecond(conf{"range": "10.0.0.0/24"}).
			With(conf{"range_end": "10.0.0.9"}), says: []string{`ipam.range_end "10.0.0.9"`, "range"}},
		"exclude without range": {
			ipam: withSecond(conf{"range": "10.0.0.0/24"}).
				With(conf{"exclude": list{"10.0.0.9/32"}}),
			says: []string{`ipam.exclude`, "10.0.0.9/32", "ipRanges"},
		},
		"bad exclude": {
			ipam: conf{"range": "10.0.0.0/24", "exclude": list{"10.0.0.9", "x"}},
			says: []string{`ipam.exclude "x"`},
		},
		"exclude, length": {ipam: withSecond(conf{
			"range": "10.0.0.0/24", "exclude": list{"10.0.0.0/99"},
		}), says: []string{`ipam.ipRanges[1].exclude "10.0.0.0/99"`}},
		"exclude of IPv6": {
			ipam: conf{"range": "10.0.0.0/24", "exclude": list{"fd00::/8"}},
			says: []string{`ipam.exclude "fd00::/8"`, "family"},
		},
		"all excluded": {ipam: conf{
			"range": "10.0.0.0/24", "exclude": list{"10.0.0.0/25", "10.0.0.64/26", "10.0.0.128/25"},
		}, says: []string{"ipam.exclude", "10.0.0.64/26", "leaves no address"}},
		"all reserved": {
			ipam: conf{"range": "10.0.0.1/32", "gateway": "10.0.0.1"},
			says: []string{`ipam.range "10.0.0.1/32"`, "no address left", "10.0.0.1"},
		},
		"gateway": {
			ipam: conf{"range": "10.0.0.0/24", "gateway": "router"},
			says: []string{`ipam.gateway "router"`},
		},
		"gateway with length": {
			ipam: conf{"range": "10.0.0.0/24", "gateway": "10.0.0.1/24"},
			says: []string{`ipam.gateway "10.0.0.1/24"`},
		},
		"gateway of IPv6": {
			ipam: conf{"range": "10.0.0.0/24", "gateway": "fd00::1"},
			says: []string{`ipam.gateway "fd00::1"`, "family", "10.0.0.0/24"},
		},
	})
}

// What else a configuration cannot have.
func TestBadInput(t *testing.T) {
	refused(t, map[string]badInput{
		"route": {
			ipam: conf{"range": "10.0.0.0/24", "routes": list{conf{"dst": "x"}}},
			says: []string{`ipam.routes[0].dst "x"`},
		},
		"route of two families": {ipam: conf{
			"range": "10.0.0.0/24", "routes": list{conf{"dst": "10.9.0.0/16", "gw": "fd00::1"}},
		}, says: []string{`ipam.routes[0].gw "fd00::1"`}},
		"address": {
			ipam: conf{"addresses": list{conf{"address": "10.0.0.1"}}},
			says: []string{`ipam.addresses[0].address "10.0.0.1"`},
		},
		"address's gateway": {ipam: conf{
			"addresses": list{conf{"address": "10.0.0.1/24", "gateway": "fd00::1"}},
		}, says: []string{`ipam.addresses[0].gateway "fd00::1"`}},
		"log_level": {
			ipam: conf{"range": "10.0.0.0/24", "log_level": "loud"},
			says: []string{`ipam.log_level "loud"`, "debug"},
		},
		"configuration_path": {ipam: conf{
			"range": "10.0.0.0/24", "configuration_path": "whereabouts.conf",
		}, says: []string{`ipam.configuration_path "whereabouts.conf"`, "absolute"}},
		"number for string": {ipam: conf{"range": 5}, says: []string{"range 5", "string"}},
		"string for list": {
			ipam: conf{"range": "10.0.0.0/24", "exclude": "10.0.0.1/32"},
			says: []string{"exclude", "10.0.0.1/32"},
		},
		"string for number": {
			ipam: conf{"range": "10.0.0.0/24", "leader_retry_period": "500"},
			says: []string{"leader_retry_period", "500"},
		},
		"string for bool": {ipam: conf{
			"range": "10.0.0.0/24", "enable_overlapping_ranges": "false",
		}, says: []string{"enable_overlapping_ranges", "false"}},
		"list for object": {
			ipam: conf{"range": "10.0.0.0/24", "kubernetes": list{}},
			says: []string{"kubernetes"},
		},
		"one address a family": {
			ipam: withSecond(conf{"range": "10.0.0.0/24"}),
			more: conf{"cniVersion": "0.2.0"}, says: []string{`cniVersion "0.2.0"`},
		},
	})
}

// What the plugin does not know is for the binary of its name.
func TestUnknownKeys(t *testing.T) {
	w := newWorld(t)
	for key, ipam := range map[string]conf{
		"colour":               {"colour": "red"},
		"ipRanges[0].gateway":  {"ipRanges": list{conf{"range": "10.0.0.0/24", "gateway": "10.0.0.1"}}},
		"kubernetes.token":     {"kubernetes": conf{"token": "x"}},
		"addresses[0].version": {"addresses": list{conf{"address": "10.0.0.1/24", "version": "4"}}},
	} {
		_, err := w.pod("a").Add(with(ipam))
		if err == nil || !strings.Contains(err.Error(), "unknown keys") ||
			!strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestFlatFile(t *testing.T) {
	w := newWorld(t)
	first, second, third := w.path("first"), w.path("second"), w.path("third")
	w.files = []string{second, third}
	c := with(conf{
		"configuration_path": first, "ipRanges": list{}, "network_name": "",
		"dns": conf{"nameservers": list{"192.0.2.53"}},
	})
	_, err := w.pod("none").Add(c)
	fails(t, err, 7, "ipam.range")
	w.write("third", `{"range": "10.3.0.7/32", "COMMENT": "keys of others are left alone"}`)
	same(t, "third", add(t, w.pod("a"), c), []string{"10.3.0.7/32"})
	w.write("second", `{"range": "10.2.0.7/32", "type": "x", "configuration_path": "`+third+`"}`)
	same(t, "second", add(t, w.pod("b"), c), []string{"10.2.0.7/32"})
	w.write("first", `{"datastore": "kubernetes", "kubernetes": {"kubeconfig": "/x"}, "range": "10.1.0.0/24", "range_start": "10.1.0.7", "range_end": "10.1.0.8",
		"exclude": ["10.1.0.8"], "gateway": "10.1.0.1", "log_file": "/tmp/whereabouts.log", "log_level": "debug", "network_name": "flat",
		"ipRanges": [{"range": "fd00::7/128"}], "enable_overlapping_ranges": false,
		"routes": [{"dst": "172.31.0.0/16"}], "addresses": [{"address": "192.0.2.9/24"}], "dns": {"nameservers": ["192.0.2.99"], "domain": "a.example"}}`)
	p := w.pod("c")
	result, err := p.Add(c)
	must(t, err)
	same(t, "addresses", add(t, p, c),
		[]string{"10.1.0.7/24 via 10.1.0.1", "fd00::7/128", "192.0.2.9/24"})
	same(t, "DNS", result.DNS.Nameservers, []string{"192.0.2.53"})
	same(t, "DNS", result.DNS.Domain, "a.example")
	same(t, "routes", len(result.Routes), 1)
	must(t, p.Check(c))
	// What is inline counts.
	inline := c["ipam"].(conf).With(conf{
		"range": "10.4.0.0/24", "range_start": "10.4.0.9", "range_end": "10.4.0.9",
		"ipRanges": list{conf{"range": "fd00::8/128"}},
		"exclude":  list{"10.4.0.8"}, "gateway": "10.4.0.2",
		"addresses": list{conf{"address": "192.0.2.8/24"}},
	})
	same(t, "inline", add(t, w.pod("d"), with(inline)),
		[]string{"10.4.0.9/24 via 10.4.0.2", "fd00::8/128", "192.0.2.8/24"})
	log := w.log.String()
	if !strings.Contains(log, "flatFile="+first) ||
		!strings.Contains(log, "file=/tmp/whereabouts.log") {
		t.Errorf("log:\n%s", log)
	}
}

func TestBadFlatFile(t *testing.T) {
	const secret = "s3cret"
	for name, c := range map[string]struct {
		make func(path string) error
		says string
	}{
		"not JSON": {func(p string) error {
			return os.WriteFile(p, []byte("root:"+secret+":x\n"), 0o600)
		}, "is no JSON object"},
		"empty": {func(p string) error { return os.WriteFile(p, nil, 0o600) }, "is no JSON object"},
		"list": {func(p string) error {
			return os.WriteFile(p, []byte(`["`+secret+`"]`), 0o600)
		}, "is not of the type"},
		"wrong type": {func(p string) error {
			return os.WriteFile(p, []byte(`{"sleep_for_race": "`+secret+`"}`), 0o600)
		}, "sleep_for_race"},
		"directory": {func(p string) error { return os.Mkdir(p, 0o700) }, "is not a regular file"},
		"FIFO":      {func(p string) error { return unix.Mkfifo(p, 0o600) }, "is not a regular file"},
		"loop": {func(p string) error {
			return os.Symlink(p, p)
		}, "too many levels of symbolic links"},
		"device": {func(p string) error {
			return os.Symlink("/dev/zero", p)
		}, "is not a regular file"},
		"too large": {func(p string) error {
			return os.WriteFile(p, make([]byte, 64<<10+1), 0o600)
		}, "is not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			path := w.path("flat")
			must(t, c.make(path))
			good := conf{"range": "10.0.0.0/24"}
			p := w.pod("a")
			add(t, p, with(good))
			w.files = []string{filepath.Join(w.dir, "none"), path}
			for _, ipam := range []conf{good, good.With(conf{"configuration_path": path})} {
				_, err := w.pod("b").Add(with(ipam))
				fails(t, err, 7, path, c.says)
				if err != nil && strings.Contains(err.Error(), secret) {
					t.Errorf("it says what is in the file: %v", err)
				}
				fails(t, w.node.Status(with(ipam)), 7, path)
				fails(t, p.Check(with(ipam)), 7, path)
			}
			must(t, w.node.GC(with(good), p))
			must(t, p.Del(with(good)))
			same(t, "state", w.state(), "")
			if strings.Contains(w.log.String(), secret) ||
				!strings.Contains(w.log.String(), "done without the flat file") {
				t.Errorf("log:\n%s", w.log.String())
			}
		})
	}
}
