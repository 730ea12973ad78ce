package nl_test

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

func TestListeners(t *testing.T) {
	pod := nettest.New(t)
	ns, err := netns.Open(pod.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	err = pod.Run(func() error {
		for _, l := range []struct{ network, address string }{
			{"tcp4", "127.0.0.1:80"},
			{"tcp6", "[::1]:80"},
			{"tcp", ":81"},
			{"tcp6", "[::]:82"},
			{"tcp4", "0.0.0.0:83"},
		} {
			listener, err := net.Listen(l.network, l.address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { listener.Close() })
		}
		packet, err := net.ListenPacket("udp4", "127.0.0.1:80")
		if err != nil {
			return err
		}
		t.Cleanup(func() { packet.Close() })
		// One with a peer takes nothing of others.
		client, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 84},
			&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80})
		if err != nil {
			return err
		}
		t.Cleanup(func() { client.Close() })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		protocol byte
		port     uint16
		at       string
		want     bool
	}{
		{unix.IPPROTO_TCP, 80, "127.0.0.1", true},
		{unix.IPPROTO_TCP, 80, "127.0.0.2", false},
		{unix.IPPROTO_TCP, 80, "0.0.0.0", true},
		{unix.IPPROTO_TCP, 80, "::", true},
		{unix.IPPROTO_TCP, 80, "fd00::1", false},
		{unix.IPPROTO_TCP, 81, "10.0.0.1", true},
		{unix.IPPROTO_TCP, 81, "fd00::1", true},
		{unix.IPPROTO_TCP, 82, "10.0.0.1", false},
		{unix.IPPROTO_TCP, 82, "fd00::1", true},
		{unix.IPPROTO_TCP, 83, "10.0.0.1", true},
		{unix.IPPROTO_TCP, 83, "::", false},
		{unix.IPPROTO_TCP, 85, "0.0.0.0", false},
		{unix.IPPROTO_UDP, 80, "127.0.0.1", true},
		{unix.IPPROTO_UDP, 81, "127.0.0.1", false},
		{unix.IPPROTO_UDP, 84, "127.0.0.1", false},
		{unix.IPPROTO_SCTP, 80, "127.0.0.1", false},
	} {
		listeners, err := nl.Listeners(t.Context(), ns, c.protocol)
		if err != nil {
			t.Fatal(err)
		}
		got := false
		for _, l := range listeners {
			got = got || l.Port() == c.port && l.Takes(netip.MustParseAddr(c.at))
		}
		if got != c.want {
			t.Errorf("protocol %d port %d of %s: taken %v, want %v: %v",
				c.protocol, c.port, c.at, got, c.want, listeners)
		}
	}
}
