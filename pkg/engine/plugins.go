package engine

import (
	"github.com/braid-cni/braid/pkg/plan"
)

// execsIPAM are the reference plugins that exec the plugin named by their ipam.type, on DEL too. Of other plugins that is not
// known: some read "ipam" themselves.
var execsIPAM = map[string]bool{
	"bridge": true, "dummy": true, "host-device": true, "ipvlan": true, "macvlan": true, "ptp": true, "tap": true, "vlan": true,
}

// pluginsPresent finds the plugins of a chain. It is asked before the first change: a chain that lacks one could be neither
// finished nor taken back, and the pod, once deleted, would never go.
func (e *Engine) pluginsPresent(req *Request, sandbox *sandbox, a *plan.Attachment) error {
	list, err := sandbox.list(a)
	if err != nil {
		return chainError(err, a)
	}
	for _, plugin := range list.Plugins {
		types := []string{plugin.Network.Type}
		if ipam := plugin.Network.IPAM.Type; ipam != "" && execsIPAM[plugin.Network.Type] {
			types = append(types, ipam)
		}
		for _, t := range types {
			if err := sandbox.exec.Find(t, plugin.Bytes, req.path()); err != nil {
				return chainError(err, a)
			}
		}
	}
	return nil
}
