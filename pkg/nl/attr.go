package nl

import (
	"context"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// SetUp sets a link up, by index.
func (h *Handle) SetUp(ctx context.Context, index int) error {
	return h.set(ctx, index, "set up", h.lib.LinkSetUp)
}

// SetMAC gives a link, by index, an address. That of a bridge no longer follows its ports then, even if it is the one that it has.
func (h *Handle) SetMAC(ctx context.Context, index int, mac net.HardwareAddr) error {
	return h.set(ctx, index, "set MAC "+mac.String()+" of", func(l netlink.Link) error { return h.lib.LinkSetHardwareAddr(l, mac) })
}

// SetPromisc makes a link, by index, take all frames, or its own only.
func (h *Handle) SetPromisc(ctx context.Context, index int, on bool) error {
	if on {
		return h.set(ctx, index, "set promiscuous mode of", h.lib.SetPromiscOn)
	}
	return h.set(ctx, index, "end promiscuous mode of", h.lib.SetPromiscOff)
}

func (h *Handle) set(ctx context.Context, index int, what string, change func(netlink.Link) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := change(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}); err != nil {
		return fmt.Errorf("%s interface with index %d: %w", what, index, err)
	}
	return nil
}

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
