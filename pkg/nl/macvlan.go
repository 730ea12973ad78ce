package nl

import (
	"context"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
)

// macvlanModes are the modes that Link.Mode can have for a macvlan.
var macvlanModes = map[uint32]string{
	vnl.MACVLAN_MODE_BRIDGE: "bridge", vnl.MACVLAN_MODE_PRIVATE: "private",
	vnl.MACVLAN_MODE_VEPA: "vepa", vnl.MACVLAN_MODE_PASSTHRU: "passthru",
}

// AddMacvlan makes a macvlan on the link parent, an index. mode is one of Link.Mode; queue is the
// length of the queue for broadcasts, 0 for the kernel's default.
func (h *Handle) AddMacvlan(
	ctx context.Context, n NewLink, parent int, mode string, queue uint32,
) error {
	for m, name := range macvlanModes {
		if name == mode {
			data := []*vnl.RtAttr{vnl.NewRtAttr(vnl.IFLA_MACVLAN_MODE, vnl.Uint32Attr(m))}
			if queue > 0 {
				data = append(data, vnl.NewRtAttr(vnl.IFLA_MACVLAN_BC_QUEUE_LEN, vnl.Uint32Attr(queue)))
			}
			return h.Apply(ctx, addLink(n, "macvlan", data, on(parent)))
		}
	}
	return fmt.Errorf("add link %s: unknown macvlan mode %q", n.Name, mode)
}
