package engine

import (
	"slices"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/invoke"
)

// homes are where the plugins of a chain run: in this process or as binaries, which are looked
// for in paths. chosen is an attachment's InProcess.
type homes struct {
	exec   Exec
	paths  []string
	chosen invoke.Chosen
}

// inProcess reports whether a plugin of the chain runs in this process; all others are binaries.
func (h homes) inProcess(p *libcni.PluginConfig) bool {
	return h.exec.InProcess(p.Network.Type, p.Bytes, h.paths, h.chosen)
}

func (h homes) execd(p *libcni.PluginConfig) bool { return !h.inProcess(p) }

// builtin reports whether neither the plugin nor its IPAM plugin is exec'd.
func (h homes) builtin(p *libcni.PluginConfig) bool {
	ipam := p.Network.IPAM.Type
	return h.inProcess(p) && (ipam == "" || h.exec.InProcess(ipam, p.Bytes, h.paths, h.chosen))
}

// foreign reports whether a chain has a plugin, or an IPAM plugin, that is exec'd.
func (h homes) foreign(list *libcni.NetworkConfigList) bool {
	return slices.ContainsFunc(list.Plugins, func(p *libcni.PluginConfig) bool {
		return !h.builtin(p)
	})
}

// mixed reports whether the chain's link is made in-process and another of its plugins is exec'd.
func (h homes) mixed(list *libcni.NetworkConfigList) bool {
	return len(list.Plugins) > 0 && h.inProcess(list.Plugins[0]) &&
		slices.ContainsFunc(list.Plugins, h.execd)
}
