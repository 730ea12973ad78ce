package alloc

import (
	"cmp"
	"iter"
	"net/netip"
)

// span is a run of numbers; both ends are in it.
type span struct{ first, last u128 }

func spanOf(p netip.Prefix) span {
	first := fromAddr(p.Masked().Addr())
	return span{first, first.add(top.shr(addrBits - hostBits(p)))}
}

// hostBits returns how many bits of an address the prefix leaves open.
func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

// count returns how many numbers it has: 0 where it has all that there are.
func (s span) count() u128 { return s.last.sub(s.first).add(one) }

// all returns its numbers, in order.
func (s span) all() iter.Seq[u128] {
	return func(yield func(u128) bool) {
		// Behind the greatest number of all comes 0.
		for n := s.first; !s.last.less(n); n = n.add(one) {
			if !yield(n) || n == s.last {
				return
			}
		}
	}
}

// shr returns the span of the blocks of 2^n numbers that its numbers are in.
func (s span) shr(n int) span { return span{s.first.shr(n), s.last.shr(n)} }

// compare orders spans by where they begin.
func (s span) compare(o span) int {
	return cmp.Or(s.first.compare(o.first), s.last.compare(o.last))
}

// subtract returns what the sorted, disjoint spans have outside the cuts, in order. The cuts are
// sorted and may overlap; they are counted in numbers that are 2^shift times finer.
func subtract(spans, cuts []span, shift int) iter.Seq[span] {
	return func(yield func(span) bool) {
		at, rest := u128{}, cuts // what lies before them is done with
		for _, s := range spans {
			at = at.max(s.first)
			for ; len(rest) > 0 && !s.last.less(at); rest = rest[1:] {
				cut := rest[0].shr(shift)
				if s.last.less(cut.first) {
					break
				}
				if at.less(cut.first) && !yield(span{at, cut.first.sub(one)}) {
					return
				}
				if cut.last == top {
					return
				}
				at = at.max(cut.last.add(one))
			}
			if !s.last.less(at) && !yield(span{at, s.last}) {
				return
			}
		}
	}
}

// total returns how many numbers the disjoint spans have, modulo 2^128.
func total(spans iter.Seq[span]) u128 {
	var n u128
	for s := range spans {
		n = n.add(s.count())
	}
	return n
}
