// Package alloc is the arithmetic of the cluster-wide IPAM: which addresses a range allows, which
// blocks it has, and which of them comes next. It has no state, does no I/O and knows no time;
// randomness comes from the caller.
//
// A Window is the addresses that one range of a network's configuration allows. A block is an
// aligned prefix of the address space, the unit that one node claims at a time; a window's blocks
// are those that have at least one address that it allows, so that windows that overlap share
// blocks. All of it works on sorted runs of addresses, so what it costs depends on the number of
// excludes and of blocks that are taken, never on the number of addresses.
package alloc

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sort"
)

// Window is the set of addresses that a range allows: those from its start to its end, without what
// is excluded and what is reserved. It has at least one, and does not change.
type Window struct {
	prefix netip.Prefix
	bounds span
	// allowed is sorted and disjoint.
	allowed []span
}

// Interval is a run of addresses; both ends are in it.
type Interval struct{ First, Last netip.Addr }

// NewWindow makes the window of a prefix, which may have host bits. A start or end that is not
// valid stands for the first or last usable address. Usable is every address of a prefix of one or
// two addresses; else IPv4's network and broadcast address are not, and IPv6's first is not (the
// subnet-router anycast address, RFC 4291 2.6.1), while its last is: a start or end that is one of
// those is moved inwards.
//
// An exclude is of the prefix's family; it may lie outside the prefix, wholly or in part, and over
// others. A reserved address may be IPv4-mapped; one that is of another family, outside the prefix
// or not valid changes nothing. Errors are of type *Error.
func NewWindow(
	prefix netip.Prefix, start, end netip.Addr, exclude []netip.Prefix, reserved []netip.Addr,
) (*Window, error) {
	bounds, err := boundsOf(prefix, start, end)
	if err != nil {
		return nil, err
	}
	w := &Window{prefix: prefix.Masked(), bounds: bounds, allowed: []span{bounds}}
	var cuts []span
	for _, p := range exclude {
		if !p.IsValid() || p.Addr().BitLen() != prefix.Addr().BitLen() {
			return nil, &Error{
				fieldExclude, p.String(), "is not a prefix of the family of " + w.prefix.String(),
			}
		}
		cuts = append(cuts, spanOf(p))
	}
	if !w.cut(cuts) {
		return nil, &Error{fieldExclude, fmt.Sprint(exclude), "leaves no address of " + w.prefix.String()}
	}
	cuts = nil
	for _, a := range reserved {
		if prefix.Contains(a) || prefix.Contains(a.Unmap()) {
			cuts = append(cuts, span{fromAddr(a), fromAddr(a)})
		}
	}
	if !w.cut(cuts) {
		return nil, &Error{
			fieldRange, w.prefix.String(),
			fmt.Sprintf("has no address left besides those reserved, %v", reserved),
		}
	}
	return w, nil
}

// boundsOf is from the first to the last address that is usable.
func boundsOf(prefix netip.Prefix, start, end netip.Addr) (span, *Error) {
	if !prefix.IsValid() {
		return span{}, &Error{fieldRange, prefix.String(), "is not a prefix"}
	}
	prefix = prefix.Masked()
	s := spanOf(prefix)
	if hostBits(prefix) > 1 {
		s.first = s.first.add(one)
		if prefix.Addr().Is4() {
			s.last = s.last.sub(one)
		}
	}
	usable := s
	if start.IsValid() {
		s.first = s.first.max(fromAddr(start))
	}
	if end.IsValid() {
		s.last = s.last.min(fromAddr(end))
	}
	switch {
	case start.IsValid() && !prefix.Contains(start):
		return s, &Error{fieldStart, start.String(), "is outside " + prefix.String()}
	case end.IsValid() && !prefix.Contains(end):
		return s, &Error{fieldEnd, end.String(), "is outside " + prefix.String()}
	case usable.last.less(s.first):
		return s, &Error{fieldStart, start.String(), "is the broadcast address of " + prefix.String()}
	case s.last.less(usable.first):
		return s, &Error{fieldEnd, end.String(), "is the network address of " + prefix.String()}
	case s.last.less(s.first):
		return s, &Error{fieldEnd, end.String(), "is before the start, " + start.String()}
	}
	return s, nil
}

// cut takes the cuts out of what is allowed, and reports whether anything is left.
func (w *Window) cut(cuts []span) bool {
	slices.SortFunc(cuts, span.compare)
	w.allowed = slices.Collect(subtract(w.allowed, cuts, 0))
	return len(w.allowed) > 0
}

// Prefix returns the range's prefix, without host bits.
func (w *Window) Prefix() netip.Prefix { return w.prefix }

// Start returns the first address that may be allowed, by the range's start and its prefix.
func (w *Window) Start() netip.Addr { return w.addr(w.bounds.first) }

// End returns the last address that may be allowed, by the range's end and its prefix.
func (w *Window) End() netip.Addr { return w.addr(w.bounds.last) }

// Size returns how many addresses it has, the maximum of the type where there are more.
func (w *Window) Size() uint64 { return total(slices.Values(w.allowed)).saturated() }

// Contains reports whether the address is allowed.
func (w *Window) Contains(a netip.Addr) bool {
	if !w.prefix.Contains(a) {
		return false
	}
	n := fromAddr(a)
	rest := w.from(n)
	return len(rest) > 0 && !n.less(rest[0].first)
}

// Intervals returns what is allowed as the longest runs of addresses, in order.
func (w *Window) Intervals() iter.Seq[Interval] {
	return func(yield func(Interval) bool) {
		for _, s := range w.allowed {
			if !yield(Interval{w.addr(s.first), w.addr(s.last)}) {
				return
			}
		}
	}
}

// In returns the allowed addresses of a block, in order.
func (w *Window) In(block netip.Prefix) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if !block.Overlaps(w.prefix) {
			return
		}
		b := spanOf(block)
		for _, s := range w.from(b.first) {
			for n := range (span{s.first.max(b.first), s.last}).all() {
				if b.last.less(n) || !yield(w.addr(n)) {
					return
				}
			}
		}
	}
}

// Pick returns the lowest allowed address of a block that is neither used nor resting; where there
// is none, the lowest that only rests, and rested is false. It is not ok where all are used.
func (w *Window) Pick(
	block netip.Prefix, used, resting func(netip.Addr) bool,
) (addr netip.Addr, rested, ok bool) {
	for a := range w.In(block) {
		switch {
		case used(a):
		case !resting(a):
			return a, true, true
		case !ok:
			addr, ok = a, true
		}
	}
	return addr, false, ok
}

// from returns those runs of what is allowed that do not end before n.
func (w *Window) from(n u128) []span {
	return w.allowed[sort.Search(len(w.allowed), func(i int) bool {
		return !w.allowed[i].last.less(n)
	}):]
}

func (w *Window) addr(n u128) netip.Addr { return n.addr(w.prefix.Addr().Is4()) }
