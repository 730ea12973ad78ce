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
		surplus := slices.DeleteFunc(slices.Clone(after), func(r *route) bool {
			return !r.via(index) || slices.ContainsFunc(before, r.same)
		})
		missing := slices.DeleteFunc(before, func(r *route) bool {
			return slices.ContainsFunc(after, r.same)
		})
		switch {
		case len(surplus) > 0:
			removed = true
			for _, r := range surplus {
				if err := h.removeRoute(ctx, r); err != nil {
					return removed, err
				}
			}
		case removed && len(missing) > 0:
			for _, r := range missing {
				if err := h.RestoreRoute(ctx, exact(r)); err != nil {
					return removed, err
				}
			}
		default:
			return removed, nil
		}
	}
	return removed, errors.New("something else keeps changing the default routes")
}

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
		var own []netip.Addr
		others := false
		for _, r := range ofFamily(all, unix.AF_INET6) {
			if r.via(l.Index) && r.hops[0].gateway.IsValid() {
				own = append(own, r.hops[0].gateway)
			}
			others = others || !r.via(l.Index)
		}
		if !others {
			return nil
		}
		if err := h.moveDefaultRoute(ctx, ifname, own); err != nil {
			return defaultRouteError(ifname, err)
		}
		return nil
	})
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
