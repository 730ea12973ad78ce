package nl

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
)

// ipvlanModes are the modes that Link.Mode can have for an ipvlan.
var ipvlanModes = map[netlink.IPVlanMode]string{
	netlink.IPVLAN_MODE_L2: "l2", netlink.IPVLAN_MODE_L3: "l3", netlink.IPVLAN_MODE_L3S: "l3s",
}

// AddIPvlan makes an ipvlan on the link parent, an index, whose MAC it shares. mode is one of Link.Mode, and that of all ipvlans of the
// parent: the kernel changes the others' with it.
func (h *Handle) AddIPvlan(ctx context.Context, n NewLink, parent int, mode string) error {
	for m, name := range ipvlanModes {
		if name == mode {
			return h.add(ctx, &netlink.IPVlan{LinkAttrs: n.attrs(parent), Mode: m})
		}
	}
	return fmt.Errorf("add link %s: unknown ipvlan mode %q", n.Name, mode)
}
