package plugin

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Route is an element of the key routes of an IPAM plugin. A types.Route decodes itself, and lets
// keys pass that nobody knows.
type Route struct {
	// Dst is a CIDR, GW an address or empty.
	Dst      string `json:"dst"`
	GW       string `json:"gw,omitempty"`
	MTU      int    `json:"mtu,omitempty"`
	AdvMSS   int    `json:"advmss,omitempty"`
	Priority int    `json:"priority,omitempty"`
	Table    *int   `json:"table,omitempty"`
	Scope    *int   `json:"scope,omitempty"`
}

// Routes returns configured routes as a result has them. One without a gateway has none: the
// interface plugin knows which.
func Routes(configured []Route) ([]*types.Route, error) {
	var routes []*types.Route
	for i, c := range configured {
		dst, err := ParsePrefix(fmt.Sprintf("ipam.routes[%d].dst", i), c.Dst)
		if err != nil {
			return nil, err
		}
		route := &types.Route{
			Dst: IPNet(dst), MTU: c.MTU, AdvMSS: c.AdvMSS, Priority: c.Priority, Table: c.Table,
			Scope: c.Scope,
		}
		if c.GW != "" {
			key := fmt.Sprintf("ipam.routes[%d].gw", i)
			gw, err := ParseAddr(key, c.GW)
			if err != nil {
				return nil, err
			}
			if gw.BitLen() != dst.Addr().BitLen() {
				return nil, ConfError(key, c.GW, "is of another family than dst "+c.Dst)
			}
			route.GW = gw.AsSlice()
		}
		routes = append(routes, route)
	}
	return routes, nil
}

// ParsePrefix reads the value of a key that is an address with the length of its subnet.
func ParsePrefix(key, value string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, ConfError(key, value, "is no address with a prefix length, as in 10.0.0.0/24")
	}
	return prefix, nil
}

// ParseAddr reads the value of a key that is an address.
func ParseAddr(key, value string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Zone() != "" {
		return addr, ConfError(key, value, "is no IP address")
	}
	return addr.Unmap(), nil
}

// IPNet returns the other way of Prefix.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Env reads CNI_ARGS into a struct that embeds types.CommonArgs and has the values that the plugin
// knows as fields.
func (r *Request) Env(values any) error {
	if err := types.LoadArgs(r.Args, values); err != nil {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS: "+err.Error(), "")
	}
	return nil
}

// IPs returns the lists of addresses that the pod asks for, args.cni.ips and runtimeConfig.ips.
func (r *Request) IPs() (args, runtime []string, err error) {
	var a, b struct {
		IPs []string `json:"ips"`
	}
	if err := Part("args.cni", r.CNIArgs, &a); err != nil {
		return nil, nil, err
	}
	if err := Part("runtimeConfig", r.Runtime, &b); err != nil {
		return nil, nil, err
	}
	return a.IPs, b.IPs, nil
}

// CheckFamilies reports whether a result of the configuration's cniVersion can have all these
// addresses: before 0.3.0 it has one of each family.
func (r *Request) CheckFamilies(addrs []netip.Addr) error {
	var four, six int
	for _, a := range addrs {
		if a.Is4() {
			four++
		} else {
			six++
		}
	}
	if four < 2 && six < 2 {
		return nil
	}
	if ok, err := version.GreaterThanOrEqualTo(r.Version, "0.3.0"); err != nil || !ok {
		return ConfError("cniVersion", r.Version,
			"has one address of each family in a result, and the configuration asks for more")
	}
	return nil
}
