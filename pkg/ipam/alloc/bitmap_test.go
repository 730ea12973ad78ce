package alloc_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/quick"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

func TestBitmapText(t *testing.T) {
	for _, c := range []struct {
		offsets []uint8
		want    string
	}{
		{nil, "0"},
		{[]uint8{0}, "1"},
		{[]uint8{0, 15}, "8001"},
		{[]uint8{4}, "10"},
		{[]uint8{64}, "1" + strings.Repeat("0", 16)},
		{[]uint8{255}, "8" + strings.Repeat("0", 63)},
	} {
		var b, again alloc.Bitmap
		for _, o := range c.offsets {
			b.Set(o)
		}
		if b.String() != c.want {
			t.Errorf("%v: %s, want %s", c.offsets, b, c.want)
		}
		for _, text := range []string{
			c.want, strings.ToUpper(c.want), strings.Repeat("0", 64-len(c.want)) + c.want,
		} {
			again.Set(99)
			if err := again.UnmarshalText([]byte(text)); err != nil || again != b {
				t.Errorf("%s: %v, %v", text, again, err)
			}
		}
	}
}

// What cannot be read changes nothing.
func TestBitmapBadText(t *testing.T) {
	var b alloc.Bitmap
	b.Set(7)
	before := b
	for _, bad := range []string{
		"", " ", "x", "0x1", "-1", "+1", "1_0", "8001 ", "8001\n",
		strings.Repeat("0", 65), strings.Repeat("f", 65), "ä", strings.Repeat("1", 1<<20),
	} {
		if err := b.UnmarshalText([]byte(bad)); err == nil || b != before || len(err.Error()) > 500 {
			t.Errorf("%.99q: %v, %.500v", bad, b, err)
		}
	}
}

// A bitmap is what a set is, and survives JSON.
func TestBitmapAgainstModel(t *testing.T) {
	err := quick.Check(func(set, clear []uint8) bool {
		var b, again alloc.Bitmap
		var want []uint8
		for _, o := range set {
			b.Set(o)
			want = append(want, o)
		}
		for _, o := range clear {
			b.Clear(o)
			want = slices.DeleteFunc(want, func(w uint8) bool { return w == o })
		}
		slices.Sort(want)
		want = slices.Compact(want)
		for o := range alloc.MaxBlock {
			if b.Has(uint8(o)) != slices.Contains(want, uint8(o)) {
				return false
			}
		}
		raw, err := json.Marshal(b)
		return err == nil && json.Unmarshal(raw, &again) == nil && again == b && b.Count() == len(want) &&
			slices.Equal(slices.Collect(b.All()), want)
	}, &quick.Config{MaxCount: 2000})
	if err != nil {
		t.Error(err)
	}
	for range (alloc.Bitmap{31: 0xff}).All() {
		break
	}
}

// Offsets and addresses of a block are each other's.
func TestOffset(t *testing.T) {
	for _, s := range []string{
		"10.0.0.16/28", "255.255.255.0/24", "0.0.0.0/32",
		"fd00::fff0/124", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120", "::ffff:10.0.0.0/126",
	} {
		block := netip.MustParsePrefix(s)
		all := addrs(block)
		for i := range alloc.MaxBlock {
			a, ok := alloc.At(block, uint8(i))
			if ok != (i < len(all)) || ok && a != all[i] {
				t.Errorf("address %d of %s: %v, %v", i, block, a, ok)
			}
			if !ok {
				continue
			}
			if o, ok := alloc.Offset(block, a); !ok || int(o) != i {
				t.Errorf("offset of %v in %s: %d, %v", a, block, o, ok)
			}
		}
	}
	for _, c := range []struct{ block, addr string }{
		{"10.0.0.0/28", "10.0.0.16"},
		{"10.0.0.0/28", "::ffff:10.0.0.1"},
		{"10.0.0.0/23", "10.0.0.1"}, // more addresses than a bitmap has
		{"fd00::/64", "fd00::1"},
	} {
		if o, ok := alloc.Offset(netip.MustParsePrefix(c.block), netip.MustParseAddr(c.addr)); ok {
			t.Errorf("offset of %s in %s: %d", c.addr, c.block, o)
		}
	}
	if o, ok := alloc.Offset(netip.Prefix{}, netip.Addr{}); ok {
		t.Errorf("offset of no address in no block: %d", o)
	}
}
