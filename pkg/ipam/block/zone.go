package block

import (
	"context"
	"iter"
	"net/netip"
	"slices"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// A zone is sixteen blocks side by side. Who has its first block takes the others when they are needed, and who has no zone with a free block
// takes the first block of another one. So nodes that claim at once seldom meet, and what a node gives lies together. It is a custom, not a
// right: where no zone is left, a node takes any block.
const (
	zoneBits = 4
	// maxZones is how many zones are looked at by a node that has nothing of the window, moreZones by one that has.
	maxZones  = 256
	moreZones = 32
	// maxNear is how many blocks of the node's zones are looked for, and a zone's rest: others may have had to take them.
	maxNear = 16
)

func zoneOf(p netip.Prefix) netip.Prefix { return alloc.BlockOf(p.Addr(), p.Bits()-zoneBits) }

// blocksIn gives the blocks of a zone that have an address for the wish, in order.
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

// head is the first of them, which stands for the zone; not valid where there is none.
func (w Wish) head(zone netip.Prefix) netip.Prefix {
	for p := range w.blocksIn(zone) {
		return p
	}
	return netip.Prefix{}
}

// near are the blocks that the node may still take of its zones; local are those that it has.
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

// inZone claims a block of a zone that the node has; local are the blocks that it has.
func (f *finder) inZone(ctx context.Context, local []netip.Prefix) (bool, error) {
	for i, cidr := range f.w.near(local) {
		if f.complete && f.taken.Has(cidr) {
			continue
		}
		if claimed, err := f.createAt(ctx, cidr, i > 0 && !f.complete, f.createOwned); claimed || err != nil {
			return claimed, err
		}
	}
	return false, nil
}

// newZone claims the first block of a zone: of the window's first one if the node has nothing of the window, as in a small cluster people
// expect addresses in their order.
func (f *finder) newZone(ctx context.Context, local []netip.Prefix) (bool, error) {
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
		if first := f.w.head(zone); first.IsValid() && (!f.complete || !f.taken.Has(first)) {
			if claimed, err := f.createAt(ctx, first, !f.complete, f.createOwned); claimed || err != nil {
				return claimed, err
			}
		}
		zones.Add(zone)
		zone, ok = f.w.Window.RandomBlock(bits-zoneBits, f.rnd, zones)
	}
	return false, nil
}
