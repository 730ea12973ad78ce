package block

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

const (
	// Before the API is asked for a list of all blocks, some are tried by chance: one of lookShare, which cost it about as much as the list,
	// but not so many that an Add takes long.
	lookShare = 16
	minLooks  = 4
	maxLooks  = 64
	// tries bounds how often a block is found taken, which a list said was free.
	tries = 160
	// fewBlocks: a window with less than so many blocks is shared from the start, as the owner of
	// one may have no traffic, and so never answer a recall.
	fewBlocks = 4
	// enoughBlocks for each node of the cluster are enough for those that use the window, whichever
	// they are.
	enoughBlocks = 2
	// manyBlocks are enough for any number of nodes.
	manyBlocks = 1 << 20
)

// search is the way to an address for one wish that the node's own blocks cannot fulfil. It has the lock of the space.
type search struct {
	*order
	w     Wish
	index int
	me    *self
	rnd   *rand.Rand
	// taken are blocks that cannot be claimed, listed those of them that were read; complete says that these are all of the window.
	taken    *alloc.BlockSet
	listed   []v1alpha1.IPBlock
	complete bool
	// unlock gives the lock of the space back.
	unlock func()
	// waited is how long for blocks that were recalled.
	waited time.Duration
}

// obtain gets a block for the wish of that index, or an address of a shared one.
func (o *order) obtain(ctx context.Context, index int) error {
	w := o.wishes[index]
	unlock, err := o.lockSpace(ctx, w.Space)
	if err != nil {
		return err
	}
	s := &search{order: o, w: w, index: index, rnd: o.rand(), unlock: unlock}
	defer func() { s.unlock() }()
	for {
		victim, err := s.run(ctx)
		if err != nil || victim == nil {
			return err
		}
		if err := s.await(ctx, victim); err != nil {
			return err
		}
	}
}

// has says whether the node's own blocks can fulfil the wish.
func (m *Manager) has(ctx context.Context, w Wish) (ok bool, err error) {
	err = m.locked(ctx, func(s *session) error {
		b, _, err := s.pick(w)
		ok = b != nil
		return err
	})
	return ok, err
}

// run tries what there is, the cheapest first. victim is a block that another node is asked to share.
func (s *search) run(ctx context.Context) (victim *v1alpha1.IPBlock, err error) {
	s.listed, s.taken, s.complete = nil, new(alloc.BlockSet), false
	if ok, err := s.owns(ctx); ok || err != nil {
		return nil, err
	}
	share, err := s.shares(ctx)
	if err != nil {
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

// steps are the ways to an address, the cheapest first.
func (s *search) steps(share bool) []func(context.Context) (bool, error) {
	create := func(ctx context.Context) (bool, error) { return s.create(ctx, share) }
	list := []func(context.Context) (bool, error){create, s.fromShared}
	switch {
	case s.claim != nil:
		return slices.Insert(list, 0, s.fromClaimed, s.probe)
	case share && s.complete: // a block that is shared is better used than another one
		return slices.Insert(list, 0, s.fromShared)
	case share:
		return slices.Insert(list, 0, s.probe)
	}
	return slices.Insert(list, 0, s.createInZone)
}

// owns says whether the node's own blocks have an address for the wish by now: whoever had the lock before may have got one. If not, those
// are looked at of which it is not known whose they are, and those of before the reboot.
func (s *search) owns(ctx context.Context) (ok bool, err error) {
	if s.claim == nil { // what outlives the container is not this node's to keep
		if ok, err := s.has(ctx, s.w); ok || err != nil {
			return ok, err
		}
	}
	if s.me, err = s.self(ctx); err != nil {
		return false, err
	}
	if !s.me.All && !slices.Contains(s.me.Seen, s.w.Space) {
		if err := s.learn(ctx); err != nil {
			return false, err
		}
	}
	return s.resume(ctx)
}

// shares reports whether a block that is claimed is to be shared: where those nodes that use blocks
// of the window outnumber the blocks that nobody has.
func (s *search) shares(ctx context.Context) (bool, error) {
	count := s.w.Window.BlockCount(blockBits(s.w.Window.Start()))
	if s.claim != nil {
		return true, nil
	}
	if count >= manyBlocks {
		return false, nil
	}
	nodes, err := s.nodes(ctx, s.me)
	switch {
	case err != nil || nodes < 2:
		return false, err
	case count < fewBlocks:
		return true, nil
	case count >= uint64(nodes)*enoughBlocks:
		return false, nil
	}
	if err := s.list(ctx); err != nil {
		return false, err
	}
	return s.users() > s.unclaimed(count), nil
}

// users counts the nodes that own blocks of the window, or addresses of shared ones, of those that
// were listed, and this one.
func (s *search) users() uint64 {
	names := map[string]bool{s.me.Name: true}
	for i := range s.listed {
		spec := &s.listed[i].Spec
		if cidr, err := ParseBlock(spec.CIDR); err != nil || !s.w.Window.Prefix().Overlaps(cidr) {
			continue
		}
		if spec.Owner != nil {
			names[spec.Owner.NodeName] = true
		}
		for _, e := range spec.Allocations {
			for _, s := range Sandboxes(e) {
				if s.Node != nil {
					names[s.Node.NodeName] = true
				}
			}
		}
	}
	return uint64(len(names))
}

// unclaimed counts the blocks of the window, of which there are so many, that no listed one has.
func (s *search) unclaimed(count uint64) uint64 {
	taken := map[netip.Prefix]bool{}
	for i := range s.listed {
		if cidr, err := ParseBlock(s.listed[i].Spec.CIDR); err == nil && s.w.fits(cidr) {
			taken[cidr] = true
		}
	}
	return count - min(count, uint64(len(taken)))
}

// local are the blocks of the space that this node cannot claim because it has them, or must not use them, whatever the API says.
func (s *search) local(ctx context.Context) (prefixes []netip.Prefix, err error) {
	err = s.locked(ctx, func(l *session) error {
		for _, on := range shelves() {
			list, err := l.onShelf(s.w.Space, on)
			if err != nil {
				return err
			}
			for _, p := range list {
				if on == aside {
					if b, err := l.block(s.w.Space, p); err != nil || b == nil || b.State == claiming {
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
func (s *search) list(ctx context.Context) (err error) {
	local, err := s.local(ctx)
	if err != nil {
		return err
	}
	s.listed, err = s.Store.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.space=" + s.w.Space})
	if err != nil {
		return fmt.Errorf("list blocks of space %s: %w", s.w.Space, err)
	}
	taken := local
	for _, b := range s.listed {
		// One that is not as ours are is taken as far as it reaches.
		if p, err := netip.ParsePrefix(b.Spec.CIDR); err == nil {
			taken = append(taken, p.Masked())
		}
	}
	s.taken = alloc.NewBlockSet(slices.Values(taken))
	s.complete = true
	return nil
}

// looks is how many blocks of the window are tried by chance.
func (w Wish) looks() int {
	return int(min(max(w.Window.BlockCount(blockBits(w.Window.Start()))/lookShare, minLooks), maxLooks)) //nolint:gosec // bounded
}

// create claims a block that nobody has; false if there is none. A shared one is created with the address in it.
func (s *search) create(ctx context.Context, share bool) (ok bool, err error) {
	bits := blockBits(s.w.Window.Start())
	looks := s.w.looks()
	for try := range looks + tries {
		cidr, ok := s.w.Window.RandomBlock(bits, s.rnd, s.taken)
		if !s.complete && (!ok || try == looks) {
			if err := s.list(ctx); err != nil {
				return false, err
			}
			cidr, ok = s.w.Window.RandomBlock(bits, s.rnd, s.taken)
		}
		if !ok {
			return false, nil
		}
		// Where others were found, a look comes first: one that finds the block costs the API a fifth of a claim that does.
		look := try > 0 && !s.complete
		if claimed, err := s.createAt(ctx, cidr, share, look); claimed || err != nil {
			return claimed, err
		}
		s.complete = false // one that was made since the list was may have an address
	}
	return false, fmt.Errorf("%d blocks in turn were taken by other nodes: %w", looks+tries, ErrLater)
}

// createAt claims this very block; false if it exists.
func (s *search) createAt(ctx context.Context, cidr netip.Prefix, share, look bool) (claimed bool, err error) {
	s.taken.Add(cidr)
	if look { // at what an API server has in memory: if it is not the latest, no more is lost than a try
		there, err := s.Store.Blocks(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + NameOf(s.w.Space, cidr), ResourceVersion: "0"})
		if err != nil || len(there) > 0 {
			return false, wrap(err, "look for block %v of space %s", cidr, s.w.Space)
		}
	}
	if share {
		return s.createShared(ctx, cidr)
	}
	return s.createOwned(ctx, cidr)
}

func (m *Manager) object(space string, cidr netip.Prefix) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupName + "/" + v1alpha1.Version, Kind: v1alpha1.Kind},
		ObjectMeta: metav1.ObjectMeta{Name: NameOf(space, cidr)},
		Spec:       v1alpha1.IPBlockSpec{Space: space, CIDR: cidr.String()},
	}
}

// createOwned claims the block for this node; false if it exists. By which claim it is about to do so is written before, so that a claim of which
// the answer is lost is not taken for a block that was in use.
func (s *search) createOwned(ctx context.Context, cidr netip.Prefix) (claimed bool, err error) {
	var b *local
	again := false
	err = s.locked(ctx, func(l *session) (err error) {
		if b, err = l.block(s.w.Space, cidr); err != nil || b != nil {
			again = b != nil
			return err
		}
		b = newLocal(s.w.Space, cidr, claiming)
		b.Claim, b.Idle = s.newClaim(), s.now()
		return l.save(b)
	})
	if err != nil || b.State != claiming { // it stands aside
		return false, err
	}
	object := s.object(s.w.Space, cidr)
	object.Spec.Owner = s.me.node(b.Claim)
	if err := s.step("create block"); err != nil {
		return false, err
	}
	made, err := s.Store.CreateBlock(ctx, object)
	switch {
	case apierrors.IsAlreadyExists(err) && again: // it may be ours
		b, err := s.settle(ctx, s.me, s.w.Space, cidr)
		return b != nil && b.State == owned, err
	case apierrors.IsAlreadyExists(err):
		return false, s.locked(ctx, func(l *session) error { return l.drop(b) })
	case err != nil:
		return false, fmt.Errorf("claim block %v of space %s: %w", cidr, s.w.Space, err)
	}
	if err := s.step("created block"); err != nil {
		return false, err
	}
	_, err = s.become(ctx, s.w.Space, cidr, owned, made.UID)
	return err == nil, err
}

// wrap says what failed.
func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// find gives the local state of a block; nil if there is none.
func (m *Manager) find(ctx context.Context, space string, cidr netip.Prefix) (b *local, err error) {
	err = m.locked(ctx, func(s *session) (err error) {
		b, err = s.block(space, cidr)
		return err
	})
	return b, err
}

// become notes what a block has turned out to be: owned, so that its addresses are given, or dormant.
func (m *Manager) become(ctx context.Context, space string, cidr netip.Prefix, what state, uid types.UID) (b *local, err error) {
	err = m.locked(ctx, func(s *session) (err error) {
		b, err = s.block(space, cidr)
		if err != nil || b == nil {
			return errors.Join(err, fmt.Errorf("the local state of block %v of space %s was removed: %w", cidr, space, ErrLater))
		}
		if b.State != what && len(b.Used) == 0 {
			b.Idle = m.now()
		}
		b.UID, b.State = uid, what
		return s.save(b)
	})
	return b, err
}

// resume settles the blocks that stand aside, and takes up one of before the reboot that has an address for the wish.
func (s *search) resume(ctx context.Context) (ok bool, err error) {
	var prefixes []netip.Prefix
	err = s.locked(ctx, func(l *session) (err error) {
		prefixes, err = l.onShelf(s.w.Space, aside)
		return err
	})
	for _, p := range prefixes {
		if err != nil || ok {
			break
		}
		b, serr := s.settle(ctx, s.me, s.w.Space, p)
		if err = serr; err == nil && b != nil {
			ok, err = s.use(ctx, b)
		}
	}
	return ok, err
}

// use says whether the node's own block has an address for the wish; one of before the reboot is taken up first.
func (s *search) use(ctx context.Context, b *local) (ok bool, err error) {
	switch {
	case s.claim != nil || !s.w.fits(b.prefix):
		return false, nil
	case b.State == dormant:
		if ok, err := s.takeUp(ctx, s.me, b); !ok || err != nil {
			return false, err
		}
	case b.State != owned:
		return false, nil
	}
	return s.has(ctx, s.w)
}

// learn finds the blocks of the space that the node owned before a reboot.
func (s *search) learn(ctx context.Context) error {
	mine, err := s.Store.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + s.me.Name + ",spec.space=" + s.w.Space})
	if err != nil {
		return fmt.Errorf("list blocks of node %s: %w", s.me.Name, err)
	}
	err = s.locked(ctx, func(l *session) error {
		for _, object := range mine {
			if err := l.adopt(s.me, &object); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.note(ctx, s.me, func(me *self) { me.Seen = append(me.Seen, s.w.Space) })
}

// adopt notes a block that is the node's and of which there is no file. The lock of the space has been held since the object was read.
func (l *session) adopt(me *self, object *v1alpha1.IPBlock) error {
	cidr, err := ParseBlock(object.Spec.CIDR)
	if err != nil || !isSpace(object.Spec.Space) || object.Name != NameOf(object.Spec.Space, cidr) {
		l.m.Log.Error("block left alone, it is not as this node's are", "object", object.Name, "cidr", object.Spec.CIDR, "space", object.Spec.Space)
		return nil //nolint:nilerr // it is nothing that gives addresses
	}
	if b, err := l.block(object.Spec.Space, cidr); err != nil || b != nil {
		return err
	}
	b := newLocal(object.Spec.Space, cidr, dormant)
	b.UID, b.Idle = object.UID, l.m.now()
	if bootOf(object.Spec.Owner) == me.Boot {
		b.State = owned
		if err := l.fill(b, false); err != nil {
			return err
		}
		l.m.Log.Error("which addresses of the block are in use is not known, as its state was removed: what is free of it is given after the next boot",
			"space", b.Space, "block", cidr, "node", me.Name)
	}
	return l.save(b)
}

// mine gives the block as it is on this node, settled, and noted if it was not yet; nil if it is not the node's. The lock of the space is held.
func (m *Manager) mine(ctx context.Context, me *self, space string, cidr netip.Prefix) (*local, error) {
	b, err := m.settle(ctx, me, space, cidr)
	if b != nil || err != nil {
		return b, err
	}
	object, err := m.Store.Block(ctx, NameOf(space, cidr))
	if apierrors.IsNotFound(err) || err == nil && !me.owns(object) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get block %v of space %s: %w", cidr, space, err)
	}
	err = m.locked(ctx, func(s *session) (err error) {
		if err = s.adopt(me, object); err == nil {
			b, err = s.block(space, cidr)
		}
		return err
	})
	return b, err
}

// owns reports whether the object is the node's, perhaps under an earlier name.
func (n *self) owns(object *v1alpha1.IPBlock) bool { return n.identity().named(object.Spec.Owner) }

// takeUp makes a block of before the reboot the node's in this boot; false if it is not the node's any more, or was taken up since, and what was in
// use of it then is not known.
func (m *Manager) takeUp(ctx context.Context, me *self, b *local) (bool, error) {
	if b.Claim == "" { // for the case that the answer is lost
		b.Claim = m.newClaim()
		if err := m.locked(ctx, func(s *session) error { return s.save(b) }); err != nil {
			return false, err
		}
	}
	for pauses := m.conflicts(); ; {
		object, err := m.Store.Block(ctx, b.name())
		if err != nil && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("get block %s: %w", b.name(), err)
		}
		if err != nil || !me.owns(object) {
			return false, m.locked(ctx, func(s *session) error { return s.drop(b) })
		}
		if boot, claim := me.by(b, object.Spec.Owner); boot && !claim {
			return false, m.locked(ctx, func(s *session) error { return errors.Join(s.drop(b), s.adopt(me, object)) })
		}
		object.Spec.Owner = me.node(b.Claim)
		if err := m.step("take up block"); err != nil {
			return false, err
		}
		object, err = m.Store.UpdateBlock(ctx, object)
		if err == nil {
			_, err := m.become(ctx, b.Space, b.prefix, owned, object.UID)
			return err == nil, err
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return false, fmt.Errorf("take up block %s: %w", b.name(), err)
		}
		if err := pauses.next(ctx); err != nil {
			return false, err
		}
	}
}
