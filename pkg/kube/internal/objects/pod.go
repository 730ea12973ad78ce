package objects

import (
	"bytes"
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
)

// PodDetails is what is read of a pod besides its metadata.
type PodDetails struct {
	Spec struct {
		NodeName       string      `json:"nodeName"`
		Resources      needs       `json:"resources"`
		InitContainers []container `json:"initContainers"`
		Containers     []container `json:"containers"`
		ResourceClaims []struct {
			ResourceClaimName string `json:"resourceClaimName"`
		} `json:"resourceClaims"`
	} `json:"spec"`
	Status struct {
		ResourceClaimStatuses []struct {
			ResourceClaimName string `json:"resourceClaimName"`
		} `json:"resourceClaimStatuses"`
		ExtendedResourceClaimStatus struct {
			ResourceClaimName string `json:"resourceClaimName"`
		} `json:"extendedResourceClaimStatus"`
	} `json:"status"`
}

type container struct {
	Resources needs `json:"resources"`
}

// needs are the resources of a container, or of the whole pod.
type needs struct {
	Requests map[string]json.RawMessage `json:"requests"`
	Limits   map[string]json.RawMessage `json:"limits"`
}

// Of returns the pod with that metadata.
func (d *PodDetails) Of(meta metav1.ObjectMeta) *podv1.Pod {
	pod := &podv1.Pod{ObjectMeta: meta, NodeName: d.Spec.NodeName}
	all := []container{{d.Spec.Resources}}
	for _, c := range slices.Concat(all, d.Spec.InitContainers, d.Spec.Containers) {
		pod.Requested = append(pod.Requested, c.Resources.names()...)
	}
	for _, c := range d.Spec.ResourceClaims {
		pod.Claims = append(pod.Claims, c.ResourceClaimName)
	}
	for _, c := range d.Status.ResourceClaimStatuses {
		pod.Claims = append(pod.Claims, c.ResourceClaimName)
	}
	pod.Claims = append(pod.Claims, d.Status.ExtendedResourceClaimStatus.ResourceClaimName)
	pod.Requested, pod.Claims = distinct(pod.Requested), distinct(pod.Claims)
	return pod
}

// names returns the resources with a quantity other than 0. A quantity is a string or a number.
func (r needs) names() []string {
	var names []string
	for _, quantities := range []map[string]json.RawMessage{r.Requests, r.Limits} {
		for name, quantity := range quantities {
			if string(bytes.Trim(quantity, `"`)) != "0" {
				names = append(names, name)
			}
		}
	}
	return names
}

// distinct sorts names and leaves out those that are empty or given before.
func distinct(names []string) []string {
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == "" })
}
