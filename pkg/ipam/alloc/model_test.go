package alloc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

func always(netip.Addr) bool { return true }
func never(netip.Addr) bool  { return false }

// input is what a window is made of.
type input struct {
	prefix     netip.Prefix
	start, end netip.Addr
	exclude    []netip.Prefix
	reserved   []netip.Addr
}

func (in input) window() (*alloc.Window, error) {
	return alloc.NewWindow(in.prefix, in.start, in.end, in.exclude, in.reserved)
}

func (in input) String() string {
	return fmt.Sprintf("%v from %v to %v, exclude %v, reserved %v",
		in.prefix, in.start, in.end, in.exclude, in.reserved)
}

// addrs is each address of a small prefix.
func addrs(p netip.Prefix) []netip.Addr {
	var list []netip.Addr
	for a := p.Masked().Addr(); p.Contains(a); a = a.Next() {
		list = append(list, a)
	}
	return list
}

// model is which addresses may be handed out, by looking at each; field is the key that is wrong.
func (in input) model() (allowed []netip.Addr, field string) {
	all := addrs(in.prefix)
	usable := all
	if len(all) > 2 {
		usable = all[1:]
		if all[0].Is4() {
			usable = all[1 : len(all)-1]
		}
	}
	start, end := in.start, in.end
	if !start.IsValid() {
		start = all[0]
	}
	if !end.IsValid() {
		end = all[len(all)-1]
	}
	switch first, last := usable[0], usable[len(usable)-1]; {
	case !slices.Contains(all, start):
		return nil, "range_start"
	case !slices.Contains(all, end):
		return nil, "range_end"
	case last.Less(start):
		return nil, "range_start"
	case end.Less(first), end.Less(start):
		return nil, "range_end"
	}
	excluded := 0
	for _, a := range usable {
		switch {
		case a.Less(start) || end.Less(a):
		case slices.ContainsFunc(in.exclude, func(p netip.Prefix) bool { return p.Contains(a) }):
			excluded++
		case !slices.ContainsFunc(in.reserved, func(r netip.Addr) bool {
			return r == a || r.Unmap() == a
		}):
			allowed = append(allowed, a)
		default:
			field = "range"
		}
	}
	switch {
	case len(allowed) > 0:
		return allowed, ""
	case field == "":
		field = "exclude"
	}
	return nil, field
}

// check compares a window with its model, in every question that it answers.
func check(t *testing.T, in input, rnd *rand.Rand) {
	t.Helper()
	w, err := in.window()
	allowed, field := in.model()
	if field != "" {
		var e *alloc.Error
		if !errors.As(err, &e) || e.Field != field || e.Value == "" || e.Reason == "" {
			t.Fatalf("%v: error %v, want one of %s", in, err, field)
		}
		return
	}
	if err != nil {
		t.Fatalf("%v: %v, want %v", in, err, allowed)
	}
	if w.Prefix() != in.prefix.Masked() || w.Size() != uint64(len(allowed)) {
		t.Fatalf("%v: prefix %v, size %d, want %v", in, w.Prefix(), w.Size(), allowed)
	}
	if w.Start().Compare(allowed[0]) > 0 || w.End().Compare(allowed[len(allowed)-1]) < 0 ||
		!in.prefix.Contains(w.Start()) || !in.prefix.Contains(w.End()) {
		t.Fatalf("%v: from %v to %v, want all of %v", in, w.Start(), w.End(), allowed)
	}
	all := addrs(in.prefix)
	for _, a := range append([]netip.Addr{
		{}, all[0].Prev(), all[len(all)-1].Next(), otherFamily(all[0]),
	}, all...) {
		if got, want := w.Contains(a), slices.Contains(allowed, a); got != want {
			t.Fatalf("%v contains %v: %v", in, a, got)
		}
	}
	var listed []netip.Addr
	for i := range w.Intervals() {
		if len(listed) > 0 && i.First == listed[len(listed)-1].Next() {
			t.Fatalf("%v: two runs for one, at %v", in, i.First)
		}
		for a := i.First; a.IsValid() && !i.Last.Less(a); a = a.Next() {
			listed = append(listed, a)
		}
	}
	if !slices.Equal(listed, allowed) {
		t.Fatalf("%v: %v, want %v", in, listed, allowed)
	}
	for bits := in.prefix.Bits() - 2; bits <= all[0].BitLen(); bits++ {
		checkBlocks(t, in, w, allowed, bits, rnd)
	}
}

func checkBlocks(
	t *testing.T, in input, w *alloc.Window, allowed []netip.Addr, bits int, rnd *rand.Rand,
) {
	t.Helper()
	// Without a block's length in its family there are none.
	var want []netip.Prefix
	for _, a := range allowed {
		if p, err := a.Prefix(bits); err == nil && !slices.Contains(want, p) {
			want = append(want, p)
		}
	}
	blocks := slices.Collect(w.Blocks(bits))
	if !slices.Equal(blocks, want) || w.BlockCount(bits) != uint64(len(want)) {
		t.Fatalf("%v: blocks %v (%d), want %v", in, blocks, w.BlockCount(bits), want)
	}

	// Every address is picked once, in order, and no other.
	used := map[netip.Addr]bool{}
	var picked []netip.Addr
	for _, b := range blocks {
		for {
			a, rested, ok := w.Pick(b, func(a netip.Addr) bool { return used[a] }, never)
			if !ok {
				break
			}
			if !rested || alloc.BlockOf(a, bits) != b {
				t.Fatalf("%v: block %v assigns %v, rested %v", in, b, a, rested)
			}
			used[a] = true
			picked = append(picked, a)
		}
	}
	if !slices.Equal(picked, allowed) {
		t.Fatalf("%v: blocks of /%d assign %v, want %v", in, bits, picked, allowed)
	}

	// The free blocks are found, each of them, whatever is taken: also blocks of other lengths, and
	// those that lie elsewhere.
	taken := alloc.NewBlockSet(slices.Values([]netip.Prefix(nil)))
	for free := want; ; {
		b, ok := w.RandomBlock(bits, rnd, taken)
		if ok != (len(free) > 0) || ok && !slices.Contains(free, b) {
			t.Fatalf("%v: /%d: %v, %v, want one of %v", in, bits, b, ok, free)
		}
		if !ok {
			break
		}
		take := alloc.BlockOf(b.Addr(), max(0, min(bits+rnd.IntN(4)-2, b.Addr().BitLen())))
		taken.Add(take)
		free = slices.DeleteFunc(slices.Clone(free), take.Overlaps)
	}
}

func otherFamily(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom16(a.As16())
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

// bases are addresses at which small prefixes lie: at both ends of each address space, and where a
// carry goes from one word to the next.
var bases = []netip.Addr{
	netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("10.255.255.128"),
	netip.MustParseAddr("255.255.255.255"),
	netip.MustParseAddr("::"), netip.MustParseAddr("::ffff:10.0.0.0"),
	netip.MustParseAddr("fd00::7fff:ffff:ffff:ffff"),
	netip.MustParseAddr("fd00::ffff:ffff:ffff:ffff"),
	netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}

// Every start and every end of small prefixes, within and just outside, with excludes and reserved
// addresses of many a kind.
func TestAgainstModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, base := range bases {
		for host := 0; host <= 4; host++ {
			prefix := netip.PrefixFrom(base, base.BitLen()-host).Masked()
			all := addrs(prefix)
			bounds := append([]netip.Addr{{}, otherFamily(base)}, all...)
			for _, outside := range []netip.Addr{all[0].Prev(), all[len(all)-1].Next()} {
				if outside.IsValid() {
					bounds = append(bounds, outside)
				}
			}
			for _, start := range bounds {
				for _, end := range bounds {
					in := input{prefix: netip.PrefixFrom(base, prefix.Bits()), start: start, end: end}
					check(t, in, rnd)
					in.exclude, in.reserved = someOf(in.prefix, rnd)
					check(t, in, rnd)
				}
			}
		}
	}
}

// someOf returns excludes and reserved addresses in and around a prefix.
func someOf(p netip.Prefix, rnd *rand.Rand) (exclude []netip.Prefix, reserved []netip.Addr) {
	around := addrs(netip.PrefixFrom(p.Addr(), max(p.Bits()-1, 0)).Masked())
	for range rnd.IntN(4) {
		a := around[rnd.IntN(len(around))]
		exclude = append(exclude, netip.PrefixFrom(a, a.BitLen()-rnd.IntN(4)))
	}
	for range rnd.IntN(4) {
		a := around[rnd.IntN(len(around))]
		if rnd.IntN(4) == 0 {
			a = netip.AddrFrom16(a.As16()) // IPv4-mapped, where it is IPv4
		}
		reserved = append(reserved, a)
	}
	return exclude, append(reserved, netip.Addr{}, otherFamily(p.Addr()))
}

// FuzzWindow: a window is what its model says. at chooses where its prefix lies, host how long it
// is; start and end are offsets from its first address, 0 for none; each two bytes of what are an
// exclude or a reserved address.
func FuzzWindow(f *testing.F) {
	f.Add(byte(1), byte(4), byte(2), byte(9), []byte{0x10, 4, 0x22, 5}, uint64(1))
	f.Add(byte(2), byte(7), byte(0), byte(0), []byte{0x40, 0}, uint64(2))
	f.Add(byte(7), byte(6), byte(0), byte(200), []byte{}, uint64(3))
	f.Fuzz(func(t *testing.T, at, host, start, end byte, what []byte, seed uint64) {
		base := bases[int(at)%len(bases)]
		prefix := netip.PrefixFrom(base, base.BitLen()-int(host%8))
		in := input{prefix: prefix}
		offset := func(n byte) netip.Addr {
			a := prefix.Masked().Addr()
			for ; n > 0 && a.IsValid(); n-- {
				a = a.Next()
			}
			return a
		}
		if start > 0 {
			in.start = offset(start - 1)
		}
		if end > 0 {
			in.end = offset(end - 1)
		}
		for pair := range slices.Chunk(what[:min(len(what), 32)], 2) {
			a := offset(pair[len(pair)-1])
			switch length := int(pair[0] >> 4); {
			case !a.IsValid():
			case pair[0]&1 == 0:
				in.exclude = append(in.exclude, netip.PrefixFrom(a, a.BitLen()-length))
			default:
				in.reserved = append(in.reserved, a)
			}
		}
		check(t, in, rand.New(rand.NewPCG(seed, 0)))
	})
}
