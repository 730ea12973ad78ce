package nl

import (
	"context"

	"github.com/vishvananda/netlink"
)

// SetMTU changes the MTU, in bytes, of a link, by index.
func (h *Handle) SetMTU(ctx context.Context, index, mtu int) error {
	return h.set(ctx, index, "set MTU of", func(l netlink.Link) error { return h.lib.LinkSetMTU(l, mtu) })
}

// SetTxQLen changes the length of the transmit queue, in packets, of a link, by index.
func (h *Handle) SetTxQLen(ctx context.Context, index, length int) error {
	return h.set(ctx, index, "set transmit queue of", func(l netlink.Link) error { return h.lib.LinkSetTxQLen(l, length) })
}

// SetAllMulti makes a link, by index, take packets for any multicast address, or only for those that were joined again.
func (h *Handle) SetAllMulti(ctx context.Context, index int, on bool) error {
	change := h.lib.LinkSetAllmulticastOff
	if on {
		change = h.lib.LinkSetAllmulticastOn
	}
	return h.set(ctx, index, "set all-multicast mode of", change)
}

// SetName renames a link, by index.
func (h *Handle) SetName(ctx context.Context, index int, name string) error {
	return h.set(ctx, index, "rename to "+name, func(l netlink.Link) error { return h.lib.LinkSetName(l, name) })
}
