package plugin_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/braid-cni/braid/pkg/plugin"
)

func TestPrefix(t *testing.T) {
	for want, n := range map[string]net.IPNet{
		"10.0.0.2/8":       {IP: net.IPv4(10, 0, 0, 2), Mask: net.CIDRMask(8, 32)},
		"10.0.0.3/8":       {IP: net.IPv4(10, 0, 0, 3).To4(), Mask: net.CIDRMask(8, 32)},
		"fd00::2/64":       {IP: net.ParseIP("fd00::2"), Mask: net.CIDRMask(64, 128)},
		"0.0.0.0/0":        {IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
		"::ffff:1.2.3.4/9": {IP: net.IPv4(1, 2, 3, 4), Mask: net.CIDRMask(9, 128)},
	} {
		if got, err := plugin.Prefix(n); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("%v: %s, %v, want %s", n, got, err, want)
		}
	}
	for _, n := range []net.IPNet{
		{},
		{IP: net.ParseIP("fd00::2"), Mask: net.CIDRMask(8, 32)},
		{IP: net.IPv4(10, 0, 0, 2).To4(), Mask: net.CIDRMask(64, 128)},
		{IP: net.IPv4(10, 0, 0, 2), Mask: net.IPv4Mask(255, 0, 255, 0)},
		{IP: net.IP{1, 2, 3}, Mask: net.CIDRMask(8, 32)},
	} {
		if got, err := plugin.Prefix(n); err == nil {
			t.Errorf("%v: %s", n, got)
		}
	}
}
