package nl

import (
	"context"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
)

// ipvlanModes are the modes that Link.Mode can have for an ipvlan (linux/if_link.h).
var ipvlanModes = map[uint16]string{0: "l2", 1: "l3", 2: "l3s"}

// AddIPvlan makes an ipvlan on the link parent, an index, whose MAC it shares. mode is one of
// Link.Mode, and that of all ipvlans of the parent: the kernel changes the others' with it.
func (h *Handle) AddIPvlan(ctx context.Context, n NewLink, parent int, mode string) error {
	for m, name := range ipvlanModes {
		if name == mode {
			data := []*vnl.RtAttr{vnl.NewRtAttr(vnl.IFLA_IPVLAN_MODE, vnl.Uint16Attr(m))}
			return h.Apply(ctx, addLink(n, "ipvlan", data, on(parent)))
		}
	}
	return fmt.Errorf("add link %s: unknown ipvlan mode %q", n.Name, mode)
}
