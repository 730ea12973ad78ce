package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/braid-cni/braid/pkg/failure"
)

const (
	kubeletService = "/v1.PodResourcesLister/"
	kubeletTries   = 5
)

// Kubelet asks this node's kubelet which devices it allocated, over its PodResources API
// (k8s.io/kubelet/pkg/apis/podresources/v1).
type Kubelet struct {
	socket string
}

// NewKubelet names the socket. It is dialled by each call.
func NewKubelet(socket string) *Kubelet { return &Kubelet{socket: socket} }

// Devices gives the IDs of all devices that the kubelet allocated to the pod's containers, by
// resource name. The IDs are sorted: the kubelet gives them in another order each time, and an ADD
// and its CHECK have to agree. A pod without devices has an empty map.
func (k *Kubelet) Devices(ctx context.Context, namespace, pod string) (map[string][]string, error) {
	if err := checkNames(namespace, pod); err != nil {
		return nil, fmt.Errorf("get devices of pod: %w", err)
	}
	conn := newGRPC(k.socket)
	defer conn.close()
	got, err := retryGRPC(ctx, func() (*podResources, error) {
		return resources(ctx, conn, namespace, pod)
	})
	if err == nil && got == nil {
		err = errors.New("the kubelet knows no such pod")
	}
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.DeviceUnavailable,
			Err:    fmt.Errorf("get devices of pod %s/%s from %s: %w", namespace, pod, k.socket, err),
			Fix:    "see that the kubelet runs and that its pod-resources directory is visible to Braid",
		}
	}
	return got.devices, nil
}

// Has reports whether device plugins of this node have devices of a resource. If the kubelet does
// not say, they may.
func (k *Kubelet) Has(ctx context.Context, resource string) bool {
	conn := newGRPC(k.socket)
	defer conn.close()
	answer, err := retryGRPC(ctx, func() ([]byte, error) {
		return conn.call(ctx, kubeletService+"GetAllocatableResources", nil)
	})
	if err != nil {
		return true
	}
	all, err := decodeAllocatableResponse(answer)
	return err != nil || len(all.devices[resource]) > 0
}

// resources asks for the one pod, and where that fails for all: kubelets before 1.34 have Get
// switched off, and say so, as they say that there is no such pod, by an error without a code of
// its own. nil means that there is no such pod.
func resources(ctx context.Context, conn *grpcConn, namespace, pod string) (*podResources, error) {
	answer, err := conn.call(ctx, kubeletService+"Get", encodePodRequest(namespace, pod))
	if err == nil {
		return decodeGetResponse(answer)
	}
	if code := grpcCode(err); code != grpcUnknown && code != grpcUnimplemented {
		return nil, err
	}
	answer, err = conn.call(ctx, kubeletService+"List", nil)
	if err != nil {
		return nil, err
	}
	all, err := decodeListResponse(answer)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(p *podResources) bool {
		return p.namespace == namespace && p.name == pod
	})
	if i < 0 {
		return nil, nil
	}
	return all[i], nil
}

// retryGRPC tries again while the kubelet restarts, or says that it is asked too often.
func retryGRPC[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	pauses := wait.Backoff{
		Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: kubeletTries,
	}
	for {
		answer, err := ask()
		if err == nil || ctx.Err() != nil || pauses.Steps == 0 || !transientGRPC(err) ||
			!sleep(ctx, pauses.Step()) {
			return answer, err
		}
	}
}

func transientGRPC(err error) bool {
	switch grpcCode(err) {
	case grpcUnavailable, grpcResourceExhausted:
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.ENOENT)
}
