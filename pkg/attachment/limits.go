package attachment

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/weaken"
)

// Limits are what an attachment may do to its node. A nil *Limits is that of an operator's network,
// which may do all.
//
// Whatever has Limits is held to node safety: it changes no bridge and no link that is not its own,
// covers no route of the node, and takes no port of it. The lists are an operator's rules on top of
// that. A list that is nil allows everything that node safety does; an empty one allows nothing.
// In patterns "*" is any text.
type Limits struct {
	// Namespace is the namespace of the NAD: of who wrote the configuration.
	Namespace string `json:"namespace"`
	// Name is the network's name as it was written, where it has another one now: Own's.
	Name string `json:"name,omitempty"`
	// Foreign are names that were written and are another namespace's own: under them the network
	// has never had anything.
	Foreign []string `json:"foreign,omitempty"`
	// Bridges are patterns of the bridges that may be joined, and made.
	Bridges []string `json:"bridges,omitzero"`
	// OwnBridges allows, besides Bridges, those that were made for Namespace, and making others.
	OwnBridges bool `json:"ownBridges,omitempty"`
	// SpoofCheck has bridges check what MAC a pod sends with where the configuration does not say.
	SpoofCheck bool `json:"spoofCheck,omitempty"`
	// Prefixes have the addresses of gateways and of pods. A gateway's prefix that is in one may be
	// of the internet.
	Prefixes []netip.Prefix `json:"prefixes,omitzero"`
	// HostPorts are the ports of the node that portmap may map. LoopbackPorts allows them on loopback
	// addresses, too.
	HostPorts     []Ports `json:"hostPorts,omitzero"`
	LoopbackPorts bool    `json:"loopbackPorts,omitempty"`
	// Masters are patterns of the links of the node that may be masters.
	Masters []string `json:"masters,omitzero"`
}

// Ports is a range of ports.
type Ports struct {
	First uint16 `json:"first"`
	Last  uint16 `json:"last"`
}

// MayJoin reports whether a bridge may be joined. owner is the namespace that it was made for,
// empty for none; absent is that there is no such bridge yet.
func (l *Limits) MayJoin(bridge, owner string, absent bool) bool {
	return l == nil || l.Bridges == nil || matches(l.Bridges, bridge) ||
		l.OwnBridges && (absent || owner == l.Namespace)
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
	return l == nil || l.HostPorts == nil || weaken.Off(weaken.HostPorts) ||
		slices.ContainsFunc(l.HostPorts, func(p Ports) bool {
			return port >= p.First && port <= p.Last
		})
}

// MayMapLoopback reports whether ports may be mapped on loopback addresses.
func (l *Limits) MayMapLoopback() bool {
	return l == nil || l.LoopbackPorts || weaken.Off(weaken.Loopback)
}

// MayBeMaster reports whether a link that has these names may be a master.
func (l *Limits) MayBeMaster(names ...string) bool {
	return l == nil || l.Masters == nil || weaken.Off(weaken.Masters) ||
		slices.ContainsFunc(names, func(n string) bool {
			return matches(l.Masters, n)
		})
}

// matches reports whether one of the patterns matches the whole name.
func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, name) })
}

func match(pattern, name string) bool {
	before, after, star := strings.Cut(pattern, "*")
	rest, ok := strings.CutPrefix(name, before)
	if !star || !ok {
		return ok && rest == ""
	}
	for i := range len(rest) + 1 {
		if match(after, rest[i:]) {
			return true
		}
	}
	return false
}
