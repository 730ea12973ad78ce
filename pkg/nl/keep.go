package nl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Defaults are the default routes of a namespace at one moment.
type Defaults struct {
	path   string
	routes []*route
}

// DefaultRoutes takes note of the default routes of the namespace at netnsPath.
func (Sandbox) DefaultRoutes(ctx context.Context, netnsPath string) (*Defaults, error) {
	d := &Defaults{path: netnsPath}
	return d, with(netnsPath, func(h *Handle) (err error) {
		d.routes, err = h.allDefaults(ctx)
		return err
	})
}

// allDefaults lists the default routes of both families, each next hop of an IPv6 one for itself.
func (h *Handle) allDefaults(ctx context.Context) (all []*route, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.defaultRoutes(ctx, family)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			all = append(all, r.siblings()...)
		}
	}
	return all, nil
}

// Families reports which families have a default route.
func (d *Defaults) Families() (v4, v6 bool) {
	return d.has(unix.AF_INET), d.has(unix.AF_INET6)
}

// has reports whether a family (unix.AF_INET, AF_INET6) has a default route.
func (d *Defaults) has(family uint8) bool {
	return slices.ContainsFunc(d.routes, func(r *route) bool { return r.header.Family == family })
}

// Keep removes the default routes via the link ifname that are new, of the families that had one
// before, and puts back what they took the place of. Families that are not to be kept stay as they
// are. It returns the families that it removed a route of, and notes the routes as they are then. A
// link that is not there has no routes.
func (d *Defaults) Keep(
	ctx context.Context, ifname string, v4, v6 bool,
) (removed4, removed6 bool, err error) {
	err = with(d.path, func(h *Handle) error {
		l, err := h.Link(ctx, ifname)
		if errors.Is(err, ErrNoLink) {
			return nil
		}
		if err != nil {
			return err
		}
		if v4 {
			removed4, err = d.keep(ctx, h, unix.AF_INET, l.Index)
		}
		if err == nil && v6 {
			removed6, err = d.keep(ctx, h, unix.AF_INET6, l.Index)
		}
		if err == nil {
			d.routes, err = h.allDefaults(ctx)
		}
		return err
	})
	if err != nil {
		return removed4, removed6, fmt.Errorf("keep the default routes: %w", err)
	}
	return removed4, removed6, nil
}

// keep is Keep for one family. As settle does, it looks again after each step.
func (d *Defaults) keep(
	ctx context.Context, h *Handle, family uint8, index int,
) (removed bool, err error) {
	if !d.has(family) {
		return false, nil
	}
	for range settleRounds {
		have, err := h.allDefaults(ctx)
		if err != nil {
			return removed, err
		}
		before, after := ofFamily(d.routes, family), ofFamily(have, family)
		surplus := without(via(after, index), before)
		missing := without(before, after)
		switch {
		case len(surplus) > 0:
			removed, err = true, h.removeRoutes(ctx, surplus)
		case removed && len(missing) > 0:
			err = h.restoreRoutes(ctx, missing)
		default:
			return removed, nil
		}
		if err != nil {
			return removed, err
		}
	}
	return removed, errBusy
}

// restoreRoutes puts routes back as they were.
func (h *Handle) restoreRoutes(ctx context.Context, routes []*route) error {
	for _, r := range routes {
		if err := h.RestoreRoute(ctx, exact(r)); err != nil {
			return err
		}
	}
	return nil
}

// without returns the routes that are not among others.
func without(routes, others []*route) []*route {
	return slices.DeleteFunc(slices.Clone(routes), func(r *route) bool {
		return slices.ContainsFunc(others, r.same)
	})
}

// via returns the routes that have a next hop on the link.
func via(routes []*route, index int) []*route {
	return slices.DeleteFunc(slices.Clone(routes), func(r *route) bool { return !r.via(index) })
}

// ofFamily returns the routes of a family (unix.AF_INET, AF_INET6).
func ofFamily(routes []*route, family uint8) []*route {
	return slices.DeleteFunc(slices.Clone(routes), func(r *route) bool {
		return r.header.Family != family
	})
}

// via reports whether a next hop of r is on the link.
func (r *route) via(index int) bool {
	return slices.ContainsFunc(r.hops, func(h hop) bool { return h.index == index })
}

// same reports whether r and other are one route, whatever the state of their next hops.
func (r *route) same(other *route) bool {
	return r.header.Family == other.header.Family && r.header.Tos == other.header.Tos &&
		r.metric == other.metric &&
		slices.EqualFunc(r.hops, other.hops, func(a, b hop) bool {
			return a.index == b.index && a.gateway == b.gateway
		})
}

// PreferDefaultRoute makes the IPv6 default routes via the link ifname the only ones where there
// are others beside them: the kernel would spread packets over all of them. A later IPv4 one takes
// precedence by itself.
func (Sandbox) PreferDefaultRoute(ctx context.Context, netnsPath, ifname string) error {
	return with(netnsPath, func(h *Handle) error {
		l, err := h.Link(ctx, ifname)
		if errors.Is(err, ErrNoLink) {
			return nil
		}
		if err != nil {
			return err
		}
		all, err := h.allDefaults(ctx)
		if err != nil {
			return err
		}
		have := ofFamily(all, unix.AF_INET6)
		own := via(have, l.Index)
		if len(own) == len(have) {
			return nil
		}
		return h.MoveDefaultRoute(ctx, ifname, gatewaysOf(own))
	})
}

// gatewaysOf returns the gateways of routes that have one next hop each. Routes without a gateway
// add nothing.
func gatewaysOf(routes []*route) (gateways []netip.Addr) {
	for _, r := range routes {
		if gateway := r.hops[0].gateway; gateway.IsValid() {
			gateways = append(gateways, gateway)
		}
	}
	return gateways
}

// Interface reads the MAC and the addresses of a link of the namespace at netnsPath. A link that is
// not there is not found.
func (Sandbox) Interface(
	ctx context.Context, netnsPath, name string,
) (mac net.HardwareAddr, addrs []netip.Prefix, found bool, err error) {
	err = with(netnsPath, func(h *Handle) error {
		l, err := h.Link(ctx, name)
		if errors.Is(err, ErrNoLink) {
			return nil
		}
		if err != nil {
			return err
		}
		found, mac = true, l.MAC
		list, err := h.Addrs(ctx, l.Index)
		for _, a := range list {
			addrs = append(addrs, a.Prefix)
		}
		return err
	})
	return mac, addrs, found, err
}
