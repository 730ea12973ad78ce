package nl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// Addr is an address of a link.
type Addr struct {
	netip.Prefix
	// Tentative is true if duplicate address detection has not ended, Duplicate if it found another
	// owner (IPv6).
	Tentative, Duplicate bool
}

// AddAddr adds an address to a link, by index. One that the link has already is an error,
// unix.EEXIST.
func AddAddr(index int, addr netip.Prefix) Change {
	return Change{
		"add address " + addr.String(),
		newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, addrParts(index, addr)...),
	}
}

// AddAddr applies AddAddr.
func (h *Handle) AddAddr(ctx context.Context, index int, addr netip.Prefix) error {
	return h.Apply(ctx, AddAddr(index, addr))
}

// addrParts describe an address in a message.
func addrParts(index int, addr netip.Prefix) []vnl.NetlinkRequestData {
	header := vnl.NewIfAddrmsg(family(addr.Addr()))
	header.Index, header.Prefixlen = uint32(index), uint8(addr.Bits())
	ip := addr.Addr().AsSlice()
	parts := []vnl.NetlinkRequestData{
		header, vnl.NewRtAttr(unix.IFA_LOCAL, ip), vnl.NewRtAttr(unix.IFA_ADDRESS, ip),
	}
	// Networks of one or two addresses have none for broadcasts (RFC 3021).
	if addr.Addr().Is4() && addr.Bits() < 31 {
		mask, broadcast := net.CIDRMask(addr.Bits(), 32), addr.Addr().As4()
		for i := range broadcast {
			broadcast[i] |= ^mask[i]
		}
		parts = append(parts, vnl.NewRtAttr(unix.IFA_BROADCAST, broadcast[:]))
	}
	return parts
}

// family is unix.AF_INET or AF_INET6.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Addrs lists the addresses of a link, by index, IPv4 before IPv6; of all links where the index is
// 0.
func (h *Handle) Addrs(ctx context.Context, index int) ([]Addr, error) {
	list, err := h.dump(ctx, unix.RTM_GETADDR, vnl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []Addr
	for _, m := range list {
		if len(m) < unix.SizeofIfAddrmsg {
			return nil, fmt.Errorf("list addresses: %w", errShort)
		}
		if header := vnl.DeserializeIfAddrmsg(m); index == 0 || int(header.Index) == index {
			addrs = append(addrs, addrOf(header, m[unix.SizeofIfAddrmsg:]))
		}
	}
	return addrs, nil
}

// AddrsByLink lists the addresses of all links, by the index of the link.
func (h *Handle) AddrsByLink(ctx context.Context) (map[int][]Addr, error) {
	list, err := h.dump(ctx, unix.RTM_GETADDR, vnl.NewIfAddrmsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	addrs := map[int][]Addr{}
	for _, m := range list {
		if len(m) < unix.SizeofIfAddrmsg {
			return nil, fmt.Errorf("list addresses: %w", errShort)
		}
		header := vnl.DeserializeIfAddrmsg(m)
		addrs[int(header.Index)] = append(addrs[int(header.Index)],
			addrOf(header, m[unix.SizeofIfAddrmsg:]))
	}
	return addrs, nil
}

// addrOf reads an address from a message.
func addrOf(header *vnl.IfAddrmsg, attrs []byte) Addr {
	ip := attr(attrs, unix.IFA_LOCAL)
	if ip == nil { // IPv6 has it only where the other end has an address
		ip = attr(attrs, unix.IFA_ADDRESS)
	}
	addr, _ := netip.AddrFromSlice(ip)
	flags := number(attr(attrs, unix.IFA_FLAGS)) | int(header.Flags)
	return Addr{
		Prefix: netip.PrefixFrom(addr, int(header.Prefixlen)), Tentative: flags&unix.IFA_F_TENTATIVE != 0,
		Duplicate: flags&unix.IFA_F_DADFAILED != 0,
	}
}

// RemoveAddr takes an address from a link, by index. One that is not there is removed already.
func (h *Handle) RemoveAddr(ctx context.Context, index int, addr netip.Prefix) error {
	err := h.do(ctx, unix.RTM_DELADDR, 0, addrParts(index, addr)...)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s: %w", addr, err)
	}
	return nil
}

// AwaitAddrs waits until no IPv6 address of a link, by index, is tentative any more. One that turns
// out to be in use elsewhere is an error. It returns when ctx ends, with its error.
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
	return onChange(ctx, ns, settled, unix.RTNLGRP_IPV6_IFADDR)
}
