package block

import (
	"slices"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// secondOf returns the second sandbox of an address as an allocation of its own.
func secondOf(e v1alpha1.Allocation) v1alpha1.Allocation {
	s := e.Second
	return v1alpha1.Allocation{
		Address: e.Address, Network: s.Network, ContainerID: s.ContainerID, IfName: s.IfName, Pod: s.Pod,
		PodUID: s.PodUID, Node: s.Node, Claim: e.Claim,
	}
}

// Sandboxes returns those that use an address, each as an allocation of its own: none where a claim
// alone keeps it, and two while what uses the claim migrates from one to the other.
func Sandboxes(e v1alpha1.Allocation) (list []v1alpha1.Allocation) {
	first := e
	first.Second = nil
	if first.ContainerID != "" || first.Claim == nil {
		list = append(list, first)
	}
	if e.Second != nil {
		list = append(list, secondOf(e))
	}
	return list
}

// Without takes sandboxes off an address, and reports whether there were any. What is left may be
// kept by a claim alone, or by nobody.
func Without(
	e v1alpha1.Allocation, gone func(v1alpha1.Allocation) bool,
) (left v1alpha1.Allocation, changed bool) {
	left = v1alpha1.Allocation{Address: e.Address, Claim: e.Claim}
	for _, s := range Sandboxes(e) {
		if gone(s) {
			changed = true
		} else {
			join(&left, s)
		}
	}
	return left, changed
}

// uses reports whether one of the sandboxes of the address is such.
func uses(e v1alpha1.Allocation, such func(v1alpha1.Allocation) bool) bool {
	return slices.ContainsFunc(Sandboxes(e), such)
}

// join makes a sandbox the user of an address, or the second one beside another.
func join(e *v1alpha1.Allocation, entry v1alpha1.Allocation) {
	if e.ContainerID == "" || attachmentOf(*e) == attachmentOf(entry) {
		entry.Second = e.Second
		*e = entry
		return
	}
	e.Second = &v1alpha1.Sandbox{
		Network: entry.Network, ContainerID: entry.ContainerID, IfName: entry.IfName, Pod: entry.Pod,
		PodUID: entry.PodUID, Node: entry.Node,
	}
}
