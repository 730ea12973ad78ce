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
	// The pauses between tries where others are at work on the same block grow from one to the other.
	firstPause = 2 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// attachmentOf returns the attachment that an entry of a shared block names.
func attachmentOf(a v1alpha1.Allocation) attachment.ID {
	return attachment.ID{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}
}

// allocation returns an address of this node's container as an entry of a shared block.
func allocation(a netip.Addr, h Holder, me *identity) v1alpha1.Allocation {
	return v1alpha1.Allocation{
		Address: a.String(), Network: h.Network, ContainerID: h.ContainerID, IfName: h.IfName, Pod: h.Pod,
		PodUID: h.PodUID, Node: me.node(""),
	}
}

// sharedBlocks returns those without an owner, of all spaces.
func (m *Manager) sharedBlocks(
	ctx context.Context, opts metav1.ListOptions,
) ([]v1alpha1.IPBlock, error) {
	opts.FieldSelector = "spec.owner.nodeName="
	blocks, err := m.Store.Blocks(ctx, opts)
	return blocks, wrap(err, "list shared blocks")
}

// edit is swap for a shared block, and reports whether it has changed it. One that is not there or
// has an owner is left alone. object is the block as it was, nil to ask for it.
func (m *Manager) edit(
	ctx context.Context, name string, object *v1alpha1.IPBlock,
	change func(*v1alpha1.IPBlock) (bool, error),
) (changed bool, err error) {
	stored, err := m.swap(ctx, "change shared block", name, object,
		func(object *v1alpha1.IPBlock) (bool, error) {
			if object == nil || object.Spec.Owner != nil {
				return false, nil
			}
			return change(object)
		})
	if err != nil || stored == nil {
		return false, err
	}
	return true, m.step("changed shared block")
}

// swap changes a block by compare-and-swap until it succeeds, and returns what is stored then; nil
// if change reports that there is nothing to do. change gets the block as it is, nil for none. One
// that belongs to nobody after it, as a whole or in parts, is deleted. object is the block as it
// was, nil to ask for it.
func (m *Manager) swap(
	ctx context.Context, step, name string, object *v1alpha1.IPBlock,
	change func(*v1alpha1.IPBlock) (bool, error),
) (*v1alpha1.IPBlock, error) {
	for pause := firstPause; ; object = nil {
		if object == nil {
			var err error
			if object, err = m.lookUp(ctx, name); err != nil {
				return nil, err
			}
		}
		if todo, err := change(object); err != nil || !todo {
			return nil, err
		}
		if err := m.step(step); err != nil {
			return nil, err
		}
		stored, err := m.put(ctx, object)
		if err == nil {
			return stored, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("%s %s: %w", step, name, err)
		}
		pause = min(2*pause, lastPause)
		if err := m.sleep(ctx, pause/2+time.Duration(m.rand().Int64N(int64(pause)))); err != nil {
			return nil, fmt.Errorf("%s %s, which others change too: %w", step, name, err)
		}
	}
}

// put replaces a block that was changed, or deletes it if it belongs to nobody.
func (m *Manager) put(
	ctx context.Context, object *v1alpha1.IPBlock,
) (*v1alpha1.IPBlock, error) {
	if object.Spec.Owner == nil && len(object.Spec.Allocations) == 0 {
		return object, m.Store.DeleteBlock(ctx, object)
	}
	return m.Store.UpdateBlock(ctx, object)
}

// lookUp returns the object of a block; nil if there is none.
func (m *Manager) lookUp(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	object, err := m.Store.Block(ctx, name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return object, wrap(err, "get block %s", name)
}

// entries returns the addresses of shared blocks that the attachment holds as the objects say it.
func (m *Manager) entries(
	ctx context.Context, a attachment.ID, objects ...v1alpha1.IPBlock,
) (addrs []heldAddr, err error) {
	if len(objects) == 0 {
		return nil, nil
	}
	id, err := m.names(ctx)
	if err != nil {
		return nil, err
	}
	such := func(e v1alpha1.Allocation) bool { return attachmentOf(e) == a && id.ran(e) }
	for _, object := range objects {
		for _, e := range object.Spec.Allocations {
			if addr, err := netip.ParseAddr(e.Address); err == nil && uses(e, such) {
				addrs = append(addrs, heldAddr{object.Spec.Space, addr})
			}
		}
	}
	return addrs, nil
}

// releaseShared releases what the attachment holds of a block that this node does not own, or is
// about to share.
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
	id, err := m.names(ctx)
	if err != nil {
		return err
	}
	object, err := m.lookUp(ctx, at.block())
	if b == nil && id.owns(object) { // its file was removed
		_, err = m.ownBlock(ctx, id.ownerOf(object), at.Space, blockOf(at.Addr))
		object = nil
	}
	if err != nil {
		return err
	}
	if err := m.leaveOwn(ctx, at, a); err != nil {
		return err
	}
	_, err = m.edit(ctx, at.block(), object, func(object *v1alpha1.IPBlock) (bool, error) {
		return strike(object, func(e v1alpha1.Allocation) bool {
			return id.ran(e) && attachmentOf(e) == a
		}), nil
	})
	return err
}

// leaveOwn releases what the attachment holds of a block by its file, if there is one.
func (m *Manager) leaveOwn(ctx context.Context, at heldAddr, a attachment.ID) error {
	return m.locked(ctx, func(s *session) error {
		b, err := s.block(at.Space, blockOf(at.Addr))
		if err != nil || b == nil {
			return err
		}
		return s.leave(b, a)
	})
}

// strikeAll is strike for all shared blocks.
func (m *Manager) strikeAll(
	ctx context.Context, opts metav1.ListOptions, gone func(v1alpha1.Allocation) bool,
) error {
	return m.editAll(ctx, opts, gone, func(object *v1alpha1.IPBlock) bool {
		return strike(object, gone)
	})
}

// editAll is edit for the shared blocks with an allocation for which such is true.
func (m *Manager) editAll(
	ctx context.Context, opts metav1.ListOptions, such func(v1alpha1.Allocation) bool,
	change func(*v1alpha1.IPBlock) bool,
) error {
	shared, err := m.sharedBlocks(ctx, opts)
	errs := []error{err}
	for i := range shared {
		if slices.ContainsFunc(shared[i].Spec.Allocations, func(e v1alpha1.Allocation) bool {
			return uses(e, such)
		}) {
			_, err := m.edit(ctx, shared[i].Name, nil, func(object *v1alpha1.IPBlock) (bool, error) {
				return change(object), nil
			})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// strike takes containers' hold off addresses; those that a claim keeps stay. It reports whether it
// changed anything.
func strike(object *v1alpha1.IPBlock, gone func(v1alpha1.Allocation) bool) (changed bool) {
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
