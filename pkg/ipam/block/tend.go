package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

const (
	// tendAfter is how often recalls are looked for, inspectAfter how often all else is.
	tendAfter    = 30 * time.Second
	inspectAfter = 5 * time.Minute
	// idleAfter is how long a block of which nothing is in use is kept.
	idleAfter = 5 * time.Minute
	// ReasonAddressLost is that of the event for a pod whose addresses its node may not use any more.
	ReasonAddressLost = "AddressLost"
)

// tended is when Tend did its work, and when an Add did what it needs of that.
type tended struct {
	Recalls time.Time
	All     time.Time
	// Own is when the node's blocks were last found to be as their objects say, Tried when an Add last failed to find out.
	Own   time.Time
	Tried time.Time
}

// noteTended changes when what was done.
func (m *Manager) noteTended(ctx context.Context, change func(*tended)) error {
	return m.locked(ctx, func(s *session) error {
		last := s.tended()
		change(&last)
		return s.write(tendedFile, &last)
	})
}

// tended is when that was; never, where it cannot be read.
func (s *session) tended() (last tended) {
	if err := s.read(tendedFile, &last); err != nil {
		return tended{}
	}
	return last
}

// due says whether what was done at that time is to be done again.
func (m *Manager) due(at time.Time, after time.Duration) bool {
	age := m.now().Sub(at)
	return age < 0 || age >= after
}

// Tend does what is due: it answers recalls, gives idle blocks back, and looks whether the node's blocks are still its own. It is quick
// where nothing is due.
func (m *Manager) Tend(ctx context.Context) error {
	now := m.now()
	var last tended
	answers := false
	err := m.locked(ctx, func(s *session) error {
		last = s.tended()
		if answers = m.due(last.Recalls, tendAfter); !answers {
			return nil
		}
		last.Recalls = now
		return s.write(tendedFile, &last)
	})
	if err != nil || !answers {
		return err
	}
	if !m.due(last.All, inspectAfter) {
		return m.Answer(ctx)
	}
	return errors.Join(m.Answer(ctx), m.Inspect(ctx))
}

// Answer gives back, or shares, the blocks that other nodes have recalled.
func (m *Manager) Answer(ctx context.Context) error {
	me, err := m.self(ctx)
	if err != nil {
		return err
	}
	recalled, err := m.Objects.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + me.Name + ",spec.recall.by!="})
	if err != nil {
		return fmt.Errorf("list recalled blocks: %w", err)
	}
	var errs []error
	for i := range recalled {
		errs = append(errs, m.answer(ctx, me, &recalled[i]))
	}
	return errors.Join(errs...)
}

func (m *Manager) answer(ctx context.Context, me *self, object *v1alpha1.IPBlock) error {
	cidr, err := ParseBlock(object.Spec.CIDR)
	if err != nil {
		return fmt.Errorf("block %s: %w", object.Name, err)
	}
	unlock, err := m.lockSpace(ctx, object.Spec.Space)
	if err != nil {
		return err
	}
	defer unlock()
	return m.give(ctx, me, object.Spec.Space, cidr, (*local).ours)
}

// give takes a block out of use on this node and deletes or shares it, if that may be. The lock of the space is held.
func (m *Manager) give(ctx context.Context, me *self, space string, cidr netip.Prefix, may func(*local) bool) error {
	if b, err := m.mine(ctx, me, space, cidr); b == nil || err != nil {
		return err
	}
	var b *local
	err := m.locked(ctx, func(s *session) (err error) {
		if b, err = s.block(space, cidr); err != nil || b == nil || !may(b) {
			return err
		}
		b.State = giving
		return s.save(b)
	})
	if err != nil || b == nil || b.State != giving {
		return err
	}
	return m.finishGiving(ctx, me, b)
}

// finishGiving does what a block in state giving is for. The lock of the space is held, so that nobody else does.
func (m *Manager) finishGiving(ctx context.Context, me *self, b *local) error {
	for pauses := m.conflicts(); ; {
		object, err := m.Objects.Block(ctx, b.name())
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("get block %s: %w", b.name(), err)
		}
		if err != nil || !me.owns(object) {
			return m.gave(ctx, b, object)
		}
		if err := m.step("give block"); err != nil {
			return err
		}
		if len(b.Used) == 0 {
			err = m.Objects.DeleteBlock(ctx, object)
		} else {
			object.Spec.Owner, object.Spec.Recall = nil, nil
			object.Spec.Allocations = allocations(b, me)
			_, err = m.Objects.UpdateBlock(ctx, object)
		}
		if err == nil {
			if err := m.step("gave block"); err != nil {
				return err
			}
			return m.locked(ctx, func(s *session) error { return s.drop(b) })
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("give back block %s: %w", b.name(), err)
		}
		if err := pauses.next(ctx); err != nil {
			return err
		}
	}
}

// gave forgets a block that is not the node's any more: because the node gave it away, with what is in use of it, or else it is lost. object
// is nil if there is none.
func (m *Manager) gave(ctx context.Context, b *local, object *v1alpha1.IPBlock) error {
	if object == nil || object.Spec.Owner != nil || object.UID != b.UID && !lists(object, b) {
		return m.lose(ctx, b)
	}
	return m.locked(ctx, func(s *session) error { return s.drop(b) })
}

// lists says whether a shared block says of all that is in use of the node's whose it is.
func lists(object *v1alpha1.IPBlock, b *local) bool {
	listed := map[string]Attachment{}
	for _, e := range object.Spec.Allocations {
		listed[e.Address] = attachmentOf(e)
	}
	for addr, h := range b.Used {
		if by, ok := listed[addr.String()]; !ok || by != h.Attachment() {
			return false
		}
	}
	return true
}

func allocations(b *local, me *self) []v1alpha1.Allocation {
	var list []v1alpha1.Allocation
	for addr, h := range b.Used {
		list = append(list, allocation(addr, h, me))
	}
	slices.SortFunc(list, func(x, y v1alpha1.Allocation) int {
		return netip.MustParseAddr(x.Address).Compare(netip.MustParseAddr(y.Address))
	})
	return list
}

// lose notes that a block is another's, and tells the pods that use its addresses.
func (m *Manager) lose(ctx context.Context, b *local) error {
	first := b.State != lost
	err := m.locked(ctx, func(s *session) error {
		current, err := s.block(b.Space, b.prefix)
		if err != nil || current == nil {
			return err
		}
		b = current
		b.leave(nobody().Attachment(), m.now())
		if len(b.Used) == 0 {
			return s.drop(b)
		}
		b.State = lost
		return s.save(b)
	})
	if err != nil || !first {
		return err
	}
	m.Log.Error("block is not this node's any more", "space", b.Space, "block", b.prefix, "used", len(b.Used))
	for addr, h := range b.Used {
		if m.Tell == nil || h.Pod == "" {
			continue
		}
		m.Tell(ctx, h.Pod, h.PodUID, ReasonAddressLost, fmt.Sprintf(
			"address %v of interface %s (network %s) is of block %v, which is not node %s's any more: another pod may get it; delete this pod to have it replaced",
			addr, h.IfName, h.Network, b.prefix, m.NodeName))
	}
	return nil
}

// settle finds out whose a block is of which that is not known, and gives it as it is then on this node; nil if there is none. me is nil where
// it is not known yet. The lock of the space is held.
func (m *Manager) settle(ctx context.Context, me *self, space string, cidr netip.Prefix) (*local, error) {
	b, err := m.find(ctx, space, cidr)
	if err != nil || b == nil || !b.unsettled() {
		return b, err
	}
	if me == nil {
		if me, err = m.self(ctx); err != nil {
			return nil, err
		}
	}
	object, err := m.Objects.Block(ctx, b.name())
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("get block %s: %w", b.name(), err)
	}
	switch {
	case err == nil && me.owns(object) && b.State == giving:
		err = m.finishGiving(ctx, me, b)
	case err == nil && me.owns(object):
		return m.settleOurs(ctx, me, b, object)
	case b.State == claiming && m.now().Sub(b.Idle).Abs() < idleAfter:
		return b, nil // a claim that was sent may still arrive, whoever has the block now
	case err != nil:
		err = m.gave(ctx, b, nil)
	default:
		err = m.gave(ctx, b, object)
	}
	if err != nil {
		return nil, err
	}
	return m.find(ctx, space, cidr)
}

// settleOurs is settle for a block that is the node's, in a state other than giving.
func (m *Manager) settleOurs(ctx context.Context, me *self, b *local, object *v1alpha1.IPBlock) (*local, error) {
	boot, claim := me.by(b, object.Spec.Owner)
	switch {
	case b.State == claiming && boot && !claim: // of another claim, of which the file was removed
		err := m.locked(ctx, func(s *session) error { return errors.Join(s.drop(b), s.adopt(me, object)) })
		if err != nil {
			return nil, err
		}
		return m.find(ctx, b.Space, b.prefix)
	case !boot && len(b.Used) == 0:
		return m.become(ctx, b.Space, b.prefix, dormant, object.UID)
	}
	return m.become(ctx, b.Space, b.prefix, owned, object.UID)
}

// Inspect compares the node's blocks with their objects, gives back what is idle, says in the objects how much is in use, and takes the
// addresses of before a reboot out of shared blocks.
func (m *Manager) Inspect(ctx context.Context) error {
	now := m.now()
	me, objects, err := m.compare(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range objects {
		errs = append(errs, m.tidy(ctx, me, &objects[i]))
	}
	errs = append(errs, m.strikeAll(ctx, func(e v1alpha1.Allocation) bool { return m.here(e) && bootOf(e.Node) != me.Boot }))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.noteTended(ctx, func(last *tended) { last.All = now })
}

// compare compares the node's blocks with their objects, which it gives: it claims again what is in use and has no object, and notes what is
// another's.
func (m *Manager) compare(ctx context.Context) (*self, []v1alpha1.IPBlock, error) {
	now := m.now()
	me, err := m.ask(ctx) // the object may have been made anew; the machine is the same
	if err != nil {
		return nil, nil, err
	}
	objects, err := m.Objects.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + me.Name})
	if err != nil {
		return nil, nil, fmt.Errorf("list blocks of node %s: %w", me.Name, err)
	}
	blocks, err := m.blocks(ctx)
	errs := []error{err}
	for i := range objects {
		object := &objects[i]
		b := blocks[object.Name]
		delete(blocks, object.Name)
		if b == nil {
			cidr, err := ParseBlock(object.Spec.CIDR)
			if err != nil {
				errs = append(errs, fmt.Errorf("block %s of this node: %w", object.Name, err))
				continue
			}
			b = newLocal(object.Spec.Space, cidr, "")
		}
		errs = append(errs, m.inspect(ctx, me, b, object))
	}
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		errs = append(errs, m.inspect(ctx, me, blocks[name], nil))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	if !me.All {
		err = m.note(ctx, me, func(me *self) { me.Seen, me.All = nil, true })
	}
	return me, objects, errors.Join(err, m.noteTended(ctx, func(last *tended) { last.Own = now }))
}

// blocks are all of which there is local state, by the objects' names.
func (m *Manager) blocks(ctx context.Context) (map[string]*local, error) {
	blocks := map[string]*local{}
	err := m.locked(ctx, func(s *session) error {
		return s.eachBlock(func(b *local) error {
			blocks[b.name()] = b
			return nil
		})
	})
	return blocks, err
}

// inspect looks at one block; object is nil if the API has none of this node's.
func (m *Manager) inspect(ctx context.Context, me *self, b *local, object *v1alpha1.IPBlock) error {
	unlock, err := m.lockSpace(ctx, b.Space)
	if err != nil {
		return err
	}
	defer unlock()
	b, err = m.mine(ctx, me, b.Space, b.prefix)
	switch {
	case err != nil || b == nil || b.State == lost || b.State == claiming:
		return err
	case object == nil:
		return m.reclaim(ctx, me, b)
	case object.UID != b.UID: // it was claimed again and the answer lost, or the list is older than the block
		return m.reclaim(ctx, me, b)
	case b.State == owned && (object.Spec.Owner.NodeUID != me.UID || bootOf(object.Spec.Owner) != me.Boot):
		object.Spec.Owner = me.node(b.Claim)
		if _, err := m.Objects.UpdateBlock(ctx, object); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return fmt.Errorf("write owner of block %s: %w", object.Name, err)
		}
	}
	return nil
}

// tidy gives a block of the node back if it is idle; else its object is to say how much is in use.
func (m *Manager) tidy(ctx context.Context, me *self, object *v1alpha1.IPBlock) error {
	cidr, err := ParseBlock(object.Spec.CIDR)
	if err != nil {
		return fmt.Errorf("block %s of this node: %w", object.Name, err)
	}
	unlock, err := m.lockSpace(ctx, object.Spec.Space)
	if err != nil {
		return err
	}
	defer unlock()
	b, err := m.find(ctx, object.Spec.Space, cidr)
	switch {
	case err != nil || b == nil || b.UID != object.UID || !b.ours():
		return err
	case m.idle(b):
		return m.give(ctx, me, b.Space, b.prefix, m.idle)
	}
	return m.report(ctx, b, object)
}

// idle says whether the block has been without use for long.
func (m *Manager) idle(b *local) bool {
	return b.ours() && len(b.Used) == 0 && m.now().Sub(b.Idle) >= idleAfter
}

// report writes the status of the object, if it has changed.
func (m *Manager) report(ctx context.Context, b *local, object *v1alpha1.IPBlock) error {
	used := int32(len(b.Used)) //nolint:gosec // at most Size
	if object.Status.Used == used && object.Status.Free == Size-used {
		return nil
	}
	object.Status = v1alpha1.IPBlockStatus{Used: used, Free: Size - used}
	if err := m.Objects.UpdateBlockStatus(ctx, object); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("write status of block %s: %w", object.Name, err)
	}
	return nil
}

// reclaim is for a block that seems to have no object of this node's. The lock of the space is held.
func (m *Manager) reclaim(ctx context.Context, me *self, b *local) error {
	object, err := m.Objects.Block(ctx, b.name())
	switch {
	case err == nil && me.owns(object):
		_, err := m.become(ctx, b.Space, b.prefix, b.State, object.UID)
		return err
	case err == nil:
		return m.gave(ctx, b, object)
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("get block %s: %w", b.name(), err)
	case len(b.Used) == 0 || b.State != owned:
		return m.lose(ctx, b)
	}
	object = m.object(b.Space, b.prefix)
	object.Spec.Owner = me.node(b.Claim)
	made, err := m.Objects.CreateBlock(ctx, object)
	if apierrors.IsAlreadyExists(err) {
		return nil // the next Inspect sees whose it is
	}
	if err != nil {
		return fmt.Errorf("claim block %s again: %w", b.name(), err)
	}
	m.Log.WarnContext(ctx, "claimed a block again whose object was deleted while addresses of it were in use", "space", b.Space, "block", b.prefix)
	_, err = m.become(ctx, b.Space, b.prefix, owned, made.UID)
	return err
}

// Status is nil if an Add could be granted these wishes now; ErrFull if not.
func (m *Manager) Status(ctx context.Context, wishes []Wish) error {
	for _, w := range wishes {
		if ok, err := m.has(ctx, w); err != nil {
			return err
		} else if ok {
			continue
		}
		blocks, err := m.Objects.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.space=" + w.Space, ResourceVersion: "0"})
		if err != nil {
			return fmt.Errorf("list blocks of space %s: %w", w.Space, err)
		}
		if ok, err := m.room(w, blocks); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("%w in %v", ErrFull, w)
		}
	}
	return nil
}

// room says whether one of the blocks that exist, or one that does not yet, may have an address for the wish.
func (m *Manager) room(w Wish, blocks []v1alpha1.IPBlock) (bool, error) {
	boot, err := m.boot()
	if err != nil {
		return false, err
	}
	taken := new(alloc.BlockSet)
	s := &search{order: &order{Manager: m}, w: w}
	for i := range blocks {
		b := &blocks[i]
		cidr, err := ParseBlock(b.Spec.CIDR)
		if err != nil {
			continue
		}
		taken.Add(cidr)
		if !w.fits(cidr) {
			continue
		}
		free := false
		switch owner := b.Spec.Owner; {
		case owner == nil:
			addr, _ := s.free(b, cidr)
			free = addr.IsValid()
		case owner.NodeName == m.NodeName:
			free = bootOf(owner) != boot // nothing of it is in use since the reboot
		default:
			free = b.Status.Used < Size
		}
		if free {
			return true, nil
		}
	}
	if w.Asked.IsValid() {
		return !taken.Has(blockOf(w.Asked)), nil
	}
	_, ok := w.Window.RandomBlock(blockBits(w.Window.Start()), m.rand(), taken)
	return ok, nil
}
