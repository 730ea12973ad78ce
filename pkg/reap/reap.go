// Package reap takes care of what no node can: addresses that are held in the name of what is gone.
// It deletes the blocks of lost nodes, takes lost nodes and deleted IPAMClaims out of shared
// blocks, and keeps in shared blocks what whereabouts recorded, while its pods live.
//
// Contract:
//   - A node is lost when its Node object is gone, has another uid, or carries the taint
//     node.kubernetes.io/out-of-service. It loses its addresses when it has been lost for a while,
//     without a break, and no pod of it that has a network namespace of its own is left in the API.
//     That a node is not ready means nothing.
//   - What a container holds on a node that is there is the node's to give back, even if the pod is
//     gone.
//   - Each write is of exactly the version that was read: what another changed meanwhile is looked
//     at again by the next pass. A pass may be stopped, fail or be repeated at any point, and any
//     number may run at once.
//   - What is gone is looked for after what names it was read, never before: it cannot come back
//     then. Nothing is taken for gone because a request failed.
//
// A pass lists all blocks and nodes, and of pods only those of lost nodes and of namespaces that
// whereabouts' records name. One a minute is no load worth the memory of a cache.
package reap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// Blocks are the blocks of the cluster, with the errors of block.Store.
type Blocks interface {
	CreateBlock(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	Blocks(ctx context.Context, opts metav1.ListOptions) ([]v1alpha1.IPBlock, error)
	UpdateBlock(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	DeleteBlock(ctx context.Context, block *v1alpha1.IPBlock) error
}

// Cluster is what blocks name. Answers are never stale.
type Cluster interface {
	// EachNode calls do for each Node object, with the keys of its taints.
	EachNode(ctx context.Context, do func(node *metav1.ObjectMeta, taints []string)) error
	// PodsOn returns the pods that are bound to a node and have a network namespace of their own.
	PodsOn(ctx context.Context, node string) ([]metav1.ObjectMeta, error)
	IPAMClaims(ctx context.Context) ([]metav1.ObjectMeta, error)
}

// DefaultGrace is how long a node is lost before its addresses are free. It must not be less: see
// block.Grace.
const DefaultGrace = block.Grace

// Reaper looks through all blocks. It remembers what it saw in earlier passes; one is not for
// concurrent use.
type Reaper struct {
	Blocks  Blocks
	Cluster Cluster
	// Whereabouts has the records to keep; nil for none.
	Whereabouts Whereabouts
	// Grace is how long a node has to be lost; 0 means DefaultGrace.
	Grace time.Duration
	Log   *slog.Logger
	// Now is the time; nil: the machine's clock.
	Now func() time.Time

	// lost says since when nodes are lost.
	lost map[incarnation]time.Time
	// dead are records whose pods were seen to be gone.
	dead map[recordKey]bool
}

// Run makes a pass now, and one after each interval until ctx is done. What fails is logged and
// tried again by the next pass.
func (r *Reaper) Run(ctx context.Context, interval time.Duration) {
	for {
		if err := r.Pass(ctx); err != nil && ctx.Err() == nil {
			r.Log.ErrorContext(ctx, "pass failed in part", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// Pass looks through all blocks once. It goes on past errors.
func (r *Reaper) Pass(ctx context.Context) error {
	blocks, err := r.Blocks.Blocks(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list blocks: %w", err)
	}
	gone, nodesErr := r.gone(ctx, blocks)
	claims, claimsErr := r.claims(ctx, blocks)
	adopt, adoptErr := r.adoption(ctx, blocks)
	errs := []error{nodesErr, claimsErr, adoptErr}
	for i := range blocks {
		b := &blocks[i]
		switch owner := b.Spec.Owner; {
		case owner == nil:
			errs = append(errs, r.put(ctx, b, adopt.edit(b, strike(b.Spec.Allocations, gone, claims))))
		case gone[incarnationOf(owner)]:
			errs = append(errs, r.remove(ctx, b))
		case adopt.misses(b):
			errs = append(errs, r.recall(ctx, b))
		}
	}
	for _, b := range adopt.create() {
		_, err := r.Blocks.CreateBlock(ctx, b)
		errs = append(errs, result(err, "create", b))
	}
	return errors.Join(errs...)
}

// result is nil where another changed the block meanwhile.
func result(err error, verb string, b *v1alpha1.IPBlock) error {
	if err == nil || apierrors.IsConflict(err) || apierrors.IsNotFound(err) ||
		apierrors.IsAlreadyExists(err) {
		return nil
	}
	return fmt.Errorf("%s block %s: %w", verb, b.Name, err)
}

// remove deletes the block of a lost node.
func (r *Reaper) remove(ctx context.Context, b *v1alpha1.IPBlock) error {
	err := r.Blocks.DeleteBlock(ctx, b)
	if err == nil {
		r.Log.InfoContext(ctx, "block of a lost node freed",
			"block", b.Name, "node", b.Spec.Owner.NodeName, "uid", b.Spec.Owner.NodeUID)
	}
	return result(err, "delete", b)
}

// recall asks the owner to share the block.
func (r *Reaper) recall(ctx context.Context, b *v1alpha1.IPBlock) error {
	if b.Spec.Recall != nil {
		return nil
	}
	b.Spec.Recall = &v1alpha1.Recall{By: recaller, At: metav1.NewTime(r.now())}
	_, err := r.Blocks.UpdateBlock(ctx, b)
	return result(err, "recall", b)
}

// put makes these the allocations of a shared block. One that has none is deleted.
func (r *Reaper) put(ctx context.Context, b *v1alpha1.IPBlock, list []v1alpha1.Allocation) error {
	old := b.Spec.Allocations
	if len(list) > 0 && slices.Equal(old, list) {
		return nil
	}
	b.Spec.Allocations = list
	var err error
	if len(list) == 0 {
		err = r.Blocks.DeleteBlock(ctx, b)
	} else {
		_, err = r.Blocks.UpdateBlock(ctx, b)
	}
	if err == nil {
		r.Log.InfoContext(ctx, "shared block changed",
			"block", b.Name, "freed", missing(old, list), "taken", missing(list, old))
	}
	return result(err, "change", b)
}

// missing returns the addresses of a list that another has not.
func missing(of, in []v1alpha1.Allocation) (addrs []string) {
	for _, a := range of {
		if !slices.ContainsFunc(in, func(b v1alpha1.Allocation) bool { return b.Address == a.Address }) {
			addrs = append(addrs, a.Address)
		}
	}
	return addrs
}

// strike takes off what is held by lost nodes and by claims that do not exist. claims is nil where
// that is not known.
func strike(
	list []v1alpha1.Allocation, gone map[incarnation]bool, claims map[types.UID]bool,
) []v1alpha1.Allocation {
	var kept []v1alpha1.Allocation
	for _, e := range list {
		e, _ = block.Without(e, func(e v1alpha1.Allocation) bool {
			return e.Node != nil && gone[incarnationOf(e.Node)]
		})
		if claims != nil && e.Claim != nil && !claims[e.Claim.UID] {
			e.Claim = nil
		}
		if e != (v1alpha1.Allocation{Address: e.Address}) {
			kept = append(kept, e)
		}
	}
	return kept
}

// claims returns the IPAMClaims that exist; nil where that does not matter.
func (r *Reaper) claims(
	ctx context.Context, blocks []v1alpha1.IPBlock,
) (map[types.UID]bool, error) {
	if !slices.ContainsFunc(blocks, func(b v1alpha1.IPBlock) bool {
		return slices.ContainsFunc(b.Spec.Allocations, func(e v1alpha1.Allocation) bool {
			return e.Claim != nil
		})
	}) {
		return nil, nil
	}
	list, err := r.Cluster.IPAMClaims(ctx)
	if err != nil {
		return nil, fmt.Errorf("list IPAMClaims: %w", err)
	}
	claims := map[types.UID]bool{}
	for i := range list {
		claims[list[i].UID] = true
	}
	return claims, nil
}

// incarnation is a node as one Node object.
type incarnation struct {
	name string
	uid  types.UID
}

func incarnationOf(n *v1alpha1.Node) incarnation { return incarnation{n.NodeName, n.NodeUID} }

// named returns the nodes that blocks speak of.
func named(blocks []v1alpha1.IPBlock) map[incarnation]bool {
	nodes := map[incarnation]bool{}
	for i := range blocks {
		if owner := blocks[i].Spec.Owner; owner != nil {
			nodes[incarnationOf(owner)] = true
		}
		for _, e := range blocks[i].Spec.Allocations {
			for _, s := range block.Sandboxes(e) {
				if s.Node != nil {
					nodes[incarnationOf(s.Node)] = true
				}
			}
		}
	}
	return nodes
}

// outOfService is the taint by which an administrator says that a node is down for good.
const outOfService = "node.kubernetes.io/out-of-service"

// gone returns the nodes that lose what they hold. It keeps account of how long they have been
// lost.
func (r *Reaper) gone(
	ctx context.Context, blocks []v1alpha1.IPBlock,
) (map[incarnation]bool, error) {
	serving := map[incarnation]bool{}
	err := r.Cluster.EachNode(ctx, func(node *metav1.ObjectMeta, taints []string) {
		if !slices.Contains(taints, outOfService) {
			serving[incarnation{node.Name, node.UID}] = true
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	lost, gone := map[incarnation]time.Time{}, map[incarnation]bool{}
	var errs []error
	for n := range named(blocks) {
		if serving[n] {
			continue
		}
		lost[n] = r.lostSince(ctx, n)
		if r.now().Sub(lost[n]) < cmp.Or(r.Grace, DefaultGrace) {
			continue
		}
		empty, err := r.empty(ctx, n)
		gone[n], errs = empty, append(errs, err)
	}
	r.lost = lost
	return gone, errors.Join(errs...)
}

// lostSince returns since when a node is lost: for the first time it is now.
func (r *Reaper) lostSince(ctx context.Context, n incarnation) time.Time {
	if since, known := r.lost[n]; known {
		return since
	}
	r.Log.InfoContext(ctx, "node is lost", "node", n.name, "uid", n.uid)
	return r.now()
}

// empty reports whether a lost node has no pods: those that it has may still use their addresses.
func (r *Reaper) empty(ctx context.Context, n incarnation) (bool, error) {
	pods, err := r.Cluster.PodsOn(ctx, n.name)
	if err != nil {
		return false, fmt.Errorf("list pods of node %s: %w", n.name, err)
	}
	if len(pods) > 0 {
		r.Log.InfoContext(ctx, "lost node keeps its addresses: it has pods",
			"node", n.name, "uid", n.uid, "pods", len(pods))
	}
	return len(pods) == 0, nil
}

func (r *Reaper) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}
