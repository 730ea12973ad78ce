package nodenet

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func block(netmask, gateway string, entries ...Entry) []Block {
	return []Block{{Netmask: netmask, Gateway: gateway, IPs: entries}}
}

// U6, "IP block file".
func TestU6Addresses(t *testing.T) {
	a, problems := CheckBlocks([]Block{
		{"255.255.252.0", "172.16.23.254", []Entry{
			{IP: "172.16.20.10", Hostname: "Host1"},
			{IP: "172.16.20.12/30"},
			{IP: "172.16.20.20", Hostname: "cp", IsControlPlane: true},
		}},
		{
			"ffff:ffff:ffff:ffff::", "fd00::1",
			[]Entry{{IP: "fd00::10", Hostname: "host1"}, {IP: "fd00::1:0/112"}},
		},
	})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := []netip.Prefix{
		netip.MustParsePrefix("172.16.20.10/22"), netip.MustParsePrefix("fd00::10/64"),
	}
	if diff := cmp.Diff(want, a.Of("hOST1"), cmp.Comparer(func(a, b netip.Prefix) bool {
		return a == b
	})); diff != "" {
		t.Errorf("host1 (-want +got):\n%s", diff)
	}
	if a.Of("host2") != nil || a.Hosts() != 2 || a.Count != 6+1<<16 || a.Unnamed != 4+1<<16 {
		t.Errorf("%d hosts, %d addresses, %d without a hostname; host2 has %v",
			a.Hosts(), a.Count, a.Unnamed, a.Of("host2"))
	}
}

func TestU6BadBlocks(t *testing.T) {
	checked(t, map[string]badBlocks{
		"none":         {nil, "blocks", "there is none"},
		"no addresses": {block(mask, gateway), "blocks[0].ips", "there is none"},
		"no netmask": {
			block("", gateway, Entry{IP: "10.0.0.2"}), "blocks[0].netmask",
			`"" is no netmask`,
		},
		"holes in netmask": {
			block("255.0.255.0", gateway, Entry{IP: "10.0.0.2"}),
			"blocks[0].netmask", "its ones are not all before",
		},
		"netmask of all": {
			block("0.0.0.0", gateway, Entry{IP: "10.0.0.2"}), "blocks[0].netmask",
			"more than 2^24",
		},
		"prefix as netmask": {
			block("24", gateway, Entry{IP: "10.0.0.2"}), "blocks[0].gateway",
			"not of the family",
		},
		"no gateway": {
			block(mask, "", Entry{IP: "10.0.0.2"}), "blocks[0].gateway",
			`"" is no IP address`,
		},
		"gateway is subnet": {
			block(mask, "10.0.0.0", Entry{IP: "10.0.0.2"}), "blocks[0].gateway",
			"address of the subnet",
		},
		"gateway of IPv6": {
			block(mask, "fd00::1", Entry{IP: "10.0.0.2"}), "blocks[0].gateway",
			"not of the family",
		},
	})
}

// TestU6BadAddresses: addresses and CIDRs lie in the subnet, without the gateway.
func TestU6BadAddresses(t *testing.T) {
	checked(t, map[string]badBlocks{
		"outside": {
			block(mask, gateway, Entry{IP: "10.0.1.2"}), "blocks[0].ips[0].ip",
			"outside of the block's subnet 10.0.0.0/24",
		},
		"other family": {
			block(mask, gateway, Entry{IP: "fd00::2"}), "blocks[0].ips[0].ip",
			"outside of the block's subnet",
		},
		"partly outside": {
			block(mask, gateway, Entry{IP: "10.0.0.0/23"}), "blocks[0].ips[0].ip",
			"outside of the block's subnet",
		},
		"gateway as address": {
			block(mask, gateway, Entry{IP: "10.0.0.1"}), "blocks[0].ips[0].ip",
			"address of the gateway",
		},
		"gateway in CIDR": {
			block(mask, gateway, Entry{IP: "10.0.0.0/29"}), "blocks[0].ips[0].ip",
			"address of the gateway",
		},
		"broadcast": {
			block(mask, gateway, Entry{IP: "10.0.0.255"}), "blocks[0].ips[0].ip",
			"or of all in it",
		},
		"CIDR with broadcast": {
			block(mask, gateway, Entry{IP: "10.0.0.248/29"}), "blocks[0].ips[0].ip",
			"or of all in it",
		},
		"CIDR with host bits": {
			block(mask, gateway, Entry{IP: "10.0.0.13/30"}), "blocks[0].ips[0].ip",
			"does not begin at its first address",
		},
		"no address": {
			block(mask, gateway, Entry{IP: "10.0.0.x"}), "blocks[0].ips[0].ip",
			`"10.0.0.x" is no IP address`,
		},
		"zone": {
			block("64", "fe80::1", Entry{IP: "fe80::2%eth0"}),
			"blocks[0].ips[0].ip", "is no IP address",
		},
		"no CIDR": {
			block(mask, gateway, Entry{IP: "10.0.0.8/33"}), "blocks[0].ips[0].ip",
			"is no CIDR",
		},
	})
}

// TestU6BadEntries: a hostname names one node, and an address is there once.
func TestU6BadEntries(t *testing.T) {
	checked(t, map[string]badBlocks{
		"hostname of CIDR": {
			block(mask, gateway, Entry{IP: "10.0.0.8/30", Hostname: "a"}),
			"blocks[0].ips[0].hostname", "carries no hostname",
		},
		"bad hostname": {
			block(mask, gateway, Entry{IP: "10.0.0.8", Hostname: "a b"}),
			"blocks[0].ips[0].hostname", "no name of a node",
		},
		"hostname twice": {block(mask, gateway, Entry{IP: "10.0.0.8", Hostname: "a"}, Entry{
			IP: "10.0.0.9", Hostname: "A",
		}), "blocks[0].ips[1].hostname", "is in blocks[0].ips[0].hostname already"},
		"address twice": {
			block(mask, gateway, Entry{IP: "10.0.0.8"}, Entry{IP: "10.0.0.8"}),
			"blocks[0].ips[1].ip", "10.0.0.8 is in blocks[0].ips[0].ip already",
		},
		"address in later CIDR": {
			block(mask, gateway, Entry{IP: "10.0.0.9"}, Entry{IP: "10.0.0.8/30"}),
			"blocks[0].ips[1].ip", "is in blocks[0].ips[0].ip already",
		},
		"twice over blocks": {
			append(block(mask, gateway, Entry{IP: "10.0.0.9"}),
				block(mask, gateway, Entry{IP: "10.0.0.9"})...),
			"blocks[1].ips[0].ip", "is in blocks[0].ips[0].ip already",
		},
	})
}

const mask, gateway = "255.255.255.0", "10.0.0.1"

// badBlocks are blocks with one problem: where it is, and what is said of it.
type badBlocks struct {
	blocks     []Block
	path, says string
}

// checked fails unless each has the one problem, with a remedy.
func checked(t *testing.T, cases map[string]badBlocks) {
	t.Helper()
	for name, c := range cases {
		_, problems := CheckBlocks(c.blocks)
		if len(problems) != 1 || problems[0].Path != c.path ||
			!strings.Contains(problems[0].Err.Error(), c.says) || problems[0].Fix == "" {
			t.Errorf("%s: %+v, want at %s %q", name, problems, c.path, c.says)
		}
	}
}

// What is wrong with each of many addresses is found in a moment.
func TestU6ManyAddresses(t *testing.T) {
	b := Block{Netmask: "255.0.0.0", Gateway: "10.255.0.1"}
	for n := range 20_000 {
		b.IPs = append(b.IPs, Entry{
			IP: fmt.Sprintf("10.0.%d.%d", n/200, n%200+1), Hostname: fmt.Sprintf("node-%d", n),
		})
	}
	start := time.Now()
	a, problems := CheckBlocks([]Block{b})
	if len(problems) > 0 || a.Hosts() != 20_000 {
		t.Fatalf("%d hosts, %v", a.Hosts(), problems)
	}
	if _, problems = CheckBlocks([]Block{b, b}); len(problems) != 40_000 {
		t.Errorf("%d problems, want one for each hostname and each address", len(problems))
	}
	t.Logf("took %v", time.Since(start))
}

// U7, "node interfaces".
func TestU7Parse(t *testing.T) {
	const blocks = `"blocks":[{"netmask":"255.255.255.0","gateway":"10.0.0.1",` +
		`"ips":[{"ip":"10.0.0.2","hostname":"a"}]}]`
	good := `[{"network":"VM Network (1)","match":{"index":1},"type":"static",` + blocks + `},{"network":"b","match":{"mac":"00:50:56:82:A7:ab"},"type":"dhcp"},
		{"network":"c","match":{"pciAddress":"0000:13:00.0"},"type":"dhcp"},{"network":"d","match":{"name":"ens224"},"type":"dhcp"}]`
	interfaces, err := Parse([]byte(good))
	if err != nil || len(interfaces) != 4 ||
		fmt.Sprint(interfaces[0].Addresses("A")) != "[10.0.0.2/24]" ||
		interfaces[1].Addresses("a") != nil {
		t.Fatalf("%+v, %v", interfaces, err)
	}
	for text, want := range map[string]string{
		`{}`: "field nodeInterfaces", `[{"a":1}]`: `unknown field "a"`,
		`[{"network":"a","network":"b"}]`:                                               "field nodeInterfaces[0].network: line 1 column 17",
		`[{"network":"a","match":{"index":"1"},"type":"dhcp"}]`:                         "a string is no value",
		`[{"network":"","match":{"index":1},"type":"dhcp"}]`:                            `field nodeInterfaces[0].network: "" is no name`,
		`[{"network":"../x","match":{"index":1},"type":"dhcp"}]`:                        "is no name",
		`[{"network":"a","match":{},"type":"dhcp"}]`:                                    "it has 0 of name, mac, pciAddress and index",
		`[{"network":"a","match":{"index":1,"name":"b"},"type":"dhcp"}]`:                "it has 2 of",
		`[{"network":"a","match":{"index":-1},"type":"dhcp"}]`:                          "counts no NIC",
		`[{"network":"a","match":{"name":"a name"},"type":"dhcp"}]`:                     "is no name of an interface",
		`[{"network":"a","match":{"mac":"00:50"},"type":"dhcp"}]`:                       "is no MAC",
		`[{"network":"a","match":{"mac":[]},"type":"dhcp"}]`:                            "it has 0 of name, mac",
		`[{"network":"a","match":{"mac":["02:00:00:00:00:01","02:00"]},"type":"dhcp"}]`: `"02:00" is no MAC`,
		`[{"network":"a","match":{"mac":["02:00:00:00:00:01", 2]},"type":"dhcp"}]`:      "correct its type",
		`[{"network":"a","match":{"mac":["02:00:00:00:00:01","02:00:00:00:00:01"]},"type":"dhcp"}]`: "mac " +
			"02:00:00:00:00:01 is interface 0 already",
		`[{"network":"a","match":{"mac":["02:00:00:00:00:01","02:00:00:00:00:0a"]},"type":"dhcp"},` +
			`{"network":"b","match":{"mac":"02:00:00:00:00:0A"},"type":"dhcp"}]`: "[1].match: mac " +
			"02:00:00:00:00:0a is interface 0 already",
		`[{"network":"a","match":{"pciAddress":"13:00.0"},"type":"dhcp"}]`: "is no PCI address",
		`[{"network":"a","match":{"index":1},"type":"auto"}]`:              `"auto" is no type`,
		`[{"network":"a","match":{"index":1},"type":"static"}]`:            "field nodeInterfaces[0].blocks: there is none",
		`[{"network":"a","match":{"index":1},"type":"dhcp",` + blocks +
			`}]`: "has its addresses from a server",
		`[{"network":"a","match":{"index":1},"type":"dhcp"},` +
			good[1:]: "index 1 is interface 0 already",
		`[{"network":"b","match":{"index":2},"type":"dhcp"},` +
			good[1:]: "b is interface 0 already",
		`[{"network":"z","match":{"index":2},"type":"static",` + blocks + `},` +
			good[1:]: "address 10.0.0.2 is in nodeInterfaces[0].blocks[0].ips[0].ip already",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	many := "[" + strings.Repeat(`{"network":"a","match":{"index":1},"type":"auto"},`, 999) +
		strings.TrimPrefix(good, "[")
	if _, err := Parse([]byte(many)); err == nil || len(err.Error()) > 2000 ||
		!strings.HasSuffix(err.Error(), "\nand 2988 more") {
		t.Errorf("of many: %v", err)
	}
}
