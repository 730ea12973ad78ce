package nl_test

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

// TestR3KeepDefaultRoutes: each case starts from default routes via eth0 and does what a plugin may
// do to them.
func TestR3KeepDefaultRoutes(t *testing.T) {
	replace := func(t *testing.T, pod *nettest.Namespace, r netlink.Route) {
		t.Helper()
		must(t, pod.Netlink().RouteReplace(&r))
	}
	for name, tc := range map[string]keeping{
		"nothing": {
			func(*testing.T, *nettest.Namespace) {}, true, true, false, false,
			[]string{eth0Still4, eth0Still6},
		},
		"before it": {func(t *testing.T, pod *nettest.Namespace) {
			must(t, pod.Netlink().RouteAdd(&netlink.Route{
				Dst: all4, Gw: net.ParseIP("10.0.1.1"), LinkIndex: index(pod, "net1"), Priority: 0, Tos: 4,
			}))
		}, true, true, true, false, []string{eth0Still4, eth0Still6}},
		"in its place": {func(t *testing.T, pod *nettest.Namespace) {
			replace(t, pod, netlink.Route{
				Dst: all4, Gw: net.ParseIP("10.0.1.1"), LinkIndex: index(pod, "net1"),
			})
			replace(t, pod, netlink.Route{
				Dst: all6, Gw: net.ParseIP("fd00:b::1"), LinkIndex: index(pod, "net1"),
			})
		}, true, true, true, true, []string{eth0Still4, eth0Still6}},
		"beside it": {func(t *testing.T, pod *nettest.Namespace) {
			raw(t, pod, netlink.Route{
				Dst: all6, Gw: net.ParseIP("fd00:b::1"), LinkIndex: index(pod, "net1"),
			})
		}, true, true, false, true, []string{eth0Still4, eth0Still6}},
		"over both links": {func(t *testing.T, pod *nettest.Namespace) {
			eth0, net1 := hop(pod, "eth0", "10.0.0.1"), hop(pod, "net1", "10.0.1.1")
			replace(t, pod, netlink.Route{Dst: all4, MultiPath: []*netlink.NexthopInfo{&eth0, &net1}})
		}, true, true, true, false, []string{eth0Still4, eth0Still6}},
		"with metrics": {func(t *testing.T, pod *nettest.Namespace) {
			raw(t, pod, netlink.Route{
				Dst: all4, Gw: net.ParseIP("10.0.1.1"), LinkIndex: index(pod, "net1"), Priority: 7,
			})
			raw(t, pod, netlink.Route{
				Dst: all6, Gw: net.ParseIP("fd00:b::1"), LinkIndex: index(pod, "net1"), Priority: 7,
			})
		}, true, true, true, true, []string{eth0Still4, eth0Still6}},
		"a family that may": {func(t *testing.T, pod *nettest.Namespace) {
			replace(t, pod, netlink.Route{
				Dst: all4, Gw: net.ParseIP("10.0.1.1"), LinkIndex: index(pod, "net1"),
			})
			replace(t, pod, netlink.Route{
				Dst: all6, Gw: net.ParseIP("fd00:b::1"), LinkIndex: index(pod, "net1"),
			})
		}, false, true, true, true, []string{net1Now4, eth0Still6}},
		"of a table of its own": {
			func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{
					Dst: all4, Gw: net.ParseIP("10.0.1.1"), LinkIndex: index(pod, "net1"), Table: 100,
				})
			}, true, true, false, false,
			[]string{"route4 table 100 default via 10.0.1.1 dev net1", eth0Still4, eth0Still6},
		},
	} {
		t.Run(name, tc.test)
	}
}

// keeping is what a plugin does to the default routes of a pod, which families are kept, which were
// removed from net1, and the routes that are left.
type keeping struct {
	plugin             func(*testing.T, *nettest.Namespace)
	v4, v6             bool
	removed4, removed6 bool
	want               []string
}

func (tc keeping) test(t *testing.T) {
	pod, _ := newPod(t)
	pod.Route("default", "10.0.0.1", "eth0", 0)
	pod.Route("default", "fd00:a::1", "eth0", 0)
	d, err := nl.Sandbox{}.DefaultRoutes(t.Context(), pod.Path)
	must(t, err)
	if v4, v6 := d.Families(); !v4 || !v6 {
		t.Errorf("families %v %v", v4, v6)
	}
	tc.plugin(t, pod)
	removed4, removed6, err := d.Keep(t.Context(), "net1", tc.v4, tc.v6)
	must(t, err)
	if removed4 != (tc.removed4 && tc.v4) || removed6 != (tc.removed6 && tc.v6) {
		t.Errorf("removed %v %v", removed4, removed6)
	}
	same(t, "default routes", defaults(pod), tc.want)
	removed4, removed6, err = d.Keep(t.Context(), "net1", true, true)
	if removed4 || removed6 || err != nil {
		t.Errorf("again: %v %v %v", removed4, removed6, err)
	}
	same(t, "default routes, once more", defaults(pod), tc.want)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestR3KeepWhereNoneWas: a family without a default route may get one, which is kept from then on.
func TestR3KeepWhereNoneWas(t *testing.T) {
	pod, _ := newPod(t)
	d, err := nl.Sandbox{}.DefaultRoutes(t.Context(), pod.Path)
	if err != nil {
		t.Fatal(err)
	}
	pod.Route("default", "10.0.1.1", "net1", 0)
	if removed, _, err := d.Keep(t.Context(), "net1", true, true); removed || err != nil {
		t.Errorf("%v %v", removed, err)
	}
	err = pod.Netlink().RouteReplace(&netlink.Route{
		Dst: all4, Gw: net.ParseIP("10.0.0.1"), LinkIndex: index(pod, "eth0"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if removed, _, err := d.Keep(t.Context(), "eth0", true, true); !removed || err != nil {
		t.Errorf("%v %v", removed, err)
	}
	same(t, "default routes", defaults(pod), []string{"route4 default via 10.0.1.1 dev net1"})
	removed4, removed6, err := d.Keep(t.Context(), "absent", true, true)
	if removed4 || removed6 || err != nil {
		t.Errorf("a link that is not there: %v %v %v", removed4, removed6, err)
	}
}

// TestR3PreferDefaultRoute: IPv6 packets are not spread over two networks.
func TestR3PreferDefaultRoute(t *testing.T) {
	pod, _ := newPod(t)
	pod.Route("default", "10.0.0.1", "eth0", 0)
	pod.Route("default", "fd00:a::1", "eth0", 0)
	for range 2 {
		if err := (nl.Sandbox{}).PreferDefaultRoute(t.Context(), pod.Path, "net1"); err != nil {
			t.Fatal(err)
		}
		same(t, "without one of its own", defaults(pod), []string{
			"route4 default via 10.0.0.1 dev eth0", "route6 default via fd00:a::1 dev eth0 metric 1024",
		})
	}
	pod.Route("default", "fd00:b::1", "net1", 0)
	for range 2 {
		if err := (nl.Sandbox{}).PreferDefaultRoute(t.Context(), pod.Path, "net1"); err != nil {
			t.Fatal(err)
		}
		same(t, "with one", defaults(pod), []string{
			"route4 default via 10.0.0.1 dev eth0", "route6 default via fd00:b::1 dev net1 metric 512",
		})
	}
}

// R2, "ips and mac where no plugin declares them".
func TestR2Interface(t *testing.T) {
	pod, _ := newPod(t)
	mac, addrs, found, err := nl.Sandbox{}.Interface(t.Context(), pod.Path, "net1")
	if err != nil || !found || mac.String() != pod.Link("net1").Attrs().HardwareAddr.String() {
		t.Errorf("got %v %v %v", mac, found, err)
	}
	var global []string
	for _, a := range addrs {
		if !a.Addr().IsLinkLocalUnicast() {
			global = append(global, a.String())
		}
	}
	same(t, "addresses", global, []string{"10.0.1.2/24", "fd00:b::2/64"})
	_, _, found, err = (nl.Sandbox{}).Interface(t.Context(), pod.Path, "absent")
	if found || err != nil {
		t.Errorf("absent: %v %v", found, err)
	}
}
