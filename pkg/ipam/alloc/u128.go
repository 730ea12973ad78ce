package alloc

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"math/rand/v2"
	"net/netip"
)

// addrBits is how many bits an address has as a number. IPv4 addresses are the numbers of
// ::ffff:0:0/96, so that one arithmetic does for both families.
const addrBits = 128

// u128 is an unsigned number of 128 bits: an address, the number of a block, or a count of them.
type u128 struct{ hi, lo uint64 }

var (
	one = u128{lo: 1}
	top = u128{math.MaxUint64, math.MaxUint64}
)

func fromAddr(a netip.Addr) u128 {
	b := a.As16()
	return u128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr returns the address that is x; is4 says that it is an IPv4 address.
func (x u128) addr(is4 bool) netip.Addr {
	var b [addrBits / 8]byte
	binary.BigEndian.PutUint64(b[:8], x.hi)
	binary.BigEndian.PutUint64(b[8:], x.lo)
	a := netip.AddrFrom16(b)
	if is4 {
		return a.Unmap()
	}
	return a
}

// add is x + y, modulo 2^128.
func (x u128) add(y u128) u128 {
	lo, carry := bits.Add64(x.lo, y.lo, 0)
	hi, _ := bits.Add64(x.hi, y.hi, carry)
	return u128{hi, lo}
}

// sub is x - y, modulo 2^128.
func (x u128) sub(y u128) u128 {
	lo, borrow := bits.Sub64(x.lo, y.lo, 0)
	hi, _ := bits.Sub64(x.hi, y.hi, borrow)
	return u128{hi, lo}
}

// shr is x / 2^n.
func (x u128) shr(n int) u128 {
	if n >= 64 {
		return u128{0, x.hi >> (n - 64)}
	}
	return u128{x.hi >> n, x.hi<<(64-n) | x.lo>>n}
}

// shl is x * 2^n, modulo 2^128.
func (x u128) shl(n int) u128 {
	if n >= 64 {
		return u128{x.lo << (n - 64), 0}
	}
	return u128{x.hi<<n | x.lo>>(64-n), x.lo << n}
}

func (x u128) less(y u128) bool { return x.hi < y.hi || x.hi == y.hi && x.lo < y.lo }

func (x u128) compare(y u128) int {
	return cmp.Or(cmp.Compare(x.hi, y.hi), cmp.Compare(x.lo, y.lo))
}

func (x u128) max(y u128) u128 {
	if x.less(y) {
		return y
	}
	return x
}

func (x u128) min(y u128) u128 {
	if y.less(x) {
		return y
	}
	return x
}

// saturated is x, or the maximum of the type where x is more.
func (x u128) saturated() uint64 {
	if x.hi != 0 {
		return math.MaxUint64
	}
	return x.lo
}

// randomBelow returns a number below n, which is not 0, each with the same probability.
func randomBelow(n u128, rnd *rand.Rand) u128 {
	if n.hi == 0 {
		return u128{lo: rnd.Uint64N(n.lo)}
	}
	for mask := uint64(math.MaxUint64) >> bits.LeadingZeros64(n.hi); ; {
		if x := (u128{rnd.Uint64() & mask, rnd.Uint64()}); x.less(n) {
			return x
		}
	}
}
