package selection

import (
	"net/netip"
	"slices"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// checkTogether checks the elements together: interface names are unique, and one element has the
// default route of a family. A network may be named any number of times.
func checkTogether(all []Selection) error {
	for i := range all {
		for j := range i {
			if err := checkPair(all, j, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPair compares an element with a later one, which is to blame.
func checkPair(all []Selection, first, second int) error {
	a, b := &all[first], &all[second]
	if a.Interface != "" && a.Interface == b.Interface {
		err := invalid(at(second)+".interface", "give each attachment an interface of its own",
			"%s is taken by %s (%s/%s)", strictjson.Quote(b.Interface), at(first), a.Namespace, a.Name)
		err.NAD = b.Namespace + "/" + b.Name
		return err
	}
	if family := bothRoute(a.DefaultRoute, b.DefaultRoute); family != "" {
		err := invalid(at(second)+".default-route", "keep it on one of them",
			"the %s default route is asked for by %s (%s/%s) too", family, at(first), a.Namespace, a.Name)
		err.NAD = b.Namespace + "/" + b.Name
		return err
	}
	return nil
}

// bothRoute names the address family whose default route both ask for; empty where there is none.
func bothRoute(a, b []netip.Addr) string {
	switch {
	case routes(a, netip.Addr.Is4) && routes(b, netip.Addr.Is4):
		return "IPv4"
	case routes(a, netip.Addr.Is6) && routes(b, netip.Addr.Is6):
		return "IPv6"
	}
	return ""
}

// routes reports whether a default-route list asks for the default route of a family. An empty list
// asks for the network's own gateways, of whatever family they are; nil for nothing.
func routes(gateways []netip.Addr, family func(netip.Addr) bool) bool {
	return gateways != nil && (len(gateways) == 0 || slices.ContainsFunc(gateways, family))
}
