package nl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// ErrNoLink says that no link has the name or index asked for.
var ErrNoLink = errors.New("no such interface")

// Link is a network interface as the kernel describes it.
type Link struct {
	Index int
	Name  string
	// Kind is the driver's name: "veth", "macvlan", "ipvlan", "bridge", "device" for a NIC.
	Kind string
	// MTU in bytes.
	MTU int
	MAC net.HardwareAddr
	// Up, Promisc and AllMulti are the administrator's wish; Operational is that packets can pass, Carrier that the other end is there: the
	// kernel knows the latter at once.
	Up, Operational, Carrier bool
	Promisc, AllMulti        bool
	// TxQLen is the length of the transmit queue in packets.
	TxQLen int
	// MasterIndex is the bridge that the link is a port of, ParentIndex the link below it or, of a veth, the other end; 0 for none.
	MasterIndex, ParentIndex int
	// Group is the link group, 0 by default.
	Group uint32
	// Mode is that of a macvlan ("bridge", "private", "vepa", "passthru") or an ipvlan ("l2", "l3", "l3s").
	Mode string
}

// NewLink describes a link to make; it is down at first.
type NewLink struct {
	Name string
	// In is the namespace that gets the link; nil for that of the handle.
	In *netns.NS
	// MTU in bytes; 0 is the kernel's default.
	MTU int
	// MAC is chosen by the kernel where it is empty.
	MAC   net.HardwareAddr
	Group uint32
}

func (n NewLink) attrs(parent int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.HardwareAddr, a.Group, a.ParentIndex = n.Name, n.MTU, n.MAC, n.Group, parent
	if n.In != nil {
		a.Namespace = netlink.NsFd(n.In.Fd())
	}
	return a
}

// AddMacvlan makes a macvlan on the link parent, an index. mode is one of Link.Mode; queue is the length of the queue for broadcasts,
// 0 for the kernel's default.
func (h *Handle) AddMacvlan(ctx context.Context, n NewLink, parent int, mode string, queue uint32) error {
	for m, name := range macvlanModes {
		if name == mode {
			return h.add(ctx, &netlink.Macvlan{LinkAttrs: n.attrs(parent), Mode: m, BCQueueLen: queue})
		}
	}
	return fmt.Errorf("add link %s: unknown macvlan mode %q", n.Name, mode)
}

var macvlanModes = map[netlink.MacvlanMode]string{
	netlink.MACVLAN_MODE_BRIDGE: "bridge", netlink.MACVLAN_MODE_PRIVATE: "private",
	netlink.MACVLAN_MODE_VEPA: "vepa", netlink.MACVLAN_MODE_PASSTHRU: "passthru",
}

func (h *Handle) add(ctx context.Context, l netlink.Link) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lib.LinkAdd(l); err != nil {
		return fmt.Errorf("add %s %s: %w", l.Type(), l.Attrs().Name, err)
	}
	return nil
}

// Link finds a link by name; ErrNoLink if there is none.
func (h *Handle) Link(ctx context.Context, name string) (*Link, error) {
	l, err := call(ctx, func() (netlink.Link, error) { return h.lib.LinkByName(name) })
	return linkOf(l, err, "interface "+name)
}

// LinkByIndex finds a link by its index; ErrNoLink if there is none.
func (h *Handle) LinkByIndex(ctx context.Context, index int) (*Link, error) {
	l, err := call(ctx, func() (netlink.Link, error) { return h.lib.LinkByIndex(index) })
	return linkOf(l, err, fmt.Sprintf("interface with index %d", index))
}

func linkOf(l netlink.Link, err error, what string) (*Link, error) {
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("%s: %w", what, ErrNoLink)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	a := l.Attrs()
	link := &Link{
		Index: a.Index, Name: a.Name, Kind: l.Type(), MTU: a.MTU, MAC: a.HardwareAddr,
		Up: a.RawFlags&unix.IFF_UP != 0, Operational: a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown,
		Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Promisc: a.RawFlags&unix.IFF_PROMISC != 0, AllMulti: a.RawFlags&unix.IFF_ALLMULTI != 0, TxQLen: a.TxQLen,
		MasterIndex: a.MasterIndex, ParentIndex: a.ParentIndex, Group: a.Group,
	}
	switch l := l.(type) {
	case *netlink.Macvlan:
		link.Mode = macvlanModes[l.Mode]
	case *netlink.IPVlan:
		link.Mode = ipvlanModes[l.Mode]
	}
	return link, nil
}

// DeleteLink removes a link by name. One that is not there is removed already.
func (h *Handle) DeleteLink(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := h.Link(ctx, name)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.lib.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// DeleteGroup removes all links of a group of the namespace in one step, and waits for the kernel's grace period once. A group without
// links is removed already. The kernel removes all or none: EOPNOTSUPP where one of them cannot be removed.
func (h *Handle) DeleteGroup(ctx context.Context, group uint32) error {
	err := h.do(ctx, unix.RTM_DELLINK, 0, vnl.NewIfInfomsg(unix.AF_UNSPEC), vnl.NewRtAttr(unix.IFLA_GROUP, vnl.Uint32Attr(group)))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link group %d: %w", group, err)
	}
	return nil
}

// SetUp sets a link up, by index.
func (h *Handle) SetUp(ctx context.Context, index int) error {
	return h.set(ctx, index, "set up", h.lib.LinkSetUp)
}

// SetMAC gives a link, by index, an address. That of a bridge no longer follows its ports then, even if it is the one that it has.
func (h *Handle) SetMAC(ctx context.Context, index int, mac net.HardwareAddr) error {
	return h.set(ctx, index, "set MAC "+mac.String()+" of", func(l netlink.Link) error { return h.lib.LinkSetHardwareAddr(l, mac) })
}

// SetPromisc makes a link, by index, take all frames, or its own only.
func (h *Handle) SetPromisc(ctx context.Context, index int, on bool) error {
	if on {
		return h.set(ctx, index, "set promiscuous mode of", h.lib.SetPromiscOn)
	}
	return h.set(ctx, index, "end promiscuous mode of", h.lib.SetPromiscOff)
}

func (h *Handle) set(ctx context.Context, index int, what string, change func(netlink.Link) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := change(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
		return fmt.Errorf("%s interface with index %d: %w", what, index, err)
	}
	return nil
}

// Addr is an address of a link.
type Addr struct {
	netip.Prefix
	// Tentative is that duplicate address detection has not ended, Duplicate that it found another owner (IPv6).
	Tentative, Duplicate bool
}

// AddAddr gives an address to a link, by index. One that the link has already is an error, unix.EEXIST.
func (h *Handle) AddAddr(ctx context.Context, index int, addr netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := h.lib.AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, &netlink.Addr{IPNet: ipNet(addr)})
	if err != nil {
		return fmt.Errorf("add address %s: %w", addr, err)
	}
	return nil
}

// Addrs lists the addresses of a link, by index, IPv4 before IPv6; of all links where the index is 0.
func (h *Handle) Addrs(ctx context.Context, index int) ([]Addr, error) {
	list, err := call(ctx, func() ([]netlink.Addr, error) { return h.lib.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []Addr
	for _, a := range list {
		if index == 0 || a.LinkIndex == index {
			addrs = append(addrs, Addr{
				Prefix: prefix(a.IPNet), Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0, Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,
			})
		}
	}
	return addrs, nil
}

// AwaitAddrs waits until no IPv6 address of a link, by index, is tentative any more. One that turns out to be in use elsewhere is an error.
// It returns when ctx ends, with its error.
func (h *Handle) AwaitAddrs(ctx context.Context, ns *netns.NS, index int) error {
	settled := func() (bool, error) {
		addrs, err := h.Addrs(ctx, index)
		if err != nil {
			return false, err
		}
		for _, a := range addrs {
			if a.Duplicate {
				return false, fmt.Errorf("address %s is in use by another host", a.Addr())
			}
			if a.Tentative {
				return false, nil
			}
		}
		return true, nil
	}
	// As a rule nothing is tentative, and no subscription needed.
	if done, err := settled(); done || err != nil {
		return err
	}
	return onChange(ctx, ns, unix.RTNLGRP_IPV6_IFADDR, settled)
}

// Route is a unicast route via a link.
type Route struct {
	// Dst is the destination; a length of 0 is the default route.
	Dst netip.Prefix
	// Gateway is invalid for none.
	Gateway netip.Addr
	// Src is the preferred source address; invalid for none.
	Src netip.Addr
	// Index is that of the link.
	Index int
	// Table is 0 for main. Metric 0 is the kernel's default. Scope is as in linux/rtnetlink.h.
	Table, Metric, Scope int
	// MTU and AdvMSS in bytes, 0 for none.
	MTU, AdvMSS int
	// Protocol says who made it, as in linux/rtnetlink.h; 0 is "boot" on AddRoute.
	Protocol int
}

// AddRoute adds a route beside those that are there; one that exists is an error, unix.EEXIST, for IPv4. An IPv6 route to a destination
// that has one becomes a further next hop.
func (h *Handle) AddRoute(ctx context.Context, r Route) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lib.RouteAddEcmp(r.lib()); err != nil {
		return fmt.Errorf("add route %s: %w", r, err)
	}
	return nil
}

func (r Route) lib() *netlink.Route {
	route := &netlink.Route{
		LinkIndex: r.Index, Dst: ipNet(r.Dst), Table: r.Table, Priority: r.Metric, Scope: netlink.Scope(r.Scope), MTU: r.MTU, AdvMSS: r.AdvMSS,
		Protocol: netlink.RouteProtocol(r.Protocol),
	}
	if r.Gateway.IsValid() {
		route.Gw = r.Gateway.AsSlice()
	}
	if r.Src.IsValid() {
		route.Src = r.Src.AsSlice()
	}
	return route
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

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	ip, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if ip.Is4In6() && size == 32 {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, bits)
}

// Routes lists the unicast routes of all tables, IPv4 before IPv6; multipath ones once for each hop.
func (h *Handle) Routes(ctx context.Context) ([]Route, error) {
	var routes []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := call(ctx, func() ([]netlink.Route, error) {
			return h.lib.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			if r.Type != unix.RTN_UNICAST {
				continue
			}
			routes = append(routes, routesOf(&r)...)
		}
	}
	return routes, nil
}

func routesOf(r *netlink.Route) []Route {
	route := Route{
		Dst: anywhere(r.Family), Index: r.LinkIndex, Table: r.Table, Metric: r.Priority, Scope: int(r.Scope), MTU: r.MTU, AdvMSS: r.AdvMSS,
		Protocol: int(r.Protocol),
	}
	if r.Dst != nil {
		route.Dst = prefix(r.Dst)
	}
	route.Src, _ = netip.AddrFromSlice(r.Src)
	route.Gateway, _ = netip.AddrFromSlice(r.Gw)
	route.Src, route.Gateway = route.Src.Unmap(), route.Gateway.Unmap()
	if len(r.MultiPath) == 0 {
		return []Route{route}
	}
	routes := make([]Route, 0, len(r.MultiPath))
	for _, hop := range r.MultiPath {
		route.Index = hop.LinkIndex
		route.Gateway, _ = netip.AddrFromSlice(hop.Gw)
		route.Gateway = route.Gateway.Unmap()
		routes = append(routes, route)
	}
	return routes
}

// anywhere is the destination of a default route.
func anywhere(family int) netip.Prefix {
	if family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// DefaultLink is the link of the first default route, IPv4 before IPv6; ErrNoLink if there is none.
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
