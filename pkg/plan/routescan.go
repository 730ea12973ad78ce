package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// defaultRoute is a place of a configuration that makes default routes of some families.
type defaultRoute struct {
	path, text string
	families   Families
}

// defaultRoutesOf finds them all, at any depth: meta plugins hold whole configurations of others.
// asked are the addresses that the pod asks for.
func defaultRoutesOf(plugin tree, asked []string) []defaultRoute {
	var out []defaultRoute
	plugin.walk("", func(path, key string, value tree) {
		switch {
		case strings.EqualFold(key, "isDefaultGateway") && value.scalar == true:
			out = append(out, defaultRoute{path, "true", gatewayFamiliesAt(path, plugin, asked)})
		case strings.EqualFold(key, "routes"), strings.EqualFold(key, "addroutes"):
			out = append(out, listedDefaults(path, value)...)
		}
	})
	return out
}

// listedDefaults returns the default routes of a list of routes, or of a single one.
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

// routeFamilies returns which default routes of the main table one element of a list of routes
// makes, and how it says so.
func routeFamilies(route tree) (string, Families) {
	if !route.object {
		return strictjson.Quote(route.text()), defaultDestination(route.text())
	}
	if !inMainTable(route) {
		return "", 0
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

// inMainTable reports whether the table that a route names, if it does, is the main one.
func inMainTable(route tree) bool {
	for _, table := range route.named("table") {
		number, ok := table.scalar.(json.Number)
		if ok && number != "0" && number != mainTable {
			return false
		}
	}
	return true
}

// mainTable is the number of the main routing table.
const mainTable = "254"

// viaFamilies returns those of the route's gateway, or both where it names none.
func viaFamilies(route tree) Families {
	var f Families
	for _, key := range []string{"gw", "gateway", "via"} {
		for _, v := range route.named(key) {
			if a, err := netip.ParseAddr(v.text()); err == nil {
				f |= familyOf(a)
			}
		}
	}
	if f == 0 {
		return BothFamilies
	}
	return f
}

// defaultDestination recognises every spelling of a prefix of length zero: plugins differ in what
// they parse, so what looks like one is one. The address before the slash does not matter:
// "10.0.0.0/0" is all of IPv4.
func defaultDestination(s string) Families {
	addr, length, sliced := strings.Cut(strings.TrimSpace(s), "/")
	family := IPv4
	if strings.Contains(addr, ":") {
		family = IPv6
	}
	p, err := netip.ParsePrefix(strings.TrimSpace(s))
	if err == nil && p.Addr().Is4In6() && p.Bits() <= 96 {
		return BothFamilies
	}
	switch {
	case sliced && isZero(length), !sliced && isZero(addr):
		return family
	}
	return 0
}

// isZero holds for "0", "000", "0.0.0.0", "::", "0:0::0" and the like.
func isZero(s string) bool {
	s = strings.TrimSpace(s)
	return s != "" && strings.Trim(s, "0.:") == ""
}

// gatewayFamiliesAt is gatewayFamilies for the key at path; of one that is not the plugin's own
// nothing is known.
func gatewayFamiliesAt(path string, plugin tree, asked []string) Families {
	if strings.Contains(path, ".") {
		return BothFamilies
	}
	return gatewayFamilies(plugin, asked)
}

// gatewayFamilies returns those of the addresses that bridge will find, for it makes one default
// route for each. They are known where an IPAM that takes its addresses from the configuration has
// them there or in the annotation, else both are expected.
func gatewayFamilies(plugin tree, asked []string) Families {
	var types []string
	for _, ipam := range plugin.named("ipam") {
		for _, t := range ipam.named("type") {
			types = append(types, t.text())
		}
	}
	if len(types) != 1 || !slices.Contains([]string{"host-local", "static", "whereabouts"}, types[0]) {
		return BothFamilies
	}
	var f Families
	plugin.walk("", func(path, _ string, value tree) {
		if !strings.Contains(strings.ToLower(path), "dns") {
			f |= addressFamily(value.text())
		}
	})
	for _, ip := range asked {
		f |= addressFamily(ip)
	}
	if f == 0 {
		return BothFamilies
	}
	return f
}

// addressFamily of an address, a prefix, or a range "from-to/bits"; zero where s is none of them.
func addressFamily(s string) Families {
	first, _, _ := strings.Cut(s, "/")
	first, _, _ = strings.Cut(first, "-")
	a, err := netip.ParseAddr(strings.TrimSpace(first))
	if err != nil {
		return 0
	}
	return familyOf(a)
}
