package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

// ErrDown means that an interface is not up.
var ErrDown = errors.New("is down")

// Check compares the pod's interface with what prevResult says of it: that it is there, of that
// kind, with its MAC, addresses and routes, and up. It returns the link, also with ErrDown.
func Check(ctx context.Context, req *plugin.Request, kind string) (*nl.Link, error) {
	index, err := promised(req)
	if err != nil {
		return nil, err
	}
	mac := req.PrevResult.Interfaces[index].Mac
	_, pod, err := req.Pod()
	if err != nil {
		return nil, err
	}
	link, err := pod.Link(ctx, req.IfName)
	if err != nil {
		return nil, err
	}
	switch {
	case link.Kind != kind:
		return nil, fmt.Errorf("interface %s is a %s, not a %s", req.IfName, link.Kind, kind)
	case mac != "" && !strings.EqualFold(mac, link.MAC.String()):
		return nil, fmt.Errorf("interface %s has MAC %s, not %s", req.IfName, link.MAC, mac)
	case !link.Up:
		return link, fmt.Errorf("interface %s: %w", req.IfName, ErrDown)
	}
	return link, errors.Join(checkAddrs(ctx, req, pod, link, index), checkRoutes(ctx, req, pod, link))
}

// promised returns the place of the pod's interface in prevResult.
func promised(req *plugin.Request) (index int, err error) {
	if req.PrevResult == nil {
		return 0, types.NewError(types.ErrInvalidNetworkConfig,
			"field prevResult: is missing, and CHECK compares with it", "")
	}
	index = slices.IndexFunc(req.PrevResult.Interfaces, func(i *types100.Interface) bool {
		return i.Name == req.IfName && i.Sandbox != ""
	})
	if index < 0 {
		return 0, fmt.Errorf("prevResult has no interface %s in a sandbox", req.IfName)
	}
	if sandbox := req.PrevResult.Interfaces[index].Sandbox; sandbox != req.NetNS {
		return 0, fmt.Errorf("prevResult's interface %s is in sandbox %s, not %s",
			req.IfName, sandbox, req.NetNS)
	}
	return index, nil
}

// checkAddrs looks for the result's addresses of the interface with that index in it. An address
// without an interface is taken for one of them.
func checkAddrs(
	ctx context.Context, req *plugin.Request, pod *nl.Handle, link *nl.Link, index int,
) error {
	have, err := pod.Addrs(ctx, link.Index)
	if err != nil {
		return err
	}
	var errs []error
	for _, ip := range req.PrevResult.IPs {
		if ip.Interface != nil && *ip.Interface != index {
			continue
		}
		want, err := plugin.Prefix(ip.Address)
		if err == nil && !slices.ContainsFunc(have, func(a nl.Addr) bool { return a.Prefix == want }) {
			err = fmt.Errorf("interface %s lacks address %s", req.IfName, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkRoutes looks for the routes of the result in whatever table: sbr moves them. The default
// route may have gone to another interface, as the pod asked for (NPWG v1.3 s.4.1.2.1.9).
func checkRoutes(
	ctx context.Context, req *plugin.Request, pod *nl.Handle, link *nl.Link,
) error {
	if len(req.PrevResult.Routes) == 0 {
		return nil
	}
	have, err := pod.Routes(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, route := range req.PrevResult.Routes {
		dst, err := plugin.Prefix(route.Dst)
		if err == nil && !slices.ContainsFunc(have, func(h nl.Route) bool {
			return isRoute(h, route, dst.Masked(), link.Index)
		}) {
			err = fmt.Errorf("interface %s lacks the route to %s", req.IfName, dst)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isRoute reports whether a route of the kernel is the promised one to dst, by the link with that
// index. A default route is so by whatever link.
func isRoute(have nl.Route, promised *types.Route, dst netip.Prefix, index int) bool {
	switch gateway, _ := netip.AddrFromSlice(promised.GW); {
	case have.Dst != dst:
		return false
	case dst.Bits() == 0:
		return true
	case gateway.IsValid() && have.Gateway != gateway.Unmap():
		return false
	default:
		return have.Index == index && (promised.Table == nil || have.Table == *promised.Table)
	}
}
