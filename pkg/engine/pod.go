package engine

import (
	"context"

	"k8s.io/apimachinery/pkg/types"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/resolve"
)

// podAnnotations is the capability by which containerd and CRI-O pass on a pod's annotations.
const podAnnotations = "io.kubernetes.cri.pod-annotations"

// pod returns the pod that the runtime names; nil where it names none. It is fetched only if the
// runtime does not describe it.
func (e *Engine) pod(ctx context.Context, req *Request) (*podv1.Pod, error) {
	namespace, name, err := podOf(req.Args)
	if err != nil || name == "" {
		return nil, err
	}
	uid := types.UID(arg(req.Args, "K8S_POD_UID"))
	pod := resolve.PassedPod(namespace, name, uid, req.Call.RuntimeConfig[podAnnotations])
	if pod != nil {
		return pod, nil
	}
	return e.resolver().Pod(ctx, namespace, name, uid)
}

// resolver finds out what pods get.
func (e *Engine) resolver() *resolve.Resolver {
	return &resolve.Resolver{
		Node: e.Node, Policy: e.Policy, Source: e.Source, Devices: e.Devices, ThisNode: e.ThisNode,
	}
}

// sandboxOf returns the sandbox that the request is about, as a resolver knows it.
func sandboxOf(req *Request) resolve.Sandbox {
	return resolve.Sandbox{
		ContainerID: req.ContainerID, IfName: req.IfName, Args: req.Args, Call: req.Call,
	}
}
