package nl_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

// The pod of these tests has eth0 and net1, each with an address of both families and a router on
// the other end.
const (
	eth0GW4, eth0GW6   = "10.0.0.1", "fd00:a::1"
	net1GW4, net1GW6   = "10.0.1.1", "fd00:b::1"
	net1GW4b, net1GW6b = "10.0.1.9", "fd00:b::9"
)

func newPod(t testing.TB) (pod, router *nettest.Namespace) {
	t.Helper()
	pod, router = nettest.New(t), nettest.New(t)
	for i, name := range []string{"eth0", "net1"} {
		pod.Veth(name, router, fmt.Sprint("peer", i))
		pod.Addr(name, fmt.Sprintf("10.0.%d.2/24", i), fmt.Sprintf("fd00:%c::2/64", 'a'+i))
		router.Addr(fmt.Sprint("peer", i), fmt.Sprintf("10.0.%d.1/24", i),
			fmt.Sprintf("fd00:%c::1/64", 'a'+i))
	}
	return pod, router
}

func open(t testing.TB, n *nettest.Namespace) *nl.Handle {
	t.Helper()
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := nl.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// addrs parses addresses.
func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// defaults are the default routes of all tables, without the words that all have.
func defaults(n *nettest.Namespace) []string {
	var out []string
	for line := range strings.Lines(n.Routes()) {
		if strings.Contains(line, " default") {
			out = append(out, strings.ReplaceAll(strings.TrimSpace(line), "table main ", ""))
		}
	}
	return out
}

// others are all routes that are not default routes.
func others(n *nettest.Namespace) string {
	var b strings.Builder
	for line := range strings.Lines(n.Routes()) {
		if !strings.Contains(line, " default") {
			b.WriteString(line)
		}
	}
	return b.String()
}

func raw(t testing.TB, pod *nettest.Namespace, r netlink.Route, hops ...netlink.NexthopInfo) {
	t.Helper()
	for _, h := range hops {
		r.MultiPath = append(r.MultiPath, &h)
	}
	if err := pod.Netlink().RouteAppend(&r); err != nil {
		t.Fatal(err)
	}
}

func index(n *nettest.Namespace, name string) int { return n.Link(name).Attrs().Index }

var (
	all4 = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	all6 = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
)

// Each case starts from default routes via eth0, and what before adds.
func TestS22DefaultRouteMoves(t *testing.T) {
	moves(t, map[string]move{
		"IPv4":       {gateways: addrs(net1GW4), want: []string{net1Now4, eth0Still6}},
		"IPv6":       {gateways: addrs(net1GW6), want: []string{eth0Still4, net1Now6}},
		"dual stack": {gateways: addrs(net1GW6, net1GW4), want: []string{net1Now4, net1Now6}},
		"none":       {gateways: nil, want: []string{eth0Still4, eth0Still6}},
		"mapped":     {gateways: addrs("::ffff:" + net1GW4), want: []string{net1Now4, eth0Still6}},
		"link-local": {
			gateways: addrs("fe80::1%net1"),
			want:     []string{eth0Still4, "route6 default via fe80::1 dev net1 metric 512"},
		},
		"old ones with metrics": {
			before: func(_ *testing.T, pod *nettest.Namespace) {
				pod.Route("default", eth0GW4, "eth0", 5)
				pod.Route("default", eth0GW6, "eth0", 5)
				pod.Route("default", eth0GW6, "eth0", 2000)
				pod.Route("default", eth0GW6, "eth0", 512)
			},
			gateways: addrs(net1GW4, net1GW6), want: []string{net1Now4, net1Now6},
		},
	})
}

// The routes of the pod before and after a move, as others name them.
const (
	eth0Still4 = "route4 default via 10.0.0.1 dev eth0"
	eth0Still6 = "route6 default via fd00:a::1 dev eth0 metric 1024"
	net1Now4   = "route4 default via 10.0.1.1 dev net1"
	net1Now6   = "route6 default via fd00:b::1 dev net1 metric 512"
)

// move is a move of the default route to net1. before may add routes to those of eth0.
type move struct {
	before   func(t *testing.T, pod *nettest.Namespace)
	gateways []netip.Addr
	want     []string
}

// moves fails unless each move has the default routes that it wants, leaves all others, and changes
// nothing when it is repeated.
func moves(t *testing.T, cases map[string]move) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod, _ := newPod(t)
			pod.Route("default", eth0GW4, "eth0", 0)
			pod.Route("default", eth0GW6, "eth0", 0)
			if c.before != nil {
				c.before(t, pod)
			}
			h, rest := open(t, pod), others(pod)
			if err := h.MoveDefaultRoute(t.Context(), "net1", c.gateways); err != nil {
				t.Fatalf("%v\n%s", err, pod.Routes())
			}
			same(t, "default routes", defaults(pod), c.want)
			if after := others(pod); after != rest {
				t.Errorf("other routes changed from\n%s to\n%s", rest, after)
			}
			changes := watch(t, pod)
			if err := h.MoveDefaultRoute(t.Context(), "net1", c.gateways); err != nil {
				t.Fatal(err)
			}
			if got := changes(); len(got) != 0 {
				t.Errorf("the second call changed %v", got)
			}
		})
	}
}

func hop(pod *nettest.Namespace, link, gateway string) netlink.NexthopInfo {
	return netlink.NexthopInfo{LinkIndex: index(pod, link), Gw: net.ParseIP(gateway)}
}

// Default routes that the link has already.
func TestS22RoutesOfTheLinkItself(t *testing.T) {
	moves(t, map[string]move{
		// What a delegate leaves whose IPAM has a default route, IPv4: two of the same metric, and the
		// new one second, where a replacement would be "file exists".
		"there already, second": {
			before: func(_ *testing.T, pod *nettest.Namespace) {
				pod.Route("default", net1GW4, "net1", 0)
			},
			gateways: addrs(net1GW4), want: []string{net1Now4, eth0Still6},
		},
		// The same, IPv6: the kernel makes one multipath route of the two.
		"there already, IPv6 multipath": {
			before: func(_ *testing.T, pod *nettest.Namespace) {
				pod.Route("default", net1GW6, "net1", 0)
			},
			gateways: addrs(net1GW6), want: []string{eth0Still4, net1Now6},
		},
		"there already with MTU": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{
					Dst: all4, LinkIndex: index(pod, "net1"), Gw: net.ParseIP(net1GW4), MTU: 1400,
				})
			},
			gateways: addrs(net1GW4), want: []string{net1Now4 + " mtu 1400", eth0Still6},
		},
		"other gateways of the link": {
			before: func(_ *testing.T, pod *nettest.Namespace) {
				pod.Route("default", net1GW4b, "net1", 0)
				pod.Route("default", net1GW4, "net1", 7)
				pod.Route("default", net1GW6b, "net1", 7)
			},
			gateways: addrs(net1GW4, net1GW6), want: []string{net1Now4, net1Now6},
		},
	})
}

// Routes with several next hops, and next hops that are objects.
func TestS22MultipathMoves(t *testing.T) {
	moves(t, map[string]move{
		"multipath over both links": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{Dst: all4, Priority: 3}, hop(pod, "eth0", eth0GW4),
					hop(pod, "net1", net1GW4))
				raw(t, pod, netlink.Route{Dst: all6, Priority: 3}, hop(pod, "eth0", eth0GW6),
					hop(pod, "net1", net1GW6))
				raw(t, pod, netlink.Route{Dst: all4}, hop(pod, "net1", net1GW4), hop(pod, "eth0", eth0GW4))
				raw(t, pod, netlink.Route{Dst: all6, Priority: 512}, hop(pod, "net1", net1GW6b),
					hop(pod, "eth0", eth0GW6))
			},
			gateways: addrs(net1GW4, net1GW6), want: []string{net1Now4, net1Now6},
		},
		"multipath, a link down": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{Dst: all4, Priority: 3}, hop(pod, "eth0", eth0GW4),
					hop(pod, "net1", net1GW4))
				raw(t, pod, netlink.Route{Dst: all6, Priority: 3}, hop(pod, "eth0", eth0GW6),
					hop(pod, "net1", net1GW6))
				pod.Down("eth0")
			},
			gateways: addrs(net1GW4, net1GW6), want: []string{net1Now4, net1Now6},
		},
		"next hop objects": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				nextHopObject(t, pod, 7, "eth0", eth0GW4)
				nextHopObject(t, pod, 8, "eth0", eth0GW6)
				defaultByObject(t, pod, unix.AF_INET, 7, 6)
				defaultByObject(t, pod, unix.AF_INET6, 8, 6)
			},
			gateways: addrs(net1GW4, net1GW6), want: []string{net1Now4, net1Now6},
		},
	})
}

// Default routes that have no gateway, a TOS, or a gateway of the other family.
func TestS22OddRoutesMove(t *testing.T) {
	moves(t, map[string]move{
		"without a gateway": {
			before: func(_ *testing.T, pod *nettest.Namespace) {
				pod.Route("0.0.0.0/0", "", "eth0", 9)
				pod.Route("0.0.0.0/0", "", "net1", 0)
				pod.Route("::/0", "", "eth0", 8)
				pod.Route("::/0", "", "net1", 0)
			},
			gateways: addrs(net1GW4, net1GW6), want: []string{net1Now4, net1Now6},
		},
		"with a TOS": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{
					Dst: all4, LinkIndex: index(pod, "eth0"), Gw: net.ParseIP(eth0GW4), Tos: 0x10,
				})
				raw(t, pod, netlink.Route{
					Dst: all4, LinkIndex: index(pod, "net1"), Gw: net.ParseIP(net1GW4), Tos: 0x08,
				})
			},
			gateways: addrs(net1GW4), want: []string{net1Now4, eth0Still6},
		},
		"gateway of the other family": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{
					Dst: all4, Priority: 4, LinkIndex: index(pod, "eth0"),
					Via: &netlink.Via{AddrFamily: unix.AF_INET6, Addr: net.ParseIP(eth0GW6)},
				})
			},
			gateways: addrs(net1GW4), want: []string{net1Now4, eth0Still6},
		},
	})
}

// Routes of other tables, prohibitions and routes of a source are not moved.
func TestS22OtherRoutesStay(t *testing.T) {
	moves(t, map[string]move{
		"other tables, prohibitions, sources": {
			before: func(t *testing.T, pod *nettest.Namespace) {
				raw(t, pod, netlink.Route{
					Dst: all4, LinkIndex: index(pod, "eth0"), Gw: net.ParseIP(eth0GW4), Table: 100,
				})
				raw(t, pod, netlink.Route{
					Dst: all6, LinkIndex: index(pod, "eth0"), Gw: net.ParseIP(eth0GW6), Table: 1000,
				})
				raw(t, pod, netlink.Route{Dst: all4, Type: unix.RTN_UNREACHABLE, Priority: 9000})
				raw(t, pod, netlink.Route{Dst: all6, Type: unix.RTN_BLACKHOLE, Priority: 9000})
				defaultFromSource(t, pod, "fd00:a::/64", "eth0", eth0GW6)
			},
			gateways: addrs(net1GW4, net1GW6),
			want: []string{
				net1Now4, "route4 table 100 default via 10.0.0.1 dev eth0",
				"route4 unreachable default metric 9000",
				net1Now6, "route6 table 1000 default via fd00:a::1 dev eth0 metric 1024",
				"route6 blackhole default dev lo metric 9000",
				"route6 default via fd00:a::1 dev eth0 proto static metric 77", // from fd00:a::/64
			},
		},
		"link-scope gateway": {
			before: func(_ *testing.T, pod *nettest.Namespace) {
				pod.Route("192.168.0.64/32", "", "net1", 0)
			},
			gateways: addrs("192.168.0.64"),
			want:     []string{"route4 default via 192.168.0.64 dev net1", eth0Still6},
		},
	})
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s are\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// watch collects the changes of routes until the function that it returns is called, without those
// of IPv6's link-local and multicast ones, which the kernel makes in its own time.
func watch(t *testing.T, n *nettest.Namespace) (stop func() []netlink.RouteUpdate) {
	t.Helper()
	updates, done := make(chan netlink.RouteUpdate, 10000), make(chan struct{})
	if err := n.Run(func() error { return netlink.RouteSubscribe(updates, done) }); err != nil {
		t.Fatal(err)
	}
	return func() []netlink.RouteUpdate {
		// A change of our own marks the end: what came before it has arrived by then.
		mark := &netlink.Route{
			Dst:  &net.IPNet{IP: net.ParseIP("192.0.2.1").To4(), Mask: net.CIDRMask(32, 32)},
			Type: unix.RTN_BLACKHOLE,
		}
		if err := n.Netlink().RouteAdd(mark); err != nil {
			t.Fatal(err)
		}
		defer close(done)
		var seen []netlink.RouteUpdate
		for {
			select {
			case u := <-updates:
				switch ip := u.Dst.IP; {
				case ip.Equal(mark.Dst.IP):
					return seen
				case ip.To4() == nil && (ip.IsLinkLocalUnicast() || ip.IsMulticast()):
				default:
					seen = append(seen, u)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("no notice of the mark")
			}
		}
	}
}

// S21, "default-route: gateways, once of a family".
func TestS21DefaultRouteGateways(t *testing.T) {
	pod, _ := newPod(t)
	pod.Route("default", eth0GW4, "eth0", 0)
	h := open(t, pod)
	order := addrs(net1GW4b, net1GW6, net1GW4, net1GW6b, net1GW4b)
	if err := h.MoveDefaultRoute(t.Context(), "net1", order); err != nil {
		t.Fatal(err)
	}
	same(t, "default routes", defaults(pod), []string{
		"route4 default via 10.0.1.9 dev net1", "route4 default via 10.0.1.1 dev net1 metric 1",
		"route6 default via fd00:b::1 dev net1 metric 512",
		"route6 default via fd00:b::9 dev net1 metric 513",
	})
	got, err := h.DefaultGateways(t.Context(), "net1")
	if want := addrs(net1GW4b, net1GW4, net1GW6, net1GW6b); err != nil || !slices.Equal(got, want) {
		t.Errorf("DefaultGateways = %v, %v, want %v", got, err, want)
	}
	if got, err := h.DefaultGateways(t.Context(), "eth0"); err != nil || len(got) != 0 {
		t.Errorf("DefaultGateways of eth0 = %v, %v", got, err)
	}
	if got, err := h.DefaultGateways(t.Context(), "net7"); err == nil {
		t.Errorf("DefaultGateways of a missing link = %v", got)
	}
	// Fewer, and in another order.
	if err := h.MoveDefaultRoute(t.Context(), "net1", addrs(net1GW4, net1GW6b)); err != nil {
		t.Fatal(err)
	}
	same(t, "default routes", defaults(pod), []string{
		"route4 default via 10.0.1.1 dev net1", "route6 default via fd00:b::9 dev net1 metric 512",
	})
}

func TestDefaultGatewaysOfMultipath(t *testing.T) {
	pod, _ := newPod(t)
	hops := func(eth0, net1 string) []netlink.NexthopInfo {
		return []netlink.NexthopInfo{
			{LinkIndex: index(pod, "eth0"), Gw: net.ParseIP(eth0)},
			{LinkIndex: index(pod, "net1"), Gw: net.ParseIP(net1)},
		}
	}
	raw(t, pod, netlink.Route{Dst: all4, Priority: 3}, hops(eth0GW4, net1GW4)...)
	raw(t, pod, netlink.Route{Dst: all6, Priority: 3}, hops(eth0GW6, net1GW6)...)
	pod.Route("default", net1GW4b, "net1", 1)
	pod.Route("0.0.0.0/0", "", "net1", 9)
	got, err := open(t, pod).DefaultGateways(t.Context(), "net1")
	if want := addrs(net1GW4b, net1GW4, net1GW6); err != nil || !slices.Equal(got, want) {
		t.Errorf("DefaultGateways = %v, %v, want %v", got, err, want)
	}
}

// M1: with netlink 1.3 a default route has the destination 0.0.0.0/0, not none; who looks for none
// removes nothing.
func TestM1OldDefaultRouteIsRemoved(t *testing.T) {
	pod, _ := newPod(t)
	pod.Route("default", eth0GW4, "eth0", 0)
	pod.Route("default", eth0GW4, "eth0", 100)
	pod.Route("default", eth0GW6, "eth0", 0)
	pod.Route("default", eth0GW6, "eth0", 100)
	err := (nl.Sandbox{}).MoveDefaultRoute(t.Context(), pod.Path, "net1", addrs(net1GW4, net1GW6))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range defaults(pod) {
		if strings.Contains(line, "eth0") {
			t.Errorf("left: %s", line)
		}
	}
	// What counts: where the kernel sends packets.
	for _, to := range []string{"8.8.8.8", "2001:4860:4860::8888"} {
		routes, err := pod.Netlink().RouteGet(net.ParseIP(to))
		if err != nil || len(routes) != 1 || routes[0].LinkIndex != index(pod, "net1") {
			t.Errorf("route to %s is %v, %v; want one by net1", to, routes, err)
		}
	}
}

// M2: a default route of one family says nothing about the other.
func TestM2OtherFamilyKeepsItsDefaultRoute(t *testing.T) {
	for _, c := range []struct{ gateway, keeps string }{
		{net1GW4, "route6 default via fd00:a::1 dev eth0 metric 1024"},
		{net1GW6, "route4 default via 10.0.0.1 dev eth0"},
	} {
		pod, _ := newPod(t)
		pod.Route("default", eth0GW4, "eth0", 0)
		pod.Route("default", eth0GW6, "eth0", 0)
		err := (nl.Sandbox{}).MoveDefaultRoute(t.Context(), pod.Path, "net1", addrs(c.gateway))
		if err != nil {
			t.Fatal(err)
		}
		if got := defaults(pod); len(got) != 2 || !slices.Contains(got, c.keeps) {
			t.Errorf("with gateway %s: %q, want 2 with %q", c.gateway, got, c.keeps)
		}
	}
}

// While the default route moves, far addresses stay reachable, and by the kernel's own account
// there is always one.
func TestS22DefaultRouteIsNeverAbsent(t *testing.T) {
	for _, c := range []struct{ name, far, eth0, net1 string }{
		{"IPv4", "8.8.8.8", eth0GW4, net1GW4},
		{"IPv6", "2001:4860:4860::8888", eth0GW6, net1GW6},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 25 {
				pod, _ := newPod(t)
				pod.Route("default", c.eth0, "eth0", 0)
				account := watch(t, pod)
				stop := lookUp(pod, net.ParseIP(c.far))
				if err := open(t, pod).MoveDefaultRoute(t.Context(), "net1", addrs(c.net1)); err != nil {
					t.Fatal(err)
				}
				if err := stop(); err != nil {
					t.Fatal(err)
				}
				alwaysOne(t, account())
			}
		})
		t.Run(c.name+" to and fro", func(t *testing.T) {
			pod, _ := newPod(t)
			pod.Route("default", c.eth0, "eth0", 0)
			h, account := open(t, pod), watch(t, pod)
			for range 100 {
				if err := errors.Join(
					h.MoveDefaultRoute(t.Context(), "net1", addrs(c.net1)),
					h.MoveDefaultRoute(t.Context(), "eth0", addrs(c.eth0)),
				); err != nil {
					t.Fatal(err)
				}
			}
			alwaysOne(t, account())
		})
	}
}

// alwaysOne follows the changes from one default route on.
func alwaysOne(t *testing.T, changes []netlink.RouteUpdate) {
	t.Helper()
	present := 1
	for i, u := range changes {
		switch {
		case u.Type == unix.RTM_DELROUTE:
			present--
		case u.NlFlags&unix.NLM_F_REPLACE == 0:
			present++
		}
		if present < 1 {
			t.Fatalf("change %d of %d leaves no default route: %s", i+1, len(changes), u.Route)
		}
	}
	if len(changes) == 0 || present != 1 {
		t.Fatalf("%d changes, %d default routes at the end", len(changes), present)
	}
}

// lookUp asks the kernel for the way to an address, again and again from before it returns until
// after stop is called, or until there is none. That is one that is refused twice in a row: IPv6
// refuses a look-up that has found a route just as that is released, although another is there.
func lookUp(n *nettest.Namespace, to net.IP) (stop func() error) {
	const enough = 20
	started, done, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		for count, more := 0, enough; more > 0; count++ {
			if count == enough {
				close(started)
			}
			select {
			case <-done:
				more--
			default:
			}
			if _, first := n.Netlink().RouteGet(to); first != nil {
				if _, second := n.Netlink().RouteGet(to); second != nil {
					result <- fmt.Errorf("look-up %d: %w, %w", count, first, second)
					if count < enough {
						close(started)
					}
					return
				}
			}
		}
		result <- nil
	}()
	<-started
	return func() error {
		close(done)
		return <-result
	}
}

func TestS22DefaultRouteRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		before   func(pod *nettest.Namespace)
		ifname   string
		gateways []netip.Addr
		cause    error
		says     string
	}{
		"IPv4 gateway elsewhere": {
			gateways: addrs("172.30.0.1"), cause: unix.ENETUNREACH,
			says: "172.30.0.1",
		},
		"IPv6 gateway elsewhere": {
			gateways: addrs("fd00:ffff::1"), cause: unix.EHOSTUNREACH,
			says: "fd00:ffff::1",
		},
		"gateway of another link": {
			gateways: addrs(eth0GW4), cause: unix.ENETUNREACH,
			says: eth0GW4,
		},
		"IPv6 gateway of another link": {
			gateways: addrs(eth0GW6), cause: unix.EHOSTUNREACH,
			says: eth0GW6,
		},
		"second gateway elsewhere": {
			gateways: addrs(net1GW4, "172.30.0.1"), cause: unix.ENETUNREACH,
			says: "172.30.0.1",
		},
		"the pod's own address": {
			gateways: addrs("fd00:b::2"), cause: unix.EINVAL,
			says: "router",
		},
		"no such interface": {
			ifname: "net7", gateways: addrs(net1GW4),
			says: "no such interface",
		},
		"link down": {
			before:   func(pod *nettest.Namespace) { pod.Down("net1") },
			gateways: addrs(net1GW4), cause: unix.ENETDOWN, says: "set the interface up",
		},
		"unspecified": {gateways: addrs("0.0.0.0"), says: "no address that a gateway can have"},
		"multicast":   {gateways: addrs("ff02::1"), says: "no address that a gateway can have"},
		"loopback":    {gateways: addrs("127.0.0.1"), says: "no address that a gateway can have"},
		"invalid":     {gateways: []netip.Addr{{}}, says: "no address that a gateway can have"},
	} {
		t.Run(name, func(t *testing.T) {
			pod, _ := newPod(t)
			pod.Route("default", eth0GW4, "eth0", 0)
			pod.Route("default", eth0GW6, "eth0", 0)
			if c.before != nil {
				c.before(pod)
			}
			if c.ifname == "" {
				c.ifname = "net1"
			}
			before := pod.Routes()
			err := (nl.Sandbox{}).MoveDefaultRoute(t.Context(), pod.Path, c.ifname, c.gateways)
			fe, ok := errors.AsType[*failure.Error](err)
			if !ok || fe.Reason != failure.DefaultRouteFailed || fe.Interface != c.ifname ||
				fe.Field != "default-route" {
				t.Fatalf("error %#v, want a DefaultRouteFailed of %s", err, c.ifname)
			}
			if c.cause != nil && (!errors.Is(err, c.cause) || fe.Fix == "") {
				t.Errorf("error %v (fix %q), want cause %v and a fix", err, fe.Fix, c.cause)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
			if after := pod.Routes(); after != before {
				t.Errorf("routes changed from\n%s to\n%s", before, after)
			}
			t.Log(err)
		})
	}
}

func TestDefaultRouteEndedContext(t *testing.T) {
	pod, _ := newPod(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := open(t, pod).MoveDefaultRoute(ctx, "net1", addrs(net1GW4))
	if failure.ReasonOf(err) != failure.TimedOut || !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want TimedOut by context.Canceled", err)
	}
	if got := defaults(pod); len(got) != 0 {
		t.Errorf("changed all the same: %q", got)
	}
}

// Eight requests for eight sandboxes at a time, and no thread is left in any.
func TestManySandboxes(t *testing.T) {
	const sandboxes, rounds = 8, 25
	pods := make([]*nettest.Namespace, sandboxes)
	for i := range pods {
		pods[i], _ = newPod(t)
		pods[i].Route("default", eth0GW4, "eth0", 0)
		pods[i].Route("default", eth0GW6, "eth0", 0)
	}
	var wg sync.WaitGroup
	for i, pod := range pods {
		wg.Go(func() {
			var s nl.Sandbox
			for round := range rounds {
				link, gateways := "net1", addrs(net1GW4, net1GW6)
				if round%2 == 1 {
					link, gateways = "eth0", addrs(eth0GW4, eth0GW6)
				}
				if err := s.MoveDefaultRoute(t.Context(), pod.Path, link, gateways); err != nil {
					t.Errorf("sandbox %d: %v", i, err)
				}
				links, err := s.Links(t.Context(), pod.Path)
				if err != nil || len(links) != 3 || links["lo"] != 1 || links["eth0"] == 0 ||
					links["net1"] == 0 {
					t.Errorf("sandbox %d: links %v, %v", i, links, err)
				}
			}
		})
	}
	wg.Wait()
	nettest.NoThreadIn(t, pods...)
	for i, pod := range pods {
		got := strings.Join(defaults(pod), "\n")
		if strings.Count(got, "net1") != 2 || strings.Contains(got, "eth0") {
			t.Errorf("sandbox %d has\n%s", i, got)
		}
	}
}
