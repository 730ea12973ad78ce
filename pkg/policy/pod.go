package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/selection"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Pod is what a pod asks for in its annotations.
type Pod struct {
	// Networks are how many it asks for.
	Networks int
	// Requests are what it asks of them.
	Requests []Request
}

// Request is what a pod asks of one network.
type Request struct {
	// IfName is the pod's interface.
	IfName string
	// Shared is true if the network is its default network, and one of the namespace from which every
	// pod may choose that.
	Shared       bool
	PortMappings []selection.PortMapping
	// CNIArgs are the values for args.cni.
	CNIArgs map[string]json.RawMessage
}

// PodViolation is a violation by a pod.
type PodViolation struct {
	Violation

	// Request is the index of the request that it is about, -1 for all of them.
	Request int
}

// JudgePod returns all violations of a rule by a pod's requests.
func JudgePod(rule *Rule, p *Pod) (found []PodViolation) {
	if rule.All {
		return nil
	}
	if p.Networks > rule.Networks {
		j := judge{rule: rule}
		j.add("", "networks", raise(func(r *Rule) *int { return &r.Networks }, p.Networks),
			"the pod asks for %s, the limit is %d", failure.Count(p.Networks, "network"), rule.Networks)
		found = append(found, PodViolation{j.found[0], -1})
	}
	for i := range p.Requests {
		for _, v := range p.Requests[i].judge(rule) {
			found = append(found, PodViolation{v, i})
		}
	}
	return found
}

// judge judges what a pod asks for beside its networks.
func (r *Request) judge(rule *Rule) []Violation {
	j := judge{rule: rule, network: &Network{IfName: r.IfName}}
	if r.Shared && !rule.DefaultNetworks {
		j.add("", "defaultNetworks", func(r *Rule) { r.DefaultNetworks = true },
			"the pod takes another default network than the node's, which is not allowed")
	}
	for i, m := range r.PortMappings {
		j.port(fmt.Sprintf("portMappings[%d].hostPort", i), m.HostPort)
		j.hostIP(fmt.Sprintf("portMappings[%d].hostIP", i), m.HostIP)
	}
	for _, key := range slices.Sorted(maps.Keys(r.CNIArgs)) {
		if strictjson.Fold(key) == "sysctl" {
			j.sysctls("cni-args."+strictjson.Label(key), r.CNIArgs[key])
		}
	}
	return j.found
}
