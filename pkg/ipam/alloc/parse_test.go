package alloc_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

func TestParseRange(t *testing.T) {
	for _, c := range []struct{ text, start, end, want string }{
		{"10.0.0.0/24", "", "", "10.0.0.0/24 invalid IP invalid IP"},
		{"10.0.0.77/24", "10.0.0.5", "10.0.0.9", "10.0.0.0/24 10.0.0.5 10.0.0.9"},
		{"10.0.0.5-10.0.0.9/24", "", "", "10.0.0.0/24 10.0.0.5 10.0.0.9"},
		{"10.0.0.5-10.0.0.5/32", "", "", "10.0.0.5/32 10.0.0.5 10.0.0.5"},
		// The range's own start and end win.
		{"10.0.0.5-10.0.0.9/24", "10.0.0.1", "fd00::1", "10.0.0.0/24 10.0.0.5 10.0.0.9"},
		{"fd00::1/64", "", "fd00::9", "fd00::/64 invalid IP fd00::9"},
		{"fd00::1-fd00:0:0:0:f::/64", "", "", "fd00::/64 fd00::1 fd00::f:0:0:0"},
		// As whereabouts reads addresses.
		{"010.000.000.077/024", "10.0.0.05", "", "10.0.0.0/24 10.0.0.5 invalid IP"},
		{"::ffff:10.0.0.77/120", "::ffff:10.0.0.5", "", "10.0.0.0/24 10.0.0.5 invalid IP"},
		{"::ffff:0:0/96", "", "", "0.0.0.0/0 invalid IP invalid IP"},
		{"::ffff:10.0.0.0/90", "", "", "::ffc0:0:0/90 invalid IP invalid IP"},
		// Whether a start of its own is in the range is NewWindow's to say.
		{"10.0.0.0/24", "10.0.1.0", "", "10.0.0.0/24 10.0.1.0 invalid IP"},

		{"", "", "", `range "": is neither "address/length" nor "start-end/length"`},
		{"10.0.0.0", "", "", `range "10.0.0.0": is neither "address/length" nor "start-end/length"`},
		{"10.0.0.0/33", "", "", `range "10.0.0.0/33": is neither "address/length" nor ` +
			`"start-end/length"`},
		{"10.0.0.0/-1", "", "", `range "10.0.0.0/-1": does not begin with an IP address`},
		{"10.0.0.0/+1", "", "", `range "10.0.0.0/+1": is neither "address/length" nor ` +
			`"start-end/length"`},
		{"10.0.0/24", "", "", `range "10.0.0/24": is neither "address/length" nor "start-end/length"`},
		{"10..0.0/24", "", "", `range "10..0.0/24": is neither "address/length" nor "start-end/length"`},
		{
			"10.0.0.0/24/24", "", "",
			`range "10.0.0.0/24/24": is neither "address/length" nor "start-end/length"`,
		},
		{
			"fe80::1%eth0/64", "", "",
			`range "fe80::1%eth0/64": is neither "address/length" nor "start-end/length"`,
		},
		{"-", "", "", `range "-": does not begin with an IP address`},
		{
			"10.0.0.5/24-10.0.0.9/24", "", "",
			`range "10.0.0.5/24-10.0.0.9/24": does not begin with an IP address`,
		},
		{"10.0.0.5-10.0.0.9", "", "", `range "10.0.0.5-10.0.0.9": does not end with "address/length"`},
		{"10.0.0.5-fd00::9/64", "", "", `range "10.0.0.5-fd00::9/64": 10.0.0.5 is outside fd00::/64`},
		{"10.0.1.5-10.0.0.9/24", "", "", `range "10.0.1.5-10.0.0.9/24": 10.0.1.5 is outside 10.0.0.0/24`},
		{
			"10.0.0.9-10.0.0.5/24", "", "",
			`range "10.0.0.9-10.0.0.5/24": 10.0.0.5 is before the start, 10.0.0.9`,
		},
		{
			"10.0.0.255-10.0.0.255/24", "", "",
			`range "10.0.0.255-10.0.0.255/24": 10.0.0.255 is the broadcast address of 10.0.0.0/24`,
		},
		{"10.0.0.0/24", "x", "", `range_start "x": is not an IP address`},
		{"10.0.0.0/24", "fe80::1%eth0", "", `range_start "fe80::1%eth0": is not an IP address`},
		{"10.0.0.0/24", "", "10.0.0.9/24", `range_end "10.0.0.9/24": is not an IP address`},
		{"10.0.0.5-10.0.0.9/24", "", "x", `range_end "x": is not an IP address`},
	} {
		prefix, first, last, err := alloc.ParseRange(c.text, c.start, c.end)
		got := fmt.Sprint(prefix, first, last)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v:\n got %s", c, got)
		}
	}
}

func TestParseExclude(t *testing.T) {
	for _, c := range []struct{ list, want string }{
		{"", "[]"},
		{"192.168.2.229/30 192.168.2.236", "[192.168.2.228/30 192.168.2.236/32]"},
		{"fd00::1 fd00::f/124", "[fd00::1/128 fd00::/124]"},
		{"::ffff:10.0.0.1 ::ffff:10.0.0.1/120", "[10.0.0.1/32 10.0.0.0/24]"},
		{
			"10.0.0.1 10.0.0.5-10.0.0.9",
			`exclude "10.0.0.5-10.0.0.9": is neither "address/length" nor an IP address`,
		},
		{"10.0.0.1/", `exclude "10.0.0.1/": is neither "address/length" nor an IP address`},
		{"fd00::1%lo", `exclude "fd00::1%lo": is neither "address/length" nor an IP address`},
	} {
		list, err := alloc.ParseExclude(strings.Fields(c.list))
		got := fmt.Sprint(list)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v:\n got %s", c, got)
		}
	}
	if _, err := alloc.ParseExclude([]string{""}); err == nil {
		t.Error("an empty exclude is read")
	}
}

// FuzzParseRange: what is accepted makes a window, or an error that names a key; what the standard
// library takes for a CIDR is taken too, for the same one.
func FuzzParseRange(f *testing.F) {
	f.Add("10.0.0.5-10.0.0.9/24", "", "")
	f.Add("010.0.0.77/24", "10.0.0.5", "::ffff:10.0.0.9")
	f.Add("fd00::-fd00::9/64", "fd00::1", "x")
	f.Fuzz(func(t *testing.T, text, start, end string) {
		prefix, first, last, err := alloc.ParseRange(text, start, end)
		var e *alloc.Error
		if err != nil {
			if !errors.As(err, &e) || e.Field == "" {
				t.Fatal(err)
			}
		} else {
			w, err := alloc.NewWindow(prefix, first, last, nil, nil)
			if err != nil && (!errors.As(err, &e) || strings.Contains(text, "-")) {
				t.Fatalf("%q: %v", text, err)
			}
			if err == nil && (w.Size() == 0 || !prefix.Contains(w.Start()) || w.End().Less(w.Start())) {
				t.Fatalf("%q: %v to %v, %d", text, w.Start(), w.End(), w.Size())
			}
			if prefix != prefix.Masked() || first.Is4In6() || last.Zone() != "" {
				t.Fatalf("%q: %v, %v, %v", text, prefix, first, last)
			}
		}
		if _, want, err := net.ParseCIDR(text); err == nil {
			prefix, _, _, err := alloc.ParseRange(text, "", "")
			if err != nil || prefix != netip.MustParsePrefix(want.String()) {
				t.Fatalf("%q: %v, %v, want %v", text, prefix, err, want)
			}
		}
	})
}
