// Package plan turns what a pod asks for into what will be done: pod + selections + definitions in,
// an ordered list of attachments out, each with its complete conflist, interface name and runtime
// configuration.
//
// Contract: pure: no I/O, no clock, equal input, equal output. The default network comes first,
// then the cluster-wide networks, then the pod's selections in their order (requests.go). What a
// selection may not ask for is refused here: NADs of other namespaces, capabilities that no plugin
// declares, interface names, default routes. What a tenant's NAD may say is judged by pkg/policy.
// Diff compares what a pod has with another plan. Errors are *failure.Error with NAD, plugin and
// field.
package plan

import (
	"encoding/json"
	"net/netip"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/selection"
)

// Request is one network of the pod before its definition is known. Where to look for the
// definition, in this order: Inline, File, the NAD, then (OnDisk) the configuration directory by
// name.
type Request struct {
	// Ref is the network as the user wrote it, for messages.
	Ref string
	// Inline is a delegate's conf or conflist from Braid's own configuration.
	Inline json.RawMessage
	// File is an absolute path of a configuration file or of a directory of them.
	File string
	// Namespace and Name of the NAD; Name alone is also the name on disk.
	Namespace, Name string
	// OnDisk is true if the NAD may be absent: then the network of that name in the configuration
	// directory is meant.
	OnDisk bool
	// Default marks the default network; exactly one request has it, the first.
	Default bool
	// Selection is set for networks that an annotation of the pod asked for, nil for cluster-wide
	// ones.
	Selection *selection.Selection
}

// IsNAD reports whether the network is looked up as a NAD, and not given by Braid's configuration.
func (r Request) IsNAD() bool { return r.Inline == nil && r.File == "" }

// Definition is what was found for a Request. NAD is nil for networks that are not NADs. Conf is
// the conf or conflist where it does not come from the NAD's spec.config: inline, or from disk.
type Definition struct {
	NAD  *nadv1.NetworkAttachmentDefinition
	Conf json.RawMessage
	// Unknown is true if Conf is a stand-in: the configuration is on a node that cannot be asked.
	Unknown bool
}

// Input is all that Make looks at.
type Input struct {
	// Node, Policy and Call are the configuration, each required.
	Node   *conf.Node
	Policy *conf.Policy
	Call   *conf.Call
	// Pod is nil where the runtime names none: then only cluster-wide networks are attached.
	Pod *metav1.ObjectMeta
	// ContainerID, IfName (of the default network) and Args (CNI_ARGS) are the runtime's.
	ContainerID, IfName string
	Args                [][2]string
	Requests            []Request
	// Definitions[i] belongs to Requests[i].
	Definitions []Definition
	// Devices are the IDs of the devices that were allocated to the pod, by resource name. Make
	// gives each at most once.
	Devices map[string][]string
	// DevicesErr says why Devices may lack some; nil where they are all. It is the error of a
	// network that lacks one, and fs.ErrNotExist is in its chain where there is nothing that could
	// have allocated one.
	DevicesErr error
	// Requested are the resources that the pod's containers request.
	Requested []string
}

// Attachment is one network of the pod, ready to be made. It is stored in the record as it is: DEL
// and CHECK work from it alone.
type Attachment struct {
	// Name is what network-status calls it: "namespace/name" of the NAD, or the CNI name of a network
	// that is not a NAD.
	Name string `json:"name"`
	// Network is the CNI network name.
	Network string `json:"network"`
	Default bool   `json:"default,omitempty"`
	IfName  string `json:"ifName"`
	// Conf is the complete conflist: name, cniVersion, plugins, with args.cni and deviceID injected
	// and all else as written.
	Conf json.RawMessage `json:"conf"`
	// Args is CNI_ARGS.
	Args [][2]string `json:"args,omitempty"`
	// RuntimeConfig is what libcni passes as runtimeConfig to the plugins that declare the capability.
	RuntimeConfig map[string]json.RawMessage `json:"runtimeConfig,omitempty"`
	// Wish is what the pod's annotation asks for here; nil for a network that is not of it, and in
	// records before format 3.
	Wish *Wish `json:"wish,omitempty"`
	// IPs and MAC are what the pod asks for, as written in its annotation, in cni-args too: the
	// attachment's result is held to them.
	IPs []string `json:"ips,omitempty"`
	MAC string   `json:"mac,omitempty"`
	// WantsDefaultRoute is true if the pod asked for the default route here, by Gateways or, if empty,
	// the network's own.
	WantsDefaultRoute bool         `json:"wantsDefaultRoute,omitempty"`
	Gateways          []netip.Addr `json:"gateways,omitempty"`
	// Resource and DeviceID name the allocated device; empty without one.
	Resource string `json:"resource,omitempty"`
	DeviceID string `json:"deviceID,omitempty"`
	// DeviceInfo is true if some plugin declares CNIDeviceInfoFile, so a file is passed and read.
	DeviceInfo bool `json:"deviceInfo,omitempty"`
	// InProcess has the built-in types whose configuration has keys that the built-in plugin does
	// not know: true where that ran all the same, false where a binary did.
	InProcess map[string]bool `json:"inProcess,omitempty"`
	// Execd is true if a plugin of the chain is a binary, once its plugins were looked for.
	Execd bool `json:"execd,omitempty"`
	// Limits are what it may do to the node; nil where its configuration is the operator's, and in
	// records before format 4.
	Limits *attachment.Limits `json:"limits,omitempty"`
	// Unknown is as in the Definition.
	Unknown bool `json:"-"`
	// Origin is what of the pod's annotations the attachment is for; nil for a network that the
	// operator gives to pods.
	Origin *Origin `json:"-"`
	// Runs are where the plugins of the chain run, once they were looked for.
	Runs []policy.Run `json:"-"`
	// Warnings are what the pod is told when the attachment is made. They are not recorded.
	Warnings []*failure.Error `json:"-"`
}

// Origin is what of a pod's annotations an attachment is for.
type Origin struct {
	// Namespace is the namespace of the NAD.
	Namespace string
	// OnDisk is true if the NAD has no configuration, but means a file of the node.
	OnDisk    bool
	Selection *selection.Selection
}
