package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// pool is what a plugin takes addresses from that are unique in the cluster.
type pool struct {
	// space is what its addresses are unique in.
	space  string
	subnet netip.Prefix
	// gateway is not valid where there is none.
	gateway netip.Addr
}

// ipamConf is as much of the configuration of whereabouts as says what a network has in common with
// others.
type ipamConf struct {
	Type        string
	NetworkName string `json:"network_name"`
	Gateway     string
	Overlapping *bool `json:"enable_overlapping_ranges"`
	Range       string
	IPRanges    []struct{ Range string }
}

// isShared reports whether no two networks of a space may have the same address.
func (c *ipamConf) isShared() bool {
	return c.Type == "whereabouts" && (c.Overlapping == nil || *c.Overlapping)
}

// pools are those of a network. What cannot be read is left out: it is judged elsewhere.
func pools(nad *nadv1.NetworkAttachmentDefinition) (all []pool) {
	type plugin struct{ IPAM json.RawMessage }
	var conf struct {
		plugin
		Plugins []plugin
	}
	if json.Unmarshal([]byte(nad.Spec.Config), &conf) != nil {
		return nil
	}
	for _, p := range append(conf.Plugins, conf.plugin) {
		var ipam ipamConf
		if json.Unmarshal(p.IPAM, &ipam) != nil || !ipam.isShared() {
			continue
		}
		for _, r := range append(ipam.IPRanges, struct{ Range string }{ipam.Range}) {
			if subnet, ok := subnetOf(r.Range); ok {
				gateway, _ := netip.ParseAddr(ipam.Gateway) //nolint:errcheck // then it has none
				all = append(all, pool{ipam.NetworkName, subnet, gateway})
			}
		}
	}
	return all
}

// subnetOf is the subnet of a range, "CIDR" or "first-last/length".
func subnetOf(text string) (netip.Prefix, bool) {
	if first, rest, isRange := strings.Cut(text, "-"); isRange {
		_, length, _ := strings.Cut(rest, "/")
		text = first + "/" + length
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err == nil
}

// warnSpace warns of NADs whose addresses come from the same space and that do not agree on it. It
// is a guess: they may be meant so.
func (r *review) warnSpace(ctx context.Context, nad *nadv1.NetworkAttachmentDefinition) {
	mine := pools(nad)
	if len(mine) == 0 {
		return
	}
	nads, err := r.source.NADs(ctx)
	if err != nil {
		return
	}
	for i := range nads {
		if nads[i].Namespace == nad.Namespace && nads[i].Name == nad.Name {
			continue
		}
		if what := disagreement(mine, pools(&nads[i])); what != "" {
			r.warn(&failure.Error{
				Reason: failure.NADInvalid, Field: "ipam.range",
				Err: fmt.Errorf("NAD %s/%s %s", nads[i].Namespace, nads[i].Name, what),
				Fix: "give both the same range and gateway, or, if they are different networks, each a " +
					"network_name of its own",
			})
			return
		}
	}
}

// disagreement says what of other pools does not go with these first; empty if all do.
func disagreement(mine, others []pool) string {
	for _, other := range others {
		for _, p := range mine {
			if what := p.disagrees(other); what != "" {
				return what
			}
		}
	}
	return ""
}

// disagrees says what of another pool does not go with this one; empty if it does.
func (p pool) disagrees(other pool) string {
	switch {
	case p.space != other.space || !p.subnet.Overlaps(other.subnet):
		return ""
	case p.subnet != other.subnet:
		return fmt.Sprintf("has the range %s, which overlaps %s", other.subnet, p.subnet)
	case p.gateway.IsValid() && other.gateway.IsValid() && p.gateway != other.gateway &&
		p.gateway.Is4() == other.gateway.Is4():
		return fmt.Sprintf("has the same range with the gateway %s, and gives %s to pods",
			other.gateway, p.gateway)
	}
	return ""
}
