package alloc_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

func prefixes(list ...string) *alloc.BlockSet {
	return alloc.NewBlockSet(func(yield func(netip.Prefix) bool) {
		for _, s := range list {
			if !yield(netip.MustParsePrefix(s)) {
				return
			}
		}
	})
}

func TestBlockOf(t *testing.T) {
	for _, c := range []struct {
		addr string
		bits int
		want string
	}{
		{"10.0.0.77", 28, "10.0.0.64/28"},
		{"255.255.255.255", 28, "255.255.255.240/28"},
		{"fd00::ffff", 124, "fd00::fff0/124"},
		{"10.0.0.77", 0, "0.0.0.0/0"},
		{"10.0.0.77", 33, "invalid Prefix"},
		{"10.0.0.77", -1, "invalid Prefix"},
	} {
		if got := alloc.BlockOf(netip.MustParseAddr(c.addr), c.bits).String(); got != c.want {
			t.Errorf("%v: %s", c, got)
		}
	}
}

func TestBlockSet(t *testing.T) {
	s := prefixes("10.0.0.32/28", "10.0.0.0/28", "10.0.0.32/28", "10.0.0.0/24", "10.0.0.9/28")
	if s.Len() != 3 {
		t.Errorf("%d blocks", s.Len())
	}
	for _, c := range []struct {
		block string
		want  bool
	}{
		{"10.0.0.0/28", true},
		{"10.0.0.32/28", true},
		{"10.0.0.0/24", true},
		{"10.0.0.0/27", false},
		{"10.0.0.16/28", false},
	} {
		block := netip.MustParsePrefix(c.block)
		if s.Has(block) != c.want {
			t.Errorf("%s is in it: %v", block, !c.want)
		}
		before := s.Len()
		s.Add(block)
		s.Add(block)
		if !s.Has(block) || c.want != (s.Len() == before) {
			t.Errorf("%s added: %v, %d", block, s.Has(block), s.Len())
		}
		s.Remove(block)
		s.Remove(block)
		if s.Has(block) {
			t.Errorf("%s is still in it", block)
		}
	}
	if s.Len() != 0 {
		t.Errorf("%d blocks are left", s.Len())
	}
}

// The one free block of 2^60 is found.
func TestLastFreeBlock(t *testing.T) {
	w, rnd := mustParse(t, "fd00::/64", ""), rand.New(rand.NewPCG(1, 2))
	for _, last := range []string{
		"fd00::/124", "fd00::ffff:ffff:ffff:fff0/124", "fd00::8000:0:0:0/124",
		"fd00::1234:5678:9abc:def0/124",
	} {
		free := netip.MustParsePrefix(last)
		taken := &alloc.BlockSet{}
		for bits := 65; bits <= 124; bits++ {
			taken.Add(sibling(alloc.BlockOf(free.Addr(), bits)))
		}
		if got, ok := w.RandomBlock(124, rnd, taken); !ok || got != free {
			t.Errorf("%v, %v, want %v", got, ok, free)
		}
		taken.Add(free)
		if got, ok := w.RandomBlock(124, rnd, taken); ok {
			t.Errorf("%v, with all taken", got)
		}
	}
}

// sibling is the other half of the prefix that p is a half of.
func sibling(p netip.Prefix) netip.Prefix {
	b := p.Addr().As16()
	b[(p.Bits()-1)/8] ^= 0x80 >> ((p.Bits() - 1) % 8)
	return netip.PrefixFrom(netip.AddrFrom16(b), p.Bits())
}

// No set, and blocks of another family, are nothing taken; a larger block takes all that it has, a
// smaller one the block that it is in.
func TestWhatIsTaken(t *testing.T) {
	w := mustParse(t, "10.0.0.0/26", "")
	for _, c := range []struct {
		taken *alloc.BlockSet
		free  int
	}{
		{nil, 4},
		{prefixes(), 4},
		{prefixes("fd00::/28", "::a00:0/124", "10.1.0.0/28", "9.0.0.0/8"), 4},
		{prefixes("10.0.0.0/27"), 2},
		{prefixes("10.0.0.0/27", "10.0.0.0/28", "10.0.0.16/32", "10.0.0.17/32"), 2},
		{prefixes("10.0.0.63/32"), 3},
		{prefixes("10.0.0.0/8"), 0},
		{prefixes("0.0.0.0/0"), 0},
	} {
		seen, rnd := map[netip.Prefix]bool{}, rand.New(rand.NewPCG(1, 2))
		for range 100 {
			if b, ok := w.RandomBlock(28, rnd, c.taken); ok {
				seen[b] = true
			}
		}
		if len(seen) != c.free {
			t.Errorf("%v: %d are free: %v", c.taken, len(seen), seen)
		}
	}
}

// Each free block comes up equally often.
func TestRandomBlockIsUniform(t *testing.T) {
	w, rnd := mustParse(t, "10.0.0.8-10.0.1.40/16", "10.0.0.96/28"), rand.New(rand.NewPCG(1, 2))
	taken := prefixes("10.0.0.16/28", "10.0.0.32/28", "10.0.0.128/27", "10.0.0.200/31", "10.0.1.0/28")
	// 19 blocks, without the one that is excluded and six.
	const free, each = 12, 1000
	hits := map[netip.Prefix]int{}
	for range free * each {
		b, _ := w.RandomBlock(28, rnd, taken)
		hits[b]++
	}
	for b, n := range hits {
		// Six standard deviations.
		if n < each-190 || n > each+190 {
			t.Errorf("%v came up %d times, want about %d", b, n, each)
		}
	}
	if len(hits) != free {
		t.Errorf("%d blocks came up, want %d: %v", len(hits), free, hits)
	}
}

// A hundred thousand blocks of a window that has 2^116: each is new, and in it.
func TestManyBlocks(t *testing.T) {
	w, rnd := mustParse(t, "fd00::/8", "fd00::/16 fd80::/9"), rand.New(rand.NewPCG(1, 2))
	var list []netip.Prefix
	for range 100_000 {
		b, ok := w.RandomBlock(124, rnd, nil)
		if !ok || !w.Contains(b.Addr()) {
			t.Fatal(b, ok)
		}
		list = append(list, b)
	}
	taken := alloc.NewBlockSet(slices.Values(list))
	for range 20 {
		b, ok := w.RandomBlock(124, rnd, taken)
		if !ok || taken.Has(b) {
			t.Fatal(b, ok)
		}
		taken.Add(b)
	}
	if taken.Len() != len(list)+20 {
		t.Errorf("%d different blocks", taken.Len())
	}
}

func BenchmarkRandomBlock(b *testing.B) {
	for _, n := range []int{4096, 31_250, 300_000} {
		w, rnd := mustParse(b, "fd00::/64", ""), rand.New(rand.NewPCG(1, 2))
		taken := alloc.NewBlockSet(func(yield func(netip.Prefix) bool) {
			for range n {
				block, _ := w.RandomBlock(124, rnd, nil)
				yield(block)
			}
		})
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, ok := w.RandomBlock(124, rnd, taken); !ok {
					b.Fatal("none is free")
				}
			}
		})
		b.Run(fmt.Sprint("add and remove of ", n), func(b *testing.B) {
			for b.Loop() {
				block, _ := w.RandomBlock(124, rnd, nil)
				taken.Add(block)
				taken.Remove(block)
			}
		})
	}
}
