package plugin

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
)

// ErrDown means that an interface is not up.
var ErrDown = errors.New("is down")

// CheckInterface compares the pod's interface with what prevResult says of it: that it is there, of
// that kind, with its MAC, addresses and routes, and up. It returns the link, also with ErrDown.
func (r *Request) CheckInterface(ctx context.Context, kind string) (*nl.Link, error) {
	if r.PrevResult == nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"field prevResult: is missing, and CHECK compares with it", "")
	}
	index := slices.IndexFunc(r.PrevResult.Interfaces, func(i *types100.Interface) bool {
		return i.Name == r.IfName && i.Sandbox != ""
	})
	if index < 0 {
		return nil, fmt.Errorf("prevResult has no interface %s in a sandbox", r.IfName)
	}
	promised := r.PrevResult.Interfaces[index]
	if promised.Sandbox != r.NetNS {
		return nil, fmt.Errorf("prevResult's interface %s is in sandbox %s, not %s",
			r.IfName, promised.Sandbox, r.NetNS)
	}
	_, pod, err := r.Pod()
	if err != nil {
		return nil, err
	}
	link, err := pod.Link(ctx, r.IfName)
	if err != nil {
		return nil, err
	}
	switch {
	case link.Kind != kind:
		return nil, fmt.Errorf("interface %s is a %s, not a %s", r.IfName, link.Kind, kind)
	case promised.Mac != "" && !strings.EqualFold(promised.Mac, link.MAC.String()):
		return nil, fmt.Errorf("interface %s has MAC %s, not %s", r.IfName, link.MAC, promised.Mac)
	case !link.Up:
		return link, fmt.Errorf("interface %s: %w", r.IfName, ErrDown)
	}
	return link, errors.Join(r.checkAddrs(ctx, pod, link, index), r.checkRoutes(ctx, pod, link))
}

func (r *Request) checkAddrs(ctx context.Context, pod *nl.Handle, link *nl.Link, index int) error {
	have, err := pod.Addrs(ctx, link.Index)
	if err != nil {
		return err
	}
	var errs []error
	for _, ip := range r.PrevResult.IPs {
		if ip.Interface != nil && *ip.Interface != index {
			continue
		}
		want, err := Prefix(ip.Address)
		if err == nil && !slices.ContainsFunc(have, func(a nl.Addr) bool { return a.Prefix == want }) {
			err = fmt.Errorf("interface %s lacks address %s", r.IfName, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkRoutes looks for the routes of the result in whatever table: sbr moves them. The default
// route may have gone to another interface, as the pod asked for (NPWG v1.3 s.4.1.2.1.9).
func (r *Request) checkRoutes(ctx context.Context, pod *nl.Handle, link *nl.Link) error {
	if len(r.PrevResult.Routes) == 0 {
		return nil
	}
	have, err := pod.Routes(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, route := range r.PrevResult.Routes {
		want, err := Prefix(route.Dst)
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
			err = fmt.Errorf("interface %s lacks the route to %s", r.IfName, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
