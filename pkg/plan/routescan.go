package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf/strictjson"
)

// defaultRoute is a place of a configuration that makes default routes of some families.
type defaultRoute struct {
	path, text string
	families   families
}

// defaultRoutesOf finds them all, at any depth: meta plugins hold whole configurations of others.
func defaultRoutesOf(plugin tree, r Request) []defaultRoute {
	var out []defaultRoute
	plugin.walk("", func(path, key string, value tree) {
		switch {
		case strings.EqualFold(key, "isDefaultGateway") && value.scalar == true:
			f := gatewayFamilies(plugin, r)
			if strings.Contains(path, ".") { // not the plugin's own
				f = bothFamilies
			}
			out = append(out, defaultRoute{path, "true", f})
		case strings.EqualFold(key, "routes"), strings.EqualFold(key, "addroutes"):
			out = append(out, listedDefaults(path, value)...)
		}
	})
	return out
}

// listedDefaults are the default routes of a list of routes, or of a single one.
func listedDefaults(path string, value tree) []defaultRoute {
	if value.object {
		value = tree{array: true, members: []member{{value: value}}}
	}
	var out []defaultRoute
	for i, m := range value.members {
		if text, f := routeFamilies(m.value); f != 0 {
			out = append(out, defaultRoute{fmt.Sprintf("%s[%d]", path, i), text, f})
		}
	}
	return out
}

// routeFamilies says which default routes one element of a list of routes makes, and how it says so.
func routeFamilies(route tree) (string, families) {
	if !route.object {
		return strictjson.Quote(route.text()), defaultDestination(route.text())
	}
	destinations := route.named("dst")
	if len(destinations) == 0 { // the reference plugins make a default route of it
		return "a route without dst", viaFamilies(route)
	}
	for _, dst := range destinations {
		text := dst.text()
		if f := defaultDestination(text); f != 0 {
			return strictjson.Quote(text), f
		}
		if text == "" || strings.EqualFold(text, "default") {
			return "dst " + strictjson.Quote(text), viaFamilies(route)
		}
	}
	return "", 0
}

// viaFamilies are those of the route's gateway, or both where it names none.
func viaFamilies(route tree) families {
	var f families
	for _, key := range []string{"gw", "gateway", "via"} {
		for _, v := range route.named(key) {
			if a, err := netip.ParseAddr(v.text()); err == nil {
				f |= familyOf(a)
			}
		}
	}
	if f == 0 {
		return bothFamilies
	}
	return f
}

// defaultDestination recognises every spelling of a prefix of length zero: plugins differ in what they parse, so what looks
// like one is one. The address before the slash does not matter: "10.0.0.0/0" is all of IPv4.
func defaultDestination(s string) families {
	addr, length, sliced := strings.Cut(strings.TrimSpace(s), "/")
	family := ipv4
	if strings.Contains(addr, ":") {
		family = ipv6
	}
	if p, err := netip.ParsePrefix(strings.TrimSpace(s)); err == nil && p.Addr().Is4In6() && p.Bits() <= 96 {
		return bothFamilies
	}
	switch {
	case sliced && isZero(length), !sliced && addr != "" && isZero(addr):
		return family
	}
	return 0
}

// isZero holds for "0", "000", "0.0.0.0", "::", "0:0::0" and the like.
func isZero(s string) bool {
	s = strings.TrimSpace(s)
	return s != "" && strings.Trim(s, "0.:") == ""
}

// gatewayFamilies are those of the addresses that bridge will find, for it makes one default route for each. They are known
// where an IPAM that takes its addresses from the configuration has them there or in the annotation, else both are expected.
func gatewayFamilies(plugin tree, r Request) families {
	var types []string
	for _, ipam := range plugin.named("ipam") {
		for _, t := range ipam.named("type") {
			types = append(types, t.text())
		}
	}
	if len(types) != 1 || !slices.Contains([]string{"host-local", "static", "whereabouts"}, types[0]) {
		return bothFamilies
	}
	var f families
	plugin.walk("", func(path, _ string, value tree) {
		if !strings.Contains(strings.ToLower(path), "dns") {
			f |= addressFamily(value.text())
		}
	})
	if r.Selection != nil {
		for _, ip := range r.Selection.IPs {
			f |= addressFamily(ip)
		}
	}
	if f == 0 {
		return bothFamilies
	}
	return f
}

// addressFamily of an address, a prefix, or a range "from-to/bits"; zero where s is none of them.
func addressFamily(s string) families {
	first, _, _ := strings.Cut(s, "/")
	first, _, _ = strings.Cut(first, "-")
	a, err := netip.ParseAddr(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return familyOf(a)
}
