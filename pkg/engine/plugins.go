package engine

import (
	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
)

// execsIPAM are the reference plugins that exec the plugin named by their ipam.type, on DEL too. Of other plugins that is not
// known: some read "ipam" themselves.
var execsIPAM = map[string]bool{
	"bridge": true, "dummy": true, "host-device": true, "ipvlan": true, "macvlan": true, "ptp": true, "tap": true, "vlan": true,
}

// pluginsPresent finds the plugins of a chain. What it found, and their warnings, it adds to the
// attachment. It is asked before the first change: a chain that lacks one could be neither finished
// nor taken back.
func (e *Engine) pluginsPresent(req *Request, sandbox *sandbox, a *plan.Attachment) error {
	list, err := sandbox.list(a)
	if err != nil {
		return chainError(err, a)
	}
	warnings, err := runnable(sandbox.exec, list, a, req.path())
	a.Warnings = append(a.Warnings, warnings...)
	return err
}

// Runnable reports what keeps the plugins of an attachment's chain from running, and what of their
// configurations has no effect. It runs none of them. Binaries are looked for in paths.
func Runnable(exec Exec, a *plan.Attachment, paths []string) (warnings []*failure.Error, err error) {
	list, err := netconf.Libcni(a.Conf)
	if err != nil {
		return nil, chainError(err, a)
	}
	return runnable(exec, list, a, paths)
}

func runnable(exec Exec, list *libcni.NetworkConfigList, a *plan.Attachment, paths []string) (warnings []*failure.Error, err error) {
	for _, plugin := range list.Plugins {
		types := []string{plugin.Network.Type}
		if ipam := plugin.Network.IPAM.Type; ipam != "" && execsIPAM[plugin.Network.Type] {
			types = append(types, ipam)
		}
		for _, t := range types {
			found, err := exec.Find(t, plugin.Bytes, paths)
			if err != nil {
				return nil, chainError(err, a)
			}
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
				warnings = append(warnings, &named)
			}
		}
	}
	return warnings, nil
}
