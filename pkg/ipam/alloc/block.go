package alloc

import (
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// BlockOf returns the block of the given prefix length that has the address; it is not valid where
// the address's family has no such length.
func BlockOf(addr netip.Addr, bits int) netip.Prefix {
	p, _ := addr.Prefix(bits) // an error comes with the Prefix that is not valid
	return p
}

// BlockSet is a set of valid blocks of one family, of any lengths; its zero value is empty. It is
// kept sorted: adding to or removing from a set of n blocks moves n/2 of them, which is little;
// making it of n by adding them one by one is not. It is not safe for concurrent use.
type BlockSet struct {
	sorted []span
}

// NewBlockSet makes the set of the blocks, which may come in any order and more than once.
func NewBlockSet(blocks iter.Seq[netip.Prefix]) *BlockSet {
	s := &BlockSet{}
	for b := range blocks {
		s.sorted = append(s.sorted, spanOf(b))
	}
	slices.SortFunc(s.sorted, span.compare)
	s.sorted = slices.Compact(s.sorted)
	return s
}

// Len returns how many blocks it has.
func (s *BlockSet) Len() int { return len(s.sorted) }

// Has reports whether it has this very block; one that lies in it, or that it lies in, is another.
func (s *BlockSet) Has(block netip.Prefix) bool {
	_, found := s.find(block)
	return found
}

// Add adds a block.
func (s *BlockSet) Add(block netip.Prefix) {
	if i, found := s.find(block); !found {
		s.sorted = slices.Insert(s.sorted, i, spanOf(block))
	}
}

// Remove removes a block.
func (s *BlockSet) Remove(block netip.Prefix) {
	if i, found := s.find(block); found {
		s.sorted = slices.Delete(s.sorted, i, i+1)
	}
}

func (s *BlockSet) find(block netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(s.sorted, spanOf(block), span.compare)
}

// Blocks returns the window's blocks of a prefix length, in order: those that have an address that
// it allows. Where the window is smaller than a block, it is the one that it lies in.
func (w *Window) Blocks(bits int) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for _, s := range w.blocks(bits) {
			for n := range s.all() {
				if !yield(w.block(n, bits)) {
					return
				}
			}
		}
	}
}

// BlockCount returns how many blocks of a prefix length the window has, the maximum of the type
// where there are more.
func (w *Window) BlockCount(bits int) uint64 {
	return total(slices.Values(w.blocks(bits))).saturated()
}

// RandomBlock returns a block of the window that overlaps none of the taken ones, each with the
// same probability; it is false only where there is none. It looks at each taken block at most
// twice, however many the window has. No set is an empty one.
func (w *Window) RandomBlock(bits int, rnd *rand.Rand, taken *BlockSet) (netip.Prefix, bool) {
	var cuts []span
	if taken != nil {
		cuts = taken.sorted
	}
	free := subtract(w.blocks(bits), cuts, w.shift(bits))
	if n := total(free); n != (u128{}) {
		at := randomBelow(n, rnd)
		for s := range free {
			if at.less(s.count()) {
				return w.block(s.first.add(at), bits), true
			}
			at = at.sub(s.count())
		}
	}
	return netip.Prefix{}, false
}

// blocks returns the window's blocks as runs of their numbers: the addresses without the bits that
// the prefix length leaves open.
func (w *Window) blocks(bits int) []span {
	if bits < 0 || bits > w.prefix.Addr().BitLen() {
		return nil
	}
	var list []span
	for _, s := range w.allowed {
		s = s.shr(w.shift(bits))
		// What lies between two runs may be less than a block.
		if n := len(list); n > 0 && list[n-1].last == s.first {
			list[n-1].last = s.last
		} else {
			list = append(list, s)
		}
	}
	return list
}

// block returns the block that has the number.
func (w *Window) block(n u128, bits int) netip.Prefix {
	return netip.PrefixFrom(w.addr(n.shl(w.shift(bits))), bits)
}

// shift returns how many bits of an address a block's prefix length leaves open.
func (w *Window) shift(bits int) int { return w.prefix.Addr().BitLen() - bits }
