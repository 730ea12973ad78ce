package nettest

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Advertise sends a router advertisement for a default route from a link to all nodes on it. It
// waits until the kernel has checked the link's own IPv6 address, which takes a second or two.
func (n *Namespace) Advertise(link string) {
	n.tb.Helper()
	// Type, code, checksum (the kernel's work), hop limit, flags, lifetime in seconds, two timers.
	message := []byte{134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	all := &unix.SockaddrInet6{
		ZoneId: uint32(n.Link(link).Attrs().Index), Addr: [16]byte{0: 0xff, 1: 2, 15: 1},
	}
	send := func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // what was to be sent is sent
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		return unix.Sendto(fd, message, 0, all)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := n.Run(send)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			n.tb.Fatalf("nettest: router advertisement from %s: %v", link, err)
		}
	}
}

// Advertisements returns the number of router advertisements that a link has got.
func (n *Namespace) Advertisements(link string) int {
	n.tb.Helper()
	var data []byte
	must(n.tb, n.Run(func() (err error) {
		data, err = os.ReadFile("/proc/thread-self/net/dev_snmp6/" + link)
		return err
	}))
	for line := range strings.Lines(string(data)) {
		var count int
		if _, err := fmt.Sscanf(line, "Icmp6InRouterAdvertisements %d", &count); err == nil {
			return count
		}
	}
	n.tb.Fatalf("nettest: no counter of router advertisements of %s", link)
	return 0
}
