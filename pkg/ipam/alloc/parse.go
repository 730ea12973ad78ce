package alloc

import (
	"net/netip"
	"strconv"
	"strings"
)

// The keys of whereabouts' configuration that an Error names.
const (
	fieldRange   = "range"
	fieldStart   = "range_start"
	fieldEnd     = "range_end"
	fieldExclude = "exclude"
)

// mappedBits is the length of ::ffff:0:0/96, which has the IPv4-mapped IPv6 addresses (RFC 4291
// 2.5.5.2).
const mappedBits = 96

// Error says which key of a range's configuration has a value that it cannot have.
type Error struct {
	// Field is range, range_start, range_end or exclude.
	Field string
	// Value is the value, or that entry of it that is wrong.
	Value string
	// Reason goes on from the value: "is outside 10.0.0.0/24".
	Reason string
}

// Error is "field "value": reason".
func (e *Error) Error() string { return e.Field + " " + strconv.Quote(e.Value) + ": " + e.Reason }

// ParseRange reads a range in the forms that whereabouts has, to what NewWindow takes: "CIDR",
// which may have host bits, with a start and an end of its own, or "start-end/len", which wins over
// them. A start or end that is "" is not given. Errors are of type *Error.
func ParseRange(text, start, end string) (prefix netip.Prefix, first, last netip.Addr, err error) {
	fail := func(field, value, reason string) (netip.Prefix, netip.Addr, netip.Addr, error) {
		return netip.Prefix{}, netip.Addr{}, netip.Addr{}, &Error{field, value, reason}
	}
	var ok bool
	if first, ok = ParseAddr(start); !ok && start != "" {
		return fail(fieldStart, start, "is not an IP address")
	}
	if last, ok = ParseAddr(end); !ok && end != "" {
		return fail(fieldEnd, end, "is not an IP address")
	}
	from, cidr, both := strings.Cut(text, "-")
	if !both {
		if _, prefix, ok = parseCIDR(text); !ok {
			return fail(fieldRange, text, `is neither "address/length" nor "start-end/length"`)
		}
		return prefix, first, last, nil
	}
	if first, ok = ParseAddr(from); !ok {
		return fail(fieldRange, text, "does not begin with an IP address")
	}
	if last, prefix, ok = parseCIDR(cidr); !ok {
		return fail(fieldRange, text, `does not end with "address/length"`)
	}
	if _, e := boundsOf(prefix, first, last); e != nil {
		return fail(fieldRange, text, e.Value+" "+e.Reason)
	}
	return prefix, first, last, nil
}

// ParseExclude reads entries of an exclude list: CIDRs, which may have host bits, and addresses.
// Errors are of type *Error.
func ParseExclude(list []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range list {
		_, p, ok := parseCIDR(s)
		if a, isAddr := ParseAddr(s); isAddr {
			p, ok = netip.PrefixFrom(a, a.BitLen()), true
		}
		if !ok {
			return nil, &Error{fieldExclude, s, `is neither "address/length" nor an IP address`}
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

// ParseAddr reads an address as whereabouts does: leading zeros of an IPv4 address mean nothing, an
// IPv4-mapped IPv6 address is the IPv4 address, and a zone is not allowed.
func ParseAddr(s string) (netip.Addr, bool) {
	a, ok := parseAddr(s)
	return a.Unmap(), ok
}

func parseAddr(s string) (netip.Addr, bool) {
	if !strings.Contains(s, ":") {
		octets := strings.Split(s, ".")
		for i, o := range octets {
			// The last digit stays, even where it is a zero.
			if o != "" {
				octets[i] = strings.TrimLeft(o[:len(o)-1], "0") + o[len(o)-1:]
			}
		}
		s = strings.Join(octets, ".")
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Zone() == ""
}

// parseCIDR reads "address/length": the address, and the prefix that it is in.
func parseCIDR(s string) (netip.Addr, netip.Prefix, bool) {
	text, length, _ := strings.Cut(s, "/")
	a, ok := parseAddr(text)
	bits, err := strconv.ParseUint(length, 10, 8)
	if !ok || err != nil {
		return netip.Addr{}, netip.Prefix{}, false
	}
	if a.Is4In6() && bits >= mappedBits {
		a, bits = a.Unmap(), bits-mappedBits
	}
	p, err := a.Prefix(int(bits))
	return a, p, err == nil
}
