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
		var line line
		line.add(true, "link %s %s mtu %d", a.Name, l.Type(), a.MTU)
		line.add(a.MasterIndex != 0, " master %s", names[a.MasterIndex])
		line.add(a.Flags&net.FlagUp != 0, " up")
		line.add(a.Promisc != 0, " promisc")
		lines = append(lines, line.String())
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
			lines = append(lines, ruleLine(&r, family))
		}
	}
	return text(lines)
}

// ruleLine returns the line of a rule.
func ruleLine(r *netlink.Rule, family int) string {
	var l line
	l.add(true, "rule%d %d: from ", ipVersion(family), max(r.Priority, 0))
	l.add(r.Src == nil, "all")
	l.add(r.Src != nil, "%s", r.Src)
	l.add(r.Dst != nil, " to %s", r.Dst)
	l.add(r.IifName != "", " iif %s", r.IifName)
	l.add(r.OifName != "", " oif %s", r.OifName)
	l.add(r.Mark != 0, " mark %#x", r.Mark)
	l.add(true, " table %s", tableName(r.Table))
	return l.String()
}

// routeLine returns the line of a route. names are those of links, by index.
func routeLine(r *netlink.Route, names map[int]string) string {
	var l line
	l.add(true, "route%d table %s ", ipVersion(r.Family), tableName(r.Table))
	l.add(r.Type != unix.RTN_UNICAST, "%s ", typeName(r.Type))
	toAll := r.Dst == nil || r.Dst.IP.IsUnspecified() && ones(r.Dst) == 0
	l.add(toAll, "default")
	l.add(!toAll, "%s", r.Dst)
	l.addHop(r.Gw, r.Via, names[r.LinkIndex])
	for _, h := range r.MultiPath {
		l.add(true, " nexthop")
		l.addHop(h.Gw, h.Via, names[h.LinkIndex])
	}
	l.add(r.Protocol != unix.RTPROT_BOOT, " proto %s", r.Protocol)
	l.add(r.Family == netlink.FAMILY_V4 && r.Scope != netlink.SCOPE_UNIVERSE, " scope %s", r.Scope)
	l.add(r.Src != nil, " src %s", r.Src)
	l.add(r.Priority != 0, " metric %d", r.Priority)
	l.add(r.Tos != 0, " tos %#x", r.Tos)
	l.add(r.MTU != 0, " mtu %d", r.MTU)
	return l.String()
}

// line is a line of a snapshot. What is as it is by default is not in it.
type line struct{ strings.Builder }

// add adds a word or two if there is something to tell.
func (l *line) add(tells bool, format string, args ...any) {
	if tells {
		fmt.Fprintf(l, format, args...)
	}
}

// addHop adds a gateway, which may be of the other family (via), and the name of the link.
func (l *line) addHop(gw net.IP, via netlink.Destination, link string) {
	l.add(gw != nil, " via %s", gw)
	l.add(gw == nil && via != nil, " via %s", via)
	l.add(link != "", " dev %s", link)
}

// links lists the links, and their names by index.
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

// text returns lines in their order, so that it does not matter in which the kernel lists them.
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

// tableName returns the name that ip(8) has for a table.
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

// typeName returns the name that ip(8) has for a route's type.
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
