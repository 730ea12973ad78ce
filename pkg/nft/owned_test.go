package nft_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nft"
)

// Swap sees the rules of others before it changes anything, and returns those that went.
func TestSwap(t *testing.T) {
	n := nettest.New(t)
	c := open(t, n)
	table := &nft.Table{Family: nft.INet, Name: "braid_test", Chains: []nft.Chain{{Name: "c"}}}
	a, b := attachment.ID{Network: "net", ContainerID: "a", IfName: "net1"}, attachment.ID{
		Network: "net", ContainerID: "b", IfName: "net1",
	}
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	tcp, to := nft.Join(nft.Protocol(unix.IPPROTO_TCP),
		nft.Port(80)), nft.TranslateTo(netip.MustParseAddrPort("10.1.0.2:80"))
	source := nft.Source(nft.Is, prefix("192.0.2.0/24"))
	rules := []struct {
		parts []nft.Expr
		want  nft.Match
	}{
		{[]nft.Expr{nft.IP(v4), tcp}, nft.Match{Family: nft.IPv4, Protocol: unix.IPPROTO_TCP, Port: 80}},
		{
			[]nft.Expr{nft.Destination(nft.Is, netip.PrefixFrom(v4, 32)), tcp},
			nft.Match{Family: nft.IPv4, Destination: v4, Protocol: unix.IPPROTO_TCP, Port: 80},
		},
		{
			[]nft.Expr{nft.Destination(nft.Is, netip.PrefixFrom(v6, 128)), tcp},
			nft.Match{Family: nft.IPv6, Destination: v6, Protocol: unix.IPPROTO_TCP, Port: 80},
		},
		{
			[]nft.Expr{source, nft.IP(v4), tcp},
			nft.Match{Family: nft.IPv4, Protocol: unix.IPPROTO_TCP, Port: 80, More: true},
		},
		{
			[]nft.Expr{nft.Destination(nft.IsNot, netip.PrefixFrom(v4, 32)), tcp},
			nft.Match{Family: nft.IPv4, Protocol: unix.IPPROTO_TCP, Port: 80, More: true},
		},
	}
	var set []nft.Rule
	for _, r := range rules {
		set = append(set, nft.NewRule("c", append(slices.Clone(r.parts), to)...))
	}
	had, err := c.Swap(t.Context(), table, a, func(others []nft.Owned) error {
		if len(others) > 0 {
			t.Errorf("others: %v", others)
		}
		return nil
	}, set...)
	if err != nil || len(had) > 0 {
		t.Fatal(had, err)
	}
	before := ruleset(t, n)
	refused := errors.New("refused")
	_, err = c.Swap(t.Context(), table, b, func(others []nft.Owned) error {
		for i, r := range rules {
			got := others[i].Match()
			if got != r.want || others[i].Owner != "net net1 a" || others[i].Chain != "c" {
				t.Errorf("rule %d: %+v of %q, want %+v", i, got, others[i].Owner, r.want)
			}
			for j, other := range rules {
				if others[i].Asks(other.parts...) != (i == j) {
					t.Errorf("rule %d asks what rule %d does: %v", i, j, i != j)
				}
			}
		}
		return refused
	}, nft.NewRule("c", tcp, to))
	if !errors.Is(err, refused) || ruleset(t, n) != before {
		t.Errorf("%v\n%s", err, ruleset(t, n))
	}
	had, err = c.Swap(t.Context(), table, a, nil, set[:2]...)
	if err != nil || len(had) != len(rules) {
		t.Errorf("had %d rules, %v", len(had), err)
	}
	had, err = c.Swap(t.Context(), table, a, nil)
	if err != nil || len(had) != 2 || ruleset(t, n) != "" {
		t.Errorf("had %d rules, %v, left\n%s", len(had), err, ruleset(t, n))
	}
}
