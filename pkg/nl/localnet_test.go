package nl_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/sysctl"
)

func TestLocalnet(t *testing.T) {
	n := nettest.New(t)
	n.Veth("to.pod", nettest.New(t), "eth0")
	n.Addr("to.pod", "10.1.0.1/24")
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := nl.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	pod := netip.MustParseAddr("10.1.0.2")
	for _, value := range []string{"0", "1", "0"} {
		// Its neighbours in the kernel's array are the opposite.
		other := map[string]string{"0": "1", "1": "0"}[value]
		err := sysctl.Set(ns, sysctl.Setting{Key: "net/ipv4/conf/to.pod/route_localnet", Value: value},
			sysctl.Setting{Key: "net/ipv4/conf/to.pod/proxy_arp_pvlan", Value: other},
			sysctl.Setting{Key: "net/ipv4/conf/to.pod/src_valid_mark", Value: other})
		if err != nil {
			t.Fatal(err)
		}
		link, on, err := h.Localnet(t.Context(), pod)
		if err != nil || link != "to.pod" || on != (value == "1") {
			t.Errorf("%q, %v, %v, want to.pod and %s", link, on, err, value)
		}
	}
	_, _, err = h.Localnet(t.Context(), netip.MustParseAddr("192.0.2.1"))
	if !errors.Is(err, nl.ErrNoLink) {
		t.Errorf("without a route: %v", err)
	}
	prohibit := &netlink.Route{Dst: netlink.NewIPNet(pod.AsSlice()), Type: unix.RTN_PROHIBIT}
	if err := n.Netlink().RouteAdd(prohibit); err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Localnet(t.Context(), pod); !errors.Is(err, unix.EACCES) {
		t.Errorf("a forbidden route: %v", err)
	}
}
