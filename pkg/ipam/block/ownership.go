package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
)

// find returns the local state of a block; nil if there is none.
func (m *Manager) find(ctx context.Context, space string, cidr netip.Prefix) (*local, error) {
	return inside(ctx, m, func(s *session) (*local, error) { return s.block(space, cidr) })
}

// ownBlock returns the local state of a block this node owns, resolving or adopting it first; nil
// if another node owns it, or nobody does. The lock of the space is held.
func (m *Manager) ownBlock(
	ctx context.Context, me *identity, space string, cidr netip.Prefix,
) (*local, error) {
	b, err := m.settle(ctx, me, space, cidr)
	if b != nil || err != nil {
		return b, err
	}
	object, err := m.lookUp(ctx, NameOf(space, cidr))
	if err != nil || !me.owns(object) {
		return nil, err
	}
	if b, err = inside(ctx, m, func(s *session) (*local, error) {
		return s.adopt(me, object)
	}); b == nil || err != nil {
		return nil, err
	}
	return m.settle(ctx, me, space, cidr)
}

// settle finds out whose a block is where that is not known, and returns it as it is then; nil if
// there is no local state of it. me is nil to be asked for. The lock of the space is held.
func (m *Manager) settle(
	ctx context.Context, me *identity, space string, cidr netip.Prefix,
) (*local, error) {
	b, err := m.find(ctx, space, cidr)
	if err != nil || b == nil || !b.unsettled() {
		return b, err
	}
	if me == nil {
		if me, err = m.self(ctx); err != nil {
			return nil, err
		}
	}
	object, err := m.lookUp(ctx, b.name())
	if err != nil {
		return nil, err
	}
	switch {
	case me.owns(object) && b.State == giving:
		err = m.finishGiving(ctx, me, b)
	case me.owns(object):
		return m.settleOurs(ctx, me, b, object)
	case b.State == claiming && m.now().Sub(b.Idle).Abs() < idleAfter:
		return b, nil // a claim that was sent may still arrive, whoever has the block now
	default:
		err = m.gave(ctx, b, object)
	}
	if err != nil {
		return nil, err
	}
	return m.find(ctx, space, cidr)
}

// settleOurs is settle for a block that is the node's, in a state other than giving.
func (m *Manager) settleOurs(
	ctx context.Context, me *identity, b *local, object *v1alpha1.IPBlock,
) (*local, error) {
	boot, claim := me.by(b, object.Spec.Owner)
	switch {
	case claim:
		return m.become(ctx, b.Space, b.prefix, owned, object.UID)
	case !boot && len(b.Used) == 0:
		return m.become(ctx, b.Space, b.prefix, dormant, object.UID)
	case b.State == claiming: // the object is of another claim, whose file was removed
		if err := m.locked(ctx, func(s *session) error { return s.doubt(b) }); err != nil {
			return nil, err
		}
	}
	return m.takeUp(ctx, me, b)
}

// placed reports whether the block is where its name says.
func placed(object *v1alpha1.IPBlock) bool {
	cidr, err := ParseBlock(object.Spec.CIDR)
	return err == nil && isSpace(object.Spec.Space) && object.Name == NameOf(object.Spec.Space, cidr)
}

// adopt records a block that is the node's, unless there is a file of it. It returns nil if nothing
// is adopted. The lock of the space has been held since the object was read.
func (l *session) adopt(me *identity, object *v1alpha1.IPBlock) (*local, error) {
	if !placed(object) {
		l.m.Log.Error("block left alone, it is not as this node's are",
			"object", object.Name, "cidr", object.Spec.CIDR, "space", object.Spec.Space)
		return nil, nil // no address is taken from it
	}
	cidr := netip.MustParsePrefix(object.Spec.CIDR)
	if b, err := l.block(object.Spec.Space, cidr); err != nil || b != nil {
		return b, err
	}
	b := l.m.newLocal(object.Spec.Space, cidr, dormant)
	b.UID, b.Idle = object.UID, l.m.now()
	if bootOf(object.Spec.Owner) == me.Boot {
		return b, l.doubt(b)
	}
	return b, l.save(b)
}

// doubt records that a block was taken up in this boot by local state that was removed.
func (l *session) doubt(b *local) error {
	b.State = mended
	if err := l.fill(b, false); err != nil {
		return err
	}
	l.m.Log.Error("which addresses of the block are in use is not known, as its state was removed: "+
		"what is free of it is given after the next boot",
		"space", b.Space, "block", b.prefix, "node", l.m.NodeName)
	return l.save(b)
}

// takeUp makes a block the node's by the claim that is noted: one of before the reboot, or one of
// which local state was lost. What was sent before to give the block away does not take effect
// after that, as it was meant for an earlier version of the object. It returns the block as it is
// then; nil if it is not the node's any more. The lock of the space is held.
func (m *Manager) takeUp(ctx context.Context, me *identity, b *local) (*local, error) {
	var object *v1alpha1.IPBlock
	stored, err := m.swap(ctx, "take up block", b.name(), nil,
		func(current *v1alpha1.IPBlock) (bool, error) {
			if object = current; !me.owns(current) {
				return false, nil
			}
			if boot, claim := me.by(b, current.Spec.Owner); b.State == dormant && boot && !claim {
				return false, nil // it was taken up since, by local state that was removed
			}
			current.Spec.Owner = me.node(b.Claim)
			return true, nil
		})
	switch {
	case err != nil:
		return nil, err
	case stored != nil:
		return m.become(ctx, b.Space, b.prefix, owned, stored.UID)
	case me.owns(object):
		return b, m.locked(ctx, func(s *session) error { return s.doubt(b) })
	}
	return nil, m.gave(ctx, b, object)
}

// errRemoved means that the local state of a block was removed while it was worked at.
var errRemoved = fmt.Errorf("its local state was removed: %w", ErrLater)

// become records that a block is owned, so that its addresses are assigned, or dormant.
func (m *Manager) become(
	ctx context.Context, space string, cidr netip.Prefix, what state, uid types.UID,
) (*local, error) {
	return inside(ctx, m, func(s *session) (*local, error) {
		b, err := s.block(space, cidr)
		if err != nil || b == nil {
			return nil, fmt.Errorf("block %v of space %s: %w", cidr, space, errors.Join(err, errRemoved))
		}
		if b.State != what && len(b.Used) == 0 {
			b.Idle = m.now()
		}
		b.UID, b.State = uid, what
		return b, s.save(b)
	})
}

// gave forgets a block that is not the node's any more: the node gave it away, with what is in use
// of it, or has lost it. object is nil if there is none.
func (m *Manager) gave(ctx context.Context, b *local, object *v1alpha1.IPBlock) error {
	if object == nil || object.Spec.Owner != nil || object.UID != b.UID && !lists(object, b) {
		return m.lose(ctx, b)
	}
	return m.locked(ctx, func(s *session) error { return s.drop(b) })
}

// lists reports whether a shared block names each holder that the node's block has.
func lists(object *v1alpha1.IPBlock, b *local) bool {
	listed := map[string]attachment.ID{}
	for _, e := range object.Spec.Allocations {
		listed[e.Address] = attachmentOf(e)
	}
	for addr, h := range b.Used {
		if listed[addr.String()] != h.ID {
			return false
		}
	}
	return true
}

// lose records that a block is another node's, and raises an event for the pods that use its
// addresses.
func (m *Manager) lose(ctx context.Context, b *local) error {
	first := b.State != lost
	err := m.locked(ctx, func(s *session) error {
		current, err := s.block(b.Space, b.prefix)
		if err != nil || current == nil {
			return err
		}
		b = current
		b.leave(nobody().ID, m.now())
		if len(b.Used) == 0 {
			return s.drop(b)
		}
		b.State = lost
		return s.save(b)
	})
	if err != nil || !first {
		return err
	}
	m.tellLost(ctx, b)
	return nil
}

// tellLost raises an event for each pod with an address of a block that is not the node's any more.
func (m *Manager) tellLost(ctx context.Context, b *local) {
	m.Log.Error("block is not this node's any more",
		"space", b.Space, "block", b.prefix, "used", len(b.Used))
	for addr, h := range b.Used {
		if m.Tell != nil && h.Pod != "" {
			m.Tell(ctx, h.Pod, h.PodUID, ReasonAddressLost, fmt.Sprintf(
				"address %v of interface %s (network %s) is of block %v, which is not node %s's any more: "+
					"another pod may get it; delete this pod to have it replaced",
				addr, h.IfName, h.Network, b.prefix, m.NodeName))
		}
	}
}
