// Package policy judges what the networks and the pods of a namespace may have: which plugins,
// whose links, VLANs, bridges, addresses, ports and parameters, and how many networks.
//
// An operator writes rules, and what a rule leaves out has the tenant's default, which lets nobody
// take what is the node's. The first rule that names a namespace decides there.
//
// Contract: pure: no I/O, no clock, equal input, equal output. Judge and JudgePod return all
// that a rule does not allow, each with its field, the key of the rule, and how the rule would have
// to be changed; Amend makes that change. What needs the kernel (routes, listening ports, the owner
// of a bridge) is not judged here: a plugin asks that of the node when it acts.
package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// TenantLabel is the label of a namespace, of any value, whose networks the tenant's default is
// enforced for.
const TenantLabel = "braid-cni.io/tenant"

// Rule is what the networks and the pods of some namespaces may have. Names and patterns may have
// "*" for any text.
type Rule struct {
	// Namespaces are the namespaces that the rule is for.
	Namespaces []string
	// All lifts everything: the other keys do not count.
	All bool
	// Types are the plugins that may run, at every depth, as Braid has them built in: nothing is
	// exec'd, and keys that the built-in plugin does not know are refused.
	Types []string
	// Exec are the plugins that may be binaries, too.
	Exec []string
	// Masters are the links that may be a master. "*" is also that of the default route. One that a
	// network takes for itself has to be named whole.
	Masters []string
	// VLANs are the VLANs that macvlan, ipvlan and bridge may use.
	VLANs []Span
	// Bridges are the bridges that may be joined or made. Nil is for those that Braid made for the
	// namespace, which the plugin finds out.
	Bridges []string
	// Spoofing allows networks of bridge that do not check what MAC a pod sends with.
	Spoofing bool
	// Prefixes are the prefixes that addresses and gateways may be of. Nil is for what overlaps no
	// route of the node, which the plugin finds out.
	Prefixes []netip.Prefix
	// HostPorts are the ports of the node that pods may ask for.
	HostPorts HostPorts
	// Sysctls are the parameters that tuning may write, with IFNAME for the pod's interface.
	Sysctls []string
	// OnDisk allows NADs without a configuration, which is then the operator's file of that name.
	OnDisk bool
	// DefaultNetworks allows the pod NADs of multusNamespace as its default network.
	DefaultNetworks bool
	// Names are the networks, and the spaces of whereabouts, that keep the name that is written: they
	// are shared with whoever uses that name. All others are the namespace's own, see attachment.Own.
	Names []string
	// Networks and Ranges bound the networks of a pod, and the ranges that an attachment's addresses
	// come from. Addresses bounds those that the namespace's networks have on each node.
	Networks, Ranges, Addresses int
}

// Unlimited is Addresses of a rule that does not bound them.
const Unlimited = maxNumber

// HostPorts are ports of the node.
type HostPorts struct {
	Ports []Span `json:"ports"`
	// Loopback allows those of the loopback addresses.
	Loopback bool `json:"loopback"`
}

// Default returns the tenant's default.
func Default() Rule {
	return Rule{
		Types:     tenantTypes(),
		HostPorts: HostPorts{Ports: []Span{{From: 1024, To: maxPort}}},
		Sysctls:   ownSysctls(),
		Networks:  16, Ranges: 4, Addresses: Unlimited,
	}
}

// tenantTypes returns the built-in plugins that tenants may use.
func tenantTypes() []string {
	return []string{
		"bridge", "host-local", "ipvlan", "macvlan", "portmap", "sbr", "static", "tuning", "whereabouts",
	}
}

// builtIn returns all of Braid's own plugins.
func builtIn() []string { return append(tenantTypes(), "passthru") }

// ownSysctls returns the parameters of the pod's own interface.
func ownSysctls() []string {
	return []string{
		"net.ipv4.conf.IFNAME.*", "net.ipv4.neigh.IFNAME.*", "net.ipv6.conf.IFNAME.*",
		"net.ipv6.neigh.IFNAME.*",
	}
}

// Policy is all rules of a node.
type Policy struct {
	Rules []Rule
	// Enforce has the tenant's default enforced in every namespace that no rule names.
	Enforce bool
	// Operators are the namespaces whose networks and pods are the operator's. A rule is for one of
	// them only if it has its whole name.
	Operators []string
}

// Effect is what becomes of a violation.
type Effect string

// The effects.
const (
	Free    Effect = "free"    // there is none: the namespace is the operator's
	Enforce Effect = "enforce" // what a rule does not allow is refused
	// Audit lets it pass with a warning, unless the namespace has TenantLabel.
	Audit Effect = "audit"
)

// Decision is the rule for a namespace.
type Decision struct {
	*Rule
	// Name is the name of the rule in messages.
	Name   string
	Effect Effect
}

// Of returns the rule for a namespace.
func (p *Policy) Of(namespace string) Decision {
	operators := slices.Contains(p.Operators, namespace)
	for i := range p.Rules {
		if p.Rules[i].names(namespace, operators) {
			return Decision{&p.Rules[i], fmt.Sprintf("policy[%d]", i), Enforce}
		}
	}
	def := Default()
	switch {
	case operators:
		return Decision{&Rule{All: true}, "", Free}
	case p.Enforce:
		return Decision{&def, TenantDefault, Enforce}
	}
	return Decision{&def, TenantDefault, Audit}
}

// TenantDefault is the name of the default in messages.
const TenantDefault = "tenant's default"

// Keeps reports whether a name of a network or a space, empty for that of networks without a
// network_name, stays as it is written.
func (r *Rule) Keeps(name string) bool {
	return r.All || anyMatches(r.Names, cmp.Or(name, "default"))
}

// names reports whether the rule is for a namespace.
func (r *Rule) names(namespace string, whole bool) bool {
	return slices.ContainsFunc(r.Namespaces, func(pattern string) bool {
		return pattern == namespace || !whole && matches(pattern, namespace)
	})
}

// matches reports whether a text is of a pattern, in which "*" stands for any text.
func matches(pattern, text string) bool {
	first, rest, more := strings.Cut(pattern, "*")
	if !more {
		return pattern == text
	}
	if !strings.HasPrefix(text, first) {
		return false
	}
	text = text[len(first):]
	for {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text, rest = text[at+len(part):], after
	}
}

func anyMatches(patterns []string, text string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, text) })
}
