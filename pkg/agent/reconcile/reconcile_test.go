package reconcile_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/agent/cri"
	"github.com/braid-cni/braid/pkg/agent/reconcile"
	"github.com/braid-cni/braid/pkg/record"
)

// node is a node whose records and runtime a test changes. It keeps what was removed.
type node struct {
	t       *testing.T
	store   *record.Store
	list    *cri.List
	listErr error
	// refuses are sandboxes that cannot be removed, or settled.
	refuses map[string]bool
	// unfinished are those that were left.
	unfinished, tried []string
	clock             time.Time
	reconciler        *reconcile.Reconciler
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{
		t: t, store: record.New(t.TempDir()), refuses: map[string]bool{}, clock: time.Unix(1<<30, 0),
	}
	n.runs("containerd")
	n.reconciler = &reconcile.Reconciler{
		Runtime: n, Sandboxes: n, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time {
			return n.clock
		},
	}
	return n
}

// runs has the runtime of that name know these sandboxes.
func (n *node) runs(runtime string, ids ...string) {
	n.list = &cri.List{Runtime: runtime, IDs: map[string]bool{"agent": true}}
	for _, id := range ids {
		n.list.IDs[id] = true
	}
}

// made records sandboxes, or writes their records once more.
func (n *node) made(ids ...string) {
	n.t.Helper()
	for _, id := range ids {
		b, err := n.store.Lock(n.t.Context(), id)
		if err != nil {
			n.t.Fatal(err)
		}
		if err := b.Save(&record.Record{Runtime: "containerd", Complete: true}); err != nil {
			n.t.Fatal(err)
		}
		b.Unlock()
	}
}

// pass lets the time go by, then has the reconciler pass, and fails the test unless it tried these.
func (n *node) pass(after time.Duration, want ...string) {
	n.t.Helper()
	n.clock = n.clock.Add(after)
	n.tried = nil
	n.reconciler.Pass(n.t.Context())
	slices.Sort(n.tried)
	if !slices.Equal(n.tried, want) {
		n.t.Errorf("it tried %q, want %q", n.tried, want)
	}
}

func (n *node) Sandboxes(context.Context) (*cri.List, error) { return n.list, n.listErr }

func (n *node) Recorded() ([]record.Mark, error) { return n.store.Marks() }

func (n *node) RemoveForgotten(
	ctx context.Context, mark record.Mark, runtime string,
) (bool, error) {
	n.tried = append(n.tried, mark.ContainerID)
	if n.refuses[mark.ContainerID] {
		return false, errors.New("refused")
	}
	b, err := n.store.Lock(ctx, mark.ContainerID)
	if err != nil {
		return false, err
	}
	defer b.Unlock()
	return true, b.Remove()
}

func (n *node) Leftovers() ([]string, error) { return n.unfinished, nil }

func (n *node) Settle(_ context.Context, id string) error {
	n.tried = append(n.tried, "settle "+id)
	if n.refuses[id] {
		return errors.New("refused")
	}
	return nil
}

// A sandbox is forgotten by two lists that are a minute apart, if its record was there before the
// first.
func TestForgotten(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.made("live", "lost")
	n.runs("containerd", "live")
	n.pass(0)
	n.made("new") // which the runtime lists as soon as it has started
	n.pass(59 * time.Second)
	n.pass(time.Second, "lost")
	n.runs("containerd", "live", "new")
	n.pass(reconcile.Every)
	n.runs("containerd", "live")
	n.pass(reconcile.Every) // it was in the first of the two
	n.pass(reconcile.Every, "new")
}

// A record that was written between the lists is judged by later ones: its ADD has just come to its
// end.
func TestForgottenWritten(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.made("slow")
	n.pass(0)
	n.made("slow")
	n.pass(reconcile.Apart)
	n.pass(reconcile.Apart, "slow")
}

// What may be wrong of a list is no reason to remove anything, and the next two lists are waited
// for.
func TestForgottenByNoList(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*node){
		"error":           func(n *node) { n.listErr = errors.New("no such socket") },
		"another runtime": func(n *node) { n.runs("crio") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.made("p")
			n.pass(0)
			spoil(n)
			n.pass(reconcile.Apart)
			n.listErr = nil
			n.runs("containerd")
			n.pass(reconcile.Every)
			n.pass(reconcile.Every, "p")
		})
	}
}

// What fails is tried again, at longer and longer intervals; others are not kept from their turn.
func TestBackOff(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.made("bad")
	n.refuses["bad"], n.refuses["stuck"] = true, true
	n.unfinished = []string{"stuck", "done"}
	n.pass(0, "settle done", "settle stuck")
	n.pass(time.Minute, "bad", "settle done")
	var tries []time.Duration
	for since := time.Duration(0); since < 4*time.Hour; since += time.Minute {
		n.clock = n.clock.Add(time.Minute)
		n.tried = nil
		n.reconciler.Pass(t.Context())
		if slices.Contains(n.tried, "settle stuck") {
			tries = append(tries, since+time.Minute)
		}
	}
	want := []time.Duration{
		4 * time.Minute, 14 * time.Minute, 34 * time.Minute, 74 * time.Minute, 134 * time.Minute,
		194 * time.Minute,
	}
	if !slices.Equal(tries, want) {
		t.Errorf("tries after %v, want %v", tries, want)
	}
	n.refuses = nil
	n.pass(time.Hour, "bad", "settle done", "settle stuck")
	n.pass(time.Minute, "settle done", "settle stuck")
}
