package nl_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

func TestForgetConnections(t *testing.T) {
	for name, forget := range map[string]func(*nl.Netfilter, context.Context, byte, byte,
		uint16) error{
		"by the kernel": (*nl.Netfilter).ForgetConnections, "one by one": (*nl.Netfilter).ForgetOneByOne,
	} {
		t.Run(name, func(t *testing.T) {
			n := nettest.New(t)
			lib := connections(t, n)
			makeConnections(t, lib)
			before := listConnections(t, lib)
			if len(before) != 8 {
				t.Fatalf("connections %v", before)
			}
			ns, err := netns.Open(n.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer ns.Close()
			socket, err := nl.OpenNetfilter(ns)
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			want := before
			for family, gone := range map[byte]string{unix.AF_INET: "2 udp 53", unix.AF_INET6: "10 udp 53"} {
				want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == gone })
				for range 2 {
					if err := forget(socket, t.Context(), family, unix.IPPROTO_UDP, 53); err != nil {
						t.Fatal(err)
					}
					if got := listConnections(t, lib); !slices.Equal(got, want) {
						t.Errorf("left %v, want %v", got, want)
					}
				}
			}
		})
	}
}

// connections is a handle for the connection tracking of a namespace.
func connections(t *testing.T, n *nettest.Namespace) (lib *netlink.Handle) {
	t.Helper()
	err := n.Run(func() (err error) {
		lib, err = netlink.NewHandle(unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lib.Close)
	return lib
}

// makeConnections makes those of TCP and UDP, IPv4 and IPv6, to ports 53 and 54, answers to a
// client at port 53 among them.
func makeConnections(t *testing.T, lib *netlink.Handle) {
	t.Helper()
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		a, b := net.IP{10, 0, 0, 1}, net.IP{10, 0, 0, 2}
		if family == unix.AF_INET6 {
			a, b = net.ParseIP("fd00::1"), net.ParseIP("fd00::2")
		}
		for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			for _, port := range []uint16{53, 54} {
				flow := &netlink.ConntrackFlow{
					FamilyType: uint8(family), TimeOut: 100,
					Forward: netlink.IPTuple{SrcIP: a, DstIP: b, SrcPort: 53, DstPort: port, Protocol: protocol},
					Reverse: netlink.IPTuple{SrcIP: b, DstIP: a, SrcPort: port, DstPort: 53, Protocol: protocol},
				}
				if err := lib.ConntrackCreate(netlink.ConntrackTable, family, flow); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func listConnections(t *testing.T, lib *netlink.Handle) (list []string) {
	t.Helper()
	protocols := map[uint8]string{unix.IPPROTO_UDP: "udp", unix.IPPROTO_TCP: "tcp"}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		all, err := lib.ConntrackTableList(netlink.ConntrackTable, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			list = append(list, fmt.Sprintf("%d %s %d",
				family, protocols[f.Forward.Protocol], f.Forward.DstPort))
		}
	}
	slices.Sort(list)
	return list
}
