// Package ipvlan gives a pod an ipvlan link: an interface with addresses of its own on an interface
// of the node, its master, whose MAC it shares.
//
// Contract: plugin.Interface. The link is made in the pod's namespace at once, so nothing of it is
// ever on the node. DEL does not need the master. Without IPAM the link has the addresses and
// routes of prevResult, which are then not this plugin's to give back.
package ipvlan

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/plugin/vlan"
)

// Conf is the plugin's configuration. An empty master is the single interface of prevResult where
// there is one.
type Conf struct{ link.OnMaster }

// Plugin is the plugin.
type Plugin struct {
	// VLANs are the VLANs of the node.
	VLANs vlan.Links
}

// masters returns the operations that ipvlan shares with other plugins.
func (p Plugin) masters() link.Masters {
	return link.Masters{Kind: "ipvlan", Modes: modes(), VLANs: p.VLANs}
}

// modes returns the values of the key mode, in the kernel's words.
func modes() []string { return []string{"l2", "l3", "l3s"} }

// Validate judges the values.
func (c *Conf) Validate() error { return c.Judge(modes()) }

var _ plugin.Interface[Conf] = Plugin{}

// Add makes the link.
func (p Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	given, err := c.given(req.PrevResult)
	if err != nil {
		return nil, err
	}
	if c.Master == "" && req.PrevResult != nil {
		if c.Master = single(req.PrevResult); c.Master == "" {
			return nil, plugin.ConfError("master", c.Master,
				"is needed: prevResult has not exactly one interface with a name")
		}
	}
	return p.masters().Add(ctx, req, &c.OnMaster, nil, given,
		func(ctx context.Context, master *link.Lower, wanted nl.NewLink, mode string) error {
			return master.Handle.AddIPvlan(ctx, wanted, master.Index, mode)
		})
}

// given returns the addresses of a link without IPAM plugin, from prevResult. A link without
// addresses could not receive anything.
func (c *Conf) given(prev *types100.Result) (*types100.Result, error) {
	ipam, err := c.IPAMType()
	if err != nil || ipam != "" {
		return nil, err
	}
	if prev == nil || len(prev.IPs) == 0 {
		return nil, plugin.ConfError("ipam", nil,
			"is missing, and there is no prevResult with addresses to take its place")
	}
	return prev, nil
}

// single returns the name of the only interface of a result; empty if there are others or none.
func single(result *types100.Result) string {
	if len(result.Interfaces) != 1 {
		return ""
	}
	return result.Interfaces[0].Name
}

// Del removes the link and releases the addresses of the IPAM plugin.
func (p Plugin) Del(ctx context.Context, req *plugin.Request, c *Conf) error {
	return p.masters().Del(ctx, req, &c.OnMaster)
}

// Check compares the link with prevResult and with the configuration.
func (p Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	return p.masters().Check(ctx, req, &c.OnMaster)
}

// GC releases VLAN links and passes on. The pods' links go with their namespaces.
func (p Plugin) GC(ctx context.Context, req *plugin.Request, c *Conf) error {
	return p.masters().GC(ctx, req, &c.OnMaster)
}

// Room is Unlimited if the node has the master.
func (p Plugin) Room(ctx context.Context, req *plugin.Request, c *Conf) (uint64, error) {
	return p.masters().Room(ctx, req, &c.OnMaster)
}

// Status passes on: a master that is absent may be that of a single NAD.
func (Plugin) Status(ctx context.Context, req *plugin.Request, c *Conf) error {
	return plugin.PassOn(ctx, req, &c.Common, "STATUS")
}
