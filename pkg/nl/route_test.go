package nl_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

func TestRoutes(t *testing.T) {
	pod, _ := newPod(t)
	h := open(t, pod)
	net1 := index(pod, "net1")
	wanted := []nl.Route{
		{
			Dst: netip.MustParsePrefix("172.16.0.0/12"), Gateway: netip.MustParseAddr(net1GW4), Index: net1,
			Table: 254, Metric: 7, MTU: 1400, AdvMSS: 1300,
		},
		{
			Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr(net1GW4b), Index: net1,
			Table: 300, Src: netip.MustParseAddr("10.0.1.2"),
		},
		{
			Dst: netip.MustParsePrefix("172.32.0.0/12"), Index: net1, Table: 254, Scope: unix.RT_SCOPE_LINK,
			Protocol: unix.RTPROT_STATIC,
		},
		{
			Dst: netip.MustParsePrefix("fd07::/64"), Gateway: netip.MustParseAddr(net1GW6), Index: net1,
			Table: 254, Metric: 1024,
		},
		{
			Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr(net1GW6b), Index: net1,
			Table: 100, Metric: 5,
		},
	}
	for i := range wanted {
		r := wanted[i]
		if r.Table == 254 {
			r.Table = 0 // main
		}
		if err := h.AddRoute(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if wanted[i].Protocol == 0 {
			wanted[i].Protocol = unix.RTPROT_BOOT
		}
	}
	have, err := h.Routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wanted {
		if !slices.Contains(have, w) {
			t.Errorf("lacks %+v:\n%+v", w, have)
		}
	}
	for _, r := range have {
		if r.Dst.Addr().IsMulticast() || r.Table == unix.RT_TABLE_LOCAL && r.Dst.Addr().Is4() {
			t.Errorf("not a unicast route: %+v", r)
		}
	}
	if err := h.AddRoute(t.Context(), wanted[0]); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a route that is there: %v", err)
	}
	unreachable := nl.Route{
		Dst: netip.MustParsePrefix("172.48.0.0/12"), Gateway: netip.MustParseAddr("9.9.9.9"), Index: net1,
	}
	err = h.AddRoute(t.Context(), unreachable)
	if err == nil || !strings.Contains(err.Error(), "172.48.0.0/12 via 9.9.9.9") {
		t.Errorf("a gateway that cannot be reached: %v", err)
	}
	// An IPv6 route to the same destination becomes a second hop.
	more := wanted[3]
	more.Gateway = netip.MustParseAddr(net1GW6b)
	if err := h.AddRoute(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	have, err = h.Routes(t.Context())
	if err != nil || !slices.Contains(have, more) || !slices.Contains(have, wanted[3]) {
		t.Errorf("two hops: %v\n%+v", err, have)
	}
}

func TestDefaultLink(t *testing.T) {
	pod := nettest.New(t)
	h := open(t, pod)
	if _, err := h.DefaultLink(t.Context()); !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("without a default route: %v", err)
	}
	other := nettest.New(t)
	pod.Veth("eth0", other, "peer0")
	pod.Veth("net1", other, "peer1")
	pod.Addr("eth0", "10.0.0.2/24")
	pod.Addr("net1", "fd00:b::2/64")
	pod.Route("default", net1GW6, "net1", 0)
	if l, err := h.DefaultLink(t.Context()); err != nil || l.Name != "net1" {
		t.Errorf("IPv6 only: %v, %v", l, err)
	}
	pod.Route("default", eth0GW4, "eth0", 0)
	if l, err := h.DefaultLink(t.Context()); err != nil || l.Name != "eth0" {
		t.Errorf("both: %v, %v", l, err)
	}
}
