package alloc

import (
	"math"
	"math/big"
	mathrand "math/rand"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"testing/quick"
)

func toBig(x u128) *big.Int {
	n := new(big.Int).SetUint64(x.hi)
	return n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(x.lo))
}

// word is a uint64 that is often at an edge.
type word uint64

func (word) Generate(rnd *mathrand.Rand, _ int) reflect.Value {
	edges := []uint64{
		0, 1, 2, math.MaxUint64, math.MaxUint64 - 1, 1 << 63, 1<<63 - 1, rnd.Uint64(), rnd.Uint64(),
		rnd.Uint64(),
	}
	return reflect.ValueOf(word(edges[rnd.Intn(len(edges))]))
}

// Each operation is that of arbitrary precision, modulo 2^128.
func TestArithmetic(t *testing.T) {
	modulus := new(big.Int).Lsh(big.NewInt(1), 128)
	same := func(x u128, n *big.Int) bool { return toBig(x).Cmp(n.Mod(n, modulus)) == 0 }
	err := quick.Check(func(a, b, c, d word, shift uint8) bool {
		x, y := u128{uint64(a), uint64(b)}, u128{uint64(c), uint64(d)}
		bx, by, n := toBig(x), toBig(y), int(shift)%(addrBits+1)
		greatest, least := bx, by
		if bx.Cmp(by) < 0 {
			greatest, least = by, bx
		}
		saturated := uint64(math.MaxUint64)
		if bx.IsUint64() {
			saturated = bx.Uint64()
		}
		return same(x.add(y), new(big.Int).Add(bx, by)) && same(x.sub(y), new(big.Int).Sub(bx, by)) &&
			same(x.shl(n), new(big.Int).Lsh(bx, uint(n))) && same(x.shr(n), new(big.Int).Rsh(bx, uint(n))) &&
			x.compare(y) == bx.Cmp(by) && x.less(y) == (bx.Cmp(by) < 0) && same(x.max(y), greatest) &&
			same(x.min(y), least) &&
			x.saturated() == saturated
	}, &quick.Config{MaxCount: 200_000})
	if err != nil {
		t.Error(err)
	}
}

func TestAddrIsItsNumber(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "10.0.0.1", "255.255.255.255",
		"::", "::ffff:10.0.0.1", "fd00::ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		a := netip.MustParseAddr(s)
		if got := fromAddr(a).addr(a.Is4()); got != a {
			t.Errorf("%s becomes %s", a, got)
		}
		if next := a.Next(); next.IsValid() && fromAddr(next) != fromAddr(a).add(one) {
			t.Errorf("the number of %s is not that of %s + 1", next, a)
		}
	}
}

func TestRandomBelow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, n := range []u128{
		{0, 1}, {0, 8}, {0, math.MaxUint64}, {1, 0}, {1, 1}, {3, 1}, {1 << 60, 5}, top,
	} {
		// Each quarter of what there is comes up.
		var quarters [4]int
		for range 1000 {
			x := randomBelow(n, rnd)
			if !x.less(n) {
				t.Fatalf("%v is not below %v", x, n)
			}
			q := new(big.Int).Mul(toBig(x), big.NewInt(4))
			quarters[q.Div(q, toBig(n)).Int64()]++
		}
		for i, hits := range quarters {
			if n.hi+n.lo > 4 && (hits < 150 || hits > 350) {
				t.Errorf("below %v: quarter %d came up %d times of 1000", n, i, hits)
			}
		}
	}
}
