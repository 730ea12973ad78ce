package nl

import (
	"context"
	"fmt"
	"net"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// SetUp sets a link up, by index.
func SetUp(index int) Change { return setFlag(index, "set up", unix.IFF_UP, true) }

// SetUp applies SetUp.
func (h *Handle) SetUp(ctx context.Context, index int) error { return h.Apply(ctx, SetUp(index)) }

// SetMAC gives a link, by index, an address. That of a bridge no longer follows its ports then,
// even if it is the one that it has.
func (h *Handle) SetMAC(ctx context.Context, index int, mac net.HardwareAddr) error {
	return h.Apply(ctx, setLink(index, "set MAC "+mac.String()+" of",
		vnl.NewRtAttr(unix.IFLA_ADDRESS, mac)))
}

// SetPromisc makes a link, by index, take all frames, or its own only.
func (h *Handle) SetPromisc(ctx context.Context, index int, on bool) error {
	return h.Apply(ctx, setFlag(index, "set promiscuous mode of", unix.IFF_PROMISC, on))
}

// SetAllMulti makes a link, by index, take packets for any multicast address, or only for those
// that were joined again.
func (h *Handle) SetAllMulti(ctx context.Context, index int, on bool) error {
	return h.Apply(ctx, setFlag(index, "set all-multicast mode of", unix.IFF_ALLMULTI, on))
}

// SetMTU changes the MTU, in bytes, of a link, by index.
func (h *Handle) SetMTU(ctx context.Context, index, mtu int) error {
	return h.Apply(ctx, setLink(index, "set MTU of",
		vnl.NewRtAttr(unix.IFLA_MTU, vnl.Uint32Attr(uint32(mtu)))))
}

// SetTxQLen changes the length of the transmit queue, in packets, of a link, by index.
func (h *Handle) SetTxQLen(ctx context.Context, index, length int) error {
	return h.Apply(ctx, setLink(index, "set transmit queue of",
		vnl.NewRtAttr(unix.IFLA_TXQLEN, vnl.Uint32Attr(uint32(length)))))
}

// SetName renames a link, by index.
func (h *Handle) SetName(ctx context.Context, index int, name string) error {
	return h.Apply(ctx, setLink(index, "rename to "+name,
		vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(name))))
}

// confARPNotify is the index of net/ipv4/conf/LINK/arp_notify (linux/ip.h).
const confARPNotify = 22

// AnnounceIPv4 makes a link, by index, announce its IPv4 addresses when it is set up (arp_notify).
func AnnounceIPv4(index int) Change {
	spec := vnl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(unix.IFLA_INET_CONF, nil).
		AddRtAttr(confARPNotify, vnl.Uint32Attr(1))
	return setLink(index, "set arp_notify of", spec)
}

// setLink sets an attribute of a link; what is the verb of its error.
func setLink(index int, what string, attr *vnl.RtAttr) Change {
	header := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(index)
	return Change{
		fmt.Sprintf("%s interface with index %d", what, index),
		newRequest(unix.RTM_SETLINK, 0, header, attr),
	}
}

// setFlag sets or clears a flag of a link, IFF_*, and leaves the others.
func setFlag(index int, what string, flag uint32, on bool) Change {
	header := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index, header.Change = int32(index), flag
	if on {
		header.Flags = flag
	}
	return Change{
		fmt.Sprintf("%s interface with index %d", what, index), newRequest(unix.RTM_SETLINK, 0, header),
	}
}
