package file_test

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/ipam/file"
)

func rng(first, last, gateway string) file.Range {
	r := file.Range{
		First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last),
		Gateway: netip.MustParseAddr(gateway),
	}
	r.Subnet = netip.PrefixFrom(r.First, 24).Masked()
	return r
}

func TestOrder(t *testing.T) {
	two := file.Set{rng("10.0.0.1", "10.0.0.3", "10.0.0.1"), rng("10.0.1.8", "10.0.1.9", "10.0.1.1")}
	end := file.Set{rng("255.255.255.254", "255.255.255.255", "0.0.0.0")}
	end6 := file.Set{
		rng("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1"),
	}
	for _, c := range []struct {
		set        file.Set
		last, want string
	}{
		{two, "", "[10.0.0.2 10.0.0.3 10.0.1.8 10.0.1.9]"},
		{two, "10.0.0.2", "[10.0.0.3 10.0.1.8 10.0.1.9 10.0.0.2]"},
		{two, "10.0.0.3", "[10.0.1.8 10.0.1.9 10.0.0.2 10.0.0.3]"},
		{two, "10.0.1.9", "[10.0.0.2 10.0.0.3 10.0.1.8 10.0.1.9]"},
		{two, "10.0.1.8", "[10.0.1.9 10.0.0.2 10.0.0.3 10.0.1.8]"},
		{two, "10.0.0.1", "[10.0.0.2 10.0.0.3 10.0.1.8 10.0.1.9]"},
		{two, "192.168.0.1", "[10.0.0.2 10.0.0.3 10.0.1.8 10.0.1.9]"},
		{two, "::a00:2", "[10.0.0.2 10.0.0.3 10.0.1.8 10.0.1.9]"},
		{end, "", "[255.255.255.254 255.255.255.255]"},
		{end, "255.255.255.255", "[255.255.255.254 255.255.255.255]"},
		{
			end6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
			"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]",
		},
	} {
		var last netip.Addr
		if c.last != "" {
			last = netip.MustParseAddr(c.last)
		}
		if got := fmt.Sprint(c.set.After(last)); got != c.want {
			t.Errorf("%v after %s:\n got %s\nwant %s", c.set, c.last, got, c.want)
		}
	}
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		set  file.Set
		want uint64
	}{
		{nil, 0},
		{file.Set{rng("10.0.0.1", "10.0.0.1", "10.0.0.1")}, 0},
		{file.Set{rng("10.0.0.1", "10.0.0.254", "10.0.0.1")}, 253},
		{
			file.Set{rng("10.0.0.1", "10.0.0.254", "10.1.0.1"), rng("10.0.1.0", "10.0.1.255", "10.0.1.7")},
			254 + 255,
		},
		{file.Set{rng("0.0.0.0", "255.255.255.255", "::")}, 1 << 32},
		{file.Set{rng("fd00::", "fd00::ffff:ffff:ffff:fffe", "::")}, math.MaxUint64},
		{file.Set{rng("fd00::", "fd00::ffff:ffff:ffff:fffd", "::")}, math.MaxUint64 - 1},
		{file.Set{rng("fd00::", "fd01::", "::"), rng("fe00::", "fe00::9", "::")}, math.MaxUint64},
		{file.Set{rng("::ffff:ffff:ffff:fffe", "0:0:0:1::1", "::")}, 4}, // across the middle
	} {
		if got := c.set.Size(); got != c.want {
			t.Errorf("size of %v: %d, want %d", c.set, got, c.want)
		}
	}
}

func TestKernelsBoot(t *testing.T) {
	id, err := file.BootID()
	if again, _ := file.BootID(); err != nil || len(id) != 36 || again != id {
		t.Errorf("boot IDs %q, %q, %v", id, again, err)
	}
	if at := file.BootTime(); at.After(time.Now()) {
		t.Errorf("booted at %v", at)
	}
	for _, bad := range []string{"", "../x", "a b"} {
		s := &file.Store{
			DataDir: t.TempDir(), Network: "net",
			Boot: file.Boot{ID: func() (string, error) {
				return bad, nil
			}},
		}
		if _, err := s.Add(t.Context(), key("a"), []file.Wish{wish("10.0.0.2", "10.0.0.9")}); err == nil {
			t.Errorf("boot ID %q is accepted", bad)
		}
	}
}
