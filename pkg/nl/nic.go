package nl

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// BusAddresses returns the places of devices on their buses, by the names of their links: of a PCI
// device "0000:13:00.0". A link that is no device has none.
func BusAddresses(ns *netns.NS, names []string) (map[string]string, error) {
	places := map[string]string{}
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, name := range names {
			if info, err := unix.IoctlGetEthtoolDrvinfo(fd, name); err == nil {
				places[name] = unix.ByteSliceToString(info.Bus_info[:])
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ask for the places of devices: %w", err)
	}
	return places, nil
}

// DefaultLinks returns the links of the default route that is used: of IPv4, or without one of
// IPv6. There are several where it has several next hops, and none without one.
func (h *Handle) DefaultLinks(ctx context.Context) (indexes []int, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		routes, err := h.defaultRoutes(ctx, family)
		if err != nil {
			return nil, err
		}
		if len(routes) == 0 {
			continue
		}
		best := slices.MinFunc(routes, func(a, b *route) int {
			return cmp.Compare(a.metric, b.metric)
		})
		for _, hop := range best.hops {
			indexes = append(indexes, hop.index)
		}
		return indexes, nil
	}
	return nil, nil
}
