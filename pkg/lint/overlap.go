package lint

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/resolve"
)

// Overlap is the reason of a warning of two namespaces that may give one address twice.
const Overlap failure.Reason = "AddressOverlap"

// source is a range that a network gets addresses from. Only its namespace knows what is in use.
type source struct {
	nad *NAD
	// name is the name of the network or of its space, link what it is on with its VLAN.
	name, link string
	prefix     netip.Prefix
}

// apartOf returns the sources of a NAD whose names are its namespace's own.
func apartOf(nad *NAD, e *resolve.Expected) (sources []source) {
	if e.Limits == nil || nad.Namespace != e.Limits.Namespace {
		return nil
	}
	var chain struct{ Plugins []addressed }
	if json.Unmarshal(e.Conf, &chain) != nil {
		return nil // a plugin will say so
	}
	for _, p := range chain.Plugins {
		link, name := p.link(), p.space(e.Network)
		if link == "" || attachment.Owner(name) != nad.Namespace {
			continue
		}
		for _, prefix := range p.prefixes() {
			sources = append(sources, source{nad, name, link, prefix})
		}
	}
	return sources
}

// addressed is as much of a plugin's configuration as says which addresses it has, and where.
type addressed struct {
	Type, Master, Bridge string
	VLAN                 json.RawMessage `json:"vlan"`
	VLANID               json.RawMessage `json:"vlanId"`
	IPAM                 struct {
		Type, Subnet, Range string
		NetworkName         string                      `json:"network_name"`
		Ranges              [][]struct{ Subnet string } `json:"ranges"`
		IPRanges            []struct{ Range string }    `json:"ipRanges"`
	}
}

// link names the link of the node that the plugin is on, with its VLAN; empty if it is on none.
func (p *addressed) link() string {
	link := p.Master
	if p.Type == "bridge" {
		link = cmp.Or(p.Bridge, "cni0")
	}
	if vlan := cmp.Or(string(p.VLANID), string(p.VLAN)); vlan != "" && link != "" {
		link += " VLAN " + vlan
	}
	return link
}

// space returns the name by which addresses are kept apart: that of the network, unless whereabouts
// has one of its own.
func (p *addressed) space(network string) string {
	if p.IPAM.Type == "whereabouts" {
		return p.IPAM.NetworkName
	}
	return network
}

// prefixes returns the ranges of all IPAM plugins' keys. What cannot be read is left out.
func (p *addressed) prefixes() (prefixes []netip.Prefix) {
	texts := []string{p.IPAM.Subnet, p.IPAM.Range}
	for _, set := range p.IPAM.Ranges {
		for _, r := range set {
			texts = append(texts, r.Subnet)
		}
	}
	for _, r := range p.IPAM.IPRanges {
		texts = append(texts, r.Range)
	}
	for _, text := range texts {
		if prefix, ok := prefixOf(text); ok {
			prefixes = append(prefixes, prefix)
		}
	}
	return prefixes
}

// prefixOf reads a prefix, or the one of a range "first-last/length".
func prefixOf(text string) (netip.Prefix, bool) {
	if first, rest, ranged := strings.Cut(text, "-"); ranged {
		_, bits, _ := strings.Cut(rest, "/")
		text = first + "/" + bits
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err == nil
}

// overlap is two sources that may give one address twice.
type overlap struct {
	nad         *NAD
	one, second source
}

// overlaps returns those of NADs of two namespaces, each pair of NADs once.
func (c *checker) overlaps() (found []overlap) {
	said := map[[2]*NAD]bool{}
	for i, a := range c.apart {
		for _, b := range c.apart[:i] {
			if a.nad.Namespace == b.nad.Namespace || a.link != b.link || !a.prefix.Overlaps(b.prefix) ||
				said[[2]*NAD{a.nad, b.nad}] {
				continue
			}
			said[[2]*NAD{a.nad, b.nad}] = true
			found = append(found, overlap{a.nad, a, b})
		}
	}
	return found
}

// failure says what is wrong, and what would separate the two.
func (o overlap) failure() *failure.Error {
	return &failure.Error{
		Reason: Overlap,
		Err: fmt.Errorf("addresses of %s on %s are those of %s, too, which has %s there: neither knows "+
			"what the other has given",
			o.one.prefix, o.one.link, keyOf(o.second.nad), o.second.prefix),
		Fix: fmt.Sprintf(
			`have rules of their own for %s and %s whose "prefixes", "masters" or "vlans" have nothing `+
				`in common, or have them share what is given by "names": ["%s"] in the rule for %s, and `+
				`that name in its NAD`,
			o.one.nad.Namespace, o.second.nad.Namespace, o.second.name, o.one.nad.Namespace),
	}
}
