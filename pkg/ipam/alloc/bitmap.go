package alloc

import (
	"encoding/hex"
	"fmt"
	"iter"
	"math/bits"
	"net/netip"
	"strings"
)

// MaxBlock is how many addresses a block may have whose addresses are in a Bitmap.
const MaxBlock = 256

// Bitmap is a set of offsets into a block of at most MaxBlock addresses; its zero value is empty,
// and == reports whether two are equal. As text it is a hexadecimal number whose bit n stands for
// offset n: "0" is empty, "8001" is the first and the last of 16.
type Bitmap [MaxBlock / 8]byte

// at returns the byte and the bit of it that stand for the offset; the last byte has the lowest
// offsets, as it is with numbers.
func (b *Bitmap) at(offset uint8) (*byte, byte) {
	return &b[len(b)-1-int(offset/8)], 1 << (offset % 8)
}

// Has reports whether the offset is in the set.
func (b Bitmap) Has(offset uint8) bool {
	octet, bit := b.at(offset)
	return *octet&bit != 0
}

// Set adds the offset.
func (b *Bitmap) Set(offset uint8) {
	octet, bit := b.at(offset)
	*octet |= bit
}

// Clear removes the offset.
func (b *Bitmap) Clear(offset uint8) {
	octet, bit := b.at(offset)
	*octet &^= bit
}

// Count returns how many offsets are in the set.
func (b Bitmap) Count() int {
	n := 0
	for _, octet := range b {
		n += bits.OnesCount8(octet)
	}
	return n
}

// All returns the offsets, in order.
func (b Bitmap) All() iter.Seq[uint8] {
	return func(yield func(uint8) bool) {
		for n := range MaxBlock {
			if offset := uint8(n); b.Has(offset) && !yield(offset) {
				return
			}
		}
	}
}

// String returns the set as text.
func (b Bitmap) String() string {
	s := hex.EncodeToString(b[:])
	return strings.TrimLeft(s[:len(s)-1], "0") + s[len(s)-1:]
}

// MarshalText returns the set as text.
func (b Bitmap) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a set, with or without leading zeros and in either case. What it cannot read
// is an error and leaves the set as it was: no offset is free because its record cannot be read.
func (b *Bitmap) UnmarshalText(text []byte) error {
	const digits = MaxBlock / 4
	if len(text) == 0 || len(text) > digits {
		return fmt.Errorf("read offsets %.80q: not 1 to %d hexadecimal digits", text, digits)
	}
	var set Bitmap
	_, err := hex.Decode(set[:], []byte(strings.Repeat("0", digits-len(text))+string(text)))
	if err != nil {
		return fmt.Errorf("read offsets %.80q: %w", text, err)
	}
	*b = set
	return nil
}

// Offset returns where in the block the address is; false where it is not in it, or the block has
// more than MaxBlock addresses.
func Offset(block netip.Prefix, addr netip.Addr) (uint8, bool) {
	if !block.Contains(addr) || MaxBlock>>hostBits(block) == 0 {
		return 0, false
	}
	return uint8(fromAddr(addr).sub(spanOf(block).first).lo), true
}

// At returns the address at an offset into the block; false where the block has fewer addresses.
func At(block netip.Prefix, offset uint8) (netip.Addr, bool) {
	addr := spanOf(block).first.add(u128{lo: uint64(offset)}).addr(block.Addr().Is4())
	return addr, block.Contains(addr)
}
