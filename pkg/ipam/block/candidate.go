package block

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// A zone is sixteen blocks side by side. Who has its first block takes the others when they are
// needed, and who has no zone with a free block takes the first block of another one. So nodes that
// claim at once seldom meet, and a node's addresses lie together. It is a custom, not a right:
// where no zone is left, a node takes any block.
const (
	zoneBits = 4
	// maxZones is how many zones are looked at by a node that has nothing of the window, moreZones by
	// one that has.
	maxZones  = 256
	moreZones = 32
	// maxNear is how many blocks of the node's zones are tried: others may have had to take them.
	maxNear = 16
	// Before the API is asked for a list of all blocks, some are tried by chance: one of lookShare,
	// which cost it about as much as the list, but not so many that an Add takes long.
	lookShare = 16
	minLooks  = 4
	maxLooks  = 64
	// tries bounds how often a block is found taken, which a list said was free.
	tries = 160
)

// candidate is a block that may be nobody's.
type candidate struct {
	cidr netip.Prefix
	// look: a look at it is to come before a claim. It costs the API a fifth of a claim that finds the
	// block taken.
	look bool
}

// candidates yields blocks in the order to try them. Who asks for another one has found the last
// one taken.
func (f *finder) candidates(ctx context.Context, zones bool) iter.Seq2[candidate, error] {
	return func(yield func(candidate, error) bool) {
		own, err := f.local(ctx)
		if err != nil {
			yield(candidate{}, err)
			return
		}
		if !f.complete {
			f.taken = alloc.NewBlockSet(slices.Values(own))
		}
		first := true
		for cidr, err := range f.inOrder(ctx, own, zones) {
			if err != nil {
				yield(candidate{}, err)
				return
			}
			// the first one of a zone that the node has is most likely nobody's
			mine := first && slices.Contains(own, f.w.head(zoneOf(cidr)))
			f.taken.Add(cidr)
			if !yield(candidate{cidr, !mine && !f.complete}, nil) {
				return
			}
			first, f.complete = false, false // others may have been made since the list was, too
		}
	}
}

// inOrder yields, if the node wants a block of its own, those of the zones that it has and the
// first ones of others; then some by chance; and then those that a list of all does not have.
func (f *finder) inOrder(
	ctx context.Context, own []netip.Prefix, zones bool,
) iter.Seq2[netip.Prefix, error] {
	return func(yield func(netip.Prefix, error) bool) {
		for _, inZones := range []iter.Seq[netip.Prefix]{f.near(own), f.heads(own)} {
			if !zones {
				break
			}
			for cidr := range inZones {
				if !yield(cidr, nil) {
					return
				}
			}
		}
		f.byChance(ctx)(yield)
	}
}

// near yields blocks that are not taken of the zones that the node has; own are those that it has.
func (f *finder) near(own []netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		left := maxNear
		for _, p := range own {
			if f.w.head(zoneOf(p)) != p {
				continue
			}
			for cidr := range f.w.blocksIn(zoneOf(p)) {
				if f.taken.Has(cidr) {
					continue
				}
				if left == 0 || !yield(cidr) {
					return
				}
				left--
			}
		}
	}
}

// heads yields the first blocks of zones where the node has nothing. The very first is that of
// the window if the node has nothing of it, as in a small cluster people expect addresses in their
// order.
func (f *finder) heads(own []netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		zones := new(alloc.BlockSet)
		for _, p := range own {
			zones.Add(zoneOf(p))
		}
		bits := blockBits(f.w.Window.Start())
		looks := moreZones
		zone, ok := f.w.Window.RandomBlock(bits-zoneBits, f.rnd, zones)
		if !slices.ContainsFunc(own, f.w.Window.Prefix().Overlaps) {
			looks = maxZones
			for first := range f.w.Window.Blocks(bits) {
				zone = zoneOf(first)
				break
			}
		}
		for ; ok && looks > 0; looks-- {
			head := f.w.head(zone)
			if head.IsValid() && !f.taken.Has(head) && !yield(head) {
				return
			}
			zones.Add(zone)
			zone, ok = f.w.Window.RandomBlock(bits-zoneBits, f.rnd, zones)
		}
	}
}

// byChance yields blocks that are not taken as far as the node knows. After some it asks for a list
// of all, and ends when that has each block of the window.
func (f *finder) byChance(ctx context.Context) iter.Seq2[netip.Prefix, error] {
	return func(yield func(netip.Prefix, error) bool) {
		bits := blockBits(f.w.Window.Start())
		looks := f.w.looks()
		for try := range looks + tries {
			cidr, ok := f.w.Window.RandomBlock(bits, f.rnd, f.taken)
			if !f.complete && (!ok || try == looks) {
				if err := f.list(ctx); err != nil {
					yield(cidr, err)
					return
				}
				cidr, ok = f.w.Window.RandomBlock(bits, f.rnd, f.taken)
			}
			if !ok || !yield(cidr, nil) {
				return
			}
		}
		yield(netip.Prefix{}, fmt.Errorf("%d blocks in turn were taken by other nodes: %w",
			looks+tries, ErrLater))
	}
}

// looks returns how many blocks of the window are tried by chance.
func (w Wish) looks() int {
	blocks := w.Window.BlockCount(blockBits(w.Window.Start()))
	return int(min(max(blocks/lookShare, minLooks), maxLooks))
}

func zoneOf(p netip.Prefix) netip.Prefix { return alloc.BlockOf(p.Addr(), p.Bits()-zoneBits) }

// blocksIn returns the blocks of a zone that have an address for the wish, in order.
func (w Wish) blocksIn(zone netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		var last netip.Prefix
		for a := range w.Window.In(zone) {
			if p := blockOf(a); p != last {
				if last = p; !yield(p) {
					return
				}
			}
		}
	}
}

// head returns the first of them, which stands for the zone; not valid where there is none.
func (w Wish) head(zone netip.Prefix) netip.Prefix {
	for p := range w.blocksIn(zone) {
		return p
	}
	return netip.Prefix{}
}

// maker makes a block the node's, or takes an address of it; false if it is taken.
type maker func(context.Context, candidate) (bool, error)

// first tries the candidates in turn; false if none is left.
func (f *finder) first(ctx context.Context, zones bool, build maker) (bool, error) {
	for c, err := range f.candidates(ctx, zones) {
		ok := false
		if err == nil {
			ok, err = build(ctx, c)
		}
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// claim claims a block that nobody has; false if there is none.
func (f *finder) claim(ctx context.Context) (bool, error) {
	return f.first(ctx, true, func(ctx context.Context, c candidate) (bool, error) {
		if c.look {
			// at what an API server has in memory: if it is not the latest, no more is lost than a try
			there, err := f.Store.Blocks(ctx, metav1.ListOptions{
				FieldSelector: "metadata.name=" + NameOf(f.w.Space, c.cidr), ResourceVersion: "0",
			})
			if err != nil || len(there) > 0 {
				return false, wrap(err, "look for block %v of space %s", c.cidr, f.w.Space)
			}
		}
		return f.createOwned(ctx, c.cidr)
	})
}
