package nl_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

func TestRules(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	before := pod.Rules()
	list := func() []nl.Rule {
		rules, err := h.Rules(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	builtin := list()
	wanted := []nl.Rule{
		{From: netip.MustParsePrefix("10.1.0.2/32"), Table: 100, Priority: 32765},
		{From: netip.MustParsePrefix("fd00::2/128"), Table: 70000, Priority: 32765},
		{From: netip.MustParsePrefix("10.2.0.0/16"), Table: 7, Priority: 9},
	}
	for _, r := range wanted {
		if r.Priority > 9 {
			r.Priority = 0 // the kernel chooses that
		}
		if err := h.AddRule(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	// Others ask for more, and are not confused with ours.
	mark := netlink.NewRule()
	mark.Src, mark.Table, mark.Mark, mark.Priority = &net.IPNet{
		IP: net.IPv4(10, 1, 0, 2), Mask: net.CIDRMask(32, 32),
	}, 100, 7, 8
	incoming := netlink.NewRule()
	incoming.Src, incoming.Table, incoming.IifName, incoming.Priority = mark.Src, 100, "net1", 7
	for _, r := range []*netlink.Rule{mark, incoming} {
		if err := pod.Netlink().RuleAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	rules := list()
	for _, w := range wanted {
		if !slices.Contains(rules, w) {
			t.Errorf("lacks %+v:\n%+v", w, rules)
		}
	}
	more := 0
	for _, r := range rules {
		if r.More {
			more++
			if r.From.String() != "10.1.0.2/32" || r.Table != 100 {
				t.Errorf("asks for more: %+v", r)
			}
		}
	}
	if more != 2 || len(rules) != len(builtin)+5 {
		t.Errorf("rules %+v", rules)
	}
	for range 2 {
		for _, w := range wanted {
			if err := h.DeleteRule(t.Context(), w); err != nil {
				t.Error(err)
			}
		}
	}
	for _, r := range []*netlink.Rule{mark, incoming} {
		if err := pod.Netlink().RuleDel(r); err != nil {
			t.Errorf("the rule of another is gone: %v", err)
		}
	}
	if got := pod.Rules(); got != before {
		t.Errorf("left:\n%s", got)
	}
}

// exactRoutes adds routes of net1 with all that can belong to one: an onlink gateway, metrics, a
// source, a next-hop object, and a share of a multipath route.
func exactRoutes(t *testing.T, pod *nettest.Namespace) {
	t.Helper()
	net1 := index(pod, "net1")
	raw(t, pod, netlink.Route{
		Dst: &net.IPNet{IP: net.IPv4(172, 16, 0, 0), Mask: net.CIDRMask(12, 32)},
		Gw:  net.IPv4(10, 0, 9, 1), LinkIndex: net1, Priority: 7, MTU: 1400, // outside of the subnet
		AdvMSS: 1300, Hoplimit: 9, Protocol: unix.RTPROT_STATIC, Tos: 8, Src: net.IPv4(10, 0, 1, 2),
		Flags: unix.RTNH_F_ONLINK,
	})
	raw(t, pod, netlink.Route{
		Dst: &net.IPNet{IP: net.ParseIP("fd07::"), Mask: net.CIDRMask(64, 128)},
		Gw:  net.ParseIP(net1GW6), LinkIndex: net1, Priority: 5, MTU: 1400,
		Src: net.ParseIP("fd00:b::2"),
	})
	nextHopObject(t, pod, 42, "net1", net1GW4b)
	defaultByObject(t, pod, unix.AF_INET, 42, 77)
	raw(t, pod, netlink.Route{Dst: all6, Priority: 3},
		netlink.NexthopInfo{LinkIndex: index(pod, "eth0"), Gw: net.ParseIP(eth0GW6)},
		netlink.NexthopInfo{LinkIndex: net1, Gw: net.ParseIP(net1GW6)})
}

// exactOf are the routes of net1 in a table.
func exactOf(t *testing.T, pod *nettest.Namespace, h *nl.Handle, table int) (list []nl.Exact) {
	t.Helper()
	all, err := h.ExactRoutes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Table == table && r.Index == index(pod, "net1") && !r.Dst.Addr().IsLinkLocalUnicast() {
			list = append(list, r)
		}
	}
	return list
}

// copies are the lines of net1's routes in the main table, as they are in table 70001.
func copies(routes string) (lines []string) {
	for line := range strings.Lines(routes) {
		if strings.Contains(line, "table main") && strings.Contains(line, "dev net1") &&
			!strings.Contains(line, "nexthop") {
			lines = append(lines, strings.Replace(line, "table main", "table 70001", 1))
		}
	}
	return lines
}

func TestExactRoutesAreListed(t *testing.T) {
	pod, _ := newPod(t)
	exactRoutes(t, pod)
	var described []string
	for _, r := range exactOf(t, pod, open(t, pod), unix.RT_TABLE_MAIN) {
		described = append(described, strings.TrimSpace(r.String()+" src "+r.Src.String()))
	}
	slices.Sort(described)
	if diff := cmp.Diff([]string{
		"0.0.0.0/0 via 10.0.1.9 table 254 metric 77 src invalid IP",
		"10.0.1.0/24 table 254 src 10.0.1.2",
		"172.16.0.0/12 via 10.0.9.1 table 254 metric 7 src 10.0.1.2",
		"::/0 via fd00:b::1 table 254 metric 3 src invalid IP",
		"fd00:b::/64 table 254 metric 256 src invalid IP",
		"fd07::/64 via fd00:b::1 table 254 metric 5 src fd00:b::2",
	}, described); diff != "" {
		t.Fatalf("routes of net1:\n%s", diff)
	}
}

// A route is copied, removed and put back with everything that belongs to it, and each of them can
// be done again.
func TestExactRoutes(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	exactRoutes(t, pod)
	before := pod.Routes()
	main := exactOf(t, pod, h, unix.RT_TABLE_MAIN)
	const table = 70001
	for _, r := range main {
		for range 2 { // the copy takes the place of the first
			if err := h.CopyRoute(t.Context(), r, table); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, line := range copies(before) {
		if strings.Count(pod.Routes(), line) != 1 {
			t.Errorf("not one %s\n%s", line, pod.Routes())
		}
	}
	for range 2 {
		for _, r := range append(exactOf(t, pod, h, table), main...) {
			if err := h.RemoveRoute(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
	}
	if left := copies(pod.Routes()); len(left) > 0 || strings.Contains(pod.Routes(), "70001") {
		t.Errorf("left:\n%s", pod.Routes())
	}
	for range 2 {
		// Gateways need the routes to their subnets.
		for _, viaGateway := range []bool{false, true} {
			for _, r := range main {
				if r.Gateway.IsValid() != viaGateway {
					continue
				}
				if err := h.RestoreRoute(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if diff := cmp.Diff(before, pod.Routes()); diff != "" {
		t.Errorf("not as before:\n%s", diff)
	}
}

func TestReplaceRoute(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	route := nl.Route{
		Dst: netip.MustParsePrefix("10.0.1.0/24"), Src: netip.MustParseAddr("10.0.1.2"),
		Index: index(pod, "net1"), Table: unix.RT_TABLE_MAIN,
		Scope: unix.RT_SCOPE_LINK,
	}
	if err := h.ReplaceRoute(t.Context(), route); err != nil {
		t.Fatal(err)
	}
	got := pod.Routes()
	if strings.Count(got, "table main 10.0.1.0/24") != 1 ||
		!strings.Contains(got, "10.0.1.0/24 dev net1 scope link src 10.0.1.2") {
		t.Errorf("routes:\n%s", got)
	}
	route.Src = netip.MustParseAddr("10.0.0.99")
	if err := h.ReplaceRoute(t.Context(), route); err == nil {
		t.Error("a source that the pod does not have")
	}
}
