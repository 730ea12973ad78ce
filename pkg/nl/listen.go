package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// Constants of linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const (
	sockDiagByFamily   = 20
	inetDiagSkV6Only   = 11
	sizeofInetDiagReq  = 56
	sizeofInetDiagMsg  = 72
	stateClosed        = 7
	stateListen        = 10
	offsetOfSourcePort = 4
	offsetOfSource     = 8
)

// Listener is a socket that takes what comes to a port: one of TCP that listens, one of UDP that
// has no peer.
type Listener struct {
	// AddrPort is the socket's own; an unspecified address is all of its family.
	netip.AddrPort
	// Both is true if an unspecified IPv6 address stands for the IPv4 ones, too.
	Both bool
}

// Takes reports whether the socket takes what comes to an address. An unspecified one stands for
// all of its family.
func (l Listener) Takes(addr netip.Addr) bool {
	if l.Addr().Is4() != addr.Is4() {
		return l.Both && l.Addr().IsUnspecified()
	}
	return l.Addr().IsUnspecified() || addr.IsUnspecified() || l.Addr() == addr
}

// Listeners lists the sockets of a protocol (IPPROTO_TCP, ...) in a network namespace that take
// what comes to their port. A kernel that cannot list sockets of the protocol names none.
func Listeners(ctx context.Context, ns *netns.NS, protocol byte) ([]Listener, error) {
	c, err := dial(ns, unix.NETLINK_SOCK_DIAG)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open socket to list listeners: %w", err)
	}
	defer c.close()
	var all []Listener
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		messages, err := c.dump(ctx, newRequest(sockDiagByFamily, 0, listenersRequest(family, protocol)))
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			continue
		case err != nil:
			return nil, fmt.Errorf("list listeners of protocol %d: %w", protocol, err)
		}
		for _, m := range messages {
			if l, ok := parseListener(m); ok {
				all = append(all, l)
			}
		}
	}
	return all, nil
}

// diagRequest is struct inet_diag_req_v2.
type diagRequest [sizeofInetDiagReq]byte

// Len returns the length in bytes.
func (r *diagRequest) Len() int { return len(r) }

// Serialize returns the wire form.
func (r *diagRequest) Serialize() []byte { return r[:] }

// listenersRequest asks for the sockets of a protocol that take in packets. UDP has no state for
// them: they are those that are not connected.
func listenersRequest(family, protocol byte) vnl.NetlinkRequestData {
	r := &diagRequest{family, protocol}
	states := uint32(1 << stateListen)
	if protocol == unix.IPPROTO_UDP {
		states = 1 << stateClosed
	}
	binary.NativeEndian.PutUint32(r[4:], states)
	return r
}

// parseListener reads a struct inet_diag_msg with its attributes.
func parseListener(m []byte) (l Listener, ok bool) {
	if len(m) < sizeofInetDiagMsg {
		return l, false
	}
	port := binary.BigEndian.Uint16(m[offsetOfSourcePort:])
	if m[0] == unix.AF_INET {
		l.AddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[offsetOfSource:])), port)
		return l, true
	}
	addr := netip.AddrFrom16([16]byte(m[offsetOfSource:])).Unmap()
	only := attr(m[sizeofInetDiagMsg:], inetDiagSkV6Only)
	return Listener{
		netip.AddrPortFrom(addr, port), addr.Is6() && (len(only) == 0 || only[0] == 0),
	}, true
}
