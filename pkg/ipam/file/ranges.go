package file

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// Range is a run of addresses of one subnet. Its fields are of one family, First is not behind
// Last, and both are in the subnet.
type Range struct {
	Subnet netip.Prefix
	// First and Last are inclusive.
	First, Last netip.Addr
	// Gateway is returned with each address, and is never given away.
	Gateway netip.Addr
}

// Set is a range set: an ADD gets one address of one of its ranges.
type Set []Range

// Find returns the range that the address is in.
func (s Set) Find(addr netip.Addr) (Range, bool) {
	i := slices.IndexFunc(s, func(r Range) bool { return r.has(addr) })
	if i < 0 {
		return Range{}, false
	}
	return s[i], true
}

func (r Range) has(addr netip.Addr) bool {
	return addr.BitLen() == r.First.BitLen() && !addr.Less(r.First) && !r.Last.Less(addr)
}

// String returns the first and the last address.
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// after returns each address of the set that may be given away once: those behind last first, then
// round to last itself. Where last is not in the set, or not valid, it begins with the first.
func (s Set) after(last netip.Addr) iter.Seq[netip.Addr] {
	parts := s
	if at := slices.IndexFunc(s, func(r Range) bool { return r.has(last) }); at >= 0 {
		behind, upTo := s[at], s[at]
		behind.First, upTo.Last = last.Next(), last
		parts = slices.Concat(Set{behind}, s[at+1:], s[:at], Set{upTo})
	}
	return func(yield func(netip.Addr) bool) {
		for _, r := range parts {
			// Behind the last address of all is the zero Addr.
			for a := r.First; a.IsValid() && !r.Last.Less(a); a = a.Next() {
				if a != r.Gateway && !yield(a) {
					return
				}
			}
		}
	}
}

// size returns how many addresses may be given away, the maximum of the type where there are more.
func (s Set) size() uint64 {
	var total uint64
	for _, r := range s {
		count := distance(r.First, r.Last)
		// Both ends count, but the gateway does not.
		if !r.has(r.Gateway) && count < math.MaxUint64 {
			count++
		}
		var carry uint64
		if total, carry = bits.Add64(total, count, 0); carry != 0 {
			return math.MaxUint64
		}
	}
	return total
}

// distance is last - first, the maximum of the type where it is more.
func distance(first, last netip.Addr) uint64 {
	a, b := first.As16(), last.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(a[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(a[:8]), borrow)
	if high != 0 {
		return math.MaxUint64
	}
	return low
}
