package nl

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Rule is a policy rule: packets from a source are routed by a table.
type Rule struct {
	// From is the source; invalid for any.
	From netip.Prefix
	// Table is the table's number; 0 where the rule does something else.
	Table int
	// Priority is the rule's place: lower ones come first. 0 on AddRule is the kernel's choice, before
	// all rules but that of the table local.
	Priority int
	// Protocol names who made the rule (rtnetlink(7), rtm_protocol); 0 for nobody in particular.
	// Kernels before 4.17 do not keep it.
	Protocol uint8
	// More is true if the rule asks for more of a packet than its source.
	More bool
}

// String reads "from 10.1.0.2/32 lookup 100".
func (r Rule) String() string { return fmt.Sprintf("from %s lookup %d", r.From, r.Table) }

// parts describe the rule in a message; action is what it does, RTN_UNSPEC where that does not
// matter.
func (r Rule) parts(action uint8) []vnl.NetlinkRequestData {
	header := &vnl.RtMsg{
		RtMsg: unix.RtMsg{
			Family: uint8(family(r.From.Addr())), Src_len: uint8(r.From.Bits()), Type: action,
		},
	}
	parts := []vnl.NetlinkRequestData{
		header, vnl.NewRtAttr(vnl.FRA_SRC, r.From.Addr().AsSlice()),
		vnl.NewRtAttr(vnl.FRA_TABLE, vnl.Uint32Attr(uint32(r.Table))),
	}
	if r.Priority != 0 {
		parts = append(parts, vnl.NewRtAttr(vnl.FRA_PRIORITY, vnl.Uint32Attr(uint32(r.Priority))))
	}
	if r.Protocol != 0 {
		parts = append(parts, vnl.NewRtAttr(vnl.FRA_PROTOCOL, []byte{r.Protocol}))
	}
	return parts
}

// AddRule adds a rule with a source and a table, also if there is one with the same at another
// place.
func (h *Handle) AddRule(ctx context.Context, r Rule) error {
	err := h.do(ctx, unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.parts(unix.RTN_UNICAST)...)
	if err != nil {
		return fmt.Errorf("add rule %s: %w", r, err)
	}
	return nil
}

// DeleteRule removes a rule that Rules gave. One that is not there is removed already.
func (h *Handle) DeleteRule(ctx context.Context, r Rule) error {
	err := h.do(ctx, unix.RTM_DELRULE, 0, r.parts(unix.RTN_UNSPEC)...)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete rule %s: %w", r, err)
	}
	return nil
}

// Rules lists the policy rules, IPv4 before IPv6, each in the order of their places.
func (h *Handle) Rules(ctx context.Context) ([]Rule, error) {
	var rules []Rule
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		messages, err := h.dump(ctx, unix.RTM_GETRULE, &vnl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
		if err != nil {
			return nil, fmt.Errorf("list rules: %w", err)
		}
		for _, m := range messages {
			if len(m) < unix.SizeofRtMsg {
				return nil, fmt.Errorf("list rules: %w", errShort)
			}
			rules = append(rules, parseRule(vnl.DeserializeRtMsg(m), m[unix.SizeofRtMsg:]))
		}
	}
	return rules, nil
}

// ruleInvert is FIB_RULE_INVERT of linux/fib_rules.h.
const ruleInvert = 2

// parseRule reads a rule from a message. What it does not know of a rule makes it More.
func parseRule(header *vnl.RtMsg, attrs []byte) Rule {
	r := Rule{More: header.Flags&ruleInvert != 0 || header.Tos != 0}
	for kind, value := range Attrs(attrs) {
		switch kind {
		case vnl.FRA_SRC:
			src, _ := netip.AddrFromSlice(value)
			r.From = netip.PrefixFrom(src, int(header.Src_len))
		case vnl.FRA_TABLE:
			r.Table = number(value)
		case vnl.FRA_PRIORITY:
			r.Priority = number(value)
		case vnl.FRA_PROTOCOL:
			r.Protocol = uint8(number(value))
		case vnl.FRA_PAD:
		case vnl.FRA_SUPPRESS_PREFIXLEN, vnl.FRA_SUPPRESS_IFGROUP:
			r.More = r.More || uint32(number(value)) != math.MaxUint32 // none
		default:
			r.More = true
		}
	}
	return r
}
