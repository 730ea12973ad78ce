package plugins_test

import (
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/bridge"
	"github.com/braid-cni/braid/plugins/ipam/hostlocal"
	"github.com/braid-cni/braid/plugins/ipam/static"
	"github.com/braid-cni/braid/plugins/ipvlan"
	"github.com/braid-cni/braid/plugins/macvlan"
	"github.com/braid-cni/braid/plugins/portmap"
	"github.com/braid-cni/braid/plugins/sbr"
	"github.com/braid-cni/braid/plugins/tuning"
)

func ours() plugintest.Plugins {
	return plugintest.Plugins{
		"bridge": plugin.New(bridge.Plugin{}), "macvlan": plugin.New(macvlan.Plugin{}),
		"ipvlan":  plugin.New(ipvlan.Plugin{}),
		"portmap": plugin.New(portmap.Plugin{}), "sbr": plugin.New(sbr.Plugin{}),
		"tuning":     plugin.New(tuning.Plugin{}),
		"host-local": plugin.NewIPAM(hostlocal.Plugin{Boot: file.Kernel()}),
		"static":     plugin.NewIPAM(static.Plugin{}),
	}
}

func raw(out []byte) json.RawMessage { return json.RawMessage(out) }

type (
	conf = plugintest.Conf
	list = []any
)

// pick returns one of the values.
func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// maybe sets a key to one of the values, or leaves it out, as often as it sets one of them.
func maybe(r *rand.Rand, c conf, key string, values ...any) {
	if i := r.IntN(len(values) + 1); i < len(values) {
		c[key] = values[i]
	}
}

// network begins a configuration: of any version, or of none, which means 0.1.0.
func network(r *rand.Rand, kind string) conf {
	c := conf{"type": kind, "name": pick(r, "net", "net-2.a_b")}
	maybe(r, c, "cniVersion", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.0.0",
		"1.1.0")
	return c
}

func routes(r *rand.Rand, c conf) {
	maybe(r, c, "routes", list{conf{"dst": "172.16.0.0/12"}},
		list{conf{"dst": "172.16.0.0/12", "gw": "10.1.0.3"}, conf{"dst": "fd01::/64"}},
		list{conf{"dst": "0.0.0.0/0"}}, list{conf{"dst": "172.31.0.0/16", "priority": 7, "table": 300}},
		list{conf{"dst": "172.31.0.1/32", "scope": 253}}, list{})
}

// staticIPAM is an IPAM object of the static plugin.
func staticIPAM(r *rand.Rand) conf {
	c := conf{"type": "static"}
	four := conf{"address": pick(r, "10.1.0.2/24", "10.1.0.2/16", "10.1.0.2/32", "10.1.0.9/31")}
	maybe(r, four, "gateway", "10.1.0.1", "10.1.0.3")
	six := conf{"address": pick(r, "fd00::2/64", "fd00::2/128")}
	maybe(r, six, "gateway", "fd00::1")
	c["addresses"] = pick(r, list{four}, list{four, six}, list{six},
		list{four, conf{"address": "10.2.0.2/24"}})
	routes(r, c)
	maybe(r, c, "dns", conf{"nameservers": list{"10.1.0.1"}, "search": list{"a.example"}})
	return c
}

func hostLocalIPAM(r *rand.Rand, n *plugintest.Node) conf {
	c := conf{"type": "host-local", "dataDir": filepath.Join(n.Dir, "leases")}
	four := conf{"subnet": pick(r, "10.1.0.0/24", "10.1.0.0/30", "10.1.0.0/16", "10.1.0.4/30")}
	maybe(r, four, "gateway", "10.1.0.5", "10.1.0.1")
	if four["subnet"] == "10.1.0.0/24" {
		maybe(r, four, "rangeStart", "10.1.0.10", "10.1.0.1", "10.1.0.254")
		maybe(r, four, "rangeEnd", "10.1.0.20", "10.1.0.254", "10.1.0.9")
	}
	six := conf{"subnet": pick(r, "fd00::/64", "fd00::/120", "fd00::/126")}
	switch r.IntN(4) {
	case 0:
		for key, value := range four {
			c[key] = value
		}
	case 1:
		c["ranges"] = list{list{four}, list{six}}
	case 2:
		c["ranges"] = list{list{four, conf{"subnet": "10.9.0.0/24"}}}
	case 3:
		c["ranges"] = list{list{six}}
	}
	routes(r, c)
	return c
}

func anyIPAM(r *rand.Rand, n *plugintest.Node) conf {
	if r.IntN(2) == 0 {
		return staticIPAM(r)
	}
	return hostLocalIPAM(r, n)
}

func withMAC(r *rand.Rand, c conf) {
	maybe(r, c, "runtimeConfig", conf{"mac": "02:00:00:00:00:07"}, conf{})
}

func macvlanConf(r *rand.Rand, n *plugintest.Node) conf {
	c := network(r, "macvlan")
	maybe(r, c, "master", "nic0", "nic1", "nic0", "nic1", "missing0")
	maybe(r, c, "mode", "bridge", "private", "vepa", "passthru", "bridge", "odd")
	maybe(r, c, "mtu", 1400, 1500, 0, 9000, -1)
	maybe(r, c, "mac", "02:00:00:00:00:05", "nonsense")
	maybe(r, c, "bcqueuelen", 500)
	withMAC(r, c)
	maybe(r, c, "ipam", anyIPAM(r, n), anyIPAM(r, n), anyIPAM(r, n), conf{})
	maybe(r, c, "dns", conf{"nameservers": list{"10.1.0.53"}})
	return c
}

func TestDifferentialMacvlan(t *testing.T) {
	try(t, configs(24), func(r *rand.Rand, n *plugintest.Node) []conf {
		return []conf{macvlanConf(r, n)}
	})
}

func TestDifferentialIpvlan(t *testing.T) {
	nettest.NeedsLink(t, "ipvlan")
	try(t, configs(6), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := network(r, "ipvlan")
		maybe(r, c, "master", "nic0", "nic1", "missing0")
		maybe(r, c, "mode", "l2", "l3", "l3s", "odd")
		maybe(r, c, "mtu", 1400, 0, 9000)
		c["ipam"] = anyIPAM(r, n)
		return []conf{c}
	})
}

func bridgeConf(r *rand.Rand, n *plugintest.Node) conf {
	c := network(r, "bridge")
	maybe(r, c, "bridge", "br0", "br-long-name.15")
	for _, key := range []string{
		"isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode", "portIsolation",
		"enabledad",
	} {
		maybe(r, c, key, true, false, false)
	}
	if r.IntN(3) == 0 {
		c["ipMasq"], c["ipMasqBackend"] = true, "nftables"
	}
	maybe(r, c, "macspoofchk", true, false, false)
	maybe(r, c, "mtu", 1400, 1500, 9000)
	withMAC(r, c)
	switch r.IntN(5) {
	case 0:
		maybe(r, c, "disableContainerInterface", true)
	default:
		ipam := anyIPAM(r, n)
		c["ipam"] = ipam
		// The reference adds that route twice, and fails (TestDefaultRouteOfIPAM of the plugin).
		routes, _ := ipam["routes"].(list)
		if c["isDefaultGateway"] == true && slices.ContainsFunc(routes, isDefault) {
			delete(c, "isDefaultGateway")
		}
		// Of two gateways of one family, the reference replaces the first by the second
		// (TestGatewayAddresses of the plugin).
		addresses, _ := ipam["addresses"].(list)
		if len(addresses) == 2 && addresses[1].(conf)["address"] == "10.2.0.2/24" {
			delete(c, "forceAddress")
		}
	}
	return c
}

func isDefault(route any) bool { return route.(conf)["dst"] == "0.0.0.0/0" }

func TestDifferentialBridge(t *testing.T) {
	try(t, configs(24), func(r *rand.Rand, n *plugintest.Node) []conf {
		return []conf{bridgeConf(r, n)}
	})
}

func TestDifferentialBridgeVLAN(t *testing.T) {
	nettest.NeedsLink(t, "bridge-vlan")
	try(t, configs(6), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := bridgeConf(r, n)
		// the user-mode kernel, which these run in, has no NAT, and nothing for the reference's nft to
		// read from
		delete(c, "ipMasq")
		delete(c, "macspoofchk")
		maybe(r, c, "vlan", 100, 1, 4094, 5000)
		maybe(r, c, "vlanTrunk", list{conf{"id": 7}, conf{"minID": 10, "maxID": 12}},
			list{conf{"minID": 10}}, list{conf{"id": 0}})
		maybe(r, c, "preserveDefaultVlan", true, false)
		return []conf{c}
	})
}

// upper is a macvlan that works, for plugins that are chained to it.
func upper(r *rand.Rand, ipam conf) conf {
	c := network(r, "macvlan")
	c["master"], c["ipam"] = "nic0", ipam
	return c
}

func chained(first, second conf) []conf {
	second["name"] = first["name"]
	if version, ok := first["cniVersion"]; ok {
		second["cniVersion"] = version
	}
	return []conf{first, second}
}

func TestDifferentialSbr(t *testing.T) {
	try(t, configs(24), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := conf{"type": "sbr"}
		maybe(r, c, "table", 100, 300)
		return chained(upper(r, anyIPAM(r, n)), c)
	})
}

func TestDifferentialTuning(t *testing.T) {
	try(t, configs(30), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := conf{"type": "tuning", "dataDir": filepath.Join(n.Dir, "tuning")}
		maybe(r, c, "sysctl", conf{"net.ipv4.conf.IFNAME.arp_filter": "1"},
			conf{"net.ipv4.conf.all.rp_filter": "2", "net/ipv4/conf/net1/log_martians": "1"},
			conf{"net.ipv4.conf.none0.arp_filter": "1"}, conf{"kernel.hostname": "x"},
			conf{"net.../../../kernel/hostname": "x"})
		maybe(r, c, "mac", "02:00:00:00:00:09", "nonsense")
		maybe(r, c, "promisc", true, false)
		maybe(r, c, "allmulti", true, false)
		maybe(r, c, "mtu", 1300, 70, 100000)
		maybe(r, c, "txQLen", 500, 0)
		maybe(r, c, "runtimeConfig", conf{"mac": "02:00:00:00:00:0a"})
		maybe(r, c, "args", conf{"cni": conf{"mac": "02:00:00:00:00:0b", "promisc": true}},
			conf{"cni": conf{"mtu": 1280}})
		return chained(upper(r, staticIPAM(r)), c)
	})
}

func TestDifferentialPortmap(t *testing.T) {
	try(t, configs(16), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := conf{"type": "portmap", "backend": "nftables", "capabilities": conf{"portMappings": true}}
		maybe(r, c, "snat", true, false)
		maybe(r, c, "masqAll", true, false)
		maybe(r, c, "markMasqBit", 5)
		maybe(r, c, "runtimeConfig",
			conf{"portMappings": list{conf{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}},
			conf{"portMappings": list{
				conf{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
				conf{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.2"},
			}},
			conf{"portMappings": list{conf{"hostPort": 70000, "containerPort": 80, "protocol": "tcp"}}},
			conf{"portMappings": list{}})
		br := network(r, "bridge")
		br["isGateway"], br["ipam"] = true, staticIPAM(r)
		return chained(br, c)
	})
}

// The IPAM plugins by themselves, as an interface plugin calls them.
func TestDifferentialHostLocal(t *testing.T) {
	try(t, configs(40), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := network(r, "host-local")
		ipam := hostLocalIPAM(r, n)
		maybe(r, ipam, "resolvConf", "/nonexistent")
		maybe(r, ipam, "rangeStart", "10.1.0.2", "10.7.0.1", "nonsense")
		c["ipam"] = ipam
		maybe(r, c, "runtimeConfig", conf{"ips": list{"10.1.0.12"}}, conf{"ips": list{"10.1.0.1"}},
			conf{"ips": list{"10.1.0.12", "fd00::9"}},
			conf{"ipRanges": list{list{conf{"subnet": "10.5.0.0/24"}}}})
		maybe(r, c, "args", conf{"cni": conf{"ips": list{"10.1.0.13"}}})
		return []conf{c}
	})
}

func TestDifferentialStatic(t *testing.T) {
	try(t, configs(40), func(r *rand.Rand, n *plugintest.Node) []conf {
		c := network(r, "static")
		ipam := staticIPAM(r)
		maybe(r, ipam, "addresses", list{conf{"address": "10.1.0.2"}},
			list{conf{"address": "10.1.0.2/40"}}, list{})
		c["ipam"] = ipam
		maybe(r, c, "runtimeConfig", conf{"ips": list{"10.1.0.12/24"}}, conf{"ips": list{"10.1.0.12"}},
			conf{"ips": list{"10.1.0.12/24", "fd00::9/64"}})
		maybe(r, c, "args", conf{"cni": conf{"ips": list{"10.1.0.13/24"}}})
		return []conf{c}
	})
}
