// Package v1alpha1 holds the wire types of k8s.cni.cncf.io/v1alpha1: the IPAMClaim, which keeps
// addresses beyond the life of a pod. Source: "Kubernetes Network Custom Resource Definition
// De-facto Standard" v1.3 of the Network Plumbing Working Group, s.4.1.2.1.11.
package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GroupName and Version name the API; Resource is the plural under which claims are served.
const (
	GroupName = "k8s.cni.cncf.io"
	Version   = "v1alpha1"
	Resource  = "ipamclaims"
	Kind      = "IPAMClaim"
)

// IPAMClaim keeps the addresses of one interface of a pod on one network until the claim is
// deleted. Namespaced.
type IPAMClaim struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   IPAMClaimSpec   `json:"spec,omitempty"`
	Status IPAMClaimStatus `json:"status,omitempty"`
}

// IPAMClaimSpec says what the addresses are for.
type IPAMClaimSpec struct {
	Network   string `json:"network"`
	Interface string `json:"interface"`
	// IPRequests are wished for, in CIDR form.
	IPRequests []string `json:"ipRequests,omitempty"`
}

// IPAMClaimStatus says what was given.
type IPAMClaimStatus struct {
	// IPs are in CIDR form.
	IPs []string `json:"ips,omitempty"`
	// OwnerPod is the name of the pod that uses the claim now. The schema demands it beside IPs.
	OwnerPod string `json:"ownerPod"`
}
