package block

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// askedTries bounds how often the block of an address that is asked for is found to be another one
// than just before.
const askedTries = 4

// supplier gets an address for one wish that the blocks of the node cannot fulfil: one of a shared
// block for its taker, or a block for the node.
type supplier struct {
	*finder
	taker *taker
	// index is the index of the wish.
	index int
	// barred are addresses that are in use in a space beside.
	barred map[netip.Addr]bool
}

// obtain gets a block for the wish of that index, or an address of a shared one.
func (t *taker) obtain(ctx context.Context, index int) error {
	_, beside := t.unmet(index)
	f, err := t.finder(ctx, t.wishes[index], beside, t.claim != nil)
	if err != nil {
		return err
	}
	defer func() { f.unlock() }()
	s := &supplier{f, t, index, map[netip.Addr]bool{}}
	for {
		victim, err := s.run(ctx)
		if err != nil || victim == nil {
			return err
		}
		if err := f.await(ctx, victim); err != nil {
			return err
		}
	}
}

// run tries what there is, the cheapest first. victim is a block that another node is asked to
// share.
func (s *supplier) run(ctx context.Context) (victim *v1alpha1.IPBlock, err error) {
	found, share, err := s.begin(ctx)
	if found || err != nil {
		return nil, err
	}
	if s.w.Asked.IsValid() {
		return s.asked(ctx, share)
	}
	for _, step := range s.steps(share) {
		if ok, err := step(ctx); ok || err != nil {
			return nil, err
		}
	}
	return s.recall(ctx)
}

// steps returns the ways to an address, the cheapest first.
func (s *supplier) steps(share bool) []func(context.Context) (bool, error) {
	switch {
	case s.lasting:
		return []func(context.Context) (bool, error){
			s.fromClaimed, s.fromShared, s.share, s.fromShared, s.fromBeside,
		}
	case share: // a block that is shared is better used than another one
		return []func(context.Context) (bool, error){s.fromShared, s.share, s.fromShared, s.fromBeside}
	}
	return []func(context.Context) (bool, error){s.claim, s.fromShared, s.fromBeside}
}

// fromShared takes an address of a shared block that was listed; false if none has one.
func (s *supplier) fromShared(ctx context.Context) (bool, error) {
	s.rnd.Shuffle(len(s.listed), func(i, j int) {
		s.listed[i], s.listed[j] = s.listed[j], s.listed[i]
	})
	for _, b := range s.listed {
		if b.Spec.Owner != nil || !s.w.fits(b.cidr) {
			continue
		}
		if addr, _ := s.free(&b.IPBlock, b.cidr); !addr.IsValid() {
			continue
		}
		ok, err := s.adjust(ctx, heldAddr{s.w.Space, b.cidr.Addr()}, b.DeepCopy())
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// fromClaimed takes an address that the claim keeps already.
func (s *supplier) fromClaimed(ctx context.Context) (bool, error) {
	if err := s.list(ctx); err != nil {
		return false, err
	}
	all := s.listed
	s.listed = slices.DeleteFunc(slices.Clone(all), func(b listed) bool {
		return !slices.ContainsFunc(b.Spec.Allocations, s.isClaims)
	})
	ok, err := s.fromShared(ctx)
	s.listed = all
	return ok, err
}

// isClaims reports whether the taker's claim keeps an address.
func (s *supplier) isClaims(e v1alpha1.Allocation) bool {
	return s.taker.claim != nil && e.Claim != nil && e.Claim.UID == s.taker.claim.UID
}

// share takes an address of a shared block, which it makes if need be; false if each block of the
// window is taken.
func (s *supplier) share(ctx context.Context) (bool, error) {
	return s.first(ctx, false, s.shareAt)
}

// shareAt takes an address of a shared block, or makes it one if it is nobody's.
func (s *supplier) shareAt(ctx context.Context, c candidate) (bool, error) {
	if !c.look {
		return s.createShared(ctx, c.cidr)
	}
	object, err := s.lookUp(ctx, NameOf(s.w.Space, c.cidr))
	if err != nil {
		return false, err
	}
	if object == nil {
		return s.createShared(ctx, c.cidr)
	}
	s.see(*object)
	if a, _ := s.free(object, c.cidr); object.Spec.Owner != nil || !a.IsValid() {
		return false, nil
	}
	return s.adjust(ctx, heldAddr{s.w.Space, c.cidr.Addr()}, object)
}

// createShared makes a shared block with an address for the wish in it; false if the block exists.
func (s *supplier) createShared(ctx context.Context, cidr netip.Prefix) (bool, error) {
	addr := s.unbarred(cidr)
	if !addr.IsValid() {
		return false, nil
	}
	at := heldAddr{s.w.Space, addr}
	if ok, err := s.intend(ctx, at); !ok || err != nil {
		return false, err
	}
	if err := s.step("create shared block"); err != nil {
		return false, err
	}
	object := s.object(s.w.Space, cidr, nil)
	object.Spec.Allocations = []v1alpha1.Allocation{s.entry(addr)}
	if _, err := s.Store.CreateBlock(ctx, object); apierrors.IsAlreadyExists(err) {
		// Another's, or ours and the answer was lost: then the address is in it.
		return s.adjust(ctx, at, nil)
	} else if err != nil {
		return false, fmt.Errorf("create block %v of space %s: %w", cidr, s.w.Space, err)
	}
	s.taker.shared[s.index] = addr
	if err := s.step("created shared block"); err != nil {
		return false, err
	}
	if clash, err := s.clashes(ctx, addr); clash && err == nil {
		return s.createShared(ctx, cidr) // with another address
	} else if err != nil {
		return false, err
	}
	return true, nil
}

// unbarred returns the first address of a block that the wish may have; not valid if there is none.
func (s *supplier) unbarred(cidr netip.Prefix) netip.Addr {
	addr, _ := s.free(&v1alpha1.IPBlock{}, cidr)
	return addr
}

// asked gets the one block that has the address that is asked for.
func (s *supplier) asked(ctx context.Context, share bool) (victim *v1alpha1.IPBlock, err error) {
	cidr, at := blockOf(s.w.Asked), heldAddr{s.w.Space, s.w.Asked}
	for range askedTries {
		ok := false
		object, err := s.lookUp(ctx, at.block())
		switch {
		case err != nil:
			return nil, err
		case object == nil && share:
			ok, err = s.createShared(ctx, cidr)
		case object == nil:
			if ok, err = s.createOwned(ctx, cidr); !ok && err == nil && len(s.overlaps) > 0 {
				ok, err = s.createShared(ctx, cidr)
			}
			if !ok && err == nil && s.barred[s.w.Asked] {
				return nil, fmt.Errorf("%w: %v is in use under another name of the network", ErrTaken, at.Addr)
			}
		case object.Spec.Owner != nil:
			s.listed = nil
			s.see(*object)
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

// adjust takes an address of a shared block; false if none is free in it, or it is none.
func (s *supplier) adjust(
	ctx context.Context, at heldAddr, object *v1alpha1.IPBlock,
) (bool, error) {
	if ok, err := s.intend(ctx, at); !ok || err != nil {
		return false, err
	}
	var got netip.Addr
	isNew := false
	changed, err := s.edit(ctx, at.block(), object,
		func(object *v1alpha1.IPBlock) (_ bool, err error) {
			got, isNew, err = s.enter(object)
			return got.IsValid(), err
		})
	if err != nil || !changed {
		return false, err
	}
	s.taker.shared[s.index] = got
	if !isNew {
		return true, nil
	}
	if clash, err := s.clashes(ctx, got); clash && err == nil {
		return s.adjust(ctx, at, nil) // another address
	} else if err != nil {
		return false, err
	}
	return true, nil
}

// enter adds an address for the wish to a shared block; not valid if none is free. isNew: no claim
// kept it before.
func (s *supplier) enter(object *v1alpha1.IPBlock) (addr netip.Addr, isNew bool, err error) {
	cidr, err := ParseBlock(object.Spec.CIDR)
	if err != nil {
		return netip.Addr{}, false, err
	}
	addr, mine := s.free(object, cidr)
	switch {
	case !addr.IsValid():
	case mine < 0:
		object.Spec.Allocations = append(object.Spec.Allocations, s.entry(addr))
		return addr, true, nil
	default:
		isNew = object.Spec.Allocations[mine].Claim == nil
		join(&object.Spec.Allocations[mine], s.entry(addr))
	}
	return addr, isNew, nil
}

// intend notes that the attachment may hold an address of the block, before it does; false if the
// block is in use on this node by itself, whatever the object says.
func (s *supplier) intend(ctx context.Context, at heldAddr) (ok bool, err error) {
	return inside(ctx, s.Manager, func(l *session) (bool, error) {
		b, err := l.block(at.Space, blockOf(at.Addr))
		if err != nil || b != nil && b.State != claiming {
			return false, err
		}
		if slices.ContainsFunc(s.taker.tried, func(h heldAddr) bool { return h.block() == at.block() }) {
			return true, nil
		}
		s.taker.tried = append(s.taker.tried, at)
		return true, l.write(heldName(s.taker.holder.ID),
			&held{Holder: s.taker.holder, Shared: s.taker.tried})
	})
}

// entry returns how an address is in use by a container of this node.
func (s *supplier) entry(a netip.Addr) v1alpha1.Allocation {
	e := allocation(a, s.taker.holder, s.me)
	if s.taker.claim != nil {
		e.Claim = &v1alpha1.Claim{
			Namespace: s.taker.claim.Namespace, Name: s.taker.claim.Name, UID: s.taker.claim.UID,
		}
	}
	return e
}

// free finds an address for the wish in a shared block. mine is the index of its entry if it has
// one that is ours to change: that of an update whose answer was lost, or of the claim. Else it is
// negative.
func (s *supplier) free(object *v1alpha1.IPBlock, cidr netip.Prefix) (addr netip.Addr, mine int) {
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
	switch {
	case !s.w.Asked.IsValid():
		addr, _, _ = s.w.Window.Pick(cidr,
			func(a netip.Addr) bool { return used[a] || s.barred[a] },
			func(netip.Addr) bool { return false })
	case !used[s.w.Asked] && !s.barred[s.w.Asked] && cidr.Contains(s.w.Asked):
		addr = s.w.Asked
	}
	return addr, -1
}

// ours reports whether the entry is the holder's, or one that its claim keeps while no other
// container uses it, or one does, from which a migration may go to the holder.
func (s *supplier) ours(e v1alpha1.Allocation) bool {
	holders := func(e v1alpha1.Allocation) bool {
		return attachmentOf(e) == s.taker.holder.ID && s.me.named(e.Node)
	}
	if s.isClaims(e) {
		return e.ContainerID == "" || e.Second == nil || uses(e, holders)
	}
	return e.Second == nil && holders(e)
}

// gives reports whether the address fulfils another wish of the same Add already.
func (s *supplier) gives(a netip.Addr) bool {
	for i, got := range s.taker.shared {
		if got == a && s.taker.wishes[i].Space == s.w.Space {
			return true
		}
	}
	return false
}
