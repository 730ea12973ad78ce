package block

import (
	"cmp"
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
	// askedTries bounds how often the block of an address that is asked for is found to be another one than just before.
	askedTries = 4
)

func attachmentOf(a v1alpha1.Allocation) attachment.ID {
	return attachment.ID{Network: a.Network, ContainerID: a.ContainerID, IfName: a.IfName}
}

// entry is how an address is in use by a container of this node.
func (s *search) entry(a netip.Addr) v1alpha1.Allocation {
	e := allocation(a, s.holder, s.me)
	if s.claim != nil {
		e.Claim = &v1alpha1.Claim{Namespace: s.claim.Namespace, Name: s.claim.Name, UID: s.claim.UID}
	}
	return e
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

// createShared makes a shared block with an address for the wish in it; false if the block exists.
func (s *search) createShared(ctx context.Context, cidr netip.Prefix) (bool, error) {
	addr := s.w.Asked
	if !addr.IsValid() {
		for addr = range s.w.Window.In(cidr) {
			break
		}
	}
	at := heldAddr{s.w.Space, addr}
	if ok, err := s.intend(ctx, at); !ok || err != nil {
		return false, err
	}
	if err := s.step("create shared block"); err != nil {
		return false, err
	}
	object := s.object(s.w.Space, cidr)
	object.Spec.Allocations = []v1alpha1.Allocation{s.entry(addr)}
	if _, err := s.Store.CreateBlock(ctx, object); apierrors.IsAlreadyExists(err) {
		// Another's, or ours and the answer was lost: then the address is in it.
		return s.adjust(ctx, at, nil)
	} else if err != nil {
		return false, fmt.Errorf("create block %v of space %s: %w", cidr, s.w.Space, err)
	}
	s.shared[s.index] = addr
	return true, s.step("created shared block")
}

// intend notes that the attachment may hold an address of the block, before it does; false if the block is in use on this node by itself,
// whatever the object says.
func (s *search) intend(ctx context.Context, at heldAddr) (ok bool, err error) {
	err = s.locked(ctx, func(l *session) error {
		b, err := l.block(at.Space, blockOf(at.Addr))
		if ok = err == nil && (b == nil || b.State == claiming); !ok {
			return err
		}
		if slices.ContainsFunc(s.tried, func(h heldAddr) bool { return h.block() == at.block() }) {
			return nil
		}
		s.tried = append(s.tried, at)
		return l.write(heldName(s.holder.ID), held{Holder: s.holder, Shared: s.tried})
	})
	return ok, err
}

// probe looks at blocks of the window by chance and takes an address of one that is shared, or of none's yet.
func (s *search) probe(ctx context.Context) (bool, error) {
	bits := blockBits(s.w.Window.Start())
	for range s.w.looks() {
		cidr, ok := s.w.Window.RandomBlock(bits, s.rnd, s.taken)
		if !ok {
			break
		}
		s.taken.Add(cidr)
		object, err := s.Store.Block(ctx, NameOf(s.w.Space, cidr))
		switch {
		case apierrors.IsNotFound(err):
			ok, err = s.createShared(ctx, cidr)
		case err != nil:
			return false, fmt.Errorf("get block %v of space %s: %w", cidr, s.w.Space, err)
		default:
			s.listed = append(s.listed, *object)
			ok = false
			if a, _ := s.free(object, cidr); object.Spec.Owner == nil && a.IsValid() {
				ok, err = s.adjust(ctx, heldAddr{s.w.Space, cidr.Addr()}, object)
			}
		}
		if ok || err != nil {
			return ok, err
		}
	}
	s.complete = uint64(s.taken.Len()) == s.w.Window.BlockCount(bits)
	return false, nil
}

// fromShared takes an address of a shared block that was listed; false if none has one.
func (s *search) fromShared(ctx context.Context) (bool, error) {
	s.rnd.Shuffle(len(s.listed), func(i, j int) { s.listed[i], s.listed[j] = s.listed[j], s.listed[i] })
	for i := range s.listed {
		b := &s.listed[i]
		cidr, err := ParseBlock(b.Spec.CIDR)
		if err != nil || b.Spec.Owner != nil || !s.w.fits(cidr) {
			continue
		}
		if addr, _ := s.free(b, cidr); !addr.IsValid() {
			continue
		}
		ok, err := s.adjust(ctx, heldAddr{s.w.Space, cidr.Addr()}, b.DeepCopy())
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// fromClaimed takes an address that the claim keeps already.
func (s *search) fromClaimed(ctx context.Context) (bool, error) {
	if err := s.list(ctx); err != nil {
		return false, err
	}
	all := s.listed
	s.listed = slices.DeleteFunc(slices.Clone(all), func(b v1alpha1.IPBlock) bool { return s.claimed(&b) == 0 })
	ok, err := s.fromShared(ctx)
	s.listed = all
	return ok, err
}

// claimed counts the addresses that the claim keeps in the block.
func (s *search) claimed(b *v1alpha1.IPBlock) (n int) {
	for _, e := range b.Spec.Allocations {
		if e.Claim != nil && e.Claim.UID == s.claim.UID {
			n++
		}
	}
	return n
}

// adjust takes an address of a shared block; false if none is free in it, or it is none.
func (s *search) adjust(ctx context.Context, at heldAddr, object *v1alpha1.IPBlock) (bool, error) {
	if ok, err := s.intend(ctx, at); !ok || err != nil {
		return false, err
	}
	var got netip.Addr
	changed, err := s.edit(ctx, at.block(), object, func(object *v1alpha1.IPBlock) (bool, error) {
		cidr, err := ParseBlock(object.Spec.CIDR)
		if err != nil {
			return false, err
		}
		addr, mine := s.free(object, cidr)
		if !addr.IsValid() {
			return false, nil
		}
		got = addr
		entry := s.entry(addr)
		if mine >= 0 {
			join(&object.Spec.Allocations[mine], entry)
		} else {
			object.Spec.Allocations = append(object.Spec.Allocations, entry)
		}
		return true, nil
	})
	if err != nil || !changed {
		return false, err
	}
	s.shared[s.index] = got
	return true, nil
}

// free finds an address for the wish in a shared block. mine is the index of its entry, if it has one that is ours to change: of an update
// of which the answer was lost, or of the claim; else negative.
func (s *search) free(object *v1alpha1.IPBlock, cidr netip.Prefix) (addr netip.Addr, mine int) {
	used := map[netip.Addr]bool{}
	for i, e := range object.Spec.Allocations {
		a, err := netip.ParseAddr(e.Address)
		if err != nil {
			continue
		}
		if s.w.grants(a) && s.ours(e) && !s.gives(a) {
			return a, i
		}
		used[a] = true
	}
	taken := func(a netip.Addr) bool { return used[a] }
	if s.w.Asked.IsValid() {
		if taken(s.w.Asked) || !cidr.Contains(s.w.Asked) {
			return netip.Addr{}, -1
		}
		return s.w.Asked, -1
	}
	a, _, _ := s.w.Window.Pick(cidr, taken, func(netip.Addr) bool { return false })
	return a, -1
}

// ours reports whether the entry is the holder's, or one that its claim keeps while no other
// container uses it, or one does, from which a migration may go to the holder.
func (s *search) ours(e v1alpha1.Allocation) bool {
	holders := func(e v1alpha1.Allocation) bool {
		return attachmentOf(e) == s.holder.ID && s.me.identity().named(e.Node)
	}
	if s.claim != nil && e.Claim != nil && e.Claim.UID == s.claim.UID {
		return e.ContainerID == "" || e.Second == nil || uses(e, holders)
	}
	return e.Second == nil && holders(e)
}

// gives says whether the address fulfils another wish of the same Add already.
func (s *search) gives(a netip.Addr) bool {
	for i, got := range s.shared {
		if got == a && s.wishes[i].Space == s.w.Space {
			return true
		}
	}
	return false
}

// asked gets the one block that has the address that is asked for.
func (s *search) asked(ctx context.Context, share bool) (victim *v1alpha1.IPBlock, err error) {
	cidr, at := blockOf(s.w.Asked), heldAddr{s.w.Space, s.w.Asked}
	for range askedTries {
		ok := false
		object, err := s.Store.Block(ctx, at.block())
		switch {
		case apierrors.IsNotFound(err) && share:
			ok, err = s.createShared(ctx, cidr)
		case apierrors.IsNotFound(err):
			ok, err = s.createOwned(ctx, cidr)
		case err != nil:
			return nil, fmt.Errorf("get block %s: %w", at.block(), err)
		case object.Spec.Owner != nil:
			s.listed = []v1alpha1.IPBlock{*object}
			return s.recall(ctx)
		default:
			if addr, _ := s.free(object, cidr); !addr.IsValid() {
				return nil, fmt.Errorf("%w: %v is in use in block %s", ErrTaken, at.Addr, at.block())
			}
			ok, err = s.adjust(ctx, at, object)
		}
		if ok || err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("block %s, which has %v, cannot be had: %w", at.block(), at.Addr, ErrLater)
}

// fromOwn uses a block that was listed as the node's and was not known: the answer to its claim was lost, or it is of before the reboot.
func (s *search) fromOwn(ctx context.Context) (ok bool, err error) {
	for i := range s.listed {
		cidr, perr := ParseBlock(s.listed[i].Spec.CIDR)
		if ok || err != nil {
			break
		}
		if perr != nil || !s.me.owns(&s.listed[i]) || !s.w.fits(cidr) {
			continue
		}
		b, merr := s.mine(ctx, s.me, s.w.Space, cidr)
		if err = merr; err == nil && b != nil {
			ok, err = s.use(ctx, b)
		}
	}
	return ok, err
}

// recall asks the owner of a block to share it, and gives that block.
func (s *search) recall(ctx context.Context) (*v1alpha1.IPBlock, error) {
	if ok, err := s.fromOwn(ctx); ok || err != nil {
		return nil, err
	}
	victims := slices.DeleteFunc(slices.Clone(s.listed), func(b v1alpha1.IPBlock) bool {
		cidr, err := ParseBlock(b.Spec.CIDR)
		return err != nil || b.Spec.Owner == nil || !s.w.fits(cidr) || s.claim == nil && s.me.owns(&b)
	})
	if len(victims) == 0 {
		return nil, fmt.Errorf("%w in %v", ErrFull, s.w)
	}
	victim := s.choose(victims)
	if s.me.owns(victim) { // for a claim
		cidr, err := ParseBlock(victim.Spec.CIDR)
		if err != nil {
			return nil, err
		}
		return victim, s.give(ctx, s.me, victim.Spec.Space, cidr, (*local).ours)
	}
	if victim.Spec.Recall == nil {
		victim.Spec.Recall = &v1alpha1.Recall{By: s.me.Name, At: metav1.NewTime(s.wall())}
		if err := s.step("recall block"); err != nil {
			return nil, err
		}
		if _, err := s.Store.UpdateBlock(ctx, victim); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("recall block %s: %w", victim.Name, err)
		}
	}
	return victim, nil
}

// choose prefers blocks that were recalled a moment ago, then those that say that something is free. Where a recall was not answered, nobody
// may be there to do it.
func (s *search) choose(victims []v1alpha1.IPBlock) *v1alpha1.IPBlock {
	s.rnd.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	rank := func(b *v1alpha1.IPBlock) int32 {
		switch {
		case b.Spec.Recall == nil:
			return Size - b.Status.Used
		case s.wall().Sub(b.Spec.Recall.At.Time).Abs() < answered:
			return Size + 1
		}
		return -1
	}
	best := &victims[0]
	for i := range victims {
		if rank(&victims[i]) > rank(best) {
			best = &victims[i]
		}
	}
	return best
}

// await waits until the block is the owner's no more. Others may have the lock of the space meanwhile.
func (s *search) await(ctx context.Context, victim *v1alpha1.IPBlock) error {
	for {
		object, err := s.Store.Block(ctx, victim.Name)
		if apierrors.IsNotFound(err) || err == nil && object.Spec.Owner == nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("get block %s: %w", victim.Name, err)
		}
		if s.waited >= cmp.Or(s.Patience, defaultPatience) {
			return fmt.Errorf("%w in %v but in blocks of other nodes; node %s was asked to share %s and did not yet: %w",
				ErrFull, s.w, object.Spec.Owner.NodeName, object.Spec.CIDR, ErrLater)
		}
		wait := lookAgain + time.Duration(s.rnd.Int64N(int64(lookAgain))) // spreads load
		s.waited += wait
		s.unlock()
		s.unlock = func() {}
		if err := s.sleep(ctx, wait); err != nil {
			return err
		}
		unlock, err := s.lockSpace(ctx, s.w.Space)
		if err != nil {
			return err
		}
		s.unlock = unlock
	}
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
