package main

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/lint"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/resolve"
)

// planned is what a pod would get. Its JSON is described in the command's help.
type planned struct {
	Kind        string         `json:"kind"`
	Namespace   string         `json:"namespace"`
	Name        string         `json:"name"`
	Where       string         `json:"where,omitempty"`
	Attachments []network      `json:"attachments"`
	Findings    []lint.Finding `json:"findings"`
}

// network is one attachment of it.
type network struct {
	Interface    string       `json:"interface"`
	Default      bool         `json:"default,omitempty"`
	NAD          string       `json:"nad,omitempty"`
	Network      string       `json:"network,omitempty"`
	CNIVersion   string       `json:"cniVersion,omitempty"`
	Plugins      []runner     `json:"plugins"`
	IPs          []string     `json:"ips,omitempty"`
	MAC          string       `json:"mac,omitempty"`
	Routes       []route      `json:"routes,omitempty"`
	DefaultRoute defaultRoute `json:"defaultRoute"`
	Resource     string       `json:"resource,omitempty"`
	// Unknown is what only the node knows.
	Unknown []string `json:"unknown,omitempty"`
}

// What only the node knows.
const (
	unknownConfig    = "configuration"
	unknownAddresses = "addresses"
	unknownMAC       = "mac"
	unknownDevice    = "device"
)

// runner is what runs a plugin.
type runner struct {
	Type string `json:"type"`
	// Runs is empty where only the plugin that calls it knows.
	Runs     string   `json:"runs,omitempty"`
	Path     string   `json:"path,omitempty"`
	Searched []string `json:"searched,omitempty"`
	Ranges   []string `json:"ranges,omitempty"`
	IPAM     *runner  `json:"ipam,omitempty"`
}

// Where plugins run.
const (
	inProcess = "in-process"
	aBinary   = "binary"
	notFound  = "not found"
	isRefused = "refused"
)

// route is a route of the configuration that is no default route.
type route struct {
	Dst string `json:"dst"`
	GW  string `json:"gw,omitempty"`
}

// defaultRoute is what becomes of the default route of a network, as routeOf decides.
type defaultRoute struct {
	State    string       `json:"state"`
	Families []string     `json:"families,omitempty"`
	Gateways []netip.Addr `json:"gateways,omitempty"`
}

// The states of a default route.
const (
	routeOwn     = "own"     // the default network has it
	routeAsked   = "asked"   // the pod asks for it here
	routeLeftOut = "leftOut" // the network has one, which the pod does not get
	routeTaken   = "taken"   // the network has one, which takes precedence
	routeNone    = "none"
	routeUnknown = "unknown"
)

// planOf describes a plan.
func planOf(
	pod lint.Pod, expected []resolve.Expected, findings []lint.Finding, in *lint.Input,
) *planned {
	p := &planned{
		Kind: pod.Kind, Namespace: pod.Namespace, Name: pod.Name, Where: pod.Where,
		Attachments: []network{}, Findings: append([]lint.Finding{}, findings...),
	}
	var elsewhere plan.Families // of which another network than the default one has the default route
	for i := range expected {
		n, moved := networkOf(&expected[i], in)
		p.Attachments = append(p.Attachments, n)
		elsewhere |= moved
	}
	if len(expected) > 0 {
		p.Attachments[0].DefaultRoute = ownRoute(plan.BothFamilies &^ elsewhere)
	}
	return p
}

// ownRoute returns the default route of the default network, of the families that no other has.
func ownRoute(rest plan.Families) defaultRoute {
	if rest == 0 {
		return defaultRoute{State: routeNone}
	}
	return defaultRoute{State: routeOwn, Families: families(rest)}
}

// families names families of addresses.
func families(f plan.Families) (names []string) {
	for _, family := range []plan.Families{plan.IPv4, plan.IPv6} {
		if f&family != 0 {
			names = append(names, family.String())
		}
	}
	return names
}

// networkOf describes an attachment. moved are the families whose default route it has.
func networkOf(e *resolve.Expected, in *lint.Input) (n network, moved plan.Families) {
	n = network{
		Interface: e.IfName, Default: e.Default, Network: e.Network, Plugins: []runner{}, IPs: e.IPs,
		MAC: e.MAC, Resource: e.Resource,
	}
	if strings.Contains(e.Name, "/") { // no CNI name has one
		n.NAD = e.Name
	}
	n.DefaultRoute, moved = routeOf(e, in.Config.SecondaryDefaultRoute)
	if e.Unknown {
		n.Network, n.Unknown = "", append(n.Unknown, unknownConfig)
	} else {
		n.readConf(e, in.Paths)
	}
	if e.IPs == nil && n.fromNode() {
		n.Unknown = append(n.Unknown, unknownAddresses)
	}
	if e.MAC == "" {
		n.Unknown = append(n.Unknown, unknownMAC)
	}
	if e.DeviceID != "" {
		n.Unknown = append(n.Unknown, unknownDevice)
	}
	return n, moved
}

// routeOf returns what becomes of the default route of a network.
func routeOf(e *resolve.Expected, policy string) (r defaultRoute, moved plan.Families) {
	asked := e.AskedFamilies()
	brings, err := e.DefaultRoutes()
	switch {
	case e.Default:
		return r, 0
	case asked != 0:
		return defaultRoute{State: routeAsked, Families: families(asked), Gateways: e.Gateways}, asked
	case err != nil || e.Unknown:
		return defaultRoute{State: routeUnknown}, 0
	case brings != 0 && policy == conf.TakeDefaultRoute:
		return defaultRoute{State: routeTaken, Families: families(brings)}, brings
	case brings != 0:
		return defaultRoute{State: routeLeftOut, Families: families(brings)}, 0
	case e.Execd && policy == conf.TakeDefaultRoute: // a binary may make one that is not to be seen
		return defaultRoute{State: routeUnknown}, 0
	}
	return defaultRoute{State: routeNone}, 0
}

// readConf reads the configuration: the plugins with their places, and the routes.
func (n *network) readConf(e *resolve.Expected, paths []string) {
	var list struct {
		CNIVersion string
		Plugins    []map[string]any
	}
	if json.Unmarshal(e.Conf, &list) != nil { // it was read before
		return
	}
	n.CNIVersion = list.CNIVersion
	places := e.Places
	for _, plugin := range list.Plugins {
		r := runner{Type: text(plugin["type"])}
		if len(places) > 0 {
			r.at(places[0], paths)
			places = places[1:]
		}
		ipam, _ := plugin["ipam"].(map[string]any)
		if kind := text(ipam["type"]); kind != "" {
			r.IPAM = &runner{Type: kind, Ranges: ranges(ipam)}
			if len(places) > 0 && places[0].IPAM {
				r.IPAM.at(places[0], paths)
				places = places[1:]
			}
		}
		n.Plugins = append(n.Plugins, r)
		for _, list := range []any{ipam["routes"], plugin["routes"], plugin["addroutes"]} {
			n.Routes = append(n.Routes, routes(list)...)
		}
	}
}

// at says where the plugin runs.
func (r *runner) at(p resolve.Place, paths []string) {
	switch {
	case failure.ReasonOf(p.Err) == failure.PluginNotFound:
		r.Runs, r.Searched = notFound, paths
	case p.Err != nil:
		r.Runs = isRefused
	case p.Execd:
		r.Runs, r.Path = aBinary, p.Path
	default:
		r.Runs = inProcess
	}
}

// fromNode reports whether the network has addresses, or may have, that the node chooses.
func (n *network) fromNode() bool {
	return n.Default && len(n.Plugins) == 0 || slices.Contains(n.Unknown, unknownConfig) ||
		slices.ContainsFunc(n.Plugins, func(r runner) bool {
			if r.IPAM == nil {
				return r.Runs == aBinary
			}
			return r.IPAM.Type != "static"
		})
}

// ranges returns what addresses are taken from, with the keys of host-local, static and
// whereabouts.
func ranges(value any) (all []string) {
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			all = append(all, ranges(element)...)
		}
	case map[string]any:
		for _, key := range []string{"subnet", "range", "address"} {
			if of := text(v[key]); of != "" {
				all = append(all, of+bounds(v))
			}
		}
		for _, key := range []string{"ranges", "ipRanges", "addresses"} {
			all = append(all, ranges(v[key])...)
		}
	}
	return all
}

// bounds returns the first and the last address of a range that are not those of its subnet.
func bounds(r map[string]any) string {
	first, last := text(r["rangeStart"])+text(r["range_start"]), text(r["rangeEnd"])+text(
		r["range_end"])
	switch {
	case first+last == "":
		return ""
	case last == "":
		return " (from " + first + ")"
	case first == "":
		return " (up to " + last + ")"
	}
	return " (" + first + " to " + last + ")"
}

// routes returns those of a list, without default routes.
func routes(list any) (all []route) {
	elements, _ := list.([]any)
	for _, element := range elements {
		r, _ := element.(map[string]any)
		dst := text(r["dst"])
		if p, err := netip.ParsePrefix(dst); dst != "" && (err != nil || p.Bits() > 0) {
			all = append(all, route{Dst: dst, GW: text(r["gw"])})
		}
	}
	return all
}

// text returns a string of a configuration; empty for what is none.
func text(value any) string {
	s, _ := value.(string)
	return s
}
