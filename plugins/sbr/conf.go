package sbr

import (
	"fmt"
	"math"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Conf is the plugin's configuration.
type Conf struct {
	plugin.Common
	// Table is the number of a table that somebody else fills, 1 to 4294967295; only rules are made
	// then. Without it each address gets a table that is free.
	Table *int `json:"table,omitempty"`
	// Gateways are the gateways of the addresses' default routes, at most one of each family, in the
	// place of prevResult's.
	Gateways []string `json:"gateways,omitempty"`
	// AddSourceHints keeps routes to the addresses' subnets in the main table, each with its address
	// as the preferred source.
	AddSourceHints bool `json:"addSourceHints,omitempty"`
}

// source is an address of the interface, with its subnet.
type source struct {
	netip.Prefix
	// gateway is the gateway of the default route; invalid for none.
	gateway netip.Addr
	// chosen is true if the gateway is the configuration's, so that other default routes do not count.
	chosen bool
}

// host returns the address alone.
func (s source) host() netip.Prefix { return netip.PrefixFrom(s.Addr(), s.Addr().BitLen()) }

// anywhere returns the destination of a default route.
func (s source) anywhere() netip.Prefix {
	if s.Addr().Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// leads reports whether a rule is the address's.
func (s source) leads(r nl.Rule) bool { return !r.More && r.From == s.host() }

// uses reports whether packets from the address take a route of the interface: it belongs to the
// subnet or the gateway, or to no address in particular.
func (s source) uses(r nl.Route) bool {
	if s.chosen && r.Dst == s.anywhere() {
		return false
	}
	if !r.Src.IsValid() && !r.Gateway.IsValid() {
		return true
	}
	return s.Contains(r.Src) || s.Contains(r.Gateway) || r.Gateway.IsValid() && r.Gateway == s.gateway
}

// sources returns the interface's addresses, with the gateways that the configuration gives them.
func (c *Conf) sources(req *plugin.Request) ([]source, error) {
	if req.PrevResult == nil {
		return nil, plugin.ConfError("prevResult", nil,
			"is missing: sbr follows the plugin that makes the interface")
	}
	v4, v6, err := c.check()
	if err != nil {
		return nil, err
	}
	sources := addresses(req)
	if len(sources) == 0 {
		err := fmt.Errorf("prevResult has no address of interface %s", req.IfName)
		return nil, failure.WithFix(err,
			"give the plugin before sbr an IPAM plugin, or take sbr out of the chain")
	}
	for i, s := range sources {
		gateway := v6
		if s.Addr().Is4() {
			gateway = v4
		}
		if gateway.IsValid() {
			sources[i].gateway, sources[i].chosen = gateway, true
		}
	}
	return sources, nil
}

// Validate judges the table and the gateways.
func (c *Conf) Validate() error {
	_, _, err := c.check()
	return err
}

// check returns the gateways by family; invalid for none.
func (c *Conf) check() (v4, v6 netip.Addr, err error) {
	if err := c.checkTable(); err != nil {
		return v4, v6, err
	}
	for _, text := range c.Gateways {
		gateway, err := plugin.ParseAddr("gateways", text)
		if err != nil {
			return v4, v6, err
		}
		of := &v4
		if gateway.Is6() {
			of = &v6
		}
		if of.IsValid() {
			return v4, v6, plugin.ConfError("gateways", c.Gateways, "has two addresses of one family")
		}
		*of = gateway
	}
	return v4, v6, nil
}

// checkTable refuses a table that cannot be, and what has no effect beside one.
func (c *Conf) checkTable() error {
	switch {
	case c.Table == nil:
		return nil
	case *c.Table < 1 || *c.Table > math.MaxUint32:
		return plugin.ConfError("table", *c.Table, "must be from 1 to 4294967295")
	case len(c.Gateways) > 0:
		return plugin.ConfError("gateways", c.Gateways,
			"excludes table, whose routes somebody else makes")
	case c.AddSourceHints:
		return plugin.ConfError("addSourceHints", true,
			"excludes table, with which routes stay as they are")
	}
	return nil
}

// addresses returns the interface's addresses in prevResult. One without an interface belongs to
// it, too.
func addresses(req *plugin.Request) []source {
	if req.PrevResult == nil {
		return nil
	}
	var list []source
	interfaces := req.PrevResult.Interfaces
	of := func(ip *types100.IPConfig) bool {
		return ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(interfaces) ||
			interfaces[*ip.Interface].Name == req.IfName
	}
	for _, ip := range req.PrevResult.IPs {
		prefix, err := plugin.Prefix(ip.Address)
		if err != nil || !of(ip) {
			continue
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		list = append(list, source{Prefix: prefix, gateway: gateway.Unmap()})
	}
	return list
}
