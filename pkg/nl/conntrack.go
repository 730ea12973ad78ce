package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h, and flags that say which parts of a tuple a
// filter looks at.
const (
	ctaFilter          = 25
	ctaFilterOrigFlags = 1
	filterProtoNum     = 1 << 3
	filterProtoDstPort = 1 << 5
)

// ForgetConnections removes the connections of a protocol (IPPROTO_*) to a destination port, as
// they were before NAT, from connection tracking. family is AF_INET or AF_INET6. A kernel without
// connection tracking has none.
func (n *Netfilter) ForgetConnections(
	ctx context.Context, family, protocol byte, port uint16,
) error {
	proto := AppendAttr(AppendAttr(nil, vnl.CTA_PROTO_NUM, []byte{protocol}), vnl.CTA_PROTO_DST_PORT,
		binary.BigEndian.AppendUint16(nil, port))
	tuple := AppendAttr(nil, unix.NLA_F_NESTED|vnl.CTA_TUPLE_PROTO, proto)
	filter := AppendAttr(nil, ctaFilterOrigFlags,
		binary.NativeEndian.AppendUint32(nil, filterProtoNum|filterProtoDstPort))
	_, err := n.Do(ctx, NetfilterMessage{
		Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | vnl.IPCTNL_MSG_CT_DELETE, Flags: unix.NLM_F_ACK,
		Family: family,
		Attrs: AppendAttr(AppendAttr(nil, unix.NLA_F_NESTED|vnl.CTA_TUPLE_ORIG, tuple),
			unix.NLA_F_NESTED|ctaFilter, filter),
	})
	if isUnsupported(err) {
		// Kernels that cannot pick what to delete take an incomplete tuple for a mistake.
		err = n.forgetOneByOne(ctx, family, protocol, port)
	}
	if err != nil {
		return fmt.Errorf("remove connections to port %d: %w", port, err)
	}
	return nil
}

// forgetOneByOne looks through all connections.
func (n *Netfilter) forgetOneByOne(ctx context.Context, family, protocol byte, port uint16) error {
	var lib *netlink.Handle
	err := n.ns.Do(func() (err error) {
		lib, err = netlink.NewHandleAt(vnetns.None(), unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return err
	}
	defer lib.Close()
	filter := &netlink.ConntrackFilter{}
	err = errors.Join(
		filter.AddProtocol(protocol), filter.AddPort(netlink.ConntrackOrigDstPort, port))
	if err != nil {
		return err
	}
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err = lib.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), filter)
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if isUnsupported(err) {
		return nil
	}
	return err
}

// isUnsupported reports whether the kernel does not know what connection tracking is asked for.
func isUnsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}
