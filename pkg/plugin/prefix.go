package plugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Prefix converts an address of a result, with its mask. IPNet is the inverse.
func Prefix(n net.IPNet) (netip.Prefix, error) {
	ip, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("%s is no address with a mask", n.String())
	}
	// A mask of 4 bytes goes with an IPv4 address in either form.
	if bits == 32 {
		ip = ip.Unmap()
	}
	if ip.BitLen() != bits {
		return netip.Prefix{}, errors.New(n.String() + ": address and mask are of different families")
	}
	return netip.PrefixFrom(ip, ones), nil
}

// ParsePrefix reads the value of a key that is an address with the length of its subnet.
func ParsePrefix(key, value string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(value)
	if err != nil || prefix.Addr().Is4In6() {
		return prefix, ConfError(key, value, "is no address with a prefix length, as in 10.0.0.0/24")
	}
	return prefix, nil
}

// ParseAddr reads the value of a key that is an address.
func ParseAddr(key, value string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(value)
	if err != nil || addr.Zone() != "" {
		return addr, ConfError(key, value, "is no IP address")
	}
	return addr.Unmap(), nil
}

// IPNet converts an address for a result. Prefix is the inverse.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
