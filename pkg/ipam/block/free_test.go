package block_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// isFree checks how many addresses a node takes for free.
func isFree(t *testing.T, when string, m *block.Manager, w block.Wish, want uint64) {
	t.Helper()
	if got, err := m.Free(t.Context(), w); err != nil || got != want {
		t.Errorf("%s: node %s has %d free, %v, want %d", when, m.NodeName, got, err, want)
	}
}

// A node knows at once what it uses itself, and of others what their blocks said last.
func TestFree(t *testing.T) {
	c := newCluster(t)
	one, two := c.node("n1"), c.node("n2")
	w := wish(t, "10.0.0.0/24")
	isFree(t, "at first", one, w, 254)
	for i := range 3 {
		if _, err := one.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	isFree(t, "three used", one, w, 251)
	isFree(t, "not said yet", two, w, 254)
	if err := one.TendNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	isFree(t, "said", two, w, 251)
	if err := one.Del(t.Context(), holder(0).ID); err != nil {
		t.Fatal(err)
	}
	isFree(t, "given back", one, w, 252)
}

// What is in a shared block, as those of a small range are, all nodes know at once.
func TestFreeOfShared(t *testing.T) {
	c := newCluster(t)
	one, two := c.node("n1"), c.node("n2")
	all := []*block.Manager{one, two}
	w := wish(t, "10.0.0.0/28")
	for i, m := range []*block.Manager{one, one, two} {
		if _, err := add(t, all, m, holder(i), w); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range all {
		isFree(t, "three used", m, w, 11)
	}
	if err := one.Del(t.Context(), holder(0).ID); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		isFree(t, "given back", m, w, 12)
	}
}

// Addresses of the same network in a space beside count, those of another range do not.
func TestFreeOfWindow(t *testing.T) {
	c := newCluster(t)
	m := c.node("n1")
	small, beside, elsewhere := wish(t, "10.0.0.0/29"), wish(t, "10.0.0.0/29"), wish(t, "10.0.0.8/29")
	beside.Space = block.SpaceOf("team.default", "")
	for i, w := range []block.Wish{small, small, beside, elsewhere} {
		if _, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	isFree(t, "two used", m, small, 4)
	small.Beside = []string{beside.Space}
	isFree(t, "and one beside", m, small, 3)
}

// Of another node's block it is not known which addresses are used: each may be one of the range.
func TestFreeOfPartOfBlock(t *testing.T) {
	c := newCluster(t)
	one, two := c.node("n1"), c.node("n2")
	wide, part := wish(t, "10.0.0.0/24"), wish(t, "10.0.0.0/24")
	addrs, err := one.Add(t.Context(), holder(0), []block.Wish{wide}, nil)
	if err == nil {
		err = one.TendNow(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	start := addrs[0].Next()
	if part.Window, err = alloc.NewWindow(wide.Window.Prefix(), start, start.Next(), nil,
		nil); err != nil {
		t.Fatal(err)
	}
	isFree(t, "the owner knows", one, part, 2)
	isFree(t, "others do not", two, part, 1)
}

// Ranges are of any size.
func TestFreeOfLargeRange(t *testing.T) {
	c := newCluster(t)
	m := c.node("n1")
	window, err := alloc.NewWindow(netip.MustParsePrefix("fd00::/32"), netip.Addr{}, netip.Addr{},
		nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := block.Wish{Space: block.SpaceOf("", ""), Window: window}
	for i := range 2 {
		if _, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	isFree(t, fmt.Sprint(window.Prefix()), m, w, 1<<64-1-2)
}
