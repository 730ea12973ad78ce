package attack_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/weaken"
)

// attached makes a pod with the network, and reports whether it starts.
func (n *node) attached(config string) (*pod, bool) {
	n.Helper()
	n.nad("team/x", config)
	p := n.pod("team/p", "x")
	return p, n.starts(p)
}

// leased is a network whose leases are in a directory; more are keys of its IPAM plugin.
func leased(dir, more string) string {
	return `{"cniVersion":"1.0.0","type":"macvlan","master":"` + uplink +
		`","ipam":{"type":"host-local","dataDir":"` + dir + `","subnet":"10.34.0.0/24"` + more + `}}`
}

// entries are how many things there are in a directory of the node.
func (n *node) entries(dir string) int {
	n.Helper()
	list, err := os.ReadDir(n.path(dir))
	n.must(err)
	return len(list)
}

// size is that of all files in a directory of the node, in bytes.
func (n *node) size(dir string) (sum int64) {
	n.Helper()
	err := filepath.WalkDir(n.path(dir), func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		n.Fatal(err)
	}
	return sum
}

// mine has the tenant's own binary run by Braid as a plugin of the type.
func mine(kind string) func(n *node) bool {
	return func(n *node) bool {
		n.script(n.path("outside", "mine"), "touch "+n.path("ran"))
		n.must(os.Symlink(filepath.Join(n.bin, "braid"), n.path("bin", "braid")))
		n.script(n.path("bin", "wrapper"), "exec "+filepath.Join(n.bin, "braid"))
		n.attached(`{"cniVersion":"1.0.0","name":"x","type":"` + kind + `","binDir":"DIR/outside","delegates":[{"cniVersion":"1.0.0","name":"y","type":"mine"}],
			"braid":{"manifests":"DIR/manifests","stateDir":"DIR/other"}}`)
		return n.has("ran")
	}
}

func ofNADs() []attack {
	return slices.Concat(ofRunners(), ofFiles(), ofNodeSafety(), ofBounds())
}

// ofRunners want something to run as root.
func ofRunners() []attack {
	return []attack{
		{
			"M24 a binary of its own, through Braid", nadTenant,
			off(weaken.Meta, weaken.Self, weaken.Caller), mine("braid"),
		},
		{
			"M24 a binary of its own, through a wrapper of Braid", nadTenant, off(weaken.Caller),
			mine("wrapper"),
		},
		{"M26 a binary that no rule allows", nadTenant, off(weaken.Policy), func(n *node) bool {
			n.tenant("team")
			n.plugin("tool", "touch "+n.path("ran"))
			n.attached(`{"cniVersion":"1.0.0","type":"tool"}`)
			return n.has("ran")
		}},
		{
			"M26 a network that is a file of the operator's", nadTenant, off(weaken.Policy),
			func(n *node) bool {
				n.tenant("team")
				n.plugin("tool", "touch "+n.path("ran"))
				n.write(n.path("net.d", "x.conf"), `{"cniVersion":"1.0.0","name":"x","type":"tool"}`)
				n.attached("")
				return n.has("ran")
			},
		},
		{"M38 work in the node's own namespace", nadTenant, off(weaken.NodeNS), func(n *node) bool {
			n.plugin("tool", `nsenter --net="$CNI_NETNS" ip link set `+uplink+` alias taken`)
			n.conf["delegates"] = []any{
				map[string]any{"cniVersion": "1.0.0", "name": "pods", "type": "tool"},
			}
			p := n.pod("team/p", "")
			n.starts(&pod{&nettest.Namespace{Path: n.host.Path}, p.namespace, p.name})
			return n.host.Link(uplink).Attrs().Alias == "taken"
		}},
	}
}

// ofFiles want files of the node.
func ofFiles() []attack {
	return []attack{
		{"M34 files in any directory", nadTenant, off(weaken.Roots), func(n *node) bool {
			n.attached(leased("DIR/outside", ""))
			return n.entries("outside") > 0
		}},
		{"M34 files in any directory, by a binary", nadTenant, off(weaken.Roots), func(n *node) bool {
			n.attached(strings.NewReplacer(`"ipam"`, `"onlyTheBinaryKnows":1,"ipam"`, "dataDir", "DataDir").
				Replace(leased("DIR/outside", "")))
			return n.entries("outside") > 0
		}},
		{"M25 lines in any file", nadTenant, off(weaken.Roots), func(n *node) bool {
			n.attached(`{"cniVersion":"1.0.0","type":"macvlan","master":"` + uplink +
				`","ipam":{"type":"whereabouts","range":"10.25.0.0/24","log_file":"DIR/outside/log"}}`)
			return n.entries("outside") > 0
		}},
		{"M33 the lines of any file", nadTenant, off(weaken.Roots), func(n *node) bool {
			n.write(n.path("outside", "secret"), "search s3cret.example\nnameserver 10.66.6.6\n")
			_, started := n.attached(strings.NewReplacer("NAME", "br-team", `"subnet"`,
				`"resolvConf":"DIR/outside/secret","subnet"`).Replace(harmless))
			if !started {
				return false
			}
			status, err := os.ReadFile(n.path("manifests", "team_p.network-status.json"))
			n.must(err)
			return strings.Contains(string(status), "s3cret")
		}},
	}
}

// ofNodeSafety want what is the node's.
func ofNodeSafety() []attack {
	return []attack{
		{"M26 the node's uplink in its pod", nadTenant, off(weaken.Links), func(n *node) bool {
			p, _ := n.attached(`{"cniVersion":"1.0.0","type":"host-device","device":"` + uplink + `"}`)
			return p.HasLink("net1")
		}},
		{"M26 all of the uplink's traffic", nadTenant, off(weaken.Links), func(n *node) bool {
			_, started := n.attached(
				strings.Replace(leased("DIR/data", ""), `"ipam"`, `"mode":"passthru","ipam"`, 1))
			return started
		}},
		{
			"M26 a place on the node's own network", nadTenant, off(weaken.Policy, weaken.Masters),
			func(n *node) bool {
				n.own["policyDefault"] = "enforce"
				_, started := n.attached(leased("DIR/data", ""))
				return started
			},
		},
		{"M27 what the node has a route for", nadTenant, off(weaken.Routes), func(n *node) bool {
			n.attached(strings.NewReplacer("NAME", "br-team", "10.77", "10.96").Replace(harmless))
			return strings.Contains(n.host.Addrs(), "10.96.0.1/24")
		}},
		{"M27 what is the internet's", nadTenant, off(weaken.Routes), func(n *node) bool {
			n.attached(strings.NewReplacer("NAME", "br-team", "10.77.0", "8.8.8").Replace(harmless))
			return strings.Contains(n.host.Addrs(), "8.8.8.1/24")
		}},
		{"M28 the addresses of another's bridge", nadTenant, off(weaken.Owners), func(n *node) bool {
			n.host.Bridge("br-admin")
			n.host.Addr("br-admin", "10.4.0.1/24")
			n.attached(strings.NewReplacer("NAME", "br-admin", `"isGateway"`,
				`"forceAddress":true,"isGateway"`).Replace(harmless))
			return strings.Contains(n.host.Addrs(), "10.77.0.1/24")
		}},
	}
}

// ofBounds want all of something.
func ofBounds() []attack {
	return []attack{
		{"M36 the node's memory, by a large network", nadTenant, off(weaken.Size), func(n *node) bool {
			n.plugin("tool", "")
			n.attached(`{"cniVersion":"1.0.0","type":"tool","padding":"` +
				strings.Repeat("x", 600_000) + `"}`)
			return n.size("state/networks") > 500_000
		}},
		{"M35 the terminal of who lints its NAD", nadTenant, off(weaken.Printing), func(n *node) bool {
			n.nad("team/x"+evil, `{"cniVersion":"1.0.0","type":"no such"}`)
			return shows(n.braidctl("lint", n.path("manifests")))
		}},
	}
}
