package nl

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
)

// AddMacvlan makes a macvlan on the link parent, an index. mode is one of Link.Mode; queue is the length of the queue for broadcasts,
// 0 for the kernel's default.
func (h *Handle) AddMacvlan(ctx context.Context, n NewLink, parent int, mode string, queue uint32) error {
	for m, name := range macvlanModes {
		if name == mode {
			return h.add(ctx, &netlink.Macvlan{LinkAttrs: n.attrs(parent), Mode: m, BCQueueLen: queue})
		}
	}
	return fmt.Errorf("add link %s: unknown macvlan mode %q", n.Name, mode)
}

var macvlanModes = map[netlink.MacvlanMode]string{
	netlink.MACVLAN_MODE_BRIDGE: "bridge", netlink.MACVLAN_MODE_PRIVATE: "private",
	netlink.MACVLAN_MODE_VEPA: "vepa", netlink.MACVLAN_MODE_PASSTHRU: "passthru",
}
