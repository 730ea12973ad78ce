// Package uplink knows which links of a node the node lives by, and keeps tenants from taking them.
//
// Contract: it changes nothing. A Node is what the links and routes were at one moment. The uplinks
// are those that a default route of whatever table leads to, and all that these are built on or are
// part of: the slaves of a bond, the ports of a bridge, the link below a VLAN.
package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/weaken"
)

// Node is the links of a node.
type Node struct {
	host    *nl.Handle
	links   []*nl.Link
	routes  []nl.Exact
	uplinks map[int]bool
}

// Look looks at a node.
func Look(ctx context.Context, host *nl.Handle) (*Node, error) {
	n := &Node{host: host, uplinks: map[int]bool{}}
	if weaken.Off(weaken.Links) {
		return n, nil
	}
	var err error
	if n.links, err = host.Links(ctx); err != nil {
		return nil, err
	}
	if n.routes, err = host.ExactRoutes(ctx); err != nil {
		return nil, err
	}
	for _, r := range n.routes {
		// Two halves stand in for a default route where a tunnel covers it.
		if r.Unicast() && r.Dst.Bits() <= 1 {
			for _, index := range r.Links() {
				n.mark(index)
			}
		}
	}
	return n, nil
}

// mark marks a link as an uplink, with all that belongs to it.
func (n *Node) mark(index int) {
	link := n.byIndex(index)
	if link == nil || link.Loopback || n.uplinks[index] {
		return
	}
	n.uplinks[index] = true
	n.mark(link.MasterIndex)
	if !link.ParentElsewhere {
		n.mark(link.ParentIndex)
	}
	for _, port := range n.links {
		if port.MasterIndex == index {
			n.mark(port.Index)
		}
	}
}

// byIndex returns a link; nil for none.
func (n *Node) byIndex(index int) *nl.Link {
	i := slices.IndexFunc(n.links, func(l *nl.Link) bool { return l.Index == index })
	if i < 0 {
		return nil
	}
	return n.links[i]
}

// Uplink reports whether the node lives by a link, by index.
func (n *Node) Uplink(index int) bool { return n.uplinks[index] }

// Use returns what the node or others use a link for; it is empty for one that may be moved into a
// pod.
func (n *Node) Use(ctx context.Context, link *nl.Link) (string, error) {
	if use := n.useAmongLinks(link); use != "" {
		return use, nil
	}
	addrs, err := n.host.Addrs(ctx, link.Index)
	if err != nil {
		return "", err
	}
	for _, a := range addrs {
		if !PerLink(a.Prefix) {
			return fmt.Sprintf("the node has the address %s on it", a.Prefix), nil
		}
	}
	for _, r := range n.routes {
		if slices.Contains(r.Links(), link.Index) && !PerLink(r.Dst) {
			return fmt.Sprintf("the node has the route %s by it", r.Dst), nil
		}
	}
	return "", nil
}

// useAmongLinks is Use as far as the links themselves tell it.
func (n *Node) useAmongLinks(link *nl.Link) string {
	switch {
	case n.Uplink(link.Index):
		return "the node's default route needs it"
	case link.Loopback:
		return "it is the loopback link"
	case link.MasterIndex != 0:
		return "it is part of " + n.nameOf(link.MasterIndex)
	case shared(link.Kind):
		return "it is of kind " + link.Kind
	case link.Kind == "veth" && link.ParentElsewhere:
		return "its other end is in another network namespace"
	}
	i := slices.IndexFunc(n.links, func(other *nl.Link) bool { return isOn(other, link) })
	if i >= 0 {
		return n.links[i].Name + " is built on it"
	}
	return ""
}

// isOn reports whether a link needs another: as its port, or as a link that is made on it. The ends
// of a veth have each other for parent.
func isOn(link, below *nl.Link) bool {
	return link.MasterIndex == below.Index ||
		link.Kind != "veth" && !link.ParentElsewhere && link.ParentIndex == below.Index
}

// nameOf names a link, by index, for messages.
func (n *Node) nameOf(index int) string {
	if link := n.byIndex(index); link != nil {
		return link.Name
	}
	return fmt.Sprintf("the link with index %d", index)
}

// Moved returns an uplink that is not where it was when the node was looked at before; nil for
// none.
func (n *Node) Moved(before *Node) *nl.Link {
	for _, link := range before.links {
		now := n.byIndex(link.Index)
		if before.Uplink(link.Index) && (now == nil || now.MasterIndex != link.MasterIndex) &&
			!passing(link) {
			return link
		}
	}
	return nil
}

// passing reports whether a link comes and goes with pods: their ends that are ports of an uplink
// that is a bridge.
func passing(link *nl.Link) bool { return link.Kind == "veth" && link.MasterIndex != 0 }

// shared reports whether links of a kind are there for others: for ports, for a whole network, for
// what else is built on them.
func shared(kind string) bool {
	return slices.Contains([]string{
		"bridge", "bond", "team", "vrf", "openvswitch", "vxlan", "geneve", "gre", "gretap", "ip6gre",
		"ip6gretap", "erspan", "ipip", "sit", "ip6tnl",
		"vti", "vti6", "xfrm", "wireguard",
	}, kind)
}

// PerLink reports whether each link that is up has an address or a route of this prefix, which
// tells nothing: multicast and link-local IPv6 ones.
func PerLink(p netip.Prefix) bool {
	addr := p.Addr()
	return p.Bits() > 0 && (addr.IsMulticast() || addr.Is6() && addr.IsLinkLocalUnicast())
}
