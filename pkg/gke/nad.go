package gke

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// CheckNetwork returns what of a NAD's configuration is in the way of the cluster: addresses that
// are those of pods or services. where names the file and the NAD. A configuration that cannot be
// read is for lint to tell.
func (c *Cluster) CheckNetwork(where, config string) (problems []Problem) {
	list, err := netconf.Parse([]byte(config))
	if err != nil {
		return nil
	}
	walk("spec.config", json.RawMessage(list.Bytes()), func(field string, p netip.Prefix) {
		for _, of := range c.ranges() {
			if p.Overlaps(of.cidr) {
				problems = append(problems, Problem{
					File: where, Field: field,
					Message: fmt.Sprintf("%s overlaps with %s of the cluster, %s", p, of.key, of.cidr),
					Fix:     "use a range of the network that shares no address with those of pods and services",
				})
			}
		}
	})
	return problems
}

// sources returns the keys of IPAM plugins that have addresses for pods.
func sources() []string { return []string{"subnet", "range", "address"} }

// walk calls each for the addresses that a configuration gives to pods, at whatever depth.
func walk(field string, raw json.RawMessage, each func(string, netip.Prefix)) {
	switch strictjson.Kind(raw) {
	case "a list":
		for i, element := range strictjson.Elements(raw) {
			walk(fmt.Sprintf("%s[%d]", field, i), element, each)
		}
	case "an object":
		for _, m := range strictjson.Members(raw) {
			at := field + "." + strictjson.Label(m.Key)
			text, err := strictjson.String(m.Value)
			if err != nil {
				walk(at, m.Value, each)
				continue
			}
			if slices.Contains(sources(), strictjson.Fold(m.Key)) {
				if p, ok := prefixOf(text); ok {
					each(at, p)
				}
			}
		}
	}
}

// prefixOf reads a prefix, an address, or the form "first-last/length" of whereabouts.
func prefixOf(text string) (netip.Prefix, bool) {
	if first, rest, ok := strings.Cut(text, "-"); ok {
		if _, bits, ok := strings.Cut(rest, "/"); ok {
			text = strings.TrimSpace(first) + "/" + bits
		}
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), true
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr, addr.BitLen()), true
}
