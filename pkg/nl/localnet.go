package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Attributes of linux/if_link.h, and the index of net/ipv4/conf/LINK/route_localnet (linux/ip.h).
const (
	iflaInetConf      = 1
	confRouteLocalnet = 26
)

// Localnet finds the link by which packets to an IPv4 address leave, by name, and whether the kernel routes packets of loopback addresses
// there (route_localnet). Without a route the error is ErrNoLink.
func (h *Handle) Localnet(ctx context.Context, to netip.Addr) (link string, on bool, err error) {
	routes, err := call(ctx, func() ([]netlink.Route, error) { return h.lib.RouteGet(to.AsSlice()) })
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || err == nil && len(routes) == 0 {
		err = ErrNoLink
	}
	if err != nil {
		return "", false, fmt.Errorf("route to %s: %w", to, err)
	}
	msg := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(routes[0].LinkIndex)
	var answer []byte
	if err := h.execute(ctx, unix.RTM_GETLINK, 0, []vnl.NetlinkRequestData{msg}, func(m []byte) { answer = m }); err != nil {
		return "", false, fmt.Errorf("interface with index %d: %w", msg.Index, err)
	}
	if len(answer) < unix.SizeofIfInfomsg {
		return "", false, fmt.Errorf("interface with index %d: %w", msg.Index, ErrNoLink)
	}
	attrs := answer[unix.SizeofIfInfomsg:]
	conf := attr(attr(attr(attrs, unix.IFLA_AF_SPEC), unix.AF_INET), iflaInetConf)
	if len(conf) >= 4*confRouteLocalnet {
		on = binary.NativeEndian.Uint32(conf[4*(confRouteLocalnet-1):]) == 1
	}
	return unix.ByteSliceToString(attr(attrs, unix.IFLA_IFNAME)), on, nil
}

// attr is the value of the attribute of a kind, the last one; nil for none.
func attr(b []byte, kind uint16) (value []byte) {
	for k, v := range Attrs(b) {
		if k&^unix.NLA_F_NESTED == kind {
			value = v
		}
	}
	return value
}
