// Package macvlan gives a pod a macvlan link: an interface with a MAC of its own on an interface of
// the node, its master.
//
// Contract: plugin.Interface. The link is made in the pod's namespace under its name at once, so
// nothing of it is ever on the node. DEL does not need the master. Without IPAM the link is set up
// and has no addresses.
package macvlan

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/plugin/vlan"
)

// Conf is the plugin's configuration.
type Conf struct {
	link.OnMaster
	// MAC is the link's address; a pod's request overrides it.
	MAC string `json:"mac,omitempty"`
	// BCQueueLen is the length of the queue for broadcasts, the kernel's default where it is 0.
	BCQueueLen uint32 `json:"bcqueuelen,omitempty"`
}

// Plugin is the plugin.
type Plugin struct {
	// VLANs are the VLANs of the node.
	VLANs vlan.Links
}

// masters returns the operations that macvlan shares with other plugins.
func (p Plugin) masters() link.Masters {
	return link.Masters{Kind: "macvlan", Modes: modes(), VLANs: p.VLANs}
}

// modes returns the values of the key mode, in the kernel's words.
func modes() []string { return []string{"bridge", "private", "vepa", "passthru"} }

// Validate judges the values.
func (c *Conf) Validate() error {
	if _, err := new(plugin.Request).MACFrom(c.MAC); err != nil {
		return err
	}
	return c.Judge(modes())
}

var _ plugin.Interface[Conf] = Plugin{}

// Add makes the link.
func (p Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	mac, err := req.MACFrom(c.MAC, plugin.EnvMAC, plugin.RuntimeMAC)
	if err != nil {
		return nil, err
	}
	return p.masters().Add(ctx, req, &c.OnMaster, mac, nil,
		func(ctx context.Context, master *link.Lower, wanted nl.NewLink, mode string) error {
			return master.Handle.AddMacvlan(ctx, wanted, master.Index, mode, c.BCQueueLen)
		})
}

// Del removes the link and releases the addresses.
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
