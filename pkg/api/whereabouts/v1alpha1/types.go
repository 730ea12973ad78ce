// Package v1alpha1 holds what is read of the wire types of whereabouts.cni.cncf.io/v1alpha1, in
// which whereabouts records the addresses that it gave away. Nothing here is ever written.
package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GroupName and Version name the API; the others are the kinds and the plurals under which they are
// served.
const (
	GroupName           = "whereabouts.cni.cncf.io"
	Version             = "v1alpha1"
	PoolKind            = "IPPool"
	PoolResource        = "ippools"
	ReservationKind     = "OverlappingRangeIPReservation"
	ReservationResource = "overlappingrangeipreservations"
)

// IPPool records the addresses of one range that are in use. Namespaced. Its name is
// [network_name-][node-]range, with dashes for colons and the slash.
type IPPool struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec IPPoolSpec `json:"spec"`
}

// IPPoolSpec is the range and what is in use of it.
type IPPoolSpec struct {
	// Range is in CIDR notation; it may have host bits.
	Range string `json:"range"`
	// Allocations are by the decimal distance from the address that is written in Range.
	Allocations map[string]IPAllocation `json:"allocations"`
}

// IPAllocation says who uses an address.
type IPAllocation struct {
	ContainerID string `json:"id"`
	// PodRef is "namespace/name".
	PodRef string `json:"podref"`
	IfName string `json:"ifname"`
}

// OverlappingRangeIPReservation records an address that no other range may give either. Namespaced.
// Its name is [network_name-]address, with dashes for colons.
type OverlappingRangeIPReservation struct {
	metav1.ObjectMeta `json:"metadata"`

	Spec OverlappingRangeIPReservationSpec `json:"spec"`
}

// OverlappingRangeIPReservationSpec says who uses the address.
type OverlappingRangeIPReservationSpec struct {
	ContainerID string `json:"containerid"`
	// PodRef is "namespace/name".
	PodRef string `json:"podref"`
	IfName string `json:"ifname"`
}
