// Package bridge gives a pod a veth link whose other end is a port of a bridge of the node.
//
// Contract: plugin.Interface. What one attachment has, a failed ADD and DEL take away: the pair of
// links, its addresses, its nftables rules. What attachments share stays: the bridge with its
// addresses, the gateway's interface in a VLAN, the node's ip_forward. Rules are tagged with
// network, container ID and interface, so DEL and GC need neither addresses nor a network namespace
// to find them.
package bridge

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
)

// Plugin is the plugin.
type Plugin struct {
	// Dir is the directory of the lock of bridges that are made for tenants.
	Dir string
}

var (
	_ plugin.Interface[Conf] = Plugin{}
	_ plugin.Picky           = (*Conf)(nil)
)

// Places in a result's interfaces. The fourth, where there is one, is the gateway's interface in a
// VLAN.
const bridgeInterface, portInterface, podInterface = 0, 1, 2

// Add makes the bridge, if there is none, and the pod's link.
func (p Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	a, err := p.prepare(req, c)
	if err != nil {
		return nil, err
	}
	if err := a.connect(ctx); err != nil {
		return nil, err
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Interfaces: a.interfaces}
	if a.ipam == "" {
		err = a.withoutAddresses(ctx)
	} else {
		err = a.withAddresses(ctx, result)
	}
	if err != nil {
		return nil, err
	}
	if hasDNS(c.DNS) {
		result.DNS = c.DNS
	}
	return result, a.describe(ctx)
}

// prepare does what of an ADD changes nothing: it checks the configuration, and opens both
// namespaces.
func (p Plugin) prepare(req *plugin.Request, c *Conf) (*attachment, error) {
	ipam, err := c.checked()
	if err != nil {
		return nil, err
	}
	port, err := c.port()
	if err != nil {
		return nil, err
	}
	mac, err := req.MAC("")
	if err != nil {
		return nil, err
	}
	a := &attachment{Request: req, plugin: p, conf: c, ipam: ipam, port: port, mac: mac}
	if a.hostNS, a.host, err = req.Host(); err != nil {
		return nil, err
	}
	a.podNS, a.pod, err = req.Pod()
	return a, err
}

// hasDNS reports whether the configuration has DNS settings, which then replace the IPAM plugin's.
func hasDNS(d types.DNS) bool {
	return d.Nameservers != nil || d.Search != nil || d.Options != nil || d.Domain != ""
}

// Del removes the link, releases the addresses, removes the rules, and a tenant's bridge that
// has no other port.
func (p Plugin) Del(ctx context.Context, req *plugin.Request, c *Conf) error {
	if err := errors.Join(link.Detach(ctx, req, &c.Common), removeRules(ctx, req)); err != nil {
		return err
	}
	return p.release(ctx, req, c)
}

// GC removes the rules of attachments of the network that are not valid, and a tenant's bridge
// without ports; the links live in pods' namespaces and go with them.
func (p Plugin) GC(ctx context.Context, req *plugin.Request, c *Conf) error {
	return errors.Join(plugin.PassOn(ctx, req, &c.Common, "GC"), collectRules(ctx, req),
		p.release(ctx, req, c))
}

// Status passes on: a bridge that is absent is made.
func (Plugin) Status(ctx context.Context, req *plugin.Request, c *Conf) error {
	return plugin.PassOn(ctx, req, &c.Common, "STATUS")
}
