package block_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/block"
)

// Nodes that fill a range together seldom meet: each has zones of its own, whose blocks it takes in
// their order.
func TestZones(t *testing.T) {
	const nodes, addresses = 16, 255 // that of the network is not given
	const blocks = (addresses + 1) / block.Size
	c := newCluster(t)
	w := wish(t, "10.0.0.0/20")
	first := map[netip.Prefix]string{}
	var managers []*block.Manager
	for i := range nodes {
		managers = append(managers, c.node(fmt.Sprint("n", i)))
	}
	last := make([]netip.Addr, nodes)
	for i := range addresses {
		for n, m := range managers {
			addrs, err := m.Add(t.Context(), holder(i*nodes+n), []block.Wish{w}, nil)
			if err != nil {
				t.Fatal(err)
			}
			zone, err := addrs[0].Prefix(24)
			if err != nil {
				t.Fatal(err)
			}
			if owner, ok := first[zone]; ok && owner != m.NodeName || i > 0 && addrs[0] != last[n].Next() {
				t.Fatalf("address %d of %s is %v, of a zone of %q; the one before was %v",
					i, m.NodeName, addrs[0], owner, last[n])
			}
			first[zone], last[n] = m.NodeName, addrs[0]
		}
	}
	// Who the node is, what it had before a reboot and whether its blocks are its own; looks at zones
	// until one is free; the claims.
	if creates := c.api.Calls("create"); creates != nodes*blocks {
		t.Errorf("%d blocks were claimed with %d requests", nodes*blocks, creates)
	}
	if all := c.api.Calls(); all > 2*nodes*blocks {
		t.Errorf("%d requests", all)
	}
}
