package block

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// A network may have addresses in more spaces than one, as its space has another name since its
// namespace is a tenant's: Wish.Beside. PROTOCOL.md says how it comes that none is given twice.

// looked reports whether a block of the node's own may fulfil a wish: there was no block of the
// same addresses in the spaces beside, when it was there already.
func (b *local) looked(w Wish) bool {
	return !slices.ContainsFunc(w.Beside, func(space string) bool {
		return !slices.Contains(b.Looked, space)
	})
}

// lookBeside looks whether the node's own blocks that may have an address for the wish are the only
// ones of theirs in all of its spaces.
func (f *finder) lookBeside(ctx context.Context) error {
	if len(f.w.Beside) == 0 {
		return nil
	}
	own, err := inside(ctx, f.Manager, func(s *session) ([]netip.Prefix, error) {
		return s.onShelf(f.w.Space, open)
	})
	for i := 0; i < len(own) && err == nil; i++ {
		if f.w.fits(own[i]) {
			_, err = f.only(ctx, own[i])
		}
	}
	return err
}

// only reports whether a block of the node's own is the only one of its addresses in the wish's
// spaces, and notes that it is.
func (f *finder) only(ctx context.Context, cidr netip.Prefix) (bool, error) {
	b, err := f.find(ctx, f.w.Space, cidr)
	if err != nil || b == nil || b.State != owned {
		return false, err
	}
	if b.looked(f.w) {
		return true, nil
	}
	others, err := f.others(ctx, cidr)
	if err != nil || len(others) > 0 {
		return false, err
	}
	err = f.locked(ctx, func(s *session) error {
		b, err := s.block(f.w.Space, cidr)
		if err != nil || b == nil || b.State != owned {
			return err
		}
		return s.noteLooked(b, f.w.Beside)
	})
	return err == nil, err
}

// noteLooked notes that there is no block of the same addresses in these spaces.
func (s *session) noteLooked(b *local, spaces []string) error {
	for _, space := range spaces {
		if !slices.Contains(b.Looked, space) {
			b.Looked = append(b.Looked, space)
		}
	}
	return s.save(b)
}

// others returns the blocks of the same addresses in the spaces beside, and takes note of them.
func (f *finder) others(
	ctx context.Context, cidr netip.Prefix,
) (others []v1alpha1.IPBlock, err error) {
	for _, space := range f.w.Beside {
		object, err := f.lookUp(ctx, NameOf(space, cidr))
		if err != nil {
			return nil, err
		}
		if object != nil {
			others = append(others, *object)
		}
	}
	f.overlaps = append(f.overlaps, within(others)...)
	return others, nil
}

// listBeside lists the blocks of the spaces beside, which cannot be claimed either.
func (f *finder) listBeside(ctx context.Context) (taken []netip.Prefix, err error) {
	f.overlaps = nil
	for _, space := range f.w.Beside {
		objects, err := f.Store.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.space=" + space})
		if err != nil {
			return nil, fmt.Errorf("list blocks of space %s: %w", space, err)
		}
		f.overlaps = append(f.overlaps, within(objects)...)
	}
	for _, b := range f.overlaps {
		taken = append(taken, b.cidr)
	}
	return taken, nil
}

// fromBeside makes a shared block where there is one in a space beside, and takes an address that
// is in use in neither; false if there is none.
func (s *supplier) fromBeside(ctx context.Context) (bool, error) {
	tried := new(alloc.BlockSet)
	for _, b := range s.overlaps {
		if b.Spec.Owner != nil || tried.Has(b.cidr) || !s.w.fits(b.cidr) {
			continue
		}
		tried.Add(b.cidr)
		if ok, err := s.createShared(ctx, b.cidr); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// clashes reports whether an address that was just entered in a shared block is in use in a space
// beside, or may be; then it takes the entry back, and nobody here tries the address again.
func (s *supplier) clashes(ctx context.Context, addr netip.Addr) (bool, error) {
	if len(s.w.Beside) == 0 {
		return false, nil
	}
	others, err := s.others(ctx, blockOf(addr))
	if err != nil {
		return false, err
	}
	for _, object := range others {
		s.bar(blockOf(addr), &object.Spec)
	}
	if !s.barred[addr] {
		return false, nil
	}
	_, err = s.edit(ctx, NameOf(s.w.Space, blockOf(addr)), nil,
		func(object *v1alpha1.IPBlock) (bool, error) {
			before := len(object.Spec.Allocations)
			object.Spec.Allocations = slices.DeleteFunc(object.Spec.Allocations,
				func(e v1alpha1.Allocation) bool {
					return e.Address == addr.String() && s.ours(e)
				})
			return len(object.Spec.Allocations) < before, nil
		})
	delete(s.taker.shared, s.index)
	return true, err
}

// bar bars the addresses that are in use of a block beside: all if it has an owner, which alone
// knows.
func (s *supplier) bar(cidr netip.Prefix, beside *v1alpha1.IPBlockSpec) {
	for a := cidr.Addr(); beside.Owner != nil && cidr.Contains(a); a = a.Next() {
		s.barred[a] = true
	}
	for _, e := range beside.Allocations {
		if a, err := netip.ParseAddr(e.Address); err == nil {
			s.barred[a] = true
		}
	}
}

// giveOwn shares or deletes a block of this node in a space beside. The lock of the wish's space is
// given up meanwhile, as others take the two in another order.
func (f *finder) giveOwn(ctx context.Context, victim *v1alpha1.IPBlock) error {
	f.unlock()
	f.unlock = func() {}
	err := f.alone(ctx, victim.Spec.Space, victim.Spec.CIDR, func(cidr netip.Prefix) error {
		return f.give(ctx, f.me, victim.Spec.Space, cidr, (*local).ours)
	})
	if err != nil {
		return err
	}
	f.unlock, err = f.lockSpace(ctx, f.w.Space)
	if err != nil {
		f.unlock = func() {}
	}
	return err
}

// kept returns the wishes of a claim, each in the space in which the claim keeps the address that
// it asks for.
func (m *Manager) kept(
	ctx context.Context, wishes []Wish, claim *claimv1.IPAMClaim,
) ([]Wish, error) {
	wishes = slices.Clone(wishes)
	for i := range wishes {
		w := &wishes[i]
		for j, space := range w.Beside {
			keeps, err := m.keeps(ctx, claim, space, w.Asked)
			if err != nil {
				return nil, err
			}
			if keeps {
				w.Beside = slices.Clone(w.Beside)
				w.Space, w.Beside[j] = space, w.Space
				break
			}
		}
	}
	return wishes, nil
}

// keeps reports whether the claim keeps the address in a space; none is kept that is not valid.
func (m *Manager) keeps(
	ctx context.Context, claim *claimv1.IPAMClaim, space string, addr netip.Addr,
) (bool, error) {
	if !addr.IsValid() {
		return false, nil
	}
	object, err := m.lookUp(ctx, NameOf(space, blockOf(addr)))
	if err != nil || object == nil {
		return false, err
	}
	return slices.ContainsFunc(object.Spec.Allocations, func(e v1alpha1.Allocation) bool {
		return e.Address == addr.String() && e.Claim != nil && e.Claim.UID == claim.UID
	}), nil
}
