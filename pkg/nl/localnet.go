package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// confRouteLocalnet is the index of net/ipv4/conf/LINK/route_localnet (linux/ip.h).
const confRouteLocalnet = 26

// Localnet finds the link by which packets to an IPv4 address leave, by name, and whether the
// kernel routes packets of loopback addresses there (route_localnet). Without a route the error is
// ErrNoLink.
func (h *Handle) Localnet(ctx context.Context, to netip.Addr) (link string, on bool, err error) {
	header := &vnl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family(to)), Dst_len: uint8(to.BitLen())}}
	route, err := h.get(ctx, unix.RTM_GETROUTE, header, vnl.NewRtAttr(unix.RTA_DST, to.AsSlice()))
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		err = ErrNoLink
	} else if err == nil && len(route) < unix.SizeofRtMsg {
		err = errShort
	}
	if err != nil {
		return "", false, fmt.Errorf("route to %s: %w", to, err)
	}
	index := number(attr(route[unix.SizeofRtMsg:], unix.RTA_OIF))
	found, attrs, err := h.link(ctx, fmt.Sprintf("interface with index %d", index), byIndex(index))
	if err != nil {
		return "", false, err
	}
	conf := attr(attr(attr(attrs, unix.IFLA_AF_SPEC), unix.AF_INET), unix.IFLA_INET_CONF)
	if len(conf) >= 4*confRouteLocalnet {
		on = binary.NativeEndian.Uint32(conf[4*(confRouteLocalnet-1):]) == 1
	}
	return found.Name, on, nil
}

// attr returns the value of the attribute of a kind, the last one; nil for none.
func attr(b []byte, kind uint16) (value []byte) {
	for k, v := range Attrs(b) {
		if k&^unix.NLA_F_NESTED == kind {
			value = v
		}
	}
	return value
}
