package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
)

// sourceError classifies what the source does not: it is unavailable, or refuses.
func sourceError(verb string, err error) error {
	if failure.ReasonOf(err) != "" {
		return fmt.Errorf("%s: %w", verb, err)
	}
	fe := &failure.Error{Reason: failure.APIUnavailable, Err: fmt.Errorf("%s: %w", verb, err)}
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		fe.Fix = "give Braid's account the rights of conf/rbac, and see that its kubeconfig holds a valid credential"
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		fe.Reason = failure.PodNotFound
		fe.Fix = "the pod was deleted or replaced meanwhile; the runtime will remove the sandbox"
	default:
		fe.Fix = "the runtime will try again; see whether the API server can be reached from the node"
	}
	return fe
}

// plan finds out what the pod gets: requests from the annotations, definitions from the source, attachments from both.
func (e *Engine) plan(ctx context.Context, req *Request, pod *podv1.Pod) ([]plan.Attachment, error) {
	requests, err := e.requests(req, pod)
	if err != nil {
		return nil, err
	}
	return e.resolve(ctx, req, pod, requests)
}

// requests are all networks that the pod is to have.
func (e *Engine) requests(req *Request, pod *podv1.Pod) ([]plan.Request, error) {
	requests, err := plan.Requests(req.Config, pod.Meta())
	if err != nil {
		return nil, err
	}
	auxiliary, err := netconf.AuxiliaryChain(req.Config.ClusterNetwork, req.Config.AuxiliaryCNIChainName, req.Config.CNIVersion)
	if err != nil {
		return nil, err
	}
	if auxiliary != nil {
		requests = append(requests, plan.Request{Ref: req.Config.AuxiliaryCNIChainName, Inline: auxiliary})
	}
	return requests, nil
}

// defaultNetwork is what a pod gets that asks for nothing, for operations that are not about a pod. That further networks of every
// pod cannot be had says nothing about it.
func (e *Engine) defaultNetwork(ctx context.Context, req *Request) (*plan.Attachment, error) {
	requests, err := plan.Requests(req.Config, nil)
	if err != nil {
		return nil, err
	}
	anyPod := &Request{Config: req.Config, ContainerID: "any", IfName: "eth0", Path: req.Path}
	attachments, err := e.resolve(ctx, anyPod, nil, requests[:1])
	if err != nil {
		return nil, err
	}
	return &attachments[0], nil
}

// resolve finds the definitions of the requests and makes attachments of them.
func (e *Engine) resolve(ctx context.Context, req *Request, pod *podv1.Pod, requests []plan.Request) ([]plan.Attachment, error) {
	definitions, err := e.definitions(ctx, req.Config, requests)
	if err != nil {
		return nil, err
	}
	return e.make(ctx, req, pod, requests, definitions)
}

// make makes attachments of requests and their definitions.
func (e *Engine) make(
	ctx context.Context, req *Request, pod *podv1.Pod, requests []plan.Request, definitions []plan.Definition,
) ([]plan.Attachment, error) {
	in := plan.Input{
		Config: req.Config, Pod: pod.Meta(), ContainerID: req.ContainerID, IfName: req.IfName, Args: req.Args,
		Requests: requests, Definitions: definitions,
	}
	if err := e.addDevices(ctx, pod, &in); err != nil {
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

// maxNetwork bounds a network's configuration, in bytes. It is kept on the node, in memory as a
// rule, for as long as anything may be left of the network; those that people write have some
// hundreds.
const maxNetwork = 128 << 10

// small refuses a configuration that is too large to be kept.
func small(a *plan.Attachment) error {
	if len(a.Conf) <= maxNetwork {
		return nil
	}
	return &failure.Error{
		Reason: failure.NADInvalid, NAD: a.Name, Field: "spec.config",
		Err: fmt.Errorf("the configuration has %d bytes, at most %d are allowed", len(a.Conf), maxNetwork), Fix: "shorten it",
	}
}

// at adds the network to an error that does not name one yet.
func at(err error, ref string) error {
	fe, ok := errors.AsType[*failure.Error](err)
	if !ok || fe.NAD != "" {
		return err
	}
	named := *fe
	named.NAD = ref
	return &named
}

func (e *Engine) definition(ctx context.Context, cfg *conf.Config, r plan.Request) (plan.Definition, error) {
	switch {
	case r.Inline != nil:
		return plan.Definition{Conf: r.Inline}, nil
	case r.File != "":
		raw, err := netconf.FromFile(r.File)
		return plan.Definition{Conf: raw}, err
	}
	nad, err := e.Source.NAD(ctx, r.Namespace, r.Name)
	switch {
	case (apierrors.IsNotFound(err) || apierrors.IsBadRequest(err)) && r.OnDisk: // a CNI name need not be one that a NAD can have
		raw, err := netconf.OnDisk(cfg.ConfDir, r.Name)
		return plan.Definition{Conf: raw}, err
	case apierrors.IsNotFound(err) && failure.ReasonOf(err) == "":
		return plan.Definition{}, &failure.Error{
			Reason: failure.NADNotFound, Err: fmt.Errorf("there is no NetworkAttachmentDefinition %q in namespace %q: %w", r.Name, r.Namespace, err),
			Fix: fmt.Sprintf("create it, or correct %s; `kubectl get net-attach-def -n %s` lists what there is", origin(r), r.Namespace),
		}
	case err != nil:
		return plan.Definition{}, sourceError("get NAD", err)
	case plan.HasConfig(nad):
		return plan.Definition{NAD: nad}, nil
	}
	raw, err := netconf.OnDisk(cfg.ConfDir, nad.Name)
	if fe, ok := errors.AsType[*failure.Error](err); ok {
		named := *fe
		named.NAD, err = r.Ref, &named
	}
	return plan.Definition{NAD: nad, Conf: raw}, err
}

// origin says where a network is named.
func origin(r plan.Request) string {
	switch {
	case r.Selection == nil:
		return "Braid's configuration"
	case r.Default:
		return "the pod's annotation " + nadv1.DefaultNetworkAnnotation
	}
	return "the pod's annotation " + nadv1.NetworksAnnotation
}

// addDevices finds the pod's devices, if any of its networks may use one: one that cannot do
// without, or whose resource the pod requests, or any if it has claims. What a pod requests and
// claims is not in its annotations.
func (e *Engine) addDevices(ctx context.Context, pod *podv1.Pod, in *plan.Input) error {
	uses := func(d plan.Definition) bool { return d.Resource() != "" }
	if pod == nil || !slices.ContainsFunc(in.Definitions, uses) {
		return nil
	}
	if pod.MetaOnly {
		var err error
		if pod, err = e.fetchPod(ctx, pod.Namespace, pod.Name, pod.UID); err != nil {
			return err
		}
	}
	asked := func(d plan.Definition) bool {
		return d.NeedsDevice() || uses(d) && (len(pod.Claims) > 0 || slices.Contains(pod.Requested, d.Resource()))
	}
	if !slices.ContainsFunc(in.Definitions, asked) {
		return nil
	}
	var err error
	in.Devices, err = e.Devices.Devices(ctx, pod)
	in.Requested = pod.Requested
	if failure.ReasonOf(err) == failure.DeviceUnavailable { // who needs none does not mind
		in.DevicesErr = &failure.Error{
			Reason: failure.DeviceUnavailable, Field: nadv1.ResourceNameAnnotation, Err: fmt.Errorf("find the pod's devices: %w", err),
			Fix: "see that the kubelet serves its pod-resources socket",
		}
		return nil
	}
	if err != nil {
		return sourceError("find the pod's devices", err)
	}
	in.Requested = e.deviceRequests(ctx, pod, in)
	return nil
}

// deviceRequests returns the resources that the pod requests, but for marks of nodes: a resource of
// which the pod has no device, and the node neither, is none of devices. KubeVirt's pods request
// the marks of their bridges.
func (e *Engine) deviceRequests(ctx context.Context, pod *podv1.Pod, in *plan.Input) []string {
	return slices.DeleteFunc(slices.Clone(pod.Requested), func(resource string) bool {
		used := slices.ContainsFunc(in.Definitions, func(d plan.Definition) bool { return d.Resource() == resource })
		return !used || len(pod.Claims) == 0 && len(in.Devices[resource]) == 0 && !e.Devices.Has(ctx, resource)
	})
}
