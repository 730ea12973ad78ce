// Package builtin is the registry of the plugins that Braid runs in-process.
//
// Contract: it is the only importer of the packages below plugins/, apart from commands. A plugin's
// type is its name here and the name under which a link to the binary is that plugin.
package builtin

import (
	"cmp"
	"log/slog"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/uplink"
	"github.com/braid-cni/braid/pkg/plugin/vlan"
	"github.com/braid-cni/braid/plugins/bridge"
	"github.com/braid-cni/braid/plugins/ipam/hostlocal"
	"github.com/braid-cni/braid/plugins/ipam/static"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
	"github.com/braid-cni/braid/plugins/ipvlan"
	"github.com/braid-cni/braid/plugins/macvlan"
	"github.com/braid-cni/braid/plugins/passthru"
	"github.com/braid-cni/braid/plugins/portmap"
	"github.com/braid-cni/braid/plugins/sbr"
	"github.com/braid-cni/braid/plugins/tuning"
)

// Opener opens the cluster-wide addresses of this node for a configuration of whereabouts.
type Opener = func(*whereabouts.Conf) (*whereabouts.Addresses, error)

// Node is what the plugins use of the node that they run on. The zero value is enough for plugins
// that only read configurations.
type Node struct {
	Open Opener
	// StateDir is the directory for state that lives until the node's next start.
	StateDir string
	// NetNS is the path of the node's network namespace; empty for that of the process.
	NetNS string
	// DataRoots are the directories that the keys dataDir of configurations may lead to. Nil is for
	// plugins that trust their configuration, as those do that are called by their own names.
	DataRoots hostfile.Roots
	// Trace, if set, is called with each change of the plugins' own state before it is made.
	Trace func(change string)
}

// Plugins returns the plugins by type.
func Plugins(node Node) map[string]*plugin.Plugin {
	vlans := vlan.Links{Dir: filepath.Join(node.StateDir, "vlans"), Step: node.step("vlans: ")}
	local := hostlocal.Plugin{Boot: file.Kernel(), Roots: node.DataRoots}
	if node.DataRoots != nil {
		local.ResolvConf = hostlocal.ResolvConfRoots()
	}
	cluster := whereabouts.Plugin{
		Open: node.Open, Files: whereabouts.Files(), Logs: whereabouts.LogRoots(),
		Trusting: node.DataRoots == nil,
	}
	return map[string]*plugin.Plugin{
		"bridge":             plugin.New(bridge.Plugin{Dir: filepath.Join(node.StateDir, "bridges")}),
		"ipvlan":             plugin.New(ipvlan.Plugin{VLANs: vlans}),
		"macvlan":            plugin.New(macvlan.Plugin{VLANs: vlans}),
		netconf.PassthruType: plugin.New(passthru.Plugin{}),
		"portmap":            plugin.New(portmap.Plugin{}),
		"sbr":                plugin.New(sbr.Plugin{}),
		"tuning":             plugin.New(tuning.Plugin{Roots: node.DataRoots}),
		"host-local":         plugin.NewIPAM(local),
		"static":             plugin.NewIPAM(static.Plugin{}),
		"whereabouts":        plugin.NewIPAM(cluster),
	}
}

// step is Trace for changes of one kind.
func (n Node) step(kind string) func(change string) {
	if n.Trace == nil {
		return nil
	}
	return func(change string) { n.Trace(kind + change) }
}

// Called returns the type of the plugin that the program is called as, by a link or a copy of
// another name. It is false for the name of Braid itself.
func Called(program string) (kind string, ok bool) {
	kind = filepath.Base(program)
	_, ok = Plugins(Node{})[kind]
	return kind, ok
}

// NewExec returns the executor of one operation: plugins of this package in-process, all others as
// binaries. The caller closes it.
func NewExec(log *slog.Logger, node Node) *invoke.Exec {
	session := plugin.NewSession(cmp.Or(node.NetNS, plugin.HostNS))
	registry := invoke.Registry{}
	for kind, p := range Plugins(node) {
		registry[kind] = session.Bind(p)
	}
	return &invoke.Exec{
		Builtin: registry, Log: log, Guard: &uplink.Guard{Host: session.Host, Sysfs: "/sys"},
		Release: session.Close,
	}
}
