package nettest

import (
	"fmt"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// UML is the environment variable that says, with the value 1, that the test runs in the user-mode
// kernel of scripts/uml.sh, which has every link type.
const UML = "BRAID_UML"

// NeedsLink skips the test where the kernel cannot make links of all these kinds: "ipvlan",
// "macvlan", "vlan", "dummy", "vrf", "bond", "bridge", "veth", "vxlan", "ifb", and "bridge-vlan"
// for bridges that filter VLANs. It finds out by making one in a namespace of its own. It needs
// root, and skips the test without.
//
// The text of the skip, "needs kernel: ipvlan", is what scripts/test.sh looks for: it runs these
// tests again in a user-mode kernel. There a missing kind is a failure.
func NeedsLink(tb testing.TB, kinds ...string) {
	tb.Helper()
	n := New(tb)
	for i, kind := range kinds {
		if err := n.probe(kind, i); err != nil {
			tb.Logf("making a link of kind %s: %v", kind, err)
			MissingKernel(tb, kind)
		}
	}
}

// MissingKernel skips the test because the kernel lacks what, a word, in the way of NeedsLink. It
// is for features that a test probes itself.
func MissingKernel(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv(UML) == "1" {
		tb.Fatalf("the user-mode kernel lacks %s; is its module loaded?", what)
	}
	tb.Skip("needs kernel: " + what)
}

// probe makes a link of a kind in n, with index in its name.
func (n *Namespace) probe(kind string, index int) error {
	a := attrs(fmt.Sprintf("probe%d", index))
	switch kind {
	case "ipvlan", "macvlan", "vlan":
		lower := attrs(fmt.Sprintf("lower%d", index))
		err := n.nl.LinkAdd(&netlink.Veth{LinkAttrs: lower, PeerName: fmt.Sprintf("peer%d", index)})
		if err != nil {
			return err
		}
		a.ParentIndex = n.Link(lower.Name).Attrs().Index
	}
	link, err := linkOfKind(kind, a)
	if err != nil {
		n.tb.Fatal(err)
	}
	return n.nl.LinkAdd(link)
}

func linkOfKind(kind string, a netlink.LinkAttrs) (netlink.Link, error) {
	switch kind {
	case "ipvlan":
		return &netlink.IPVlan{LinkAttrs: a, Mode: netlink.IPVLAN_MODE_L2}, nil
	case "macvlan":
		return &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}, nil
	case "vlan":
		return &netlink.Vlan{LinkAttrs: a, VlanId: 7, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}, nil
	case "dummy":
		return &netlink.Dummy{LinkAttrs: a}, nil
	case "vrf":
		return &netlink.Vrf{LinkAttrs: a, Table: 4000}, nil
	case "bond":
		bond := netlink.NewLinkBond(a)
		bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
		return bond, nil
	case "bridge":
		return &netlink.Bridge{LinkAttrs: a}, nil
	case "bridge-vlan":
		filter := true
		return &netlink.Bridge{LinkAttrs: a, VlanFiltering: &filter}, nil
	case "veth":
		return &netlink.Veth{LinkAttrs: a, PeerName: a.Name + "p"}, nil
	case "vxlan":
		return &netlink.Vxlan{LinkAttrs: a, VxlanId: 7}, nil
	case "ifb":
		return &netlink.Ifb{LinkAttrs: a}, nil
	}
	return nil, fmt.Errorf("nettest: unknown kind of link %q", kind)
}
