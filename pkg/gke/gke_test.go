package gke_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/gke"
)

const (
	cluster = `apiVersion: v1
kind: UserCluster
multipleNetworkInterfaces: true
enableDataplaneV2: true
network:
  serviceCIDR: "10.96.0.0/20"
  podCIDR: "192.168.0.0/16"
  vCenter:
    networkName: primary
  additionalNodeInterfaces:
  - networkName: gke-network-1
    ipBlockFilePath: block.yaml
    type: static
  - networkName: gke-network-2
    type: dhcp
masterNode: {cpus: 4, unheardOf: [1, 2]}
`
	blocks = `blocks:
- netmask: "255.255.252.0"
  gateway: "172.16.23.254"
  ips:
  - ip: 172.16.20.10
    hostname: host1          # optional
  - ip: 172.16.20.11
    hostname: host2
  - ip: 172.16.20.12/30
`
)

// check is what is found in a cluster configuration and its block file, one problem a line, without
// the directory.
func check(t *testing.T, cluster, blocks string, nodes int) []string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "cluster.yaml", cluster)
	write(t, dir, "block.yaml", blocks)
	c, problems, err := gke.Read(filepath.Join(dir, "cluster.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	problems = append(problems, c.Check(nodes)...)
	var lines []string
	for _, p := range problems {
		if p.Fix == "" {
			t.Errorf("no remedy: %s", p)
		}
		lines = append(lines, strings.ReplaceAll(p.String(), dir+"/", ""))
	}
	return lines
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestU5Fields: the documented keys are read, and others are left alone.
func TestU5Fields(t *testing.T) {
	const unnamed = "cluster.yaml:12: network.additionalNodeInterfaces[0].ipBlockFilePath: warning: " +
		"block.yaml has 4 addresses without a hostname, " +
		"which no node takes; give each an entry with a hostname, if a node is to have it"
	if diff := cmp.Diff([]string{unnamed}, check(t, cluster, blocks, 2)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c, problems, err := gke.Read("../../conf/gke/cluster.yaml")
	if err != nil || len(problems) > 0 || gke.Wrong(c.Check(1)) {
		t.Fatalf("conf/gke/cluster.yaml: %v, %v", problems, err)
	}
	if c.Primary != "network-private310" || c.PodCIDR.String() != "192.168.0.0/16" ||
		c.ServiceCIDR.String() != "10.96.0.0/20" || !c.Enabled || !c.DataplaneV2 ||
		len(c.Interfaces) != 2 || c.Interfaces[0].Network != "gke-network-1" ||
		c.Interfaces[0].Blocks[0].IPs[1].IP != "172.16.20.12/30" || c.Interfaces[1].Type != "dhcp" {
		t.Errorf("%+v", c)
	}
}

// mistake is what is wrong in a cluster configuration or in an IP block file, for so many nodes. A
// file that is not named is correct.
type mistake struct {
	cluster, blocks string
	nodes           int
	want            string
}

// finds fails unless Check names each mistake with file, line, field and remedy.
func finds(t *testing.T, mistakes map[string]mistake) {
	t.Helper()
	for name, c := range mistakes {
		if c.cluster == "" {
			c.cluster = cluster
		}
		if c.blocks == "" {
			c.blocks = blocks
		}
		got := check(t, c.cluster, c.blocks, c.nodes)
		if !slices.ContainsFunc(got, func(line string) bool { return strings.Contains(line, c.want) }) {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), c.want)
		}
	}
}

// replacer replaces text of the cluster configuration, which must be there.
func replacer(t *testing.T) func(old, by string) string {
	return func(old, by string) string {
		t.Helper()
		if !strings.Contains(cluster, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(cluster, old, by, 1)
	}
}

// TestU4Switches: further interfaces need both keys at the top.
func TestU4Switches(t *testing.T) {
	replace := replacer(t)
	finds(t, map[string]mistake{
		"U4 needs Dataplane V2": {
			cluster: replace("enableDataplaneV2: true", "enableDataplaneV2: false"),
			want:    "cluster.yaml:3: multipleNetworkInterfaces: it needs enableDataplaneV2: true",
		},
		"U4 absent Dataplane V2": {
			cluster: replace("enableDataplaneV2: true\n", ""),
			want:    "cluster.yaml:3: multipleNetworkInterfaces: it needs enableDataplaneV2: true",
		},
		"U4 not enabled": {
			cluster: replace("multipleNetworkInterfaces: true\n", ""),
			want: "cluster.yaml:9: network.additionalNodeInterfaces: warning: the nodes have further " +
				"interfaces",
		},
		"U4 quoted": {
			cluster: replace("multipleNetworkInterfaces: true", `multipleNetworkInterfaces: "true"`),
			want: `cluster.yaml:3: multipleNetworkInterfaces: it is "true"; write true or false, without ` +
				`quotes`,
		},
	})
}

// TestU5Interfaces: the keys of a further interface.
func TestU5Interfaces(t *testing.T) {
	replace := replacer(t)
	finds(t, map[string]mistake{
		"static without path": {
			cluster: replace("    ipBlockFilePath: block.yaml\n", ""),
			want: "cluster.yaml:11: network.additionalNodeInterfaces[0].ipBlockFilePath: a static " +
				"interface has none",
		},
		"dhcp with path": {
			cluster: replace("type: dhcp", "type: dhcp\n    ipBlockFilePath: block.yaml"),
			want: "cluster.yaml:16: network.additionalNodeInterfaces[1].ipBlockFilePath: a dhcp " +
				"interface",
		},
		"unknown type": {
			cluster: replace("type: dhcp", "type: DHCP"),
			want: `cluster.yaml:15: network.additionalNodeInterfaces[1].type: "DHCP" is no type; use ` +
				`static or dhcp`,
		},
		"unknown key": {
			cluster: replace("type: dhcp", "type: dhcp\n    vlan: 5"),
			want: "cluster.yaml:16: network.additionalNodeInterfaces[1].vlan: there is no such key; use " +
				"networkName",
		},
		"no network": {
			cluster: replace("- networkName: gke-network-2\n    type", "- type"),
			want: "cluster.yaml:14: network.additionalNodeInterfaces[1].networkName: the interface has no " +
				"network",
		},
		"no name": {
			cluster: replace("gke-network-2", `"a\nb"`),
			want: `cluster.yaml:14: network.additionalNodeInterfaces[1].networkName: "a\nb" is no name of ` +
				`a network`,
		},
		"the primary's": {
			cluster: replace("gke-network-2", "primary"),
			want: `cluster.yaml:14: network.additionalNodeInterfaces[1].networkName: "primary" is the ` +
				`network of the primary`,
		},
		"twice": {
			cluster: replace("gke-network-2", "gke-network-1"),
			want: `cluster.yaml:14: network.additionalNodeInterfaces[1].networkName: "gke-network-1" is ` +
				`that of network.additionalNodeInterfaces[0] already`,
		},
		"file twice": {
			cluster: replace("type: dhcp", "type: static\n    ipBlockFilePath: ./block.yaml"),
			want: "cluster.yaml:16: network.additionalNodeInterfaces[1].ipBlockFilePath: block.yaml is " +
				"that of",
		},
		"no such file": {
			cluster: replace("block.yaml", "other.yaml"),
			want: "cluster.yaml:12: network.additionalNodeInterfaces[0].ipBlockFilePath: the IP block " +
				"file cannot be read",
		},
	})
}

// TestU5Form: the networks of the cluster, and the form of its file.
func TestU5Form(t *testing.T) {
	replace := replacer(t)
	finds(t, map[string]mistake{
		"overlap of pods, services": {
			cluster: replace("10.96.0.0/20", "192.168.4.0/24"),
			want:    "cluster.yaml:7: network.podCIDR: 192.168.0.0/16 overlaps with serviceCIDR",
		},
		"overlap with pods": {
			cluster: replace("192.168.0.0/16", "172.16.0.0/16"),
			want: "block.yaml:2: blocks[0]: the subnet 172.16.20.0/22 overlaps with podCIDR of the " +
				"cluster, 172.16.0.0/16",
		},
		"overlap with services": {
			cluster: replace("10.96.0.0/20", "172.16.20.0/24"),
			want:    "block.yaml:2: blocks[0]: the subnet 172.16.20.0/22 overlaps with serviceCIDR",
		},
		"no CIDR": {
			cluster: replace(`"192.168.0.0/16"`, "192.168.0.0"),
			want:    `cluster.yaml:7: network.podCIDR: "192.168.0.0" is no CIDR`,
		},
		"misplaced": {
			cluster: strings.Replace(cluster, "network:\n", "podCIDR: 10.0.0.0/8\nnetwork:\n", 1),
			want: "cluster.yaml:5: podCIDR: at the top of the file it has no effect; move it below " +
				"network",
		},
		"interfaces are no list": {
			cluster: replace("  additionalNodeInterfaces:\n  -", "  additionalNodeInterfaces:\n   "),
			want:    "cluster.yaml:",
		},
		"key twice": {
			cluster: replace("kind: UserCluster", "enableDataplaneV2: false"),
			want:    "cluster.yaml:4: enableDataplaneV2: the key is there twice",
		},
		"merged": {
			cluster: replace("network:\n", "x: &x {podCIDR: 1.0.0.0/8}\nnetwork:\n  <<: *x\n"),
			want:    `cluster.yaml:7: network.<<: merged keys are not read`,
		},
	})
}

// TestU5Hostnames: each node needs an address and a hostname.
func TestU5Hostnames(t *testing.T) {
	finds(t, map[string]mistake{
		"nodes + 1": {
			nodes: 6,
			want: "cluster.yaml:12: network.additionalNodeInterfaces[0].ipBlockFilePath: block.yaml has 6 " +
				"addresses for 6 nodes: each needs one, and an upgrade one more",
		},
		"one address, one node": {
			blocks: blocks[:strings.Index(blocks, "  - ip: 172.16.20.11")],
			nodes:  1,
			want:   "block.yaml has 1 address for 1 node: each needs one",
		},
		"too few hostnames": {
			nodes: 3,
			want: "cluster.yaml:12: network.additionalNodeInterfaces[0].ipBlockFilePath: block.yaml has " +
				"addresses for 2 hostnames, and the cluster has 3 nodes",
		},
		"no hostname": {
			blocks: strings.NewReplacer("    hostname: host1          # optional\n", "",
				"    hostname: host2\n", "").Replace(blocks),
			want: "block.yaml has no hostname: Braid never guesses",
		},
	})
}

// TestU6BlockFiles: the keys of an IP block file.
func TestU6BlockFiles(t *testing.T) {
	finds(t, map[string]mistake{
		"U6 hostname twice": {
			blocks: strings.Replace(blocks, "host2", "host1", 1),
			want:   "block.yaml:8: blocks[0].ips[1].hostname: host1 is in blocks[0].ips[0].hostname already",
		},
		"U6 gateway outside": {
			blocks: strings.Replace(blocks, "172.16.23.254", "10.0.0.1", 1),
			want:   "block.yaml:5: blocks[0].ips[0].ip: 172.16.20.10 is outside of the block's subnet",
		},
		"U6 gateway as address": {
			blocks: strings.Replace(blocks, "172.16.20.11", "172.16.23.254", 1),
			want:   "block.yaml:7: blocks[0].ips[1].ip: 172.16.23.254 has the address of the gateway",
		},
		"U6 address twice": {
			blocks: strings.Replace(blocks, "172.16.20.11", "172.16.20.14", 1),
			want: "block.yaml:9: blocks[0].ips[2].ip: address 172.16.20.14 is in blocks[0].ips[1].ip " +
				"already",
		},
		"U6 netmask": {
			blocks: strings.Replace(blocks, "255.255.252.0", "255.0.255.0", 1),
			want:   "block.yaml:2: blocks[0].netmask: 255.0.255.0 is no netmask",
		},
		"U6 unknown key": {
			blocks: strings.Replace(blocks, "gateway", "gatway", 1),
			want:   "block.yaml:3: blocks[0].gatway: there is no such key; use netmask, gateway, ips",
		},
		"U6 unknown key of an entry": {
			blocks: strings.Replace(blocks, "hostname: host2", "host: host2", 1),
			want:   "block.yaml:8: blocks[0].ips[1].host: there is no such key",
		},
		"U6 ips is no list": {
			blocks: blocks[:strings.Index(blocks, "  ips")] + "  ips: 10.0.0.1\n",
			want:   `block.yaml:4: blocks[0].ips: it is "10.0.0.1"; make it a list`,
		},
		"U6 an entry is no mapping": {
			blocks: blocks + "  - 172.16.20.30\n",
			want:   `block.yaml:10: blocks[0].ips[3]: it is "172.16.20.30"; make it a mapping`,
		},
		"U6 tab": {
			blocks: strings.Replace(blocks, "    hostname: host2", "\thostname: host2", 1),
			want:   "block.yaml:8: a tab in the indentation",
		},
		"U6 no YAML": {blocks: blocks + "}\n", want: "block.yaml:9: no YAML:"},
		"U6 empty":   {blocks: "# nothing\n", want: "block.yaml: the file has no content"},
		"U6 two documents": {
			blocks: blocks + "---\nblocks: []\n",
			want:   "block.yaml:10: the file has more than one document",
		},
	})
}

// TestU6Forms: what editors make of a file is read as it is meant.
func TestU6Forms(t *testing.T) {
	want := check(t, cluster, blocks, 0)
	for name, text := range map[string]string{
		"CRLF": strings.ReplaceAll(blocks, "\n", "\r\n"), "BOM": "\ufeff" + blocks,
		"no last line feed": strings.TrimSuffix(blocks, "\n"),
		"flow": `{blocks: [{netmask: 255.255.252.0, gateway: 172.16.23.254, ` +
			`ips: [{ip: 172.16.20.10, hostname: host1}, {ip: 172.16.20.11, hostname: host2}, ` +
			`{ip: 172.16.20.12/30}]}]}`,
		"tab inside":   strings.Replace(blocks, "# optional", "\t# optional", 1),
		"one document": "---\n" + blocks,
	} {
		diff := cmp.Diff(want, check(t, strings.ReplaceAll(cluster, "\n", "\r\n"), text, 0))
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	v6 := "blocks:\n- netmask: \"ffff:ffff:ffff:ffff::\"\n  gateway: fd00::1\n  ips:\n  - ip: " +
		"fd00::10\n    hostname: host1\n"
	if got := check(t, cluster, v6, 0); len(got) > 0 {
		t.Errorf("IPv6: %q", got)
	}
}

// TestU6LongFiles: a file of 10,000 lines is read, and the line of an error in it is right.
func TestU6LongFiles(t *testing.T) {
	var b strings.Builder
	b.WriteString("blocks:\n- netmask: 255.255.0.0\n  gateway: 10.1.255.254\n  ips:\n")
	for n := range 5000 {
		fmt.Fprintf(&b, "  - ip: 10.1.%d.%d\n    hostname: node-%d\n", n/250, n%250+1, n)
	}
	if got := check(t, cluster, b.String(), 4999); len(got) > 0 {
		t.Fatal(got)
	}
	got := check(t, cluster+strings.Repeat("# of another tool\n", 10_000),
		strings.Replace(b.String(), "ip: 10.1.19.250\n", "ip: 10.2.0.1\n", 1), 0)
	want := "block.yaml:10003: blocks[0].ips[4999].ip: 10.2.0.1 is outside of the block's subnet " +
		"10.1.0.0/16"
	if len(got) != 1 || !strings.HasPrefix(got[0], want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestU5Networks: addresses of pods and services are no network's.
func TestU5Networks(t *testing.T) {
	c, _, err := gke.Read("../../conf/gke/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ config, want string }{
		{config: `{"type":"macvlan","ipam":{"type":"whereabouts","range":"21.0.104.0/21"}}`},
		{
			config: `{"type":"macvlan","ipam":{"type":"whereabouts","range":"192.168.4.0/24"}}`,
			want:   "nad: spec.config.plugins[0].ipam.range: 192.168.4.0/24 overlaps with podCIDR",
		},
		{
			config: `{"plugins":[{"type":"macvlan","ipam":{"type":"host-local",` +
				`"ranges":[[{"subnet":"10.96.1.0/24"}]]}}]}`,
			want: "spec.config.plugins[0].ipam.ranges[0][0].subnet: 10.96.1.0/24 overlaps with serviceCIDR",
		},
		{
			config: `{"type":"macvlan","ipam":{"type":"static","addresses":[{"address":"192.168.4.5/24"}]}}`,
			want:   "addresses[0].address: 192.168.4.0/24 overlaps",
		},
		{
			config: `{"type":"macvlan","ipam":{"type":"whereabouts","range":"192.168.4.5-192.168.4.9/24"}}`,
			want:   "range: 192.168.4.0/24 overlaps",
		},
	} {
		got := fmt.Sprint(c.CheckNetwork("nad", test.config))
		if test.want == "" && got != "[]" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %q", test.config, got, test.want)
		}
	}
}
