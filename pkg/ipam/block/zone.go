package block

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// A zone is sixteen blocks side by side. Who has its first block takes the others when they are
// needed, and who has no zone with a free block takes the first block of another one. So nodes that
// claim at once seldom meet, and what a node gives lies together. It is a custom, not a right:
// where no zone is left, a node takes any block.
const (
	zoneBits = 4
	// maxZones is how many zones are looked at by a node that has nothing of the window, moreZones by
	// one that has.
	maxZones  = 256
	moreZones = 32
	// maxNear is how many blocks of the node's zones are looked for, and a zone's rest: others may
	// have had to take them.
	maxNear = 16
)

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

// near returns the blocks that the node may still take of its zones; local are those that it has.
func (w Wish) near(local []netip.Prefix) (list []netip.Prefix) {
	for _, p := range local {
		if w.head(zoneOf(p)) != p {
			continue
		}
		for cidr := range w.blocksIn(zoneOf(p)) {
			if !slices.Contains(local, cidr) {
				list = append(list, cidr)
			}
		}
		if len(list) >= maxNear {
			break
		}
	}
	return list
}

// inZones yields blocks to claim, in the order to try them, and whether a look is to come first: of
// zones that the node has, and then the first ones of others. The very first is that of the window
// if the node has nothing of it, as in a small cluster people expect addresses in their order.
// local are the blocks that the node has.
func (f *finder) inZones(local []netip.Prefix) iter.Seq2[netip.Prefix, bool] {
	return func(yield func(netip.Prefix, bool) bool) {
		for i, cidr := range f.w.near(local) {
			if !yield(cidr, i > 0) {
				return
			}
		}
		zones := new(alloc.BlockSet)
		for _, p := range local {
			zones.Add(zoneOf(p))
		}
		bits := blockBits(f.w.Window.Start())
		looks := moreZones
		zone, ok := f.w.Window.RandomBlock(bits-zoneBits, f.rnd, zones)
		if !slices.ContainsFunc(local, f.w.Window.Prefix().Overlaps) {
			looks = maxZones
			for first := range f.w.Window.Blocks(bits) {
				zone = zoneOf(first)
				break
			}
		}
		for ; ok && looks > 0; looks-- {
			if first := f.w.head(zone); first.IsValid() && !yield(first, true) {
				return
			}
			zones.Add(zone)
			zone, ok = f.w.Window.RandomBlock(bits-zoneBits, f.rnd, zones)
		}
	}
}
