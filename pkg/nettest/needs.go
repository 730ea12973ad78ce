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
	link, ok := links(a)[kind]
	if !ok {
		n.tb.Fatalf("nettest: unknown kind of link %q", kind)
	}
	return n.nl.LinkAdd(link)
}

// links returns a link of each kind that tests need, with these attributes.
func links(a netlink.LinkAttrs) map[string]netlink.Link {
	bond, filter := netlink.NewLinkBond(a), true
	bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	return map[string]netlink.Link{
		"ipvlan":      &netlink.IPVlan{LinkAttrs: a, Mode: netlink.IPVLAN_MODE_L2},
		"macvlan":     &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE},
		"vlan":        &netlink.Vlan{LinkAttrs: a, VlanId: 7, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q},
		"dummy":       &netlink.Dummy{LinkAttrs: a},
		"vrf":         &netlink.Vrf{LinkAttrs: a, Table: 4000},
		"bond":        bond,
		"bridge":      &netlink.Bridge{LinkAttrs: a},
		"bridge-vlan": &netlink.Bridge{LinkAttrs: a, VlanFiltering: &filter},
		"veth":        &netlink.Veth{LinkAttrs: a, PeerName: a.Name + "p"},
		"vxlan":       &netlink.Vxlan{LinkAttrs: a, VxlanId: 7},
		"ifb":         &netlink.Ifb{LinkAttrs: a},
	}
}
