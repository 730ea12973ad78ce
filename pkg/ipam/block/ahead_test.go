package block_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// fill has a node assign so many addresses, each followed by what an agent does.
func (c *cluster) fill(m *block.Manager, w block.Wish, from, n int) {
	c.t.Helper()
	for i := range n {
		if _, err := m.Add(c.t.Context(), holder(from+i), []block.Wish{w}, nil); err != nil {
			c.t.Fatalf("address %d: %v", from+i, err)
		}
		if _, err := m.ReserveAhead(c.t.Context(), w); err != nil {
			c.t.Logf("address %d: %v", from+i, err)
		}
	}
}

// TestReserveAhead: the next block is the node's before the last one is used up, and no other; so
// Adds go on while the API is away. One that is not used is given back.
func TestReserveAhead(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "fd00::/64") // the first block has an address less
	c.fill(m, w, 0, 11)
	before := c.api.Calls()
	if there, err := m.ReserveAhead(t.Context(), w); !there || err != nil || c.owned(m) != 1 {
		t.Errorf("with four addresses free: %t, %v, %d blocks", there, err, c.owned(m))
	}
	if calls := c.api.Calls() - before; calls != 0 {
		t.Errorf("with four addresses free the API is asked %d times", calls)
	}
	c.fill(m, w, 11, 1)
	if creates := c.api.Calls("create"); creates != 2 || c.owned(m) != 2 {
		t.Fatalf("with three addresses free: %d claims, %d blocks", creates, c.owned(m))
	}
	c.pass(6 * time.Minute)
	if err := m.TendNow(t.Context()); err != nil || c.owned(m) != 1 {
		t.Errorf("a block that was reserved and not used: %v, %d blocks", err, c.owned(m))
	}
	c.fill(m, w, 12, 1)
	if c.owned(m) != 2 {
		t.Errorf("after another Add %d blocks", c.owned(m))
	}
	c.api.Fault = func(string, string) error { return errors.New("connection refused") }
	c.fill(m, w, 13, 18)
	c.api.Fault = nil
	if c.owned(m) != 2 {
		t.Errorf("with the API away it has %d blocks", c.owned(m))
	}
	c.fill(m, w, 31, 1)
	if c.owned(m) != 3 {
		t.Errorf("with the API back and one address used of a block, it has %d blocks", c.owned(m))
	}
	for i := range 32 {
		if err := m.Del(t.Context(), holder(i).ID); err != nil {
			t.Fatal(err)
		}
	}
	c.nothingLeft(t, m)
}

// listing counts lists of blocks with a selector.
type listing struct {
	block.Store

	of string
	n  atomic.Int64
}

func (l *listing) Blocks(ctx context.Context, opts metav1.ListOptions) ([]v1alpha1.IPBlock, error) {
	if opts.FieldSelector == l.of {
		l.n.Add(1)
	}
	return l.Store.Blocks(ctx, opts)
}

// TestAhead: blocks are made ahead in the background, in ranges that had Adds. A range that has no
// block to spare is left alone for a while.
func TestAhead(t *testing.T) {
	c := newCluster(t)
	m, other := c.node("n0"), c.node("n1")
	full := wish(t, "10.0.0.0/26")
	full.Space = "full"
	store := &listing{Store: m.Store, of: "spec.space=" + full.Space}
	m.Store = store
	for i := range int(full.Window.Size()) {
		if _, err := other.Add(t.Context(), holder(i), []block.Wish{full}, nil); err != nil {
			t.Fatal(err)
		}
	}
	var ahead block.Ahead
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { ahead.Run(ctx); close(ended) }()
	await := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within a minute", what)
			}
		}
	}
	ahead.After(m, []block.Wish{full})
	await("the full range is tried", func() bool { return store.n.Load() > 0 })
	var tried int64
	for i := range 20 { // one after the other
		ahead.After(m, []block.Wish{full, wish(t, fmt.Sprintf("10.%d.0.0/16", i+1))})
		await("a block of another range", func() bool { return c.owned(m) == i+1 })
		if i == 0 {
			tried = store.n.Load()
		}
	}
	if n := store.n.Load(); n != tried {
		t.Errorf("the full range is tried again at once: %d lists, then %d", tried, n)
	}
	c.pass(2 * time.Minute)
	ahead.After(m, []block.Wish{full})
	await("it is tried again", func() bool { return store.n.Load() > tried })
	cancel()
	<-ended
}
