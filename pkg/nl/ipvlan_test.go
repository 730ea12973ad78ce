package nl_test

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
)

// The default route moves to an ipvlan, whose links share their parent's MAC and need neither
// bridge nor peer.
func TestS22DefaultRouteMovesToIPVlan(t *testing.T) {
	nettest.NeedsLink(t, "ipvlan", "dummy")
	pod := nettest.New(t)
	pod.Dummy("eth0")
	pod.Dummy("parent")
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "net1", index(pod, "parent")
	pod.Add(&netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2})
	pod.Up("net1")
	pod.Addr("eth0", "10.0.0.2/24", "fd00:a::2/64")
	pod.Addr("net1", "10.0.1.2/24", "fd00:b::2/64")
	pod.Route("default", eth0GW4, "eth0", 0)
	pod.Route("default", eth0GW6, "eth0", 0)
	if err := open(t, pod).MoveDefaultRoute(t.Context(), "net1", addrs(net1GW4, net1GW6)); err != nil {
		t.Fatal(err)
	}
	same(t, "default routes", defaults(pod), []string{
		"route4 default via 10.0.1.1 dev net1", "route6 default via fd00:b::1 dev net1 metric 512",
	})
}
