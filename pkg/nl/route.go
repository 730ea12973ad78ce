package nl

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is a unicast route via a link.
type Route struct {
	// Dst is the destination; a length of 0 is the default route.
	Dst netip.Prefix
	// Gateway is invalid for none.
	Gateway netip.Addr
	// Src is the preferred source address; invalid for none.
	Src netip.Addr
	// Index is the index of the link.
	Index int
	// Table is 0 for main. Metric 0 is the kernel's default. Scope is as in linux/rtnetlink.h.
	Table, Metric, Scope int
	// MTU and AdvMSS in bytes, 0 for none.
	MTU, AdvMSS int
	// Protocol says who made it, as in linux/rtnetlink.h; 0 is "boot" on AddRoute.
	Protocol int
}

// AddRoute adds a route beside those that are there; one that exists is an error, unix.EEXIST, for
// IPv4. An IPv6 route to a destination that has one becomes a further next hop.
func AddRoute(r Route) Change {
	return Change{
		"add route " + r.String(), newRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, r.parts()...),
	}
}

// AddRoute applies AddRoute.
func (h *Handle) AddRoute(ctx context.Context, r Route) error { return h.Apply(ctx, AddRoute(r)) }

// parts describe the route in a message.
func (r Route) parts() []vnl.NetlinkRequestData {
	header := vnl.NewRtMsg()
	header.Family, header.Dst_len = uint8(family(r.Dst.Addr())), uint8(r.Dst.Bits())
	header.Scope = uint8(r.Scope)
	header.Protocol = cmp.Or(uint8(r.Protocol), unix.RTPROT_BOOT)
	parts := []vnl.NetlinkRequestData{header, vnl.NewRtAttr(unix.RTA_DST, r.Dst.Addr().AsSlice())}
	if r.Gateway.IsValid() {
		parts = append(parts, vnl.NewRtAttr(unix.RTA_GATEWAY, r.Gateway.AsSlice()))
	}
	if r.Src.IsValid() {
		parts = append(parts, vnl.NewRtAttr(unix.RTA_PREFSRC, r.Src.AsSlice()))
	}
	put := func(kind, value int) {
		if value > 0 {
			parts = append(parts, vnl.NewRtAttr(kind, vnl.Uint32Attr(uint32(value))))
		}
	}
	put(unix.RTA_OIF, r.Index)
	put(unix.RTA_PRIORITY, r.Metric)
	put(unix.RTA_TABLE, r.Table) // counts rather than the header, which has no room for all numbers
	if r.MTU > 0 || r.AdvMSS > 0 {
		parts = append(parts, r.metrics())
	}
	return parts
}

// metrics describes the route's MTU and MSS in a message, where it has them.
func (r Route) metrics() *vnl.RtAttr {
	metrics := vnl.NewRtAttr(unix.RTA_METRICS, nil)
	if r.MTU > 0 {
		metrics.AddRtAttr(unix.RTAX_MTU, vnl.Uint32Attr(uint32(r.MTU)))
	}
	if r.AdvMSS > 0 {
		metrics.AddRtAttr(unix.RTAX_ADVMSS, vnl.Uint32Attr(uint32(r.AdvMSS)))
	}
	return metrics
}

// String reads "10.0.0.0/8 via 10.1.0.1 table 100 metric 5".
func (r Route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// Routes lists the unicast routes of all tables, IPv4 before IPv6; multipath ones once for each
// hop.
func (h *Handle) Routes(ctx context.Context) ([]Route, error) {
	exact, err := h.ExactRoutes(ctx)
	if err != nil {
		return nil, err
	}
	var routes []Route
	for _, e := range exact {
		if e.raw.header.Type != unix.RTN_UNICAST {
			continue
		}
		for _, hop := range e.raw.hops {
			r := e.Route
			r.Index, r.Gateway = hop.index, hop.gateway
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// Exact is a route together with the kernel's own description of it, so that it can be copied,
// removed and put back with all that belongs to it. An IPv4 route with several next hops has the
// index 0; each next hop of an IPv6 route is a route of its own.
type Exact struct {
	Route
	raw *route
}

// Unicast reports whether the route leads somewhere: it is no prohibition, and not the host itself.
func (e Exact) Unicast() bool { return e.raw.header.Type == unix.RTN_UNICAST }

// Links returns the indices of the links that the route leads to.
func (e Exact) Links() []int {
	indices := make([]int, len(e.raw.hops))
	for i, hop := range e.raw.hops {
		indices[i] = hop.index
	}
	return indices
}

// ExactRoutes lists the routes of all tables and of every type, IPv4 before IPv6.
func (h *Handle) ExactRoutes(ctx context.Context) ([]Exact, error) {
	var routes []Exact
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := h.routes(ctx, family)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.header.Flags&unix.RTM_F_CLONED != 0 {
				continue
			}
			for _, one := range r.siblings() {
				routes = append(routes, exact(one))
			}
		}
	}
	return routes, nil
}

// exact reads what Route has of a route as the kernel lists it.
func exact(raw *route) Exact {
	e := Exact{raw: raw, Route: Route{
		Dst: anywhere(raw.header.Family), Table: int(raw.table), Metric: int(raw.metric),
		Scope: int(raw.header.Scope), Protocol: int(raw.header.Protocol),
	}}
	if len(raw.hops) == 1 {
		e.Index, e.Gateway = raw.hops[0].index, raw.hops[0].gateway
	}
	for _, a := range raw.attrs {
		switch a.Attr.Type {
		case unix.RTA_DST:
			if ip, ok := netip.AddrFromSlice(a.Value); ok {
				e.Dst = netip.PrefixFrom(ip, int(raw.header.Dst_len))
			}
		case unix.RTA_PREFSRC:
			e.Src, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_METRICS:
			e.MTU, e.AdvMSS = number(attr(a.Value, unix.RTAX_MTU)), number(attr(a.Value, unix.RTAX_ADVMSS))
		}
	}
	return e
}

// number returns the value of an attribute of one, two or four bytes; 0 for none.
func number(b []byte) int {
	switch len(b) {
	case 1:
		return int(b[0])
	case 2:
		return int(binary.NativeEndian.Uint16(b))
	case 4:
		return int(binary.NativeEndian.Uint32(b))
	}
	return 0
}

// ReplaceRoute adds a route, which takes the place of another of its table to the same destination
// with the same metric.
func (h *Handle) ReplaceRoute(ctx context.Context, r Route) error {
	err := h.do(ctx, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r.parts()...)
	if err != nil {
		return fmt.Errorf("replace route %s: %w", r, err)
	}
	return nil
}

// CopyRoute makes a copy of a route in a table, where it takes the place of another to the same
// destination with the same metric.
func (h *Handle) CopyRoute(ctx context.Context, e Exact, table int) error {
	if err := h.putRoute(ctx, e, table, unix.NLM_F_REPLACE); err != nil {
		return fmt.Errorf("copy route %s to table %d: %w", e.Route, table, err)
	}
	return nil
}

// RemoveRoute removes exactly this route. One that is gone is removed already.
func (h *Handle) RemoveRoute(ctx context.Context, e Exact) error {
	return h.removeRoute(ctx, e.raw)
}

// RestoreRoute puts a route back that was removed, before others of its destination. One that is
// there is back already.
func (h *Handle) RestoreRoute(ctx context.Context, e Exact) error {
	if err := h.putRoute(ctx, e, e.Table, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("restore route %s: %w", e.Route, err)
	}
	return nil
}

// putRoute adds a route in the kernel's own words, but in another table.
func (h *Handle) putRoute(ctx context.Context, e Exact, table int, flags uint16) error {
	header := e.raw.header
	// The other flags are the kernel's: offloaded, link down, ...
	header.Flags &= unix.RTNH_F_ONLINK
	// The attribute counts: it has room for all numbers.
	header.Table = unix.RT_TABLE_UNSPEC
	parts := e.raw.request(header)
	for _, p := range parts {
		if a, ok := p.(*vnl.RtAttr); ok && a.Type == unix.RTA_TABLE {
			a.Data = binary.NativeEndian.AppendUint32(nil, uint32(table))
		}
	}
	return h.do(ctx, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|flags, parts...)
}

// anywhere returns the destination of a default route.
func anywhere(family uint8) netip.Prefix {
	if family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// DefaultLink returns the link of the first default route, IPv4 before IPv6; ErrNoLink if there is
// none.
func (h *Handle) DefaultLink(ctx context.Context) (*Link, error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.defaultRoutes(ctx, family)
		if err != nil {
			return nil, err
		}
		for _, r := range routes {
			if len(r.hops) > 0 {
				return h.LinkByIndex(ctx, r.hops[0].index)
			}
		}
	}
	return nil, fmt.Errorf("default route: %w", ErrNoLink)
}
