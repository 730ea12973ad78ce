package nl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
)

// The metrics of the first default route of a family.
//
// IPv4: the best one, which is also that of a route without a metric, so that it takes the place of
// the usual default route in one step. IPv6: better than the 1024 of routes without a metric and of
// those from router advertisements. The new route is then used as soon as it is there, not only
// when the old one goes, and stays in use if a later advertisement brings another. (Replacing in
// one step works, too, but a look-up that has just found the old IPv6 route when that is released
// is told "unreachable" by the kernel.)
const (
	metric4 uint32 = 0
	metric6 uint32 = 512
)

// settleRounds bounds how often MoveDefaultRoute looks again. Without others who change the routes
// at the same time it is three: what is missing, what is too much, nothing.
const settleRounds = 8

// wanted is a default route to have.
type wanted struct {
	index   int
	gateway netip.Addr
	metric  uint32
	// near is true if the gateway is in a subnet of the link's addresses.
	near bool
}

// family is unix.AF_INET or AF_INET6.
func (w wanted) family() uint8 {
	if w.gateway.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// is reports whether r is the route w, whoever installed it and whatever else (MTU, source address)
// it carries.
func (w wanted) is(r *route) bool {
	return len(r.hops) == 1 && r.hops[0].index == w.index && r.hops[0].gateway == w.gateway &&
		r.metric == w.metric && r.header.Tos == 0
}

// MoveDefaultRoute makes the default routes of each family that gateways has the ones via these
// gateways and the link ifname, and no others. It works on the main routing table. A family that
// gateways does not have, other tables, and prohibitions (blackhole, unreachable) stay as they are;
// with no gateways, so does everything.
//
// Several gateways of a family become routes of increasing metric in the order given, 0, 1, ... for
// IPv4 and 512, 513, ... for IPv6: the first is used, the next if the kernel drops that one.
// Duplicates count once.
//
// The new routes are installed before the others are removed, and one of the same metric is
// replaced in one step, so that there is no moment without a default route. All default routes on
// other links go: with whatever metric or TOS, multipath ones with one hop on another link,
// and those learnt from router advertisements (a link that goes on accepting those learns its own
// anew; it is not used). If a gateway is refused, the default routes that were there still are,
// unless their metric is that of a gateway accepted before.
//
// A gateway must be reachable on the link itself: in one of its subnets, or by a link-scope route.
// Where sbr has moved the routes to the link's subnets out of the main table, a gateway in one of
// them is reached all the same: its route is `onlink` then. No other route is: with a wrong gateway
// that is a pod that reaches nothing, instead of an error.
//
// A second call changes nothing. Errors are *failure.Error: DefaultRouteFailed, or TimedOut when
// ctx has ended.
func (h *Handle) MoveDefaultRoute(ctx context.Context, ifname string, gateways []netip.Addr) error {
	if err := h.moveDefaultRoute(ctx, ifname, gateways); err != nil {
		return defaultRouteError(ifname, err)
	}
	return nil
}

// moveDefaultRoute is MoveDefaultRoute with the errors of the kernel.
func (h *Handle) moveDefaultRoute(ctx context.Context, ifname string, gateways []netip.Addr) error {
	if len(gateways) == 0 {
		return nil
	}
	l, err := h.Link(ctx, ifname)
	if err != nil {
		return err
	}
	v4, v6, err := want(l.Index, gateways)
	if err != nil {
		return err
	}
	if !l.Up {
		return fmt.Errorf("interface is down: %w", unix.ENETDOWN) // the kernel would speak of the gateway
	}
	addrs, err := h.Addrs(ctx, l.Index)
	if err != nil {
		return err
	}
	for _, routes := range [][]wanted{v4, v6} {
		findNear(routes, addrs)
		if err := h.settle(ctx, routes); err != nil {
			return err
		}
	}
	return nil
}

// findNear finds out which gateways are in a subnet of the link's addresses.
func findNear(routes []wanted, addrs []Addr) {
	for i, w := range routes {
		routes[i].near = slices.ContainsFunc(addrs, func(a Addr) bool {
			return a.Masked().Contains(w.gateway)
		})
	}
}

// DefaultGateways lists the gateways of the default routes via the link ifname in the main table:
// IPv4 before IPv6, then by metric. Default routes without a gateway add nothing.
func (h *Handle) DefaultGateways(ctx context.Context, ifname string) ([]netip.Addr, error) {
	l, err := h.Link(ctx, ifname)
	if err != nil {
		return nil, err
	}
	var gateways []netip.Addr
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.defaultRoutes(ctx, family)
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(routes, func(a, b *route) int { return cmp.Compare(a.metric, b.metric) })
		for _, r := range routes {
			gateways = appendGateways(gateways, r, l.Index)
		}
	}
	return gateways, nil
}

// appendGateways appends the gateways of a route that are on the link and not there yet.
func appendGateways(gateways []netip.Addr, r *route, index int) []netip.Addr {
	for _, hop := range r.hops {
		if hop.index == index && hop.gateway.IsValid() && !slices.Contains(gateways, hop.gateway) {
			gateways = append(gateways, hop.gateway)
		}
	}
	return gateways
}

// want turns gateways into routes, by family.
func want(index int, gateways []netip.Addr) (v4, v6 []wanted, err error) {
	seen := map[netip.Addr]bool{}
	for _, g := range gateways {
		g = g.Unmap().WithZone("") // the link says what a zone would
		if !g.IsValid() || g.IsUnspecified() || g.IsMulticast() || g.IsLoopback() {
			return nil, nil, fmt.Errorf("%s is no address that a gateway can have", g)
		}
		if seen[g] {
			continue
		}
		seen[g] = true
		if g.Is4() {
			v4 = append(v4, wanted{index: index, gateway: g, metric: metric4 + uint32(len(v4))})
		} else {
			v6 = append(v6, wanted{index: index, gateway: g, metric: metric6 + uint32(len(v6))})
		}
	}
	return v4, v6, nil
}

// settle makes the default routes of one family the wanted ones; of none it changes nothing. It
// looks again after each step: what a replacement replaced is the kernel's choice, and removing by
// an outdated list could hit the new route, as a part of an IPv6 multipath route that is no more.
func (h *Handle) settle(ctx context.Context, routes []wanted) error {
	if len(routes) == 0 {
		return nil
	}
	for range settleRounds {
		have, err := h.defaultRoutes(ctx, routes[0].family())
		if err != nil {
			return err
		}
		missing, surplus := compare(have, routes)
		switch {
		case len(missing) > 0:
			err = h.replaceDefaults(ctx, missing)
		case len(surplus) > 0:
			err = h.removeRoutes(ctx, surplus)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errBusy
}

// errBusy means that settleRounds were not enough.
var errBusy = errors.New("something else keeps changing the default routes")

// replaceDefaults installs default routes, the least preferred first: should it be refused, the old
// default route is still there.
func (h *Handle) replaceDefaults(ctx context.Context, routes []wanted) error {
	for _, w := range slices.Backward(routes) {
		if err := h.replaceDefault(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// compare returns the wanted routes that are not there, and those that are there and not wanted.
func compare(have []*route, routes []wanted) (missing []wanted, surplus []*route) {
	for _, w := range routes {
		if !slices.ContainsFunc(have, w.is) {
			missing = append(missing, w)
		}
	}
	for _, r := range have {
		if !slices.ContainsFunc(routes, func(w wanted) bool { return w.is(r) }) {
			surplus = append(surplus, r)
		}
	}
	return missing, surplus
}

// defaultRouteError classifies a failure and says what can be done about it.
func defaultRouteError(ifname string, err error) error {
	fe := &failure.Error{
		Reason: failure.DefaultRouteFailed, Interface: ifname, Field: "default-route", Err: err,
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		fe.Reason = failure.TimedOut
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		fe.Fix = "name a gateway in a subnet of the interface"
	case errors.Is(err, unix.ENETDOWN):
		fe.Fix = "use a network whose plugins set the interface up"
	case errors.Is(err, unix.EINVAL):
		fe.Fix = "name the address of the router, not one of the pod"
	case errors.Is(err, unix.EACCES):
		fe.Fix = "give the interface an IPv6 address, or leave out the IPv6 gateway"
	}
	return fe
}
