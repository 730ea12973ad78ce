package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
)

const (
	// rest is how long an address that was released is left alone if others are free: caches of
	// neighbours still have it.
	rest = 30 * time.Second
	// looks bounds how many blocks with nothing but resting addresses free an Add looks at.
	looks = 16
	// undoWithin bounds the time to take back an Add that failed.
	undoWithin = 10 * time.Second
	// rounds bounds how often an Add finds that what it got from the API was taken by another Add of
	// this node.
	rounds = 100
)

// Add returns an address for each wish, or none at all. A holder that has its addresses gets the
// same again. claim, if not nil, keeps them beyond the holder's Del.
func (m *Manager) Add(
	ctx context.Context, h Holder, wishes []Wish, claim *claimv1.IPAMClaim,
) ([]netip.Addr, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if claim != nil {
		var err error
		if wishes, err = m.kept(ctx, wishes, claim); err != nil {
			return nil, err
		}
	}
	t := &taker{
		lease: lease{Manager: m}, holder: h, wishes: wishes, claim: claim, shared: map[int]netip.Addr{},
	}
	got, err := t.fulfil(ctx)
	if errors.Is(err, errHolds) {
		if got, err = m.again(ctx, h, wishes); err != nil || got != nil {
			return got, err
		}
		got, err = t.fulfil(ctx)
	}
	if err == nil || !t.touched {
		return got, err
	}
	return nil, t.undo(ctx, err)
}

// again returns what an earlier Add of the holder got. It releases what an unfinished one left.
func (m *Manager) again(ctx context.Context, h Holder, wishes []Wish) ([]netip.Addr, error) {
	has, addrs, err := m.holds(ctx, h.ID)
	if err != nil || has == nil {
		return nil, err
	}
	for i, w := range wishes {
		if len(has.Got) != len(wishes) || !w.grants(has.Got[i]) ||
			!slices.Contains(addrs, heldAddr{w.Space, has.Got[i]}) {
			return nil, m.Del(ctx, h.ID)
		}
	}
	return has.Got, nil
}

// grants reports whether the address fulfils the wish.
func (w Wish) grants(a netip.Addr) bool {
	if w.Asked.IsValid() {
		return a == w.Asked
	}
	return w.Window.Contains(a)
}

// fits reports whether the block has an address that could fulfil the wish.
func (w Wish) fits(p netip.Prefix) bool {
	if w.Asked.IsValid() {
		return p.Contains(w.Asked)
	}
	for range w.Window.In(p) {
		return true
	}
	return false
}

// String is the address that is asked for, or the window.
func (w Wish) String() string {
	if w.Asked.IsValid() {
		return w.Asked.String()
	}
	return fmt.Sprintf("%v (%v to %v)", w.Window.Prefix(), w.Window.Start(), w.Window.End())
}

// taker is an Add at work: it takes addresses for a holder, out of own and of shared blocks.
type taker struct {
	lease
	holder Holder
	wishes []Wish
	claim  *claimv1.IPAMClaim
	// begun: what is there of the attachment is of this Add. touched: something of it may be there.
	begun, touched bool
	// shared are the addresses of shared blocks that it has got, by the wish's index.
	shared map[int]netip.Addr
	// tried are blocks that were found shared, and may hold an address of ours.
	tried []heldAddr
}

// errHolds means that there is something of the attachment already.
var errHolds = errors.New("it holds addresses already")

// fulfil takes an address for each wish. It asks the API for what the node does not have.
func (t *taker) fulfil(ctx context.Context) ([]netip.Addr, error) {
	for range rounds {
		got, short, err := t.take(ctx)
		switch {
		case errors.Is(err, errStale):
			err = t.renew(ctx)
		case errors.Is(err, errUnknown):
			err = t.remember(ctx)
		case err == nil && short >= 0:
			t.touched = true
			err = t.more(ctx, short)
			t.begun, t.remembered = true, true
		default:
			return got, err
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("other containers take each block that this node gets: %w", ErrLater)
}

// more obtains what the wish of that index needs. It notes that there is nothing.
func (t *taker) more(ctx context.Context, index int) error {
	w := t.wishes[index]
	err := t.obtain(ctx, index)
	if errors.Is(err, ErrFull) && !errors.Is(err, ErrLater) {
		t.noteFull(ctx, w)
	}
	return wrap(err, "address of %v", w)
}

// undo releases what an Add that failed has taken. It returns why the Add failed.
func (t *taker) undo(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
	defer cancel()
	if uerr := t.Del(ctx, t.holder.ID); uerr != nil {
		err = fmt.Errorf("%w (and what was taken could not be given back: %w)", err, uerr)
	}
	return err
}

// remember finds out what the attachment holds if local state was lost, and releases it.
func (t *taker) remember(ctx context.Context) error {
	t.remembered = true
	orphans, err := t.recollect(ctx)
	if err != nil || orphans[t.holder.ID] == nil {
		return err
	}
	return t.Del(ctx, t.holder.ID)
}

// take takes addresses out of the node's own blocks: all that are still wanted, or none. Then short
// is the index of a wish that cannot be fulfilled; else it is negative.
func (t *taker) take(ctx context.Context) (got []netip.Addr, short int, err error) {
	short = -1
	err = t.locked(ctx, func(s *session) error {
		if !t.begun {
			if has, err := s.holding(t.holder.ID); has != nil || err != nil {
				return errHolds
			}
		}
		if err := t.check(s); err != nil {
			return err
		}
		got = make([]netip.Addr, len(t.wishes))
		at, wishes := t.unmet(len(t.wishes))
		if t.claim != nil && len(at) > 0 { // what outlives the container is not this node's to keep
			short = at[0]
			return nil
		}
		picks, missing, err := s.pickAll(wishes)
		if missing >= 0 {
			short = at[missing]
			return err
		}
		for i, addr := range t.shared {
			got[i] = addr
		}
		for i, p := range picks {
			got[at[i]] = p.addr
		}
		t.touched = true
		return s.record(&held{Holder: t.holder, Got: got, Shared: t.tried}, picks)
	})
	return got, short, err
}

// unmet returns those of the first n wishes that no shared block has fulfilled, and where they are.
func (t *taker) unmet(n int) (at []int, wishes []Wish) {
	for i, w := range t.wishes[:n] {
		if _, ok := t.shared[i]; !ok {
			at, wishes = append(at, i), append(wishes, w)
		}
	}
	return at, wishes
}

// picked is an address of a block that is to be given.
type picked struct {
	*local
	addr netip.Addr
}

// record writes what an attachment holds, with what was picked, before the blocks that it is of.
func (s *session) record(h *held, picks []picked) error {
	for _, p := range picks {
		h.Local = append(h.Local, heldAddr{p.Space, p.addr})
	}
	if err := s.write(heldName(h.Holder.ID), h); err != nil {
		return err
	}
	var changed []*local
	for _, p := range picks {
		p.use(p.addr, h.Holder)
		if !slices.Contains(changed, p.local) {
			changed = append(changed, p.local)
		}
	}
	for _, b := range changed {
		if err := s.save(b); err != nil {
			return err
		}
	}
	return nil
}

// pickAll finds free addresses for all wishes in the node's own blocks. missing is the index of the
// first wish for which there is none, else negative.
func (s *session) pickAll(wishes []Wish) (picks []picked, missing int, err error) {
	for i, w := range wishes {
		b, addr, err := s.pick(w, picks)
		if err != nil || b == nil {
			return nil, i, err
		}
		picks = append(picks, picked{b, addr})
	}
	return picks, -1, nil
}

// pick finds a free address in the node's own blocks that is not picked already. The block is nil
// if there is none.
func (s *session) pick(w Wish, already []picked) (*local, netip.Addr, error) {
	if w.Asked.IsValid() {
		b, err := s.pickAsked(w, already)
		return b, w.Asked, err
	}
	var found *local
	var addr netip.Addr
	now, looked := s.m.now(), 0
	prefixes, err := s.onShelf(w.Space, open)
	for _, p := range prefixes {
		b := s.openBlock(w, p)
		if b == nil {
			continue
		}
		a, rested, ok := b.pick(w, now, already)
		if rested {
			return b, a, nil
		}
		if ok && (found == nil || b.Freed[a].Before(found.Freed[addr])) {
			found, addr = b, a
		}
		looked++
		if looked == looks && found != nil {
			break
		}
	}
	return found, addr, err
}

// openBlock returns a block of the shelf open from which the wish may have an address; nil if it is
// none, or cannot be read.
func (s *session) openBlock(w Wish, p netip.Prefix) *local {
	if !w.fits(p) {
		return nil
	}
	b, err := s.block(w.Space, p)
	if err == nil && b != nil && b.place() != open { // who moved it was killed
		err = s.save(b)
	}
	if err != nil {
		s.m.Log.Error("block passed over", "space", w.Space, "block", p, "error", err)
		return nil
	}
	if b == nil || !b.gives(w) {
		return nil
	}
	return b
}

// gives reports whether addresses of the block may be given to the wish.
func (b *local) gives(w Wish) bool { return b.State == owned && b.looked(w) }

// pickAsked is pick for an address that is asked for.
func (s *session) pickAsked(w Wish, already []picked) (*local, error) {
	b, err := s.block(w.Space, blockOf(w.Asked))
	if err != nil || b == nil || !b.gives(w) {
		return nil, err
	}
	if slices.Contains(already, picked{b, w.Asked}) {
		return nil, fmt.Errorf("%w: %v is asked for twice", ErrTaken, w.Asked)
	}
	if by, ok := b.Used[w.Asked]; ok {
		return nil, fmt.Errorf("%w: %v is that of pod %s, %v", ErrTaken, w.Asked, by.Pod, by.ID)
	}
	return b, nil
}

// pick finds an address of the block for the wish. It prefers one that has rested.
func (b *local) pick(w Wish, now time.Time, already []picked) (addr netip.Addr, rested, ok bool) {
	used := func(a netip.Addr) bool {
		_, ok := b.Used[a]
		return ok || slices.Contains(already, picked{b, a})
	}
	resting := func(a netip.Addr) bool {
		since, ok := b.Freed[a]
		age := now.Sub(since)
		return ok && age >= 0 && age < rest // a clock that was set back is no reason to wait
	}
	return w.Window.Pick(b.prefix, used, resting)
}

// held returns what an attachment holds. It is nil, or has no addresses, if that is nothing. If the
// file cannot be read, or was lost, all blocks are searched.
func (m *Manager) held(ctx context.Context, a attachment.ID) (found *held, err error) {
	var broken error
	known := true
	err = m.locked(ctx, func(s *session) (err error) {
		found, broken = s.holding(a)
		if found != nil && broken == nil || broken != nil && !errors.Is(broken, errUnusable) {
			return broken
		}
		known = broken == nil && s.recollected()
		all := holdings{}
		err = s.search(all)
		found = all[a]
		return err
	})
	if err != nil || known {
		return found, err
	}
	if found == nil {
		found = &held{Holder: Holder{ID: a}}
	}
	if broken != nil {
		m.Log.Error("what an attachment holds is searched for", "attachment", a, "error", broken)
		shared, err := m.sharedBlocks(ctx, metav1.ListOptions{})
		if err == nil {
			found.Shared, err = m.entries(ctx, a, shared...)
		}
		return found, err
	}
	orphans, err := m.recollect(ctx)
	if orphans[a] != nil {
		found.Shared = orphans[a].Shared
	}
	return found, err
}

// InUse returns what is in use of the blocks that this node knows, by the UID of their objects. The
// error names blocks that cannot be read; the others are returned.
func (m *Manager) InUse(ctx context.Context) (map[types.UID]map[netip.Addr]Holder, error) {
	known := map[types.UID]map[netip.Addr]Holder{}
	err := m.eachBlock(ctx, func(b *local) {
		if b.State == owned || b.State == giving {
			known[b.UID] = b.Used
		}
	})
	return known, err
}

// holds is held with those of its addresses that are recorded as the attachment's in the blocks
// themselves.
func (m *Manager) holds(
	ctx context.Context, a attachment.ID,
) (has *held, addrs []heldAddr, err error) {
	if has, err = m.held(ctx, a); err != nil || has == nil {
		return nil, nil, err
	}
	elsewhere, err := inside(ctx, m, func(s *session) (list []heldAddr, err error) {
		addrs, list, err = s.holdsLocally(has)
		return list, err
	})
	if err != nil {
		return nil, nil, err
	}
	var shared []v1alpha1.IPBlock
	for _, at := range distinctBlocks(elsewhere) {
		object, err := m.lookUp(ctx, at.block())
		if err != nil {
			return nil, nil, err
		}
		if object != nil {
			shared = append(shared, *object)
		}
	}
	entries, err := m.entries(ctx, a, shared...)
	return has, append(addrs, entries...), err
}

// holdsLocally returns those addresses that are recorded as the attachment's in the node's own
// blocks, and those that may be held in the API.
func (s *session) holdsLocally(has *held) (addrs, elsewhere []heldAddr, err error) {
	elsewhere = slices.Clone(has.Shared)
	for _, at := range has.Local {
		b, err := s.block(at.Space, blockOf(at.Addr))
		switch {
		case err != nil:
			return nil, nil, err
		case b == nil || b.State == claiming:
			elsewhere = append(elsewhere, at)
		case b.State != lost && b.Used[at.Addr].ID == has.Holder.ID:
			addrs = append(addrs, at)
		}
	}
	return addrs, elsewhere, nil
}

// distinctBlocks leaves one address of each block.
func distinctBlocks(list []heldAddr) []heldAddr {
	slices.SortFunc(list, func(a, b heldAddr) int { return strings.Compare(a.block(), b.block()) })
	return slices.CompactFunc(list, func(a, b heldAddr) bool { return a.block() == b.block() })
}
