// Package ask asks the network of a NIC: DHCP servers for an address, and other hosts, by ARP,
// whether they have one.
//
// Contract: nothing on the node is changed. Sockets are of the namespace that is given, and open no
// longer than a call. Of what a server says only the address, its subnet and the times are taken:
// no route, no name server. What a server says is held to what an address of a NIC may be.
package ask

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nodenet"
)

// The times of a lease that the server leaves open, and the shortest: a server that lends for less
// would be asked all the time.
const (
	defaultLease = time.Hour
	minLease     = 10 * time.Second
	// answerWithin is how long an answer to the first message is waited for; the second message has
	// twice that.
	answerWithin = 2 * time.Second
	tries        = 2
)

// ErrRefused means that a server does not let the node have the address (DHCPNAK).
var ErrRefused = errors.New("the DHCP server refuses the address")

// Network is the network of NICs of a namespace.
type Network struct {
	NS *netns.NS
	// Node is the name by which servers know the node.
	Node string
}

// Lease asks DHCP servers for an address, or for more time with the one of lease, which is nil for
// Discover.
func (n *Network) Lease(ctx context.Context, nic string, asking nodenet.Asking,
	lease *nodenet.Lease,
) (*nodenet.Lease, error) {
	client, err := n.client(nic, asking, lease)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // what was sent is sent
	asked := time.Now()
	options := []dhcpv4.Modifier{
		dhcpv4.WithOption(dhcpv4.OptHostName(n.Node)),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, client.InterfaceAddr()...))),
	}
	var ack *dhcpv4.DHCPv4
	if asking == nodenet.Discover {
		var granted *nclient4.Lease
		if granted, err = client.Request(ctx, options...); err == nil {
			ack = granted.ACK
		}
	} else {
		ack, err = again(ctx, client, asking, lease, options)
	}
	if err != nil {
		return nil, explain(err)
	}
	return leaseOf(ack, asked)
}

// explain returns an error of the DHCP library as one of this package.
func explain(err error) error {
	if refused, ok := errors.AsType[*nclient4.ErrNak](err); ok {
		return fmt.Errorf("%w: %s", ErrRefused, refused.Nak.ServerIdentifier())
	}
	if errors.Is(err, nclient4.ErrNoResponse) {
		return errors.New("no DHCP server answers")
	}
	return fmt.Errorf("ask for an address: %w", err)
}

// client opens a client: one that sends frames to all, or for Renew packets to the lease's server.
func (n *Network) client(nic string, asking nodenet.Asking,
	lease *nodenet.Lease,
) (client *nclient4.Client, err error) {
	err = n.NS.Do(func() error {
		link, err := net.InterfaceByName(nic)
		if err != nil {
			return err
		}
		options := []nclient4.ClientOpt{
			nclient4.WithTimeout(answerWithin),
			nclient4.WithRetry(tries),
		}
		var conn net.PacketConn
		if asking == nodenet.Renew {
			addr := netip.AddrPortFrom(lease.Prefix.Addr(), nclient4.ClientPort)
			from := net.UDPAddrFromAddrPort(addr)
			options = append(options,
				nclient4.WithServerAddr(net.UDPAddrFromAddrPort(netip.AddrPortFrom(lease.Server,
					nclient4.ServerPort))))
			conn, err = net.ListenUDP("udp4", from)
		} else {
			conn, err = nclient4.NewRawUDPConn(nic, nclient4.ClientPort)
		}
		if err != nil {
			return err
		}
		client, err = nclient4.NewWithConn(conn, link.HardwareAddr, options...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open socket on %s: %w", nic, err)
	}
	return client, nil
}

// again asks for the address of a lease, as RFC 2131 table 4 has it.
func again(ctx context.Context, client *nclient4.Client, asking nodenet.Asking,
	lease *nodenet.Lease, options []dhcpv4.Modifier,
) (*dhcpv4.DHCPv4, error) {
	addr := net.IP(lease.Prefix.Addr().AsSlice())
	options = append(options, dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithHwAddr(client.InterfaceAddr()),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask))
	if asking == nodenet.Confirm {
		options = append(options, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(addr)))
	} else {
		options = append(options, dhcpv4.WithClientIP(addr))
	}
	request, err := dhcpv4.New(options...)
	if err != nil {
		return nil, err
	}
	answer, err := client.SendAndRead(ctx, client.RemoteAddr(), request,
		nclient4.IsMessageType(dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak))
	if err == nil && answer.MessageType() == dhcpv4.MessageTypeNak {
		err = &nclient4.ErrNak{Nak: answer}
	}
	return answer, err
}

// leaseOf reads what a server grants, counted from when it was asked.
func leaseOf(ack *dhcpv4.DHCPv4, asked time.Time) (*nodenet.Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	bits, size := ack.SubnetMask().Size()
	server, _ := netip.AddrFromSlice(ack.ServerIdentifier().To4())
	switch {
	case !ok || !isHost(addr):
		return nil, fmt.Errorf("the DHCP server %s lends %s, which no NIC can have", server,
			ack.YourIPAddr)
	case size != 32 || bits < 8:
		return nil, fmt.Errorf("the DHCP server %s lends %s without a subnet mask that can be right",
			server, addr)
	}
	whole := max(ack.IPAddressLeaseTime(defaultLease), minLease)
	renew := ack.IPAddressRenewalTime(whole / 2)
	rebind := ack.IPAddressRebindingTime(whole / 8 * 7)
	if renew <= 0 || renew >= rebind || rebind >= whole {
		renew, rebind = whole/2, whole/8*7
	}
	return &nodenet.Lease{
		Prefix: netip.PrefixFrom(addr, bits), Server: server,
		Renew: asked.Add(renew), Rebind: asked.Add(rebind), Ends: asked.Add(whole),
	}, nil
}

// isHost reports whether a NIC can have an address.
func isHost(addr netip.Addr) bool {
	return !addr.IsUnspecified() && !addr.IsLoopback() && !addr.IsMulticast()
}

// Decline tells a server that somebody else has the address that it lent.
func (n *Network) Decline(nic string, lease *nodenet.Lease) error {
	client, err := n.client(nic, nodenet.Discover, nil)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // what was sent is sent
	message, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline),
		dhcpv4.WithHwAddr(client.InterfaceAddr()),
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(lease.Prefix.Addr().AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(lease.Server.AsSlice())))
	if err != nil {
		return err
	}
	return n.NS.Do(func() error {
		conn, err := nclient4.NewRawUDPConn(nic, nclient4.ClientPort)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.WriteTo(message.ToBytes(), client.RemoteAddr())
		return err
	})
}
