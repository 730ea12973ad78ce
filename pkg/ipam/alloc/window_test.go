package alloc_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// parse makes a window of what a configuration says: range, range_start, range_end, excludes and
// reserved addresses, each after a space.
func parse(text, start, end, exclude, reserved string) (*alloc.Window, error) {
	prefix, first, last, err := alloc.ParseRange(text, start, end)
	if err != nil {
		return nil, err
	}
	excluded, err := alloc.ParseExclude(strings.Fields(exclude))
	if err != nil {
		return nil, err
	}
	var taken []netip.Addr
	for _, s := range strings.Fields(reserved) {
		taken = append(taken, netip.MustParseAddr(s))
	}
	return alloc.NewWindow(prefix, first, last, excluded, taken)
}

func mustParse(tb testing.TB, text, exclude string) *alloc.Window {
	tb.Helper()
	w, err := parse(text, "", "", exclude, "")
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

// What ranges allow, as runs of addresses.
func TestWindow(t *testing.T) {
	for _, c := range []struct{ text, start, end, exclude, reserved, want string }{
		// Of whereabouts' documentation and tests.
		{"192.168.2.0/24", "", "", "", "", "192.168.2.1-192.168.2.254"},
		{"192.168.2.0/24", "", "", "192.168.2.0/28", "", "192.168.2.16-192.168.2.254"},
		{
			"192.168.2.225/28", "", "", "192.168.2.229/30 192.168.2.236/32", "",
			"192.168.2.225-192.168.2.227 192.168.2.232-192.168.2.235 192.168.2.237-192.168.2.238",
		},
		{"192.168.2.225-192.168.2.230/28", "", "", "", "", "192.168.2.225-192.168.2.230"},
		{"192.168.10.1/24", "", "", "", "", "192.168.10.1-192.168.10.254"},
		{"2001::0/116", "", "", "", "2001::f:1", "2001::1-2001::fff"},
		{"abcd::1/64", "", "", "", "", "abcd::1-abcd::ffff:ffff:ffff:ffff"},
		{"192.168.1.0/24", "192.168.1.6", "192.168.1.7", "192.168.1.6", "", "192.168.1.7-192.168.1.7"},
		{"192.168.0.0/30", "", "", "192.168.0.2/32 192.168.0.2/31", "", "192.168.0.1-192.168.0.1"},
		{"100::2:1/125", "", "", "100::2:1/126", "", "100::2:4-100::2:7"},

		// The gateway is not given to a pod.
		{"10.0.0.0/29", "", "", "", "10.0.0.1", "10.0.0.2-10.0.0.6"},
		{"10.0.0.0/29", "", "", "", "::ffff:10.0.0.1", "10.0.0.2-10.0.0.6"},
		{
			"10.0.0.0/29", "", "", "", "10.0.0.3 10.0.0.3 fd00::1 10.9.9.9",
			"10.0.0.1-10.0.0.2 10.0.0.4-10.0.0.6",
		},
		// Network and broadcast address are not, even where they are said to be first and last.
		{"10.0.0.0/29", "10.0.0.0", "10.0.0.7", "", "", "10.0.0.1-10.0.0.6"},
		{"10.0.0.0-10.0.0.7/29", "", "", "", "", "10.0.0.1-10.0.0.6"},
		{"fd00::/125", "fd00::", "fd00::7", "", "", "fd00::1-fd00::7"},
		{"10.0.0.0/30", "", "", "", "", "10.0.0.1-10.0.0.2"},
		{"fd00::/126", "", "", "", "", "fd00::1-fd00::3"},
		// Where a prefix has no more than two addresses, each is usable.
		{"10.0.0.0/31", "", "", "", "", "10.0.0.0-10.0.0.1"},
		{"10.0.0.1/31", "10.0.0.1", "", "", "", "10.0.0.1-10.0.0.1"},
		{"10.0.0.5/32", "", "", "", "", "10.0.0.5-10.0.0.5"},
		{"fd00::/127", "", "", "", "fd00::", "fd00::1-fd00::1"},
		{"fd00::5/128", "", "", "", "", "fd00::5-fd00::5"},
		// At the ends of the address space.
		{"255.255.255.255/32", "", "", "", "", "255.255.255.255-255.255.255.255"},
		{"255.255.255.254/31", "", "", "", "", "255.255.255.254-255.255.255.255"},
		{
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126", "", "", "", "",
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		},
		{"0.0.0.0/0", "", "", "128.0.0.0/1", "", "0.0.0.1-127.255.255.255"},
		{
			"::/0", "", "", "8000::/2", "",
			"::1-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff c000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
		},
		// Excludes over each other, partly and wholly outside.
		{
			"10.0.0.0/28", "", "", "10.0.0.4/31 10.0.0.4/30 10.0.0.6 10.9.0.0/16 10.0.0.12/30", "",
			"10.0.0.1-10.0.0.3 10.0.0.8-10.0.0.11",
		},
		{"10.0.0.0/29", "10.0.0.3", "10.0.0.4", "10.0.0.0/31", "10.0.0.6", "10.0.0.3-10.0.0.4"},
		// Beyond the first half of a /64.
		{
			"fd00::/64", "fd00::8000:0:0:0", "fd00::8000:0:0:1", "", "",
			"fd00::8000:0:0:0-fd00::8000:0:0:1",
		},
	} {
		w, err := parse(c.text, c.start, c.end, c.exclude, c.reserved)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		var got []string
		for i := range w.Intervals() {
			got = append(got, i.First.String()+"-"+i.Last.String())
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%v:\n got %s", c, got)
		}
	}
}

// Each error names the key and its value.
func TestWindowErrors(t *testing.T) {
	for _, c := range []struct{ text, start, end, exclude, reserved, want string }{
		{"10.0.0.0/24", "10.0.1.1", "", "", "", `range_start "10.0.1.1": is outside 10.0.0.0/24`},
		{"10.0.0.9/24", "fd00::1", "", "", "", `range_start "fd00::1": is outside 10.0.0.0/24`},
		{"10.0.0.0/24", "", "9.255.255.255", "", "", `range_end "9.255.255.255": is outside 10.0.0.0/24`},
		{
			"10.0.0.0/24", "10.0.0.9", "10.0.0.8", "", "",
			`range_end "10.0.0.8": is before the start, 10.0.0.9`,
		},
		{
			"10.0.0.0/24", "10.0.0.255", "", "", "",
			`range_start "10.0.0.255": is the broadcast address of 10.0.0.0/24`,
		},
		{
			"10.0.0.0/24", "", "10.0.0.0", "", "",
			`range_end "10.0.0.0": is the network address of 10.0.0.0/24`,
		},
		{"fd00::/64", "", "fd00::", "", "", `range_end "fd00::": is the network address of fd00::/64`},
		{
			"10.0.0.0/24", "", "", "fd00::/64", "",
			`exclude "fd00::/64": is not a prefix of the family of 10.0.0.0/24`,
		},
		{
			"fd00::/64", "", "", "fd00::/65 10.0.0.1", "",
			`exclude "10.0.0.1/32": is not a prefix of the family of fd00::/64`,
		},
		{
			"10.0.0.0/24", "", "", "10.0.0.0/25 10.0.0.128/25", "",
			`exclude "[10.0.0.0/25 10.0.0.128/25]": leaves no address of 10.0.0.0/24`,
		},
		{
			"10.0.0.0/24", "10.0.0.9", "10.0.0.9", "10.0.0.8/31", "",
			`exclude "[10.0.0.8/31]": leaves no address of 10.0.0.0/24`,
		},
		{
			"10.0.0.0/30", "", "", "10.0.0.2", "10.0.0.1",
			`range "10.0.0.0/30": has no address left besides those reserved, [10.0.0.1]`,
		},
		{
			"10.0.0.5/32", "", "", "", "10.0.0.5",
			`range "10.0.0.5/32": has no address left besides those reserved, [10.0.0.5]`,
		},
	} {
		_, err := parse(c.text, c.start, c.end, c.exclude, c.reserved)
		var e *alloc.Error
		if !errors.As(err, &e) || err.Error() != c.want {
			t.Errorf("%v:\n got %v", c, err)
		}
	}
	for _, p := range []netip.Prefix{{}, netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), 33)} {
		if _, err := alloc.NewWindow(p, netip.Addr{}, netip.Addr{}, nil, nil); err == nil {
			t.Errorf("a window of %v", p)
		}
		_, err := alloc.NewWindow(netip.MustParsePrefix("10.0.0.0/24"), netip.Addr{}, netip.Addr{},
			[]netip.Prefix{p}, nil)
		if err == nil {
			t.Errorf("a window without %v", p)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text, exclude string
		want          uint64
		bits          int
		blocks        uint64
	}{
		{"10.0.0.0/16", "", 65534, 28, 4096},
		{"10.0.0.0/16", "10.0.0.0/24 10.0.255.0/24", 65536 - 512, 28, 4096 - 32},
		{"0.0.0.0/0", "", 1<<32 - 2, 28, 1 << 28},
		{"fd00::/64", "", math.MaxUint64, 124, 1 << 60},
		{"fd00::/64", "fd00::8/128", math.MaxUint64 - 1, 128, math.MaxUint64 - 1},
		{"fd00::/8", "", math.MaxUint64, 124, math.MaxUint64},
		{"fd00::/8", "fd00::/8 ", 0, 0, 0},
		{"::/0", "", math.MaxUint64, 64, math.MaxUint64},
		{"::/0", "", math.MaxUint64, 63, 1 << 63},
		{"::/0", "", math.MaxUint64, 0, 1},
		{"10.0.0.6/31", "", 2, 28, 1},
		{"10.0.0.0/24", "", 254, 33, 0},
		{"10.0.0.0/24", "", 254, -1, 0},
	} {
		w, err := parse(c.text, "", "", c.exclude, "")
		if err != nil {
			if c.want > 0 {
				t.Errorf("%v: %v", c, err)
			}
			continue
		}
		if size, blocks := w.Size(), w.BlockCount(c.bits); size != c.want || blocks != c.blocks {
			t.Errorf("%v: size %d, %d blocks", c, size, blocks)
		}
	}
}

// An iterator over a great many things can be left early.
func TestLeaveEarly(t *testing.T) {
	w := mustParse(t, "fd00::/8", "fd00::/64")
	for b := range w.Blocks(124) {
		if b.String() != "fd00:0:0:1::/124" {
			t.Error(b)
		}
		break
	}
	for a := range w.In(netip.MustParsePrefix("fd00::/9")) {
		if a.String() != "fd00:0:0:1::" {
			t.Error(a)
		}
		break
	}
	for i := range mustParse(t, "fd00::/8", "fd00::8/128").Intervals() {
		if i.Last.String() != "fd00::7" {
			t.Error(i)
		}
		break
	}
}

func TestPickPrefersWhatDoesNotRest(t *testing.T) {
	w, block := mustParse(t, "10.0.0.0/28", "10.0.0.4/30"), netip.MustParsePrefix("10.0.0.0/28")
	in := func(last ...byte) func(netip.Addr) bool {
		return func(a netip.Addr) bool { return slices.Contains(last, a.As4()[3]) }
	}
	for _, c := range []struct {
		block         netip.Prefix
		used, resting func(netip.Addr) bool
		want          string
	}{
		{block, never, never, "10.0.0.1 true true"},
		{block, in(1, 2), never, "10.0.0.3 true true"},
		{block, in(1), in(2, 3), "10.0.0.8 true true"},
		{block, in(1, 8, 9, 10, 11, 12, 13), in(3, 2, 14), "10.0.0.2 false true"},
		{block, never, always, "10.0.0.1 false true"},
		{block, always, never, "invalid IP false false"},
		{netip.MustParsePrefix("10.0.0.4/30"), never, never, "invalid IP false false"},
		{netip.MustParsePrefix("10.0.0.2/31"), in(2), never, "10.0.0.3 true true"},
		{netip.MustParsePrefix("10.0.1.0/28"), never, never, "invalid IP false false"},
		{netip.MustParsePrefix("::ffff:10.0.0.0/124"), never, never, "invalid IP false false"},
		{netip.Prefix{}, never, never, "invalid IP false false"},
		{netip.MustParsePrefix("0.0.0.0/0"), never, never, "10.0.0.1 true true"},
	} {
		addr, rested, ok := w.Pick(c.block, c.used, c.resting)
		if got := fmt.Sprint(addr, rested, ok); got != c.want {
			t.Errorf("%v: %s, want %s", c.block, got, c.want)
		}
	}
}

// Every allowed address of larger ranges is handed out once, with blocks claimed at random, until
// none is free.
func TestFullUtilisation(t *testing.T) {
	for _, c := range []struct {
		text, exclude string
		bits          int
	}{
		{"10.0.0.0/20", "10.0.1.7 10.0.2.0/23 10.0.15.240/29", 28},
		{"10.0.3.77-10.0.9.3/20", "10.0.4.0/27", 28},
		{"10.0.3.77-10.0.9.3/20", "", 24},
		{"fd00::fff0/116", "fd00::f00/121", 124},
		{"fd00::ffff:ffff:ffff:ff03-fd00::1:0:0:0:2ab/48", "", 124},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:f000/116", "", 120},
		{"255.255.240.0/20", "", 28},
		{"10.0.0.8/31", "", 28},
		{"fd00::9/128", "", 124},
	} {
		w, rnd := mustParse(t, c.text, c.exclude), rand.New(rand.NewPCG(1, 2))
		given, taken := map[netip.Addr]bool{}, &alloc.BlockSet{}
		for {
			block, ok := w.RandomBlock(c.bits, rnd, taken)
			if !ok {
				break
			}
			taken.Add(block)
			before := len(given)
			for {
				a, _, ok := w.Pick(block, func(a netip.Addr) bool { return given[a] }, never)
				if !ok {
					break
				}
				if !w.Contains(a) || !block.Contains(a) || given[a] {
					t.Fatalf("%v: %v", c, a)
				}
				given[a] = true
			}
			if len(given) == before {
				t.Errorf("%v: block %v has no address", c, block)
			}
		}
		if uint64(len(given)) != w.Size() || uint64(taken.Len()) != w.BlockCount(c.bits) {
			t.Errorf("%v: %d of %d addresses in %d of %d blocks",
				c, len(given), w.Size(), taken.Len(), w.BlockCount(c.bits))
		}
	}
}

// An ADD makes its window of its configuration.
func BenchmarkNewWindow(b *testing.B) {
	for b.Loop() {
		_, _ = parse("10.0.0.0/8", "10.0.0.9", "", "10.9.0.0/16 10.0.1.0/24", "10.0.0.1")
	}
}

func BenchmarkPick(b *testing.B) {
	w, block := mustParse(b, "fd00::/64", "fd00::/120"), netip.MustParsePrefix("fd00::1:0/124")
	for b.Loop() {
		w.Pick(block, never, always)
	}
}
