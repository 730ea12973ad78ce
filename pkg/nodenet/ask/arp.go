package ask

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// An address is asked for so often, and an answer is waited for so long (RFC 5227 has three and one
// to two seconds: a node is not a host that is plugged in anywhere).
const (
	probes    = 3
	probeWait = 400 * time.Millisecond
)

// InUseError means that another host has an address.
type InUseError struct {
	Addr netip.Addr
	By   net.HardwareAddr
}

// Error names the address and the MAC of the host that has it.
func (e *InUseError) Error() string {
	return fmt.Sprintf("address %s is in use by another host, with MAC %s", e.Addr, e.By)
}

// Probe asks whether anybody has an IPv4 address: an *InUseError if somebody answers, nil if nobody
// does.
func (n *Network) Probe(ctx context.Context, nic string, addr netip.Addr) error {
	conn, mac, err := listenARP(n.NS, nic)
	if err != nil {
		return fmt.Errorf("ask for %s on %s: %w", addr, nic, err)
	}
	defer conn.Close()
	request := arpRequest(mac, addr)
	buffer := make([]byte, 128)
	for range probes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := conn.WriteTo(request, &packet.Addr{HardwareAddr: broadcast()}); err != nil {
			return fmt.Errorf("ask for %s on %s: %w", addr, nic, err)
		}
		by, err := answer(conn, buffer, mac, addr)
		if err != nil {
			return fmt.Errorf("ask for %s on %s: %w", addr, nic, err)
		}
		if by != nil {
			return &InUseError{addr, by}
		}
	}
	return nil
}

// answer reads what hosts say for a while. It returns the MAC of one other than mac that has the
// address; nil if there is none.
func answer(
	conn *packet.Conn, buffer []byte, mac net.HardwareAddr, addr netip.Addr,
) (by net.HardwareAddr, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(probeWait)); err != nil {
		return nil, err
	}
	for {
		size, _, err := conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if by := holder(buffer[:size], addr); by != nil && !bytes.Equal(by, mac) {
			return by, nil
		}
	}
}

// listenARP opens a socket for ARP on a NIC, and returns the NIC's MAC.
func listenARP(ns *netns.NS, nic string) (conn *packet.Conn, mac net.HardwareAddr, err error) {
	err = ns.Do(func() error {
		link, err := net.InterfaceByName(nic)
		if err != nil {
			return err
		}
		if mac = link.HardwareAddr; len(mac) != macLen {
			return errors.New("it has no Ethernet address")
		}
		conn, err = packet.Listen(link, packet.Raw, unix.ETH_P_ARP, nil)
		return err
	})
	return conn, mac, err
}

const (
	macLen    = 6
	etherLen  = 14
	arpLen    = 28
	opRequest = 1
)

func broadcast() net.HardwareAddr { return bytes.Repeat([]byte{0xff}, macLen) }

// arpRequest returns a frame that asks for an address and tells none (RFC 5227 2.1.1).
func arpRequest(mac net.HardwareAddr, addr netip.Addr) []byte {
	b := append(broadcast(), mac...)
	for _, field := range []uint16{
		unix.ETH_P_ARP, unix.ARPHRD_ETHER, unix.ETH_P_IP, macLen<<8 | 4,
		opRequest,
	} {
		b = binary.BigEndian.AppendUint16(b, field)
	}
	b = append(b, mac...)
	b = append(b, make([]byte, 4+macLen)...)
	return append(b, addr.AsSlice()...)
}

// holder is who says in a frame that it has an address; nil if it says nothing of it.
func holder(frame []byte, addr netip.Addr) net.HardwareAddr {
	if len(frame) < etherLen+arpLen {
		return nil
	}
	arp := frame[etherLen:]
	if binary.BigEndian.Uint16(arp[2:]) != unix.ETH_P_IP || arp[4] != macLen || arp[5] != 4 ||
		!bytes.Equal(arp[14:18], addr.AsSlice()) {
		return nil
	}
	return net.HardwareAddr(bytes.Clone(arp[8:14]))
}
