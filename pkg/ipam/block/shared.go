package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
)

const (
	defaultPatience = 5 * time.Second
	// lookAgain is how often an Add looks whether the block that it has recalled is there.
	lookAgain = 100 * time.Millisecond
	// answered is how long after a recall at the latest a node that works has answered it.
	answered = 4 * tendAfter
)

func attachmentOf(a v1alpha1.Allocation) attachment.ID {
	return attachment.ID{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}
}

func allocation(a netip.Addr, h Holder, me *self) v1alpha1.Allocation {
	return v1alpha1.Allocation{
		Address: a.String(), Network: h.Network, ContainerID: h.ContainerID, IfName: h.IfName, Pod: h.Pod, PodUID: h.PodUID, Node: me.node(""),
	}
}

// sharedBlocks are those without an owner, of all spaces.
func (m *Manager) sharedBlocks(ctx context.Context, opts metav1.ListOptions) ([]v1alpha1.IPBlock, error) {
	opts.FieldSelector = "spec.owner.nodeName="
	blocks, err := m.Store.Blocks(ctx, opts)
	return blocks, wrap(err, "list shared blocks")
}

// edit changes a shared block by compare-and-swap until it succeeds or change says that there is nothing to do, and says whether it has
// changed it. A block that has become empty is deleted. One that is not there or has an owner is left alone. object is the block as it was,
// nil to ask for it.
func (m *Manager) edit(ctx context.Context, name string, object *v1alpha1.IPBlock, change func(*v1alpha1.IPBlock) (bool, error)) (changed bool, err error) {
	for pauses := m.conflicts(); ; object = nil {
		if object == nil {
			object, err = m.Store.Block(ctx, name)
		}
		if apierrors.IsNotFound(err) || err == nil && object.Spec.Owner != nil {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("get block %s: %w", name, err)
		}
		if todo, err := change(object); err != nil || !todo {
			return false, err
		}
		if err := m.step("change shared block"); err != nil {
			return false, err
		}
		if len(object.Spec.Allocations) == 0 {
			err = m.Store.DeleteBlock(ctx, object)
		} else {
			_, err = m.Store.UpdateBlock(ctx, object)
		}
		if err == nil {
			return true, m.step("changed shared block")
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("change block %s: %w", name, err)
		}
		if err := pauses.next(ctx); err != nil {
			return false, fmt.Errorf("change block %s, which others change too: %w", name, err)
		}
	}
}

const (
	firstPause = 2 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// pauses are those between tries where others are at work on the same block.
type pauses struct {
	m    *Manager
	last time.Duration
}

func (m *Manager) conflicts() *pauses { return &pauses{m: m, last: firstPause} }

func (p *pauses) next(ctx context.Context) error {
	p.last = min(2*p.last, lastPause)
	return p.m.sleep(ctx, p.last/2+time.Duration(p.m.rand().Int64N(int64(p.last))))
}

// sharedEntries are the addresses of a shared block that the attachment holds.
func (m *Manager) sharedEntries(ctx context.Context, at heldAddr, a attachment.ID) ([]heldAddr, error) {
	object, err := m.Store.Block(ctx, at.block())
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get block %s: %w", at.block(), err)
	}
	id, err := m.identity(ctx)
	if err != nil {
		return nil, err
	}
	return entries(id, object, a), nil
}

// entries are the addresses that the attachment holds as the object says it.
func entries(id *identity, object *v1alpha1.IPBlock, a attachment.ID) (addrs []heldAddr) {
	for _, e := range object.Spec.Allocations {
		such := func(e v1alpha1.Allocation) bool { return attachmentOf(e) == a && id.ran(e) }
		if addr, err := netip.ParseAddr(e.Address); err == nil && uses(e, such) {
			addrs = append(addrs, heldAddr{object.Spec.Space, addr})
		}
	}
	return addrs
}

// releaseShared gives back what the attachment holds of a block that this node does not own, or is about to share.
func (m *Manager) releaseShared(ctx context.Context, at heldAddr, a attachment.ID) error {
	unlock, err := m.lockSpace(ctx, at.Space)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := m.settle(ctx, nil, at.Space, blockOf(at.Addr))
	if err != nil {
		return err
	}
	if b != nil {
		err := m.locked(ctx, func(s *session) error {
			b, err := s.block(at.Space, blockOf(at.Addr))
			if err != nil || b == nil {
				return err
			}
			return s.leave(b, a)
		})
		if err != nil {
			return err
		}
	}
	id, err := m.identity(ctx)
	if err != nil {
		return err
	}
	_, err = m.edit(ctx, at.block(), nil, func(object *v1alpha1.IPBlock) (bool, error) {
		return m.strike(object, func(e v1alpha1.Allocation) bool { return id.ran(e) && attachmentOf(e) == a }), nil
	})
	return err
}

// strikeAll is strike for all shared blocks.
func (m *Manager) strikeAll(ctx context.Context, opts metav1.ListOptions, gone func(v1alpha1.Allocation) bool) error {
	shared, err := m.sharedBlocks(ctx, opts)
	errs := []error{err}
	for i := range shared {
		if slices.ContainsFunc(shared[i].Spec.Allocations, func(e v1alpha1.Allocation) bool { return uses(e, gone) }) {
			_, err := m.edit(ctx, shared[i].Name, nil, func(object *v1alpha1.IPBlock) (bool, error) { return m.strike(object, gone), nil })
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// strike takes containers' hold off addresses; those that a claim keeps stay. It says whether it changed anything.
func (m *Manager) strike(object *v1alpha1.IPBlock, gone func(v1alpha1.Allocation) bool) (changed bool) {
	var kept []v1alpha1.Allocation
	for _, e := range object.Spec.Allocations {
		left, struck := Without(e, gone)
		changed = changed || struck
		if !struck || left.Claim != nil || left.ContainerID != "" {
			kept = append(kept, left)
		}
	}
	object.Spec.Allocations = kept
	return changed
}
