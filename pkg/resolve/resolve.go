// Package resolve finds out what a pod gets: the networks that it asks for, their definitions, its
// devices, and the plan of all that.
//
// Contract: it only reads, from its Source and from the directories of networks on disk. So an ADD,
// `braidctl plan` and admission get the same answer. Every failure is a *failure.Error that names
// its network; of several failures it is the first network's. What cannot be asked is an error of
// reason APIUnavailable or TimedOut, never "not there".
package resolve

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/weaken"
)

// Source reads pods, NADs and namespaces from an API server, or from manifests on disk. "Not found"
// and "forbidden" are errors of k8s.io/apimachinery/pkg/api/errors.
type Source interface {
	// Pod returns a pod, with its resources and claims.
	Pod(ctx context.Context, namespace, name string) (*podv1.Pod, error)
	// NAD is called concurrently for several.
	NAD(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error)
	// Namespace returns a namespace, with its labels.
	Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error)
}

// Devices finds the devices that were allocated to a pod.
type Devices interface {
	// Devices returns device IDs by resource name. Beside an error of the class DeviceUnavailable it
	// returns those that it could find. fs.ErrNotExist is in the error's chain if no kubelet serves
	// this node.
	Devices(ctx context.Context, pod *podv1.Pod) (map[string][]string, error)
	// Has reports whether this node has devices of a resource. It is true if that cannot be found out.
	Has(ctx context.Context, resource string) bool
}

// ThisNode finds the Node object of this machine.
type ThisNode interface {
	// ThisNode returns it, with its labels.
	ThisNode(ctx context.Context) (*metav1.ObjectMeta, error)
}

// Resolver is safe for concurrent use.
type Resolver struct {
	Node   *conf.Node
	Policy *conf.Policy
	Source Source
	// Devices is nil if nobody knows which devices pods have. Networks get stand-ins then.
	Devices Devices
	// ThisNode is nil if nodeSelectors of NADs are not compared with this node.
	ThisNode ThisNode
	// Elsewhere is true if this machine is not the pod's node. Then networks on the node's disk are
	// Unknown, and the auxiliary chain is left out.
	Elsewhere bool
}

// Sandbox is what a runtime passes about the sandbox.
type Sandbox struct {
	ContainerID string
	// IfName is the pod's interface of the default network.
	IfName string
	// Args is CNI_ARGS, in its order.
	Args [][2]string
	Call *conf.Call
}

// Any stands for the sandbox of no pod in particular.
func Any(call *conf.Call) Sandbox { return Sandbox{ContainerID: "any", IfName: "eth0", Call: call} }

// Attachments returns what the pod gets, the default network first. A nil pod asks for nothing. A
// network whose nodeSelector does not select this node is an error.
func (r *Resolver) Attachments(
	ctx context.Context, sandbox Sandbox, pod *podv1.Pod,
) ([]plan.Attachment, error) {
	requests, err := r.requests(sandbox.Call, pod)
	if err != nil {
		return nil, err
	}
	definitions, err := r.definitions(ctx, requests)
	if err != nil {
		return nil, err
	}
	if err := r.selected(ctx, requests, definitions); err != nil {
		return nil, err
	}
	return r.plan(ctx, sandbox, pod, requests, definitions)
}

// Default returns the default network, for operations that are not about a pod. Errors of other
// networks do not matter.
func (r *Resolver) Default(ctx context.Context, call *conf.Call) (*plan.Attachment, error) {
	requests, err := plan.Requests(r.Node, r.Policy, nil)
	if err != nil {
		return nil, err
	}
	definitions, err := r.definitions(ctx, requests[:1])
	if err != nil {
		return nil, err
	}
	attachments, err := r.plan(ctx, Any(call), nil, requests[:1], definitions)
	if err != nil {
		return nil, err
	}
	return &attachments[0], nil
}

// Past is Attachments for a pod whose networks may be gone. It asks former for the definition of
// one that is gone. If former does not know it either, a stand-in keeps its place, so that the
// others have the interface names that they had. exact is true if no network is gone.
func (r *Resolver) Past(
	ctx context.Context, sandbox Sandbox, pod *podv1.Pod,
	former func(plan.Request) (plan.Definition, bool),
) (rest []plan.Attachment, exact bool, err error) {
	requests, err := r.requests(sandbox.Call, pod)
	if err != nil {
		return nil, false, err
	}
	definitions := make([]plan.Definition, len(requests))
	gone := make([]bool, len(requests))
	exact = true
	for i, request := range requests {
		definitions[i], err = r.definition(ctx, request)
		switch failure.ReasonOf(err) {
		case failure.APIUnavailable, failure.TimedOut:
			return nil, false, failure.AtNAD(err, request.Ref)
		}
		if err != nil {
			exact = false
			var known bool
			if definitions[i], known = former(request); !known {
				definitions[i], gone[i] = plan.Definition{Conf: nothing()}, true
			}
		}
	}
	all, err := r.plan(ctx, sandbox, pod, requests, definitions)
	for i := range all {
		if !gone[i] {
			rest = append(rest, all[i])
		}
	}
	return rest, exact, err
}

// nothing returns a network that makes no interface.
func nothing() []byte {
	return []byte(`{"cniVersion":"1.0.0","name":"gone","plugins":[{"type":"` + netconf.PassthruType +
		`"}]}`)
}

// requests returns all networks that the pod is to have.
func (r *Resolver) requests(call *conf.Call, pod *podv1.Pod) ([]plan.Request, error) {
	requests, err := plan.Requests(r.Node, r.Policy, pod.Meta())
	if err != nil {
		return nil, err
	}
	if r.Elsewhere {
		return requests, nil
	}
	auxiliary, err := netconf.AuxiliaryChain(r.Node.ClusterNetwork, r.Node.AuxiliaryCNIChainName,
		call.CNIVersion)
	if err != nil {
		return nil, err
	}
	if auxiliary != nil {
		requests = append(requests, plan.Request{Ref: r.Node.AuxiliaryCNIChainName, Inline: auxiliary})
	}
	return requests, nil
}

// plan makes attachments of requests and their definitions.
func (r *Resolver) plan(
	ctx context.Context, sandbox Sandbox, pod *podv1.Pod, requests []plan.Request,
	definitions []plan.Definition,
) ([]plan.Attachment, error) {
	in := plan.Input{
		Node: r.Node, Policy: r.Policy, Call: sandbox.Call, Pod: pod.Meta(),
		ContainerID: sandbox.ContainerID, IfName: sandbox.IfName,
		Args:     sandbox.Args,
		Requests: requests, Definitions: definitions,
	}
	if err := r.addDevices(ctx, pod, &in); err != nil {
		return nil, err
	}
	attachments, err := plan.Make(in)
	if err != nil {
		return nil, err
	}
	for i := range attachments {
		if err := small(&attachments[i]); err != nil {
			return nil, err
		}
	}
	return attachments, nil
}

// maxNetwork bounds a network's configuration, in bytes. The node keeps it, mostly in memory, for
// as long as anything may be left of the network. What people write has some hundred bytes.
const maxNetwork = 128 << 10

// small refuses a configuration that is too large to be kept.
func small(a *plan.Attachment) error {
	if len(a.Conf) <= maxNetwork || weaken.Off(weaken.Size) {
		return nil
	}
	return &failure.Error{
		Reason: failure.NADInvalid, NAD: a.Name, Field: "spec.config",
		Err: fmt.Errorf("the configuration has %d bytes, at most %d are allowed",
			len(a.Conf), maxNetwork), Fix: "shorten it",
	}
}
