// Package v1alpha1 holds the wire types of ipam.braid-cni.io/v1alpha1: the blocks of addresses that
// nodes own. Wire types only: what a block means and who may change it is said by pkg/ipam/block.
//
// +kubebuilder:object:generate=true
// +groupName=ipam.braid-cni.io
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// GroupName and Version name the API; Resource is the plural under which blocks are served.
const (
	GroupName = "ipam.braid-cni.io"
	Version   = "v1alpha1"
	Resource  = "ipblocks"
	Kind      = "IPBlock"
)

// IPBlock is a run of addresses of a space. Cluster-scoped; its name says its space and its CIDR,
// so that creating the object is claiming the block. There is one size of block for each IP family,
// so that two blocks never overlap.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=ipb
// +kubebuilder:subresource:status
// +kubebuilder:selectablefield:JSONPath=.spec.space
// +kubebuilder:selectablefield:JSONPath=.spec.owner.nodeName
// +kubebuilder:selectablefield:JSONPath=.spec.recall.by
// +kubebuilder:printcolumn:name=Space,type=string,JSONPath=.spec.space
// +kubebuilder:printcolumn:name=CIDR,type=string,JSONPath=.spec.cidr
// +kubebuilder:printcolumn:name=Node,type=string,JSONPath=.spec.owner.nodeName,description="The node that gives the addresses away; none: each node does, in the object itself"
// +kubebuilder:printcolumn:name=Used,type=integer,JSONPath=.status.used
// +kubebuilder:printcolumn:name=Free,type=integer,JSONPath=.status.free
// +kubebuilder:printcolumn:name=Recalled-By,type=string,JSONPath=.spec.recall.by,priority=1
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=.metadata.creationTimestamp
type IPBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is written as a whole, and so is Status. That they are atomic says so to the API server,
	// which else stores with each object who wrote which field of them.
	//
	// +structType=atomic
	Spec IPBlockSpec `json:"spec"`
	// Status is for people.
	//
	// +structType=atomic
	Status IPBlockStatus `json:"status,omitempty"`
}

// IPBlockList is a list of blocks.
//
// +kubebuilder:object:root=true
type IPBlockList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []IPBlock `json:"items"`
}

// IPBlockSpec says which addresses a block has, and who gives them away.
type IPBlockSpec struct {
	// Space is the set of addresses that the block is of.
	//
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="space is immutable"
	Space string `json:"space"`
	// CIDR is the block, aligned.
	//
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="cidr is immutable"
	CIDR string `json:"cidr"`
	// Owner is the node whose own state says which addresses are in use. A block without an owner is
	// shared: Allocations says it.
	Owner *Node `json:"owner,omitempty"`
	// Recall asks the owner to give the block back, or to share it.
	Recall *Recall `json:"recall,omitempty"`
	// Allocations are the addresses in use of a shared block; empty while it has an owner.
	//
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=address
	Allocations []Allocation `json:"allocations,omitempty"`
}

// Node is a node as it was: one of the same name with another uid, or after a reboot, holds none of
// its addresses.
type Node struct {
	// NodeName is the name of the Node object.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	NodeName string `json:"nodeName"`
	// NodeUID is the uid of the Node object.
	NodeUID types.UID `json:"nodeUID"`
	// BootID names the boot in which the node last took up the block, and after a slash the claim by
	// which it did.
	BootID string `json:"bootID,omitempty"`
}

// Recall is the wish of a node that finds no free address elsewhere.
type Recall struct {
	// By is the name of the node.
	By string `json:"by"`
	// At is when it asked first.
	At metav1.Time `json:"at"`
}

// Allocation is an address of a shared block that is in use.
type Allocation struct {
	// Address has no prefix length.
	//
	// +kubebuilder:validation:MaxLength=45
	Address string `json:"address"`
	// Network is the name in the CNI configuration. It, the pod and its interface are empty where
	// Claim holds the address and no pod uses it.
	Network string `json:"network,omitempty"`
	// ContainerID is the runtime's, of the pod's sandbox.
	ContainerID string `json:"containerID,omitempty"`
	// IfName is the pod's interface.
	IfName string `json:"ifName,omitempty"`
	// Pod is "namespace/name".
	Pod string `json:"pod,omitempty"`
	// PodUID tells the pod from another of its name.
	PodUID types.UID `json:"podUID,omitempty"`
	// Node is where the container runs.
	Node *Node `json:"node,omitempty"`
	// Claim keeps the address beyond the life of a pod, as long as this IPAMClaim exists.
	Claim *Claim `json:"claim,omitempty"`
	// Second is another sandbox that uses the address of the claim, while a virtual machine
	// migrates from one to the other.
	Second *Sandbox `json:"second,omitempty"`
}

// Sandbox is an interface of a pod's sandbox.
type Sandbox struct {
	// Network is the name in the CNI configuration.
	Network string `json:"network"`
	// ContainerID is the runtime's, of the pod's sandbox.
	ContainerID string `json:"containerID"`
	// IfName is the pod's interface.
	IfName string `json:"ifName"`
	// Pod is "namespace/name".
	Pod string `json:"pod,omitempty"`
	// PodUID tells the pod from another of its name.
	PodUID types.UID `json:"podUID,omitempty"`
	// Node is where the container runs.
	Node *Node `json:"node,omitempty"`
}

// Claim is an IPAMClaim of k8s.cni.cncf.io/v1alpha1.
type Claim struct {
	// Namespace is the claim's, and its pod's.
	Namespace string `json:"namespace"`
	// Name is the claim's.
	Name string `json:"name"`
	// UID tells the claim from another of its name.
	UID types.UID `json:"uid"`
}

// IPBlockStatus is for people: it is written now and then, and decides nothing.
type IPBlockStatus struct {
	// Used counts the addresses that pods and claims have.
	Used int32 `json:"used"`
	// Free counts the others that pods can get.
	Free int32 `json:"free"`
}
