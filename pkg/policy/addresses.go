package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// asked judges a list of addresses.
func (j *judge) asked(field string, raw json.RawMessage) {
	for i, element := range strictjson.Elements(raw) {
		j.prefix(fmt.Sprintf("%s[%d]", field, i), text(element))
	}
}

// sources judges where addresses come from: the ranges and the addresses of IPAM plugins, at
// whatever depth, by the keys of the built-in ones.
func (j *judge) sources(field string, raw json.RawMessage) {
	switch strictjson.Kind(raw) {
	case "a list":
		for i, element := range strictjson.Elements(raw) {
			j.sources(fmt.Sprintf("%s[%d]", field, i), element)
		}
	case "an object":
		j.sourcesIn(field, strictjson.Members(raw))
	}
}

// sourcesIn judges the keys of a source of addresses, which several IPAM plugins name each its way.
func (j *judge) sourcesIn(field string, members []strictjson.Member) {
	for _, m := range members {
		switch strictjson.Fold(m.Key) {
		case "subnet", "range", "address":
			if value := text(m.Value); value != "" {
				j.ranges++
				j.address(field, m, value)
			}
		case "gateway", "rangestart", "rangeend", "range_start", "range_end":
			j.address(field, m, text(m.Value))
		case "ranges", "ipranges", "addresses":
			j.sources(at(field, m), m.Value)
		}
	}
}

// addresses judges what the network is as a whole.
func (j *judge) addresses() {
	j.kind = ""
	for i, ip := range j.network.IPs {
		j.prefix(fmt.Sprintf("ips[%d]", i), ip)
	}
	if j.ranges > j.rule.Ranges {
		j.add("ipam", "ranges", raise(func(r *Rule) *int { return &r.Ranges }, j.ranges),
			"addresses come from %s, the limit is %d", failure.Count(j.ranges, "range"), j.rule.Ranges)
	}
}

// address judges the value of a key.
func (j *judge) address(path string, m strictjson.Member, value string) {
	if value != "" && j.outside(value).IsValid() {
		j.prefix(at(path, m), value)
	}
}

// prefix judges an address, a prefix, or a range "first-last/length". What is none of these the
// plugin refuses.
func (j *judge) prefix(field, value string) {
	if p := j.outside(value); p.IsValid() {
		j.add(field, "prefixes", addPrefixes(prefixesOf(value)),
			"%s is in none of the prefixes that may be used, %s", p, names(j.rule.Prefixes))
	}
}

// outside returns the first of a value's prefixes that is in none of the rule's; the zero value if
// there is none.
func (j *judge) outside(value string) netip.Prefix {
	if j.rule.Prefixes == nil {
		return netip.Prefix{}
	}
	for _, p := range prefixesOf(value) {
		if !covered(p, j.rule.Prefixes) {
			return p
		}
	}
	return netip.Prefix{}
}

// prefixesOf returns the prefix, or the first and the last address of a range; none if the text is
// none.
func prefixesOf(value string) (all []netip.Prefix) {
	if strings.Contains(value, "/") {
		if p, err := netip.ParsePrefix(value); err == nil {
			return []netip.Prefix{unmapped(p).Masked()}
		}
	}
	value, _, _ = strings.Cut(value, "/")
	for part := range strings.SplitSeq(value, "-") {
		if a, err := netip.ParseAddr(strings.TrimSpace(part)); err == nil {
			a = a.Unmap().WithZone("")
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}

// unmapped returns a prefix of IPv4 addresses where it is one of those in IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapped = 96
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return netip.PrefixFrom(p.Addr().WithZone(""), p.Bits())
}
