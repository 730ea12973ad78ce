package block_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// under is the wish in one of two spaces of a network, beside the other one.
func under(w block.Wish, own bool) block.Wish {
	spaces := []string{block.SpaceOf("", ""), block.SpaceOf("team.default", "")}
	if own {
		slices.Reverse(spaces)
	}
	w.Space, w.Beside = spaces[0], spaces[1:]
	return w
}

// in is a holder of a network of each of the two names.
func in(i int, own bool) block.Holder {
	h := holder(i)
	if own {
		h.Network = "team.net"
	}
	return h
}

// TestM30TwoSpaces: whichever nodes take a network's addresses out of its one space or out of the
// other, none has an address that another one has, all of the range can be had, and nothing is
// left.
func TestM30TwoSpaces(t *testing.T) {
	for _, cidr := range []string{"10.0.0.0/24", "10.0.0.0/27", "10.0.0.0/28", "fd00::/122"} {
		for _, nodes := range []int{1, 2, 5} {
			t.Run(fmt.Sprint(cidr, " ", nodes), func(t *testing.T) {
				c, w := newCluster(t), wish(t, cidr)
				var managers []*block.Manager
				for i := range nodes {
					managers = append(managers, c.node(fmt.Sprint("n", i)))
				}
				rnd := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // any order
				type has struct {
					m    *block.Manager
					h    block.Holder
					addr netip.Addr
				}
				var holders []has
				by := map[netip.Addr]block.Holder{}
				for i := range 300 {
					if rnd.IntN(3) == 0 && len(holders) > 0 {
						at := rnd.IntN(len(holders))
						if err := holders[at].m.Del(t.Context(), holders[at].h.ID); err != nil {
							t.Fatal(err)
						}
						delete(by, holders[at].addr)
						holders = slices.Delete(holders, at, at+1)
						continue
					}
					own := rnd.IntN(2) == 0
					m, h := managers[rnd.IntN(nodes)], in(i, own)
					addrs, err := add(t, managers, m, h, under(w, own))
					if errors.Is(err, block.ErrFull) && nodes > 1 {
						continue
					}
					if err != nil && (!errors.Is(err, block.ErrFull) || len(by) < int(w.Window.Size())) {
						t.Fatalf("%v with %d of %d addresses given", err, len(by), w.Window.Size())
					}
					if err != nil {
						continue
					}
					if other, ok := by[addrs[0]]; ok {
						t.Fatalf("%v is that of %v and of %v", addrs[0], other, h)
					}
					by[addrs[0]] = h
					holders = append(holders, has{m, h, addrs[0]})
				}
				for _, h := range holders {
					if err := h.m.Check(t.Context(), h.h.ID, []netip.Addr{h.addr}); err != nil {
						t.Error(err)
					}
					if err := h.m.Del(t.Context(), h.h.ID); err != nil {
						t.Fatal(err)
					}
				}
				c.pass(time.Hour)
				for _, m := range managers {
					if err := m.TendNow(t.Context()); err != nil {
						t.Error(err)
					}
				}
				if left := c.api.All(); len(left) > 0 {
					t.Errorf("left: %+v", left)
				}
			})
		}
	}
}

// TestM30TwoSpacesAtOnce: so it is of nodes that claim at the same time.
func TestM30TwoSpacesAtOnce(t *testing.T) {
	c, w := newCluster(t), wish(t, "10.0.0.0/25")
	var mu sync.Mutex
	by := map[netip.Addr]string{}
	var group sync.WaitGroup
	for n := range 6 {
		m := c.node(fmt.Sprint("n", n))
		for _, own := range []bool{true, false} {
			group.Go(func() {
				for i := range 5 {
					h := in(100*n+i, own)
					addrs, err := m.Add(t.Context(), h, []block.Wish{under(w, own)}, nil)
					if errors.Is(err, block.ErrFull) || errors.Is(err, block.ErrLater) {
						continue // others have it all, or are at it
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					if other := by[addrs[0]]; other != "" {
						t.Errorf("%v is that of %s and of %v", addrs[0], other, h)
					}
					by[addrs[0]] = h.String()
					mu.Unlock()
				}
			})
		}
	}
	group.Wait()
	if len(by) == 0 {
		t.Error("nobody got an address")
	}
}

// TestM30LooksSeldom: the other space is looked at when a block is claimed, and not for each
// address.
func TestM30LooksSeldom(t *testing.T) {
	c := newCluster(t)
	c.node("other")
	m, w := c.node("n"), under(wish(t, "10.0.0.0/16"), true)
	if _, err := m.Add(t.Context(), in(0, true), []block.Wish{w}, nil); err != nil {
		t.Fatal(err)
	}
	before := c.api.Calls()
	for i := 1; i < 10; i++ {
		if _, err := m.Add(t.Context(), in(i, true), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if asked := c.api.Calls() - before; asked != 0 {
		t.Errorf("%d calls for nine addresses of a block", asked)
	}
}

// TestM30ClaimsStay: what a claim keeps in the old space it keeps.
func TestM30ClaimsStay(t *testing.T) {
	c := newCluster(t)
	c.node("other")
	m, w := c.node("n"), wish(t, "10.0.0.0/24")
	claim := &claimv1.IPAMClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "vm", UID: "1"}}
	addrs, err := m.Add(t.Context(), in(0, false), []block.Wish{under(w, false)}, claim)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Del(t.Context(), in(0, false).ID); err != nil {
		t.Fatal(err)
	}
	again := under(w, true)
	again.Asked = addrs[0]
	got, err := m.Add(t.Context(), in(1, true), []block.Wish{again}, claim)
	if err != nil || got[0] != addrs[0] {
		t.Errorf("%v, %v, want %v", got, err, addrs)
	}
	if all := c.api.All(); len(all) != 1 {
		t.Errorf("blocks: %+v", all)
	}
	_, err = m.Add(t.Context(), in(2, true), []block.Wish{again}, nil)
	if !errors.Is(err, block.ErrTaken) {
		t.Errorf("another pod got it: %v", err)
	}
}

// TestM30SpacesOfTenants: nobody finds a name that has the space of another namespace.
func TestM30SpacesOfTenants(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{
		"team.blue", "team.b.lue", "team-blue", "team.Blue", "te-am.blue", "te.am-blue", "team..blue",
		"Team.blue",
	} {
		space := block.SpaceOf(name, "")
		if other := seen[space]; other != "" {
			t.Errorf("%s and %s have the space %s", name, other, space)
		}
		seen[space] = name
		_, hash, _ := strings.Cut(space, "-x")
		if strings.Contains(name, ".") && len(hash) < 20 {
			t.Errorf("the space %s of %s can be met by trying", space, name)
		}
		if again := block.SpaceOf(space, ""); again == space && space != name {
			t.Errorf("a network_name can be the space %s", space)
		}
	}
}
