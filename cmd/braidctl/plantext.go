package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// String returns the plan for people.
func (p *planned) String() string {
	var b strings.Builder
	object := strings.ToLower(p.Kind) + " " + p.Namespace + "/" + p.Name
	if p.Where != "" {
		object += " (" + p.Where + ")"
	}
	fmt.Fprintln(&b, strictjson.Printable(object))
	for i := range p.Attachments {
		for at, line := range p.Attachments[i].lines() {
			indent := "    "
			if at == 0 {
				indent = "  "
			}
			fmt.Fprintln(&b, indent+strictjson.Printable(line))
		}
	}
	for _, f := range p.Findings {
		fmt.Fprintln(&b, f)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// lines describe an attachment; the first is its title.
func (n *network) lines() []string {
	var lines []string
	add := func(label, text string) {
		if text != "" {
			lines = append(lines, label+": "+text)
		}
	}
	add(n.Interface, n.title())
	if slices.Contains(n.Unknown, unknownConfig) {
		add("plugins", "unknown here, since the configuration is on the node")
	}
	for i := range n.Plugins {
		add("plugin "+n.Plugins[i].Type, n.Plugins[i].where())
		if ipam := n.Plugins[i].IPAM; ipam != nil {
			add("ipam "+ipam.Type, joined(append([]string{ipam.where()}, ipam.Ranges...)...))
		}
	}
	add("addresses", n.addresses())
	if n.MAC != "" {
		add("mac", n.MAC+", asked for")
	}
	for _, r := range n.Routes {
		add("route", strings.TrimSuffix(r.Dst+" via "+r.GW, " via "))
	}
	add("default route", n.DefaultRoute.String())
	add("device", n.device())
	return lines
}

// device is what is known of the device; empty if the network has none.
func (n *network) device() string {
	if n.Resource == "" {
		return ""
	}
	return "of " + n.Resource + "; which one, if any, the kubelet knows"
}

// addresses are those that the pod asks for; empty where none are to be expected.
func (n *network) addresses() string {
	switch {
	case len(n.IPs) > 0:
		return joined(n.IPs...) + ", asked for"
	case slices.Contains(n.Unknown, unknownAddresses):
		return onlyThere
	}
	return ""
}

// onlyThere is said of what only the node knows.
const onlyThere = "unknown until the node attaches it"

// title is what an attachment is, on the line of its interface.
func (n *network) title() string {
	var parts []string
	if n.Default {
		parts = append(parts, "default network")
	}
	for _, part := range [][2]string{
		{"NAD ", n.NAD}, {"network ", n.Network}, {"CNI ", n.CNIVersion},
	} {
		if part[1] != "" {
			parts = append(parts, part[0]+part[1])
		}
	}
	return joined(parts...)
}

// joined joins those that are not empty.
func joined(parts ...string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(parts), func(p string) bool {
		return p == ""
	}), ", ")
}

// where returns where the plugin runs.
func (r *runner) where() string {
	switch {
	case r.Path != "":
		return r.Path
	case r.Runs == aBinary:
		return "a binary of the node"
	case r.Runs == notFound:
		return "not found in " + strings.Join(r.Searched, " or ")
	case r.Runs == "":
		return "run by the plugin itself"
	}
	return r.Runs
}

// String is empty for none.
func (r defaultRoute) String() string {
	text := map[string]string{
		routeOwn: "this network's", routeAsked: "asked for", routeLeftOut: "left out",
		routeTaken:   "taken from the default network",
		routeUnknown: onlyThere,
	}[r.State]
	if text != "" && len(r.Families) == 1 {
		text += ", " + r.Families[0]
	}
	for _, gw := range r.Gateways {
		text += ", via " + gw.String()
	}
	return text
}
