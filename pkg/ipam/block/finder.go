package block

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

const (
	// fewBlocks: a window with less than so many blocks is shared from the start, as the owner of
	// one may have no traffic, and so never answer a recall.
	fewBlocks = 4
	// enoughBlocks for each node of the cluster are enough for those that use the window, whichever
	// they are.
	enoughBlocks = 2
	// manyBlocks are enough for any number of nodes.
	manyBlocks = 1 << 20
)

// finder finds a block for a window that its node has, or may have. It has the lock of the space.
type finder struct {
	*Manager
	w Wish
	// beside are wishes that the node's own blocks fulfil, and are to at the same time.
	beside []Wish
	// lasting: what is to be found outlives containers, and so is not a node's to keep.
	lasting bool
	me      *identity
	rnd     *rand.Rand
	// taken are blocks that cannot be claimed, listed those of them that were read; complete says that
	// these are all of the window.
	taken    *alloc.BlockSet
	listed   []listed
	complete bool
	// overlaps are blocks in the spaces beside that were read.
	overlaps []listed
	// unlock releases the lock of the space.
	unlock func()
	// waited is how long for blocks that were recalled.
	waited time.Duration
}

// listed is a block as it was read.
type listed struct {
	v1alpha1.IPBlock
	cidr netip.Prefix
}

// see lists blocks, but those that are not as ours are.
func (f *finder) see(objects ...v1alpha1.IPBlock) {
	f.listed = append(f.listed, within(objects)...)
}

// within returns those of the objects that are blocks as ours are.
func within(objects []v1alpha1.IPBlock) (list []listed) {
	for _, b := range objects {
		if cidr, err := ParseBlock(b.Spec.CIDR); err == nil {
			list = append(list, listed{b, cidr})
		}
	}
	return list
}

// finder takes the lock of the wish's space. Its unlock is to be called, as it is then.
func (m *Manager) finder(
	ctx context.Context, w Wish, beside []Wish, lasting bool,
) (*finder, error) {
	unlock, err := m.lockSpace(ctx, w.Space)
	return &finder{
		Manager: m, w: w, beside: beside, lasting: lasting, rnd: m.rand(), unlock: unlock,
	}, err
}

// begin looks for blocks that the node has. It returns found if they have an address for the wish
// by now, as whoever had the lock before may have got one. If not, it looks at blocks whose owner
// is not known, and at those of before the reboot. It returns share if a block that is made for the
// wish is to be shared.
func (f *finder) begin(ctx context.Context) (found, share bool, err error) {
	f.listed, f.overlaps, f.taken, f.complete = nil, nil, new(alloc.BlockSet), false
	if !f.lasting {
		if found, err = f.has(ctx); !found && err == nil && len(f.w.Beside) > 0 {
			if err = f.lookBeside(ctx); err == nil {
				found, err = f.has(ctx)
			}
		}
		if found || err != nil {
			return found, false, err
		}
	}
	if f.me, err = f.self(ctx); err == nil {
		found, err = f.resume(ctx)
	}
	if err == nil && !found {
		share, err = f.shares(ctx)
	}
	return found, share, err
}

// has reports whether the node's own blocks can fulfil the wish.
func (f *finder) has(ctx context.Context) (bool, error) {
	return inside(ctx, f.Manager, func(s *session) (bool, error) {
		_, missing, err := s.pickAll(append(slices.Clip(f.beside), f.w))
		return missing < 0, err
	})
}

// shares reports whether a block that is claimed is to be shared: where those nodes that use blocks
// of the window outnumber the blocks that nobody has.
func (f *finder) shares(ctx context.Context) (bool, error) {
	count := f.w.Window.BlockCount(blockBits(f.w.Window.Start()))
	if f.lasting {
		return true, nil
	}
	if count >= manyBlocks {
		return false, nil
	}
	nodes, err := f.nodes(ctx, f.me)
	switch {
	case err != nil || nodes < 2:
		return false, err
	case count < fewBlocks:
		return true, nil
	case count >= uint64(nodes)*enoughBlocks:
		return false, nil
	}
	if err := f.list(ctx); err != nil {
		return false, err
	}
	return f.crowded(count), nil
}

// crowded reports whether the nodes that own listed blocks of the window, or addresses of shared
// ones, and this one are more than the blocks that nobody has, of so many.
func (f *finder) crowded(blocks uint64) bool {
	users := map[string]bool{f.me.Name: true}
	for _, b := range f.listed {
		if !f.w.Window.Prefix().Overlaps(b.cidr) {
			continue
		}
		if f.w.fits(b.cidr) && blocks > 0 {
			blocks--
		}
		if b.Spec.Owner != nil {
			users[b.Spec.Owner.NodeName] = true
		}
		for _, e := range b.Spec.Allocations {
			for _, s := range Sandboxes(e) {
				if s.Node != nil {
					users[s.Node.NodeName] = true
				}
			}
		}
	}
	return uint64(len(users)) > blocks
}

// local returns the blocks of the space that this node cannot claim because it has them, or must
// not use them, whatever the API says.
func (f *finder) local(ctx context.Context) (prefixes []netip.Prefix, err error) {
	for _, space := range append([]string{f.w.Space}, f.w.Beside...) {
		more, err := f.localIn(ctx, space)
		if err != nil {
			return nil, err
		}
		prefixes = append(prefixes, more...)
	}
	return prefixes, nil
}

// localIn is local for one space, or one beside it.
func (f *finder) localIn(ctx context.Context, space string) (prefixes []netip.Prefix, err error) {
	err = f.locked(ctx, func(l *session) error {
		for _, on := range shelves() {
			list, err := l.onShelf(space, on)
			if err != nil {
				return err
			}
			for _, p := range list {
				if on == aside {
					if b, err := l.block(space, p); err != nil || b == nil || b.State == claiming {
						continue // an error will be met again
					}
				}
				prefixes = append(prefixes, p)
			}
		}
		return nil
	})
	return prefixes, err
}

// list learns which blocks of the space cannot be claimed.
func (f *finder) list(ctx context.Context) (err error) {
	local, err := f.local(ctx)
	if err != nil {
		return err
	}
	objects, err := f.Store.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.space=" + f.w.Space})
	if err != nil {
		return fmt.Errorf("list blocks of space %s: %w", f.w.Space, err)
	}
	f.listed = nil
	f.see(objects...)
	taken, err := f.listBeside(ctx)
	if err != nil {
		return err
	}
	taken = append(taken, local...)
	for _, b := range objects {
		// One that is not as ours are is taken as far as it reaches.
		if p, err := netip.ParsePrefix(b.Spec.CIDR); err == nil {
			taken = append(taken, p.Masked())
		}
	}
	f.taken = alloc.NewBlockSet(slices.Values(taken))
	f.complete = true
	return nil
}

// fromOwn uses a block that was listed as the node's and was not known: the answer to its claim was
// lost, or it is of before the reboot.
func (f *finder) fromOwn(ctx context.Context) (ok bool, err error) {
	for _, b := range f.listed {
		if !f.me.owns(&b.IPBlock) || !f.w.fits(b.cidr) {
			continue
		}
		own, err := f.ownBlock(ctx, f.me, f.w.Space, b.cidr)
		if err == nil && own != nil {
			ok, err = f.use(ctx, own)
		}
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// recall asks the owner of a block to share it, and returns that block.
func (f *finder) recall(ctx context.Context) (*v1alpha1.IPBlock, error) {
	if ok, err := f.fromOwn(ctx); ok || err != nil {
		return nil, err
	}
	victims := f.victims()
	if len(victims) == 0 {
		return nil, fmt.Errorf("%w in %v", ErrFull, f.w)
	}
	chosen := f.choose(victims)
	victim := &chosen.IPBlock
	switch {
	case f.me.owns(victim) && victim.Spec.Space != f.w.Space:
		return victim, f.giveOwn(ctx, victim)
	case f.me.owns(victim): // what lasts is none of its own
		return victim, f.give(ctx, f.me, victim.Spec.Space, chosen.cidr, (*local).ours)
	}
	return victim, f.askToShare(ctx, victim)
}

// victims returns the blocks of the window that other nodes may be asked to share; those of the
// spaces beside if there are none.
func (f *finder) victims() []listed {
	victims := slices.DeleteFunc(slices.Clone(f.listed), func(b listed) bool {
		return b.Spec.Owner == nil || !f.w.fits(b.cidr) || !f.lasting && f.me.owns(&b.IPBlock)
	})
	if len(victims) > 0 {
		return victims
	}
	return slices.DeleteFunc(slices.Clone(f.overlaps), func(b listed) bool {
		return b.Spec.Owner == nil || !f.w.fits(b.cidr)
	})
}

// askToShare asks the owner of a block to share it, unless somebody has.
func (f *finder) askToShare(ctx context.Context, victim *v1alpha1.IPBlock) error {
	if victim.Spec.Recall != nil {
		return nil
	}
	victim.Spec.Recall = &v1alpha1.Recall{By: f.me.Name, At: metav1.NewTime(f.wall())}
	if err := f.step("recall block"); err != nil {
		return err
	}
	_, err := f.Store.UpdateBlock(ctx, victim)
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("recall block %s: %w", victim.Name, err)
	}
	return nil
}

// choose prefers blocks that were recalled a moment ago, then those that say that something is
// free. Where a recall was not answered, nobody may be there to do it.
func (f *finder) choose(victims []listed) listed {
	f.rnd.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	rank := func(b listed) int32 {
		switch {
		case b.Spec.Recall == nil:
			return Size - b.Status.Used
		case f.wall().Sub(b.Spec.Recall.At.Time).Abs() < answered:
			return Size + 1
		}
		return -1
	}
	return slices.MaxFunc(victims, func(a, b listed) int { return cmp.Compare(rank(a), rank(b)) })
}

// await waits until the block is the owner's no more. Others may have the lock of the space
// meanwhile.
func (f *finder) await(ctx context.Context, victim *v1alpha1.IPBlock) error {
	for {
		object, err := f.lookUp(ctx, victim.Name)
		if err != nil || object == nil || object.Spec.Owner == nil {
			return err
		}
		if f.waited >= cmp.Or(f.Patience, defaultPatience) {
			return fmt.Errorf("%w in %v but in blocks of other nodes; node %s was asked to share %s and "+
				"did not yet: %w",
				ErrFull, f.w, object.Spec.Owner.NodeName, object.Spec.CIDR, ErrLater)
		}
		wait := lookAgain + time.Duration(f.rnd.Int64N(int64(lookAgain))) // spreads load
		f.waited += wait
		f.unlock()
		f.unlock = func() {}
		if err := f.sleep(ctx, wait); err != nil {
			return err
		}
		unlock, err := f.lockSpace(ctx, f.w.Space)
		if err != nil {
			return err
		}
		f.unlock = unlock
	}
}

// object returns a block as it is to be made; it is shared if the owner is nil.
func (m *Manager) object(space string, cidr netip.Prefix, owner *v1alpha1.Node) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{
		TypeMeta: metav1.TypeMeta{
			APIVersion: v1alpha1.GroupName + "/" + v1alpha1.Version, Kind: v1alpha1.Kind,
		},
		ObjectMeta: metav1.ObjectMeta{Name: NameOf(space, cidr)},
		Spec:       v1alpha1.IPBlockSpec{Space: space, CIDR: cidr.String(), Owner: owner},
	}
}

// createOwned claims the block for this node; false if it exists. The claim is written down before
// it is made, so that one whose answer is lost is not taken for a block that was in use.
func (f *finder) createOwned(ctx context.Context, cidr netip.Prefix) (claimed bool, err error) {
	b, again, err := f.noteClaim(ctx, cidr)
	if err != nil || b.State != claiming { // it stands aside
		return false, err
	}
	object := f.object(f.w.Space, cidr, f.me.node(b.Claim))
	if err := f.step("create block"); err != nil {
		return false, err
	}
	made, err := f.Store.CreateBlock(ctx, object)
	switch {
	case apierrors.IsAlreadyExists(err) && again: // it may be ours
		b, err = f.settle(ctx, f.me, f.w.Space, cidr)
	case apierrors.IsAlreadyExists(err):
		return false, f.locked(ctx, func(l *session) error { return l.drop(b) })
	case err != nil:
		return false, fmt.Errorf("claim block %v of space %s: %w", cidr, f.w.Space, err)
	default:
		if err = f.step("created block"); err == nil {
			b, err = f.become(ctx, f.w.Space, cidr, owned, made.UID)
		}
	}
	if err != nil || b == nil || b.State != owned {
		return false, err
	}
	return f.keep(ctx, cidr)
}

// noteClaim writes down that the block is about to be claimed. again: there was a file of it, which
// it returns as it is.
func (f *finder) noteClaim(
	ctx context.Context, cidr netip.Prefix,
) (b *local, again bool, err error) {
	err = f.locked(ctx, func(l *session) (err error) {
		if b, err = l.block(f.w.Space, cidr); err != nil || b != nil {
			again = b != nil
			return err
		}
		b = f.newLocal(f.w.Space, cidr, claiming)
		b.Idle = f.now()
		return l.save(b)
	})
	return b, again, err
}

// keep returns a block that the node has just claimed back, if there is one of its addresses in a
// space beside; then it returns false. Of two nodes that claim one in each space, one sees the
// other's.
func (f *finder) keep(ctx context.Context, cidr netip.Prefix) (bool, error) {
	if len(f.w.Beside) == 0 {
		return true, nil
	}
	only, err := f.only(ctx, cidr)
	if !only && err == nil {
		err = f.give(ctx, f.me, f.w.Space, cidr, func(b *local) bool {
			return b.ours() && len(b.Used) == 0
		})
	}
	return only, err
}

// wrap says what failed.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// resume settles the blocks that stand aside, and takes up one of before the reboot that has an
// address for the wish.
func (f *finder) resume(ctx context.Context) (ok bool, err error) {
	prefixes, err := inside(ctx, f.Manager, func(l *session) ([]netip.Prefix, error) {
		return l.onShelf(f.w.Space, aside)
	})
	for i := 0; i < len(prefixes) && err == nil && !ok; i++ {
		var b *local
		if b, err = f.settle(ctx, f.me, f.w.Space, prefixes[i]); err == nil && b != nil {
			ok, err = f.use(ctx, b)
		}
	}
	return ok, err
}

// use takes the node's own block up, if need be, and reports whether it has an address for the
// wish.
func (f *finder) use(ctx context.Context, b *local) (ok bool, err error) {
	if f.lasting || !f.w.fits(b.prefix) {
		return false, nil
	}
	if b.State == dormant {
		if b, err = f.takeUp(ctx, f.me, b); b == nil || err != nil {
			return false, err
		}
	}
	if b.State != owned {
		return false, nil
	}
	if only, err := f.only(ctx, b.prefix); !only || err != nil {
		return false, err
	}
	return f.has(ctx)
}
