package nettest

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Snapshot returns the namespace's links, addresses, routes and rules as text: one line each,
// sorted, equal for equal states. Left out is what changes by itself: indexes, MACs, carrier,
// lifetimes, and IPv6's link-local and multicast addresses and routes, which the kernel makes and
// removes in its own time.
func (n *Namespace) Snapshot() string {
	n.tb.Helper()
	return n.Links() + n.Addrs() + n.Routes() + n.Rules()
}

// Links lists the links, as "link net1 macvlan mtu 1500 up".
func (n *Namespace) Links() string {
	n.tb.Helper()
	links, names := n.links()
	lines := make([]string, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		var b strings.Builder
		fmt.Fprintf(&b, "link %s %s mtu %d", a.Name, l.Type(), a.MTU)
		if a.MasterIndex != 0 {
			fmt.Fprintf(&b, " master %s", names[a.MasterIndex])
		}
		if a.Flags&net.FlagUp != 0 {
			b.WriteString(" up")
		}
		if a.Promisc != 0 {
			b.WriteString(" promisc")
		}
		lines = append(lines, b.String())
	}
	return text(lines)
}

// Addrs lists the addresses, as "addr net1 10.0.0.2/24".
func (n *Namespace) Addrs() string {
	n.tb.Helper()
	_, names := n.links()
	list := dump(n, func() ([]netlink.Addr, error) { return n.nl.AddrList(nil, netlink.FAMILY_ALL) })
	var lines []string
	for _, a := range list {
		if a.IP.To4() == nil && a.IP.IsLinkLocalUnicast() {
			continue
		}
		lines = append(lines, fmt.Sprintf("addr %s %s", names[a.LinkIndex], a.IPNet))
	}
	return text(lines)
}

// Routes lists the routes of all tables, as "route4 table main default via 10.0.0.1 dev net1".
func (n *Namespace) Routes() string {
	n.tb.Helper()
	_, names := n.links()
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		for _, r := range dump(n, func() ([]netlink.Route, error) {
			return n.nl.RouteListFiltered(family, all, netlink.RT_FILTER_TABLE)
		}) {
			if r.Dst != nil && r.Dst.IP.To4() == nil &&
				(r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast()) {
				continue
			}
			lines = append(lines, routeLine(&r, names))
		}
	}
	return text(lines)
}

// Rules lists the policy routing rules, as "rule4 100: from 10.0.0.2/32 table 100".
func (n *Namespace) Rules() string {
	n.tb.Helper()
	var lines []string
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		for _, r := range dump(n, func() ([]netlink.Rule, error) { return n.nl.RuleList(family) }) {
			var b strings.Builder
			fmt.Fprintf(&b, "rule%d %d: from ", ipVersion(family), max(r.Priority, 0))
			if r.Src == nil {
				b.WriteString("all")
			} else {
				b.WriteString(r.Src.String())
			}
			if r.Dst != nil {
				fmt.Fprintf(&b, " to %s", r.Dst)
			}
			if r.IifName != "" {
				fmt.Fprintf(&b, " iif %s", r.IifName)
			}
			if r.OifName != "" {
				fmt.Fprintf(&b, " oif %s", r.OifName)
			}
			if r.Mark != 0 {
				fmt.Fprintf(&b, " mark %#x", r.Mark)
			}
			fmt.Fprintf(&b, " table %s", tableName(r.Table))
			lines = append(lines, b.String())
		}
	}
	return text(lines)
}

func routeLine(r *netlink.Route, names map[int]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "route%d table %s ", ipVersion(r.Family), tableName(r.Table))
	if r.Type != unix.RTN_UNICAST {
		fmt.Fprintf(&b, "%s ", typeName(r.Type))
	}
	if r.Dst == nil || r.Dst.IP.IsUnspecified() && ones(r.Dst) == 0 {
		b.WriteString("default")
	} else {
		b.WriteString(r.Dst.String())
	}
	hop := func(gw net.IP, via netlink.Destination, index int) {
		if gw != nil {
			fmt.Fprintf(&b, " via %s", gw)
		} else if via != nil {
			fmt.Fprintf(&b, " via %s", via)
		}
		if index != 0 {
			fmt.Fprintf(&b, " dev %s", names[index])
		}
	}
	hop(r.Gw, r.Via, r.LinkIndex)
	for _, h := range r.MultiPath {
		b.WriteString(" nexthop")
		hop(h.Gw, h.Via, h.LinkIndex)
	}
	if r.Protocol != unix.RTPROT_BOOT {
		fmt.Fprintf(&b, " proto %s", r.Protocol)
	}
	if r.Family == netlink.FAMILY_V4 && r.Scope != netlink.SCOPE_UNIVERSE {
		fmt.Fprintf(&b, " scope %s", r.Scope)
	}
	if r.Src != nil {
		fmt.Fprintf(&b, " src %s", r.Src)
	}
	if r.Priority != 0 {
		fmt.Fprintf(&b, " metric %d", r.Priority)
	}
	if r.Tos != 0 {
		fmt.Fprintf(&b, " tos %#x", r.Tos)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	return b.String()
}

func (n *Namespace) links() (links []netlink.Link, names map[int]string) {
	n.tb.Helper()
	links = dump(n, n.nl.LinkList)
	names = map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return links, names
}

// dump repeats a listing that the kernel interrupted because something changed.
func dump[T any](n *Namespace, list func() ([]T, error)) []T {
	n.tb.Helper()
	for range 50 {
		l, err := list()
		if errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR) {
			continue
		}
		must(n.tb, err)
		return l
	}
	n.tb.Fatal("nettest: the kernel's state does not come to rest")
	return nil
}

func text(lines []string) string {
	slices.Sort(lines)
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(strings.TrimRight(l, " ") + "\n")
	}
	return b.String()
}

func ipVersion(family int) int {
	if family == netlink.FAMILY_V6 {
		return 6
	}
	return 4
}

func ones(n *net.IPNet) int {
	o, _ := n.Mask.Size()
	return o
}

func tableName(table int) string {
	switch table {
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return fmt.Sprint(table)
}

func typeName(kind int) string {
	names := map[int]string{
		unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
		unix.RTN_MULTICAST: "multicast",
		unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable",
		unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
	}
	if name, ok := names[kind]; ok {
		return name
	}
	return fmt.Sprintf("type %d", kind)
}
