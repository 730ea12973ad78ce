package nl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// errShort says that the kernel's message ends before it should.
var errShort = errors.New("netlink message is too short")

// rtaNextHopID is RTA_NH_ID of linux/rtnetlink.h: the number of the next hop object that a route
// uses.
const rtaNextHopID = 30

// hop is a next hop of a route: a link, and a gateway, unless there is none or it is of the other
// family (IPv4 via an IPv6 router).
type hop struct {
	index   int
	gateway netip.Addr
	// flags are the flags of a hop among several, RTNH_F_*.
	flags uint8
}

// route is a route as the kernel lists it. It keeps the kernel's own words, to name the very same
// route when it is removed.
type route struct {
	header unix.RtMsg
	attrs  []syscall.NetlinkRouteAttr
	table  uint32
	metric uint32
	hops   []hop
}

// isDefault reports whether r decides where packets go that no other route takes: a unicast route
// of the main table to all destinations, whatever their source. Multipath routes and those with a
// TOS count. An unreachable or blackhole default is a prohibition, not a way out, and what the pod
// does not get by moving its default route.
//
// The destination of a default route is not in the message at all (M1): only its length says so.
func (r *route) isDefault() bool {
	return r.table == unix.RT_TABLE_MAIN && r.header.Type == unix.RTN_UNICAST &&
		r.header.Dst_len == 0 && r.header.Src_len == 0 && r.header.Flags&unix.RTM_F_CLONED == 0
}

// String reads "default via 10.1.0.1 dev index 2 metric 512".
func (r *route) String() string {
	var b strings.Builder
	if dst := exact(r).Dst; dst.Bits() == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(dst.String())
	}
	for _, h := range r.hops {
		if h.gateway.IsValid() {
			fmt.Fprintf(&b, " via %s", h.gateway)
		}
		fmt.Fprintf(&b, " dev index %d", h.index)
	}
	if r.metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.metric)
	}
	return b.String()
}

// defaultRoutes lists the default routes of a family (unix.AF_INET, AF_INET6).
func (h *Handle) defaultRoutes(ctx context.Context, family uint8) ([]*route, error) {
	routes, err := h.routes(ctx, family)
	return slices.DeleteFunc(routes, func(r *route) bool { return !r.isDefault() }), err
}

// routes lists the routes of a family, of all tables and types.
func (h *Handle) routes(ctx context.Context, family uint8) ([]*route, error) {
	messages, err := h.dump(ctx, unix.RTM_GETROUTE, &vnl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var routes []*route
	for _, m := range messages {
		r, err := parseRoute(m)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		if r.header.Family == family {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// parseRoute reads a message of a dump, without its netlink header.
func parseRoute(m []byte) (*route, error) {
	if len(m) < unix.SizeofRtMsg {
		return nil, errShort
	}
	attrs, err := vnl.ParseRouteAttr(m[unix.SizeofRtMsg:])
	if err != nil {
		return nil, err
	}
	r := &route{header: vnl.DeserializeRtMsg(m).RtMsg, attrs: attrs}
	r.table = uint32(r.header.Table)
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_TABLE: // the header has no room for those above 255
			r.table = uint32(number(a.Value))
		case unix.RTA_PRIORITY:
			r.metric = uint32(number(a.Value))
		}
	}
	r.hops, err = hopsOf(attrs)
	return r, err
}

// hopsOf returns the next hops of a route: its link and gateway, or those of a multipath route.
func hopsOf(attrs []syscall.NetlinkRouteAttr) (hops []hop, err error) {
	var single hop
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_OIF:
			single.index = number(a.Value)
		case unix.RTA_GATEWAY:
			single.gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_MULTIPATH:
			if hops, err = parseHops(a.Value); err != nil {
				return nil, err
			}
		}
	}
	if single.index != 0 {
		hops = append(hops, single)
	}
	return hops, nil
}

// parseHops reads the next hops of a multipath route.
func parseHops(b []byte) ([]hop, error) {
	var hops []hop
	for len(b) >= unix.SizeofRtNexthop {
		nh := vnl.DeserializeRtNexthop(b)
		size := int(nh.RtNexthop.Len)
		if size < unix.SizeofRtNexthop || size > len(b) {
			return nil, errShort
		}
		attrs, err := vnl.ParseRouteAttr(b[unix.SizeofRtNexthop:size])
		if err != nil {
			return nil, err
		}
		one := hop{index: int(nh.Ifindex), flags: nh.Flags}
		for _, a := range attrs {
			if a.Attr.Type == unix.RTA_GATEWAY {
				one.gateway, _ = netip.AddrFromSlice(a.Value)
			}
		}
		hops = append(hops, one)
		b = b[min(len(b), (size+unix.RTNH_ALIGNTO-1)&^(unix.RTNH_ALIGNTO-1)):]
	}
	return hops, nil
}

// removeRoute removes exactly r, by giving the kernel back its own description, as `ip route flush`
// does: that way no property of a route that this package does not know makes it miss, or hit
// another one. A route that is gone already is fine.
func (h *Handle) removeRoute(ctx context.Context, r *route) error {
	err := h.do(ctx, unix.RTM_DELROUTE, 0, r.request(r.header)...)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s: %w", r, err)
	}
	return nil
}

// removeRoutes removes exactly these routes.
func (h *Handle) removeRoutes(ctx context.Context, routes []*route) error {
	for _, r := range routes {
		if err := h.removeRoute(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// request describes r to the kernel, with another header.
func (r *route) request(header unix.RtMsg) []vnl.NetlinkRequestData {
	parts := []vnl.NetlinkRequestData{&vnl.RtMsg{RtMsg: header}}
	byObject := slices.ContainsFunc(r.attrs, func(a syscall.NetlinkRouteAttr) bool {
		return a.Attr.Type == rtaNextHopID
	})
	for _, a := range r.attrs {
		switch a.Attr.Type {
		case unix.RTA_CACHEINFO: // counters
			continue
		case unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH:
			// A route that uses a next hop object is listed with both, and accepted with its number
			// only.
			if byObject {
				continue
			}
		}
		parts = append(parts, vnl.NewRtAttr(int(a.Attr.Type), a.Value))
	}
	return parts
}

// replaceDefault installs a default route in one request: the first default route of this metric,
// or the IPv6 multipath route, gives way to it. Where the very same route is there behind another
// of its metric, the kernel would say "exists".
func (h *Handle) replaceDefault(ctx context.Context, w wanted) error {
	err := h.putDefault(ctx, w, 0)
	unreachable := errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) ||
		errors.Is(err, unix.EINVAL)
	if unreachable && w.near {
		err = h.putDefault(ctx, w, unix.RTNH_F_ONLINK)
	}
	if err != nil {
		return fmt.Errorf("install default route via %s: %w", w.gateway, err)
	}
	return nil
}

// putDefault is replaceDefault for one try, with flags of the route (RTNH_F_*).
func (h *Handle) putDefault(ctx context.Context, w wanted, flags uint32) error {
	header := &vnl.RtMsg{RtMsg: unix.RtMsg{
		Family: w.family(), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT,
		Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST, Flags: flags,
	}}
	return h.do(ctx, unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, header,
		vnl.NewRtAttr(unix.RTA_GATEWAY, w.gateway.AsSlice()),
		vnl.NewRtAttr(unix.RTA_OIF, vnl.Uint32Attr(uint32(w.index))),
		vnl.NewRtAttr(unix.RTA_PRIORITY, vnl.Uint32Attr(w.metric)))
}

// siblings returns the routes that an IPv6 route with several next hops consists of: the kernel
// lists them as one, but each comes and goes for itself. Any other route is the only one.
func (r *route) siblings() []*route {
	if r.header.Family != unix.AF_INET6 || len(r.hops) < 2 {
		return []*route{r}
	}
	list := make([]*route, 0, len(r.hops))
	for _, h := range r.hops {
		one := &route{header: r.header, table: r.table, metric: r.metric, hops: []hop{h}}
		one.header.Flags = one.header.Flags&^unix.RTNH_F_ONLINK | uint32(h.flags)&unix.RTNH_F_ONLINK
		for _, a := range r.attrs {
			if a.Attr.Type != unix.RTA_MULTIPATH {
				one.attrs = append(one.attrs, a)
			}
		}
		one.attrs = append(one.attrs, attribute(unix.RTA_OIF, vnl.Uint32Attr(uint32(h.index))))
		if h.gateway.IsValid() {
			one.attrs = append(one.attrs, attribute(unix.RTA_GATEWAY, h.gateway.AsSlice()))
		}
		list = append(list, one)
	}
	return list
}

// attribute is an attribute in the form of those that the kernel listed.
func attribute(kind uint16, value []byte) syscall.NetlinkRouteAttr {
	return syscall.NetlinkRouteAttr{Attr: syscall.RtAttr{Type: kind}, Value: value}
}
