package resolve

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
)

// Finder finds out what runs a plugin with a configuration. invoke.Exec is one.
type Finder interface {
	// Find looks for what runs a plugin with this configuration. It returns an error if there is
	// nothing. Warnings name the keys of the configuration that have no effect.
	Find(kind string, config []byte, paths []string) (invoke.Found, error)
}

// execsIPAM are the reference plugins that exec the plugin named by their ipam.type, on DEL too. Of
// other plugins that is not known: some read "ipam" themselves.
func execsIPAM(pluginType string) bool {
	switch pluginType {
	case "bridge", "dummy", "host-device", "ipvlan", "macvlan", "ptp", "tap", "vlan":
		return true
	}
	return false
}

// Plugins finds what runs the plugins of an attachment's chain and adds it to the attachment, with
// what it warns of. It runs none of them. Binaries are looked for in paths.
func Plugins(finder Finder, a *plan.Attachment, paths []string) error {
	list, err := netconf.Libcni(a.Conf)
	if err != nil {
		return at(a, fmt.Errorf("read the chain: %w", err))
	}
	return PluginsOf(finder, list, a, paths)
}

// PluginsOf is Plugins with the attachment's configuration in libcni's form.
func PluginsOf(
	finder Finder, list *libcni.NetworkConfigList, a *plan.Attachment, paths []string,
) error {
	return add(a, places(finder, list, paths))
}

// Place is where a plugin of a chain runs.
type Place struct {
	Type string
	// Index is the plugin's position in the chain.
	Index int
	// IPAM is true if the plugin at Index calls it.
	IPAM bool
	invoke.Found

	// Err is the reason why it runs nowhere.
	Err error
}

// places looks for what runs each plugin of a chain.
func places(finder Finder, list *libcni.NetworkConfigList, paths []string) []Place {
	var all []Place
	for index, plugin := range list.Plugins {
		types := []string{plugin.Network.Type}
		if ipam := plugin.Network.IPAM.Type; ipam != "" && execsIPAM(plugin.Network.Type) {
			types = append(types, ipam)
		}
		for i, t := range types {
			found, err := finder.Find(t, plugin.Bytes, paths)
			all = append(all, Place{Type: t, Index: index, IPAM: i > 0, Found: found, Err: err})
		}
	}
	return all
}

// add adds what was found to the attachment, up to the first plugin that is refused. What
// is not there is left out, and so counts as a binary: the policy is to be asked before anybody is
// told to install it.
func add(a *plan.Attachment, places []Place) (missing error) {
	for _, p := range places {
		if failure.ReasonOf(p.Err) == failure.PluginNotFound {
			missing = cmp.Or(missing, at(a, p.Err))
			continue
		}
		if p.Err != nil {
			return at(a, p.Err)
		}
		note(a, p.Found)
		a.Runs = append(a.Runs, policy.Run{
			Index: p.Index, IPAM: p.IPAM, Execd: p.Execd, Unknown: p.Unknown,
		})
	}
	return missing
}

// note adds what was found to the attachment.
func note(a *plan.Attachment, found invoke.Found) {
	a.Execd = a.Execd || found.Execd
	for kind, inProcess := range found.Chosen {
		if a.InProcess == nil {
			a.InProcess = map[string]bool{}
		}
		a.InProcess[kind] = inProcess
	}
	for _, w := range found.Warnings {
		named := *w
		named.NAD, named.Interface = a.Name, a.IfName
		a.Warnings = append(a.Warnings, &named)
	}
}

// at names the attachment in an error of its chain.
func at(a *plan.Attachment, err error) error {
	named := failure.Error{Reason: failure.NADInvalid, Err: err}
	if fe, ok := errors.AsType[*failure.Error](err); ok {
		named = *fe
	}
	named.NAD, named.Interface = a.Name, a.IfName
	return &named
}
