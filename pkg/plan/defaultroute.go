package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
)

// refuseDefaultRoutes fails where the definition of a secondary network would put a default route of a family into the pod
// that the pod did not ask for with "default-route".
//
// Explicit routes count, wherever in a plugin's configuration they are ("routes" as the IPAM plugins take it, "addroutes" of
// route-override), and isDefaultGateway of bridge; a gateway alone makes no route. Two cases where the route could be harmless
// are refused all the same: a chain with sbr, because the main table has the route until sbr moves it (and keeps it if sbr's
// "table" is set), while sbr needs only the gateway; and a route with a "table" of its own, because plugins older than CNI
// 1.1 ignore that key. Routes that a plugin learns at run time (dhcp) cannot be seen here.
func refuseDefaultRoutes(r Request, list *conf.List) error {
	asked := askedFamilies(r)
	for i := range list.Len() {
		raw, err := json.Marshal(list.Plugin(i))
		if err != nil {
			return fmt.Errorf("encode plugin %d: %w", i, err)
		}
		plugin, err := parseTree(raw)
		if err != nil {
			return fmt.Errorf("read plugin %d: %w", i, err)
		}
		for _, f := range defaultRoutesOf(plugin, r) {
			if refused := f.families &^ asked; refused != 0 {
				f.path = fmt.Sprintf("plugins[%d].%s", i, f.path)
				return defaultRouteRefused(f, refused, list.Types()[i])
			}
		}
	}
	return nil
}

func defaultRouteRefused(f defaultRoute, refused families, pluginType string) error {
	return &failure.Error{
		Reason: failure.DefaultRouteRefused, Plugin: pluginType, Field: f.path,
		Err: fmt.Errorf("%s makes an %s default route, but the pod's stays on the default network unless the pod asks", f.text, refused),
		Fix: `remove it (a "gateway" is all that sbr needs), or let the pod ask with "default-route": [] for this network`,
	}
}

// families is a set of IP families.
type families uint8

const (
	ipv4 families = 1 << iota
	ipv6
	bothFamilies = ipv4 | ipv6
)

func (f families) String() string {
	switch f {
	case ipv4:
		return "IPv4"
	case ipv6:
		return "IPv6"
	}
	return "IPv4 and IPv6"
}

func familyOf(a netip.Addr) families {
	if a.Unmap().Is4() {
		return ipv4
	}
	return ipv6
}

// askedFamilies are those whose default route the pod wants through this network: an empty list means both.
func askedFamilies(r Request) families {
	if r.Selection == nil || r.Selection.DefaultRoute == nil {
		return 0
	}
	if len(r.Selection.DefaultRoute) == 0 {
		return bothFamilies
	}
	var f families
	for _, gw := range r.Selection.DefaultRoute {
		f |= familyOf(gw)
	}
	return f
}

// checkDefaultRoutes lets each family's default route go to one network only.
func checkDefaultRoutes(requests []Request) error {
	owner := map[families]string{}
	for _, r := range requests {
		for _, f := range []families{ipv4, ipv6} {
			if askedFamilies(r)&f == 0 {
				continue
			}
			if owner[f] != "" {
				return &failure.Error{
					Reason: failure.InvalidAnnotation, NAD: label(r), Field: "default-route",
					Err: fmt.Errorf("%s gets the %s default route already", owner[f], f),
					Fix: "keep default-route at one network of each family; an empty list means both families",
				}
			}
			owner[f] = label(r)
		}
	}
	return nil
}
