package nl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// Addr is an address of a link.
type Addr struct {
	netip.Prefix
	// Tentative is that duplicate address detection has not ended, Duplicate that it found another owner (IPv6).
	Tentative, Duplicate bool
}

// AddAddr gives an address to a link, by index. One that the link has already is an error, unix.EEXIST.
func (h *Handle) AddAddr(ctx context.Context, index int, addr netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := h.lib.AddrAdd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, &netlink.Addr{IPNet: ipNet(addr)})
	if err != nil {
		return fmt.Errorf("add address %s: %w", addr, err)
	}
	return nil
}

// Addrs lists the addresses of a link, by index, IPv4 before IPv6; of all links where the index is 0.
func (h *Handle) Addrs(ctx context.Context, index int) ([]Addr, error) {
	list, err := call(ctx, func() ([]netlink.Addr, error) { return h.lib.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []Addr
	for _, a := range list {
		if index == 0 || a.LinkIndex == index {
			addrs = append(addrs, Addr{
				Prefix: prefix(a.IPNet), Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0, Duplicate: a.Flags&unix.IFA_F_DADFAILED != 0,
			})
		}
	}
	return addrs, nil
}

// RemoveAddr takes an address from a link, by index. One that is not there is removed already.
func (h *Handle) RemoveAddr(ctx context.Context, index int, addr netip.Prefix) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := h.lib.AddrDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}, &netlink.Addr{IPNet: ipNet(addr)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s: %w", addr, err)
	}
	return nil
}

// AwaitAddrs waits until no IPv6 address of a link, by index, is tentative any more. One that turns out to be in use elsewhere is an error.
// It returns when ctx ends, with its error.
func (h *Handle) AwaitAddrs(ctx context.Context, ns *netns.NS, index int) error {
	settled := func() (bool, error) {
		addrs, err := h.Addrs(ctx, index)
		if err != nil {
			return false, err
		}
		for _, a := range addrs {
			if a.Duplicate {
				return false, fmt.Errorf("address %s is in use by another host", a.Addr())
			}
			if a.Tentative {
				return false, nil
			}
		}
		return true, nil
	}
	// As a rule nothing is tentative, and no subscription needed.
	if done, err := settled(); done || err != nil {
		return err
	}
	return onChange(ctx, ns, unix.RTNLGRP_IPV6_IFADDR, settled)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	ip, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if ip.Is4In6() && size == 32 {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, bits)
}
