package nl_test

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
)

// advertise sends a router advertisement for a default route from a link, and waits until it has an effect in the pod.
func advertise(t *testing.T, pod, router *nettest.Namespace, podLink, routerLink string) {
	t.Helper()
	write := func(n *nettest.Namespace, key, value string) {
		t.Helper()
		if err := n.Run(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/"+key, []byte(value), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	write(pod, podLink+"/accept_ra", "2")
	// Type, code, checksum (the kernel's work), hop limit, flags, lifetime in seconds, two timers.
	message := []byte{134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(message[6:], 1800)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if strings.Contains(pod.Routes(), "proto ra") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no route by router advertisement:\n%s", pod.Routes())
		}
		// Fails until the link-local addresses are no longer tentative.
		_ = router.Run(func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
				return err
			}
			all := &unix.SockaddrInet6{ZoneId: uint32(index(router, routerLink)), Addr: [16]byte{0: 0xff, 1: 2, 15: 1}}
			return unix.Sendto(fd, message, 0, all)
		})
	}
}

// A default route learnt from a router advertisement is one, too.
func TestS22DefaultRouteLearntByAdvertisement(t *testing.T) {
	for _, alone := range []bool{true, false} {
		pod, router := newPod(t)
		if !alone {
			pod.Route("default", eth0GW6, "eth0", 0)
		}
		advertise(t, pod, router, "eth0", "peer0")
		t.Log(defaults(pod))
		if err := open(t, pod).MoveDefaultRoute(t.Context(), "net1", addrs(net1GW6)); err != nil {
			t.Fatal(err)
		}
		same(t, "default routes", defaults(pod), []string{"route6 default via fd00:b::1 dev net1 metric 512"})
	}
}
