package ipam

import (
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/plugin"
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
		dst, err := plugin.ParsePrefix(fmt.Sprintf("ipam.routes[%d].dst", i), c.Dst)
		if err != nil {
			return nil, err
		}
		route := &types.Route{
			Dst: plugin.IPNet(dst), MTU: c.MTU, AdvMSS: c.AdvMSS, Priority: c.Priority, Table: c.Table,
			Scope: c.Scope,
		}
		if c.GW != "" {
			key := fmt.Sprintf("ipam.routes[%d].gw", i)
			gw, err := plugin.ParseAddr(key, c.GW)
			if err != nil {
				return nil, err
			}
			if gw.BitLen() != dst.Addr().BitLen() {
				return nil, plugin.ConfError(key, c.GW, "is of another family than dst "+c.Dst)
			}
			route.GW = gw.AsSlice()
		}
		routes = append(routes, route)
	}
	return routes, nil
}

// IPs returns the lists of addresses that the pod asks for, args.cni.ips and runtimeConfig.ips.
func IPs(req *plugin.Request) (args, runtime []string, err error) {
	var a, b struct {
		IPs []string `json:"ips"`
	}
	if err := plugin.Part("args.cni", req.CNIArgs, &a); err != nil {
		return nil, nil, err
	}
	if err := plugin.Part("runtimeConfig", req.Runtime, &b); err != nil {
		return nil, nil, err
	}
	return a.IPs, b.IPs, nil
}

// CheckFamilies returns an error if a result of the configuration's cniVersion cannot have all of
// these addresses: before 0.3.0 it has one of each family.
func CheckFamilies(req *plugin.Request, addrs []netip.Addr) error {
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
	if ok, err := version.GreaterThanOrEqualTo(req.Version, "0.3.0"); err != nil || !ok {
		return plugin.ConfError("cniVersion", req.Version,
			"has one address of each family in a result, and the configuration asks for more")
	}
	return nil
}
