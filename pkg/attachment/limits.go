package attachment

import (
	"net/netip"
	"path"
	"slices"
)

// Limits are what an attachment may do to its node. A nil *Limits is that of an operator's network,
// which may do all.
//
// Whatever has Limits is held to node safety: it changes no bridge and no link that is not its own,
// covers no route of the node, and takes no port of it. The lists are an operator's rules on top of
// that. A list that is nil allows everything that node safety does; an empty one allows nothing.
// Patterns are those of path.Match.
type Limits struct {
	// Namespace is that of the NAD: of who wrote the configuration.
	Namespace string `json:"namespace"`
	// Bridges are patterns of the bridges that may be joined, and made.
	Bridges []string `json:"bridges,omitzero"`
	// OwnBridges allows, besides Bridges, those that were made for Namespace, and making others.
	OwnBridges bool `json:"ownBridges,omitempty"`
	// Prefixes have the addresses of gateways and of pods. A gateway's prefix that is in one may be
	// of the internet.
	Prefixes []netip.Prefix `json:"prefixes,omitzero"`
	// HostPorts are those that portmap may map; nil for all.
	HostPorts *Ports `json:"hostPorts,omitempty"`
	// Masters are patterns of the links of the node that may be masters.
	Masters []string `json:"masters,omitzero"`
	// Sysctls are patterns of what tuning may write, as "net/ipv4/conf/IFNAME/*".
	Sysctls []string `json:"sysctls,omitzero"`
}

// Ports is a range of ports.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
	// Loopback is that they may be mapped on loopback addresses, too.
	Loopback bool `json:"loopback,omitempty"`
}

// MayJoin reports whether a bridge may be joined. owner is the namespace that it was made for,
// empty for none; absent is that there is no such bridge yet.
func (l *Limits) MayJoin(bridge, owner string, absent bool) bool {
	return l == nil || l.Bridges == nil || matches(l.Bridges, bridge) || l.OwnBridges && (absent || owner == l.Namespace)
}

// MayAddress reports whether addresses of a prefix may be those of gateways and pods. named is that
// a rule names them.
func (l *Limits) MayAddress(prefix netip.Prefix) (may, named bool) {
	if l == nil || l.Prefixes == nil {
		return true, l == nil
	}
	named = slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool {
		return p.Bits() <= prefix.Bits() && p.Contains(prefix.Addr())
	})
	return named, named
}

// MayMap reports whether a port of the node may be mapped.
func (l *Limits) MayMap(port uint16) bool {
	return l == nil || l.HostPorts == nil || port >= l.HostPorts.First && port <= l.HostPorts.Last
}

// MayMapLoopback reports whether ports may be mapped on loopback addresses.
func (l *Limits) MayMapLoopback() bool {
	return l == nil || l.HostPorts != nil && l.HostPorts.Loopback
}

// MayBeMaster reports whether a link that has these names may be a master.
func (l *Limits) MayBeMaster(names ...string) bool {
	return l == nil || l.Masters == nil || slices.ContainsFunc(names, func(n string) bool { return matches(l.Masters, n) })
}

// MayWrite reports whether a sysctl may be written. Its name has slashes, and IFNAME for the
// interface's.
func (l *Limits) MayWrite(sysctl string) bool {
	return l == nil || l.Sysctls == nil || matches(l.Sysctls, sysctl)
}

// matches reports whether one of the patterns matches. One that is malformed matches nothing.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { ok, err := path.Match(p, name); return ok && err == nil })
}
