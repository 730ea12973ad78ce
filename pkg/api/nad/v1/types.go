// Package v1 holds the wire types of k8s.cni.cncf.io/v1: the NetworkAttachmentDefinition (NAD) and
// the annotations through which pods ask for networks and learn what they got. Source: "Kubernetes
// Network Custom Resource Definition De-facto Standard" v1.3 of the Network Plumbing Working Group
// (NPWG). Wire types only: nothing here reads, validates or decides.
package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GroupName and Version name the API; Resource is the plural under which NADs are served (NPWG v1.3
// s.3.1).
const (
	GroupName = "k8s.cni.cncf.io"
	Version   = "v1"
	Resource  = "network-attachment-definitions"
	Kind      = "NetworkAttachmentDefinition"
)

// Annotations of pods and NADs.
const (
	// NetworksAnnotation on a pod selects its secondary networks (NPWG v1.3 s.4.1).
	NetworksAnnotation = "k8s.v1.cni.cncf.io/networks"
	// StatusAnnotation on a pod reports what each attachment got: a JSON list of NetworkStatus (NPWG
	// v1.3 s.5).
	StatusAnnotation = "k8s.v1.cni.cncf.io/network-status"
	// ResourceNameAnnotation on a NAD names the device-plugin resource whose devices its attachments
	// use.
	ResourceNameAnnotation = "k8s.v1.cni.cncf.io/resourceName"
	// NodeSelectorAnnotation on a NAD selects, by their labels, the nodes that its pods may run on.
	NodeSelectorAnnotation = "k8s.v1.cni.cncf.io/nodeSelector"
	// DefaultNetworkAnnotation on a pod replaces the cluster-wide default network for this pod (a
	// Multus extension).
	DefaultNetworkAnnotation = "v1.multus-cni.io/default-network"
)

// NetworkAttachmentDefinition describes how a pod is attached to one network. Namespaced; its name
// is a DNS-1123 label.
type NetworkAttachmentDefinition struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec NetworkAttachmentDefinitionSpec `json:"spec,omitempty"`
}

// NetworkAttachmentDefinitionSpec carries the CNI configuration.
type NetworkAttachmentDefinitionSpec struct {
	// Config is the JSON text of a CNI network configuration or configuration list, which may omit
	// "name". Empty means: the network of the object's name that is configured on the node's disk
	// (NPWG v1.3 s.3.4.1).
	Config string `json:"config,omitempty"`
}

// NetworkStatus is one element of the network-status annotation (NPWG v1.3 s.5.3), with the
// additions (mtu, gateway) that the ecosystem's own client library writes.
type NetworkStatus struct {
	// Name is "namespace/name" of the NAD, or the CNI name of the cluster-wide default network.
	Name string `json:"name"`
	// Interface is the name of the first interface of the result that has a sandbox.
	Interface string `json:"interface,omitempty"`
	// IPs are the bare addresses (no prefix length) of that interface.
	IPs []string `json:"ips,omitempty"`
	// Mac is present only with Interface.
	Mac string `json:"mac,omitempty"`
	// Mtu in bytes.
	Mtu     int  `json:"mtu,omitempty"`
	Default bool `json:"default,omitempty"`
	DNS     DNS  `json:"dns"`
	// DefaultRoute lists the gateways the pod asked for with "default-route".
	DefaultRoute []string    `json:"default-route,omitempty"`
	DeviceInfo   *DeviceInfo `json:"device-info,omitempty"`
	Gateway      []string    `json:"gateway,omitempty"`
}

// DNS as the attachment's CNI result reports it.
type DNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
}

// DeviceInfo describes the device behind an attachment (NPWG Device Information Specification
// 1.1.0). Type is one of pci, vdpa, vhost-user, memif and says which of the sub-maps is set.
type DeviceInfo struct {
	Type      string           `json:"type,omitempty"`
	Version   string           `json:"version,omitempty"`
	PCI       *PCIDevice       `json:"pci,omitempty"`
	VDPA      *VDPADevice      `json:"vdpa,omitempty"`
	VhostUser *VhostUserDevice `json:"vhost-user,omitempty"`
	Memif     *MemifDevice     `json:"memif,omitempty"`
}

// PCIDevice is a virtual function or another PCI device.
type PCIDevice struct {
	PCIAddress        string `json:"pci-address,omitempty"`
	VhostNet          string `json:"vhost-net,omitempty"`
	RdmaDevice        string `json:"rdma-device,omitempty"`
	PFPCIAddress      string `json:"pf-pci-address,omitempty"`
	RepresentorDevice string `json:"representor-device,omitempty"`
}

// VDPADevice is a vDPA device and the PCI functions behind it.
type VDPADevice struct {
	ParentDevice      string `json:"parent-device,omitempty"`
	Driver            string `json:"driver,omitempty"`
	Path              string `json:"path,omitempty"`
	PCIAddress        string `json:"pci-address,omitempty"`
	PFPCIAddress      string `json:"pf-pci-address,omitempty"`
	RepresentorDevice string `json:"representor-device,omitempty"`
}

// VhostUserDevice is a vhost-user socket; Mode is client or server.
type VhostUserDevice struct {
	Mode string `json:"mode,omitempty"`
	Path string `json:"path,omitempty"`
}

// MemifDevice is a memif socket; Role is master or slave, Mode ethernet, ip or punt.
type MemifDevice struct {
	Role string `json:"role,omitempty"`
	Path string `json:"path,omitempty"`
	Mode string `json:"mode,omitempty"`
}
