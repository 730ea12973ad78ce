package nl_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
)

// Next hop objects (`ip nexthop`) are not in the netlink library. Numbers are those of
// linux/nexthop.h and linux/rtnetlink.h.

// nextHopObject makes one.
func nextHopObject(t testing.TB, n *nettest.Namespace, id uint32, link, gateway string) {
	t.Helper()
	const newNextHop, nhaID, nhaOif, nhaGateway = 104, 1, 5, 6
	addr := netip.MustParseAddr(gateway)
	family := byte(unix.AF_INET6)
	if addr.Is4() {
		family = unix.AF_INET
	}
	request(t, n, newNextHop, part{family, 0, unix.RTPROT_STATIC, 0, 0, 0, 0, 0},
		vnl.NewRtAttr(nhaID, vnl.Uint32Attr(id)),
		vnl.NewRtAttr(nhaOif, vnl.Uint32Attr(uint32(index(n, link)))),
		vnl.NewRtAttr(nhaGateway, addr.AsSlice()))
}

// defaultByObject makes a default route that uses one.
func defaultByObject(t testing.TB, n *nettest.Namespace, family byte, id, metric uint32) {
	t.Helper()
	const rtaNextHopID = 30
	request(t, n, unix.RTM_NEWROUTE,
		&vnl.RtMsg{RtMsg: unix.RtMsg{
			Family: family, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST,
		}},
		vnl.NewRtAttr(rtaNextHopID, vnl.Uint32Attr(id)),
		vnl.NewRtAttr(unix.RTA_PRIORITY, binary.NativeEndian.AppendUint32(nil, metric)))
}

// defaultFromSource makes a default route for packets from a prefix only, of metric 77, which the
// netlink library can neither make nor tell from others.
func defaultFromSource(t *testing.T, n *nettest.Namespace, from, link, gateway string) {
	t.Helper()
	prefix := netip.MustParsePrefix(from)
	request(t, n, unix.RTM_NEWROUTE,
		&vnl.RtMsg{RtMsg: unix.RtMsg{
			Family: unix.AF_INET6, Src_len: uint8(prefix.Bits()), Table: unix.RT_TABLE_MAIN,
			Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST,
		}},
		vnl.NewRtAttr(unix.RTA_SRC, prefix.Addr().AsSlice()),
		vnl.NewRtAttr(unix.RTA_GATEWAY, netip.MustParseAddr(gateway).AsSlice()),
		vnl.NewRtAttr(unix.RTA_OIF, vnl.Uint32Attr(uint32(index(n, link)))),
		vnl.NewRtAttr(unix.RTA_PRIORITY, vnl.Uint32Attr(77)))
}

// part is a piece of a request that is bytes already.
type part []byte

func (p part) Len() int          { return len(p) }
func (p part) Serialize() []byte { return p }

func request(t testing.TB, n *nettest.Namespace, kind int, parts ...vnl.NetlinkRequestData) {
	t.Helper()
	err := n.Run(func() error {
		req := vnl.NewNetlinkRequest(kind, unix.NLM_F_CREATE|unix.NLM_F_ACK)
		for _, p := range parts {
			req.AddData(p)
		}
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
