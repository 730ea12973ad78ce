package nl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
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
