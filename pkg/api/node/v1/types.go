// Package v1 holds what Braid's agent says of its node in the core/v1 Node object. Data only:
// nothing here reads, validates or decides.
package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

const (
	// Ready is the type of the node's condition: pods of this node get their networks.
	Ready = "BraidReady"
	// Uninstalled is the condition's reason when Braid was taken off the node.
	Uninstalled = "Uninstalled"
	// Silent is the condition's reason when the agent has not been heard of for long.
	Silent = "AgentSilent"
	// StartupTaint keeps pods off a node until they get their networks there, if an operator has
	// nodes come up with it.
	StartupTaint = "braid-cni.io/agent-not-ready"
	// ReportAnnotation of a Node holds a Report, as JSON.
	ReportAnnotation = "braid-cni.io/agent"
	// InterfacesAnnotation of a Node holds its Interfaces, a list as JSON; a node without such has no
	// annotation.
	InterfacesAnnotation = "braid-cni.io/node-interfaces"
	// InterfacesInvalid is the State of an Interface without network, whose Message says why the
	// configuration of the node's interfaces is not taken.
	InterfacesInvalid = "Invalid"
)

// Condition is a core/v1 NodeCondition.
type Condition struct {
	Type   string                 `json:"type"`
	Status metav1.ConditionStatus `json:"status"`
	// Reason is CamelCase; Message is for people.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// LastHeartbeatTime is when the agent said so last; LastTransitionTime when it said something
	// else before.
	LastHeartbeatTime  metav1.Time `json:"lastHeartbeatTime"`
	LastTransitionTime metav1.Time `json:"lastTransitionTime"`
}

// Report is what an agent knows of its node that no other object says.
type Report struct {
	// Version is the agent's.
	Version string `json:"version"`
	// Config is the path of Braid's configuration file; Before are the files in the same directory
	// that a runtime would take in its place.
	Config string   `json:"config,omitempty"`
	Before []string `json:"before,omitempty"`
	// DefaultNetwork is the file of the default network.
	DefaultNetwork string `json:"defaultNetwork,omitempty"`
	// CredentialExpires is the end of the CNI binary's credential.
	CredentialExpires metav1.Time `json:"credentialExpires,omitzero"`
	// Unattached are pods, "namespace/name", that ask for networks and were started without Braid.
	Unattached []string `json:"unattached,omitempty"`
	// Others are the numbers of pods that other meta plugins made, by the names of their
	// configurations. What made them has to stay on the node until they are gone.
	Others map[string]int `json:"others,omitempty"`
	// Owed is the number of attachments of pods that are gone whose plugins refuse to remove them.
	Owed int `json:"owed,omitempty"`
	// Fallbacks are the numbers of calls, since the agent's start, that the CNI plugin did without
	// it, by the reason.
	Fallbacks map[string]int `json:"fallbacks,omitempty"`
	// Warnings are sentences about what an operator should see to.
	Warnings []string `json:"warnings,omitempty"`
	// Interfaces are in an annotation of their own.
	Interfaces []Interface `json:"-"`
}

// Interface is how the node is connected to a network beyond that of its primary interface.
type Interface struct {
	Network string `json:"network"`
	// Type is "static" or "dhcp".
	Type string `json:"type"`
	// Interface is the name of the NIC, MAC its address; empty while it is not known which it is.
	Interface string `json:"interface,omitempty"`
	MAC       string `json:"mac,omitempty"`
	// Addresses have the lengths of their subnets.
	Addresses []string `json:"addresses,omitempty"`
	// State is "Ready", "Pending", "Absent", "NoCarrier" or "Failed", or InterfacesInvalid; Message
	// says why.
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
}
