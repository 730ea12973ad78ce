package block_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/ipam/block"
)

// reserve fails the test unless it succeeds.
func reserve(t *testing.T, m *block.Manager, wishes ...block.Wish) {
	t.Helper()
	if err := m.Reserve(t.Context(), wishes...); err != nil {
		t.Fatal(err)
	}
}

// owned counts the blocks that a node owns.
func (c *cluster) owned(m *block.Manager) (n int) {
	for _, b := range c.api.All() {
		if b.Spec.Owner != nil && b.Spec.Owner.NodeName == m.NodeName {
			n++
		}
	}
	return n
}

// After Reserve an Add asks the API nothing, not even the first one in a boot.
func TestAddAfterReserveAsksNothing(t *testing.T) {
	for name, ranges := range map[string][]string{
		"one": {"10.0.0.0/24"}, "dual": {"10.0.0.0/24", "fd00::/64"},
		"overlapping": {"10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			m, other := c.node("n0"), c.node("n1")
			var wishes []block.Wish
			for _, cidr := range ranges {
				wishes = append(wishes, wish(t, cidr))
			}
			for i := range 40 {
				if i == 20 {
					c.boots["n0"]++ // the state is lost with it
					m.Dir = stateDir(t)
				}
				reserve(t, m, wishes...)
				before := c.api.Calls()
				reserve(t, m, wishes...)
				addrs, err := m.Add(t.Context(), holder(i), wishes, nil)
				if err != nil || len(addrs) != len(wishes) {
					t.Fatal(addrs, err)
				}
				if calls := c.api.Calls() - before; calls != 0 {
					t.Errorf("Add %d asked the API %d times", i, calls)
				}
				if _, err := other.Add(t.Context(), holder(1000+i), wishes, nil); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// It takes no address: all of them are given, and it needs no more blocks than they.
func TestReserveTakesNothing(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/26")
	for i := range int(w.Window.Size()) {
		for range 3 {
			reserve(t, m, w)
		}
		if _, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
		if got, want := c.owned(m), (i+1)/block.Size+1; got != want {
			t.Fatalf("%d blocks for %d addresses, want %d", got, i+1, want)
		}
	}
	if err := m.Reserve(t.Context(), w); !errors.Is(err, block.ErrFull) {
		t.Errorf("all are in use: %v", err)
	}
}

// What is reserved again and again is kept; when that ends, it is given back as any idle block is.
func TestReservedIsKept(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/24")
	for range 20 {
		reserve(t, m, w)
		c.pass(4 * time.Minute)
		if err := m.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if created := c.api.Calls("create"); created != 1 || c.owned(m) != 1 {
		t.Errorf("%d blocks were claimed, and %d are the node's, want one", created, c.owned(m))
	}
	c.nothingLeft(t, m)
}

// What is reserved is there for others: when nothing else is left they get it, down to the last
// address.
func TestReservedIsGivenToOthers(t *testing.T) {
	c := newCluster(t)
	holds, needs := c.node("n0"), c.node("n1")
	w := wish(t, "10.0.0.0/26")
	reserve(t, holds, w)
	for i := range int(w.Window.Size()) {
		if _, err := add(t, []*block.Manager{holds}, needs, holder(i), w); err != nil {
			t.Fatalf("address %d: %v", i, err)
		}
	}
}

// Of others it asks nothing: where each block is somebody's, it says so, and no block is recalled.
// What else can be reserved is.
func TestReserveRecallsNothing(t *testing.T) {
	c := newCluster(t)
	has, wants := c.node("n0"), c.node("n1")
	w, wide := wish(t, "10.0.0.0/26"), wish(t, "fd00::/64")
	for i := range int(w.Window.Size()) - 1 {
		if _, err := has.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	err := wants.Reserve(t.Context(), w, wide)
	if !errors.Is(err, block.ErrFull) || errors.Is(err, block.ErrLater) {
		t.Errorf("reserve: %v", err)
	}
	for _, b := range c.api.All() {
		if b.Spec.Recall != nil {
			t.Errorf("%s is recalled", b.Name)
		}
	}
	if c.owned(wants) != 1 {
		t.Errorf("%d blocks are reserved, want that of fd00::/64", c.owned(wants))
	}
}

// Blocks that are shared cannot be reserved.
func TestReserveSharesNothing(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	c.node("n1")
	reserve(t, m, wish(t, "10.0.0.0/28"))
	if all := c.api.All(); len(all) > 0 {
		t.Errorf("there are blocks: %+v", all)
	}
}

// While the API is away, what is there is enough; where it is not, Reserve says why.
func TestReserveWithoutTheAPI(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/24")
	reserve(t, m, w)
	away := errors.New("connection refused")
	c.api.Fault = func(string, string) error { return away }
	c.pass(block.Grace / 2)
	reserve(t, m, w)
	if err := m.Reserve(t.Context(), w, wish(t, "10.1.0.0/24")); !errors.Is(err, away) {
		t.Errorf("another range: %v", err)
	}
	c.pass(block.Grace)
	if err := m.Reserve(t.Context(), w); !errors.Is(err, away) {
		t.Errorf("after the lease: %v", err)
	}
}

// Reserve and Add of several nodes, all at once.
func TestReserveBesideAdds(t *testing.T) {
	c := newCluster(t)
	var nodes []*block.Manager
	for i := range 3 {
		nodes = append(nodes, c.node(fmt.Sprint("n", i)))
	}
	w := wish(t, "10.0.0.0/24")
	done := make(chan error)
	const adds = 20
	for n, m := range nodes {
		go func() {
			var errs []error
			for i := range adds {
				_, err := m.Add(t.Context(), holder(n*adds+i), []block.Wish{w}, nil)
				errs = append(errs, err)
			}
			done <- errors.Join(errs...)
		}()
		go func() {
			var errs []error
			for range adds {
				errs = append(errs, m.Reserve(t.Context(), w, w))
			}
			done <- errors.Join(errs...)
		}()
	}
	for range 2 * len(nodes) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	seen := map[string]bool{}
	for _, m := range nodes {
		known, err := m.InUse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range known {
			for a := range used {
				if seen[a.String()] {
					t.Errorf("%v is given twice", a)
				}
				seen[a.String()] = true
			}
		}
	}
	if len(seen) != adds*len(nodes) {
		t.Errorf("%d addresses are in use, want %d", len(seen), adds*len(nodes))
	}
}

// Nothing of it is left in the state of a block that it fills up on trial.
func TestReserveLeavesBlocksAsTheyAre(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/24")
	for i := range block.Size - 2 {
		if _, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	reserve(t, m, w, w, w)
	known, err := m.InUse(t.Context())
	if err != nil || len(known) != 2 {
		t.Fatalf("%d blocks, %v", len(known), err)
	}
	for uid, used := range known {
		if n := len(used); n != 0 && n != block.Size-2 {
			t.Errorf("%d addresses of block %s are in use", n, uid)
		}
	}
}
