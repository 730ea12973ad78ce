package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Families is a set of IP families.
type Families uint8

// The families, and both.
const (
	IPv4 Families = 1 << iota
	IPv6
	BothFamilies = IPv4 | IPv6
)

// String is as messages have it: "IPv4", "IPv6" or "IPv4 and IPv6".
func (f Families) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return "IPv4 and IPv6"
}

// FamiliesOf returns the set of the families that are true.
func FamiliesOf(v4, v6 bool) (f Families) {
	if v4 {
		f |= IPv4
	}
	if v6 {
		f |= IPv6
	}
	return f
}

// familyOf returns the family of an address. IPv4 in IPv6 is IPv4.
func familyOf(a netip.Addr) Families {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// AskedFamilies returns the families whose default route the pod wants through the attachment. An
// empty list of gateways means both.
func (a *Attachment) AskedFamilies() Families {
	return askedFamilies(a.WantsDefaultRoute, a.Gateways)
}

// askedFamilies returns the families of the gateways that a pod names; all if it names none.
func askedFamilies(wanted bool, gateways []netip.Addr) Families {
	if !wanted {
		return 0
	}
	if len(gateways) == 0 {
		return BothFamilies
	}
	var f Families
	for _, gw := range gateways {
		f |= familyOf(gw)
	}
	return f
}

// DefaultRoutes returns the families in which the configuration puts a default route into the pod's
// main table that the pod did not ask for with "default-route".
//
// Explicit routes count wherever they are in a plugin's configuration ("routes" of IPAM plugins,
// "addroutes" of route-override), and so does isDefaultGateway of bridge. A gateway alone makes no
// route. Routes that sbr, later in the chain, moves to a table of its own do not count. Routes that
// a plugin learns at run time, such as dhcp, are not in the configuration.
func (a *Attachment) DefaultRoutes() (Families, error) {
	found, err := a.unasked()
	var f Families
	for _, u := range found {
		f |= u.families
	}
	return f, err
}

// unasked returns the default routes that the pod did not ask for, with the plugin's type and its
// place in the path.
func (a *Attachment) unasked() ([]unaskedRoute, error) {
	list, err := parseTree(a.Conf)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	asked := a.AskedFamilies()
	var out []unaskedRoute
	plugins := list.elements("plugins")
	for i, plugin := range plugins {
		if movedBySBR(plugins[i+1:]) {
			continue
		}
		for _, f := range defaultRoutesOf(plugin, a.IPs) {
			if f.families &^= asked; f.families != 0 {
				f.path = fmt.Sprintf("plugins[%d].%s", i, f.path)
				out = append(out, unaskedRoute{f, plugin.typeOf()})
			}
		}
	}
	return out, nil
}

// ExpectDefaultRoutes returns a warning for each default route of the configuration that the pod
// did not ask for. It is for judging a network before any pod has it.
func (a *Attachment) ExpectDefaultRoutes(policy string) ([]*failure.Error, error) {
	found, err := a.unasked()
	if a.Default || err != nil {
		return nil, err
	}
	what := "it is left out where the pod has one of another network; Multus would let it take " +
		"precedence"
	fix := `let the pod ask for it with "default-route", or remove it`
	if policy == conf.TakeDefaultRoute {
		what = "it takes precedence over the default network's"
		fix = "remove it, unless that is what you want"
	}
	var warnings []*failure.Error
	for _, u := range found {
		warnings = append(warnings, &failure.Error{
			Reason: failure.DefaultRouteKept, NAD: a.Name, Interface: a.IfName, Plugin: u.plugin,
			Field: u.path,
			Err:   fmt.Errorf("%s makes an %s default route; %s", u.text, u.families, what), Fix: fix,
		})
		if policy == conf.TakeDefaultRoute {
			warnings[len(warnings)-1].Reason = failure.DefaultRouteTaken
		}
	}
	return warnings, nil
}

// unaskedRoute is a default route that a plugin makes and the pod did not ask for.
type unaskedRoute struct {
	defaultRoute
	plugin string
}

// movedBySBR reports whether sbr is among the later plugins of a chain, with tables of its own to
// move routes to.
func movedBySBR(later []tree) bool {
	return slices.ContainsFunc(later, func(p tree) bool {
		return p.typeOf() == "sbr" && !p.has("table")
	})
}

// SourceRouted reports whether sbr moves the chain's routes, default routes among them, to tables
// of its own.
func (a *Attachment) SourceRouted() bool {
	list, err := parseTree(a.Conf)
	return err == nil && movedBySBR(list.elements("plugins"))
}

// refuseDefaultRoutes applies the policy "refuse": it returns an error if the configuration makes a
// default route that the pod did not ask for.
func (a *Attachment) refuseDefaultRoutes() error {
	found, err := a.unasked()
	if err != nil || len(found) == 0 {
		return err
	}
	return &failure.Error{
		Reason: failure.DefaultRouteRefused, Plugin: found[0].plugin, Field: found[0].path,
		Err: fmt.Errorf("%s makes an %s default route, but the pod's stays on the default network "+
			"unless the pod asks", found[0].text, found[0].families),
		Fix: `remove it (where sbr needs a gateway, name it in "gateways" of sbr), or let the pod ask ` +
			`with "default-route": [] for this network`,
	}
}

// LeaveOut applies the policy "keep". In the families that other networks hold already, it removes
// default routes that the pod did not ask for from the configuration, and adds a warning for each.
// rest are families in which it could not remove one: isDefaultGateway of a bridge is for both
// families, and one may be wanted.
func (a *Attachment) LeaveOut(held Families) (rest Families, err error) {
	list, err := parseTree(a.Conf)
	if err != nil {
		return 0, fmt.Errorf("read configuration: %w", err)
	}
	o := omission{held: held &^ a.AskedFamilies(), asked: a.IPs}
	for _, m := range list.members {
		if m.key == "plugins" && m.value.array {
			o.plugins(m.value.members, list.elements("plugins"))
		}
	}
	for _, left := range o.left {
		a.Warnings = append(a.Warnings,
			a.defaultRouteKept(left.plugin, left.path, left.text+" makes", left.families))
	}
	if len(o.left) > 0 {
		a.Conf = list.encode()
	}
	return o.rest, nil
}

// DefaultRouteKept returns the warning that a default route, which the attachment brought without
// it being in the configuration, was removed.
func (a *Attachment) DefaultRouteKept(f Families) *failure.Error {
	return a.defaultRouteKept("", "", "the network has brought", f)
}

// defaultRouteKept is the warning about what makes default routes; plugin and field are empty where
// that is not known.
func (a *Attachment) defaultRouteKept(plugin, field, what string, f Families) *failure.Error {
	return &failure.Error{
		Reason: failure.DefaultRouteKept, NAD: a.Name, Interface: a.IfName, Plugin: plugin, Field: field,
		Err: fmt.Errorf("%s an %s default route; it is left out, since the pod has one of another "+
			"network and did not ask for this one", what, f),
		Fix: `let the pod ask for it with "default-route", or remove it from the network's configuration`,
	}
}

// omission removes default routes from the configuration of a plugin.
type omission struct {
	held   Families
	asked  []string
	plugin tree
	// at is the path of the plugin, with a period.
	at   string
	left []unaskedRoute
	rest Families
}

// plugins removes them from the plugins of a chain, which are in members. Routes that sbr moves
// elsewhere stay: sbr comes after the plugin that makes them.
func (o *omission) plugins(members []member, chain []tree) {
	for i := range members {
		plugin := &members[i].value
		if !movedBySBR(chain[i+1:]) {
			o.plugin, o.at = *plugin, fmt.Sprintf("plugins[%d].", i)
			*plugin = o.object(*plugin, "")
		}
	}
}

// object returns t without default routes. path is empty or ends in a period.
func (o *omission) object(t tree, path string) tree {
	if !t.object {
		return o.array(t, path)
	}
	out, isGateway := tree{object: true}, false
	for _, m := range t.members {
		at := path + strictjson.Label(m.key)
		switch {
		case folds(m.key, "isDefaultGateway") && m.value.scalar == true:
			if o.omit(at, "true", gatewayFamiliesAt(at, o.plugin, o.asked)) {
				m.value, isGateway = tree{scalar: false}, true
			}
		case folds(m.key, "routes"), folds(m.key, "addroutes"):
			if m.value.object {
				if text, f := routeFamilies(m.value); o.omit(at, text, f) {
					continue
				}
			}
			m.value = o.routes(m.value, at)
		}
		m.value = o.object(m.value, at+".")
		out.members = append(out.members, m)
	}
	if isGateway { // as isDefaultGateway implies
		out.members = slices.DeleteFunc(out.members, func(m member) bool {
			return folds(m.key, "isGateway")
		})
		out.members = append(out.members, member{"isGateway", tree{scalar: true}})
	}
	return out
}

// array is object for a list, whose members may be objects.
func (o *omission) array(t tree, path string) tree {
	for i := range t.members {
		t.members[i].value = o.object(t.members[i].value,
			fmt.Sprintf("%s[%d].", strings.TrimSuffix(path, "."), i))
	}
	return t
}

// routes returns a list of routes without the default ones.
func (o *omission) routes(t tree, path string) tree {
	if !t.array {
		return t
	}
	out := tree{array: true}
	for i, m := range t.members {
		if text, f := routeFamilies(m.value); !o.omit(fmt.Sprintf("%s[%d]", path, i), text, f) {
			out.members = append(out.members, m)
		}
	}
	return out
}

// omit reports whether to leave out what makes default routes of these families, and records that.
func (o *omission) omit(path, text string, f Families) bool {
	if f&o.held == 0 {
		return false
	}
	if text == "true" && f&^o.held != 0 {
		o.rest |= f & o.held
		return false
	}
	o.left = append(o.left, unaskedRoute{
		defaultRoute{o.at + path, text, f & o.held}, o.plugin.typeOf(),
	})
	return true
}

// checkDefaultRoutes lets each family's default route go to one network only.
func checkDefaultRoutes(requests []Request) error {
	owner := map[Families]string{}
	for _, r := range requests {
		if r.Selection == nil {
			continue
		}
		asked := askedFamilies(r.Selection.DefaultRoute != nil, r.Selection.DefaultRoute)
		for _, f := range []Families{IPv4, IPv6} {
			if asked&f == 0 {
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
