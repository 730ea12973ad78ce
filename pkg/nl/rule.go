package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rule is a policy rule: packets from a source are routed by a table.
type Rule struct {
	// From is the source; invalid for any.
	From netip.Prefix
	// Table is the table's number; 0 where the rule does something else.
	Table int
	// Priority is the rule's place: lower ones come first. 0 on AddRule is the kernel's choice, before all rules but that of the table local.
	Priority int
	// More is that the rule asks for more of a packet than its source.
	More bool
}

// String reads "from 10.1.0.2/32 lookup 100".
func (r Rule) String() string { return fmt.Sprintf("from %s lookup %d", r.From, r.Table) }

func (r Rule) lib() *netlink.Rule {
	rule := netlink.NewRule()
	rule.Src, rule.Table = ipNet(r.From), r.Table
	if r.Priority != 0 {
		rule.Priority = r.Priority
	}
	return rule
}

// AddRule adds a rule with a source and a table, also if there is one with the same at another place.
func (h *Handle) AddRule(ctx context.Context, r Rule) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lib.RuleAdd(r.lib()); err != nil {
		return fmt.Errorf("add rule %s: %w", r, err)
	}
	return nil
}

// DeleteRule removes a rule that Rules gave. One that is not there is removed already.
func (h *Handle) DeleteRule(ctx context.Context, r Rule) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lib.RuleDel(r.lib()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete rule %s: %w", r, err)
	}
	return nil
}

// Rules lists the policy rules, IPv4 before IPv6, each in the order of their places.
func (h *Handle) Rules(ctx context.Context) ([]Rule, error) {
	var rules []Rule
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := call(ctx, func() ([]netlink.Rule, error) { return h.lib.RuleList(family) })
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, l := range list {
			rules = append(rules, ruleOf(l))
		}
	}
	return rules, nil
}

func ruleOf(l netlink.Rule) Rule {
	r := Rule{Table: l.Table, Priority: l.Priority}
	if l.Src != nil {
		r.From = prefix(l.Src)
	}
	// What else the library can tell of a rule, it would not leave at its zero value.
	bare := netlink.NewRule()
	bare.Family, bare.Src, bare.Table, bare.Priority, bare.Protocol = l.Family, l.Src, l.Table, l.Priority, l.Protocol
	r.More = *bare != l
	return r
}

// Exact is a route together with the kernel's own description of it, so that it can be copied, removed and put back with all that belongs
// to it. One with several next hops has the index 0.
type Exact struct {
	Route
	raw *route
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
			if r.header.Flags&unix.RTM_F_CLONED == 0 {
				routes = append(routes, exact(r))
			}
		}
	}
	return routes, nil
}

func exact(raw *route) Exact {
	e := Exact{raw: raw, Route: Route{
		Dst: anywhere(int(raw.header.Family)), Table: int(raw.table), Metric: int(raw.metric), Scope: int(raw.header.Scope), Protocol: int(raw.header.Protocol),
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
		}
	}
	return e
}

// ReplaceRoute adds a route, which takes the place of another of its table to the same destination with the same metric.
func (h *Handle) ReplaceRoute(ctx context.Context, r Route) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lib.RouteReplace(r.lib()); err != nil {
		return fmt.Errorf("replace route %s: %w", r, err)
	}
	return nil
}

// CopyRoute makes a copy of a route in a table, where it takes the place of another to the same destination with the same metric.
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

// RestoreRoute puts a route back that was removed, before others of its destination. One that is there is back already.
func (h *Handle) RestoreRoute(ctx context.Context, e Exact) error {
	if err := h.putRoute(ctx, e, e.Table, 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("restore route %s: %w", e.Route, err)
	}
	return nil
}

func (h *Handle) putRoute(ctx context.Context, e Exact, table, flags int) error {
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
