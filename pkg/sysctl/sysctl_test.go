package sysctl_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/sysctl"
)

func TestPath(t *testing.T) {
	for key, want := range map[string]string{
		"net/ipv4/ip_forward":             "/proc/sys/net/ipv4/ip_forward",
		"net/ipv4/conf/eth0.7/arp_notify": "/proc/sys/net/ipv4/conf/eth0.7/arp_notify",
		"/net/ipv4/ip_forward":            "/proc/sys/net/ipv4/ip_forward",
		"net/../net/core/somaxconn":       "/proc/sys/net/core/somaxconn",
		"net":                             "",
		"net/":                            "",
		"":                                "",
		"kernel/hostname":                 "",
		"net/../kernel/hostname":          "",
		"net/../../../etc/passwd":         "",
		"../../etc/passwd":                "",
		"network/x":                       "",
		"net/core/\x00":                   "",
	} {
		got, err := sysctl.Path(key)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("Path(%q) = %q, %v, want %q", key, got, err, want)
		}
	}
}

func open(t *testing.T) (*nettest.Namespace, *netns.NS) {
	t.Helper()
	n := nettest.New(t)
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return n, ns
}

const (
	somaxconn = "net/core/somaxconn"
	forward   = "net/ipv4/ip_forward"
	ports     = "net/ipv4/ip_local_port_range"
	flush     = "net/ipv4/route/flush"                      // cannot be read
	fixed     = "net/ipv4/tcp_available_congestion_control" // cannot be written
	absent    = "net/ipv4/conf/absent/arp_notify"
)

func get(t *testing.T, ns *netns.NS, keys ...string) []string {
	t.Helper()
	values, err := sysctl.Get(ns, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestSetAndGet(t *testing.T) {
	n, ns := open(t)
	other, otherNS := open(t)
	n.Veth("net1.7", other, "wire")
	before := get(t, otherNS, somaxconn)
	err := sysctl.Set(ns, sysctl.Setting{Key: somaxconn, Value: "77"},
		sysctl.Setting{Key: "net/ipv4/conf/net1.7/arp_notify", Value: "1"},
		sysctl.Setting{Key: ports, Value: "2000 3000"})
	if err != nil {
		t.Fatal(err)
	}
	got, want := get(t, ns, ports, somaxconn, "net/ipv4/conf/net1.7/arp_notify"), []string{
		"2000\t3000", "77", "1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := get(t, otherNS, somaxconn); !slices.Equal(got, before) {
		t.Errorf("another namespace has %q, before %q", got, before)
	}
	if err := sysctl.Set(ns); err != nil {
		t.Error(err)
	}
	nettest.NoThreadIn(t, n, other)
}

func TestSetStopsAtTheFirstFailure(t *testing.T) {
	n, ns := open(t)
	for value, want := range map[sysctl.Setting]error{
		{Key: absent, Value: "1"}:              fs.ErrNotExist,
		{Key: ports, Value: "9 8"}:             unix.EINVAL,
		{Key: "net/ipv4", Value: "1"}:          unix.EISDIR,
		{Key: "kernel/hostname", Value: "x"}:   nil,
		{Key: fixed, Value: "neither of them"}: fs.ErrPermission,
	} {
		err := sysctl.Set(ns, sysctl.Setting{Key: somaxconn, Value: "76"}, value,
			sysctl.Setting{Key: forward, Value: "1"})
		if err == nil || want != nil && !errors.Is(err, want) ||
			!strings.Contains(err.Error(), value.Key) {
			t.Errorf("%v: %v, want %v", value, err, want)
		}
		if got := get(t, ns, somaxconn, forward); !slices.Equal(got, []string{"76", "0"}) {
			t.Errorf("%v: after the failure %q", value, got)
		}
	}
	nettest.NoThreadIn(t, n)
}

// Where a parameter cannot be written, having the value is enough.
func TestSetWhatIsSo(t *testing.T) {
	_, ns := open(t)
	if err := sysctl.Set(ns, sysctl.Setting{Key: fixed, Value: get(t, ns, fixed)[0]}); err != nil {
		t.Error(err)
	}
}

func TestTryPassesOverWhatIsMissing(t *testing.T) {
	_, ns := open(t)
	err := sysctl.Try(ns, sysctl.Setting{Key: absent, Value: "1"},
		sysctl.Setting{Key: somaxconn, Value: "75"})
	if err != nil {
		t.Error(err)
	}
	if got := get(t, ns, somaxconn); got[0] != "75" {
		t.Errorf("got %q", got)
	}
	if err := sysctl.Try(ns, sysctl.Setting{Key: ports, Value: "9 8"}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a value that the kernel refuses: %v", err)
	}
}

func TestSwap(t *testing.T) {
	_, ns := open(t)
	was := get(t, ns, somaxconn, forward, ports)
	before, err := sysctl.Swap(ns, sysctl.Setting{Key: somaxconn, Value: "74"},
		sysctl.Setting{Key: flush, Value: "1"},
		sysctl.Setting{Key: somaxconn, Value: "73"}, sysctl.Setting{Key: forward, Value: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, ns, somaxconn, forward); !slices.Equal(got, []string{"73", "1"}) {
		t.Errorf("got %q", got)
	}
	want := []sysctl.Setting{
		{Key: forward, Value: was[1]}, {Key: somaxconn, Value: "74"}, {Key: somaxconn, Value: was[0]},
	}
	if !slices.Equal(before, want) {
		t.Errorf("before %q, want %q", before, want)
	}
	if err := sysctl.Set(ns, before...); err != nil {
		t.Fatal(err)
	}
	if got := get(t, ns, somaxconn, forward, ports); !slices.Equal(got, was) {
		t.Errorf("after setting it back %q, want %q", got, was)
	}

	before, err = sysctl.Swap(ns, sysctl.Setting{Key: somaxconn, Value: "72"},
		sysctl.Setting{Key: absent, Value: "1"}, sysctl.Setting{Key: forward, Value: "1"})
	if !errors.Is(err, fs.ErrNotExist) ||
		!slices.Equal(before, []sysctl.Setting{{Key: somaxconn, Value: was[0]}}) {
		t.Errorf("a failure: before %q, %v", before, err)
	}
}

func TestGetFails(t *testing.T) {
	_, ns := open(t)
	for _, key := range []string{absent, "kernel/hostname", "net/ipv4", flush} {
		values, err := sysctl.Get(ns, somaxconn, key)
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Get(%s) = %q, %v", key, values, err)
		}
	}
	ns.Close()
	if _, err := sysctl.Get(ns, somaxconn); err == nil {
		t.Error("Get in a namespace that is closed")
	}
}

// Parameters of interfaces are the namespace's from whatever thread, and others of the same name
// stay as they are.
func TestOfInterfacesFromOutside(t *testing.T) {
	n, ns := open(t)
	other, otherNS := open(t)
	n.Veth("net1", other, "net1")
	if err := sysctl.Reach(ns); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		key := "net/" + family + "/conf/net1/accept_redirects"
		before := get(t, otherNS, key)
		for _, value := range []string{"0", "1", "0"} {
			if err := sysctl.Set(ns, sysctl.Setting{Key: key, Value: value}); err != nil {
				t.Fatal(err)
			}
			var inside []byte
			err := n.Run(func() (err error) {
				inside, err = os.ReadFile("/proc/sys/" + key)
				return err
			})
			if err != nil || string(inside) != value+"\n" || get(t, ns, key)[0] != value {
				t.Errorf("%s: %q in the namespace, %v, want %s", key, inside, err, value)
			}
			if got := get(t, otherNS, key); !slices.Equal(got, before) {
				t.Errorf("%s: another namespace has %q, before %q", key, got, before)
			}
		}
	}
}
