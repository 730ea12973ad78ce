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
	if req.PrevResult == nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"field prevResult: is missing, and CHECK compares with it", "")
	}
	index := slices.IndexFunc(req.PrevResult.Interfaces, func(i *types100.Interface) bool {
		return i.Name == req.IfName && i.Sandbox != ""
	})
	if index < 0 {
		return nil, fmt.Errorf("prevResult has no interface %s in a sandbox", req.IfName)
	}
	promised := req.PrevResult.Interfaces[index]
	if promised.Sandbox != req.NetNS {
		return nil, fmt.Errorf("prevResult's interface %s is in sandbox %s, not %s",
			req.IfName, promised.Sandbox, req.NetNS)
	}
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
	case promised.Mac != "" && !strings.EqualFold(promised.Mac, link.MAC.String()):
		return nil, fmt.Errorf("interface %s has MAC %s, not %s", req.IfName, link.MAC, promised.Mac)
	case !link.Up:
		return link, fmt.Errorf("interface %s: %w", req.IfName, ErrDown)
	}
	return link, errors.Join(checkAddrs(ctx, req, pod, link, index), checkRoutes(ctx, req, pod, link))
}

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
		want, err := plugin.Prefix(route.Dst)
		gateway, _ := netip.AddrFromSlice(route.GW)
		found := slices.ContainsFunc(have, func(h nl.Route) bool {
			if want.Bits() == 0 && h.Dst == want.Masked() {
				return true
			}
			return h.Index == link.Index && h.Dst == want.Masked() &&
				(!gateway.IsValid() || h.Gateway == gateway.Unmap()) &&
				(route.Table == nil || h.Table == *route.Table)
		})
		if err == nil && !found {
			err = fmt.Errorf("interface %s lacks the route to %s", req.IfName, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
