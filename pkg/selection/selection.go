// Package selection reads the networks annotation of a pod (NPWG v1.3 s.4.1): both forms, the
// comma-separated one and the JSON list, into one list of Selections.
//
// Contract: pure. Parse accepts exactly what the specification allows, plus the "@interface" suffix
// that Multus added to the short form. Where the specification lets an implementation ignore an
// invalid annotation, Parse fails: a pod that starts without a network that it asked for is worse
// than one that does not start. Keys match in exact case, null is as good as an absent key, and a
// key that is given twice is an error. A key that is not known is ignored with a warning, as Multus
// ignores it, unless it looks like a slip of a known one. Every error is a *failure.Error of reason
// InvalidAnnotation that quotes the offending element and says what is allowed. It is the only
// parser of the annotation: the engine, the webhook and the CLI share it.
package selection

import (
	"encoding/json"
	"net/netip"

	"github.com/braid-cni/braid/pkg/failure"
)

// Selection is one element of the annotation: one attachment that the pod asks for.
type Selection struct {
	// Namespace of the NAD, a DNS-1123 label; the pod's where the annotation names none.
	Namespace string
	// Name of the NAD: DNS-1123 labels, separated by dots.
	Name string
	// Interface is the wished name in the pod; empty lets the plan choose net1, net2, ... by position.
	Interface string
	// IPs as written: an address with or without a prefix length each; go to runtimeConfig.ips.
	IPs []string
	// MAC as written, six bytes.
	MAC string
	// InfinibandGUID as written, eight bytes.
	InfinibandGUID string
	// CNIArgs is passed as args.cni to every plugin of the chain; values as written. Nil where not
	// given.
	CNIArgs map[string]json.RawMessage
	// PortMappings go to runtimeConfig.portMappings; protocol is lower case, "tcp" where none is
	// named.
	PortMappings []PortMapping
	// Bandwidth goes to runtimeConfig.bandwidth; each of its rates has a burst.
	Bandwidth *Bandwidth
	// DefaultRoute is nil where not asked for; a non-nil, possibly empty list asks for the default
	// route through this attachment, by the given gateways or, where it is empty, by the network's
	// own.
	DefaultRoute []netip.Addr
	// IPAMClaim names an IPAMClaim object in the pod's namespace; never together with IPs.
	IPAMClaim string
	// Warnings are of reason IgnoredKey: keys of the element that have no effect, each by its place
	// in the annotation.
	Warnings []*failure.Error
}

// PortMapping is one element of runtimeConfig.portMappings (CNI conventions).
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

// Bandwidth is runtimeConfig.bandwidth: rates in bits per second, bursts in bits; zero means
// absent.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}
