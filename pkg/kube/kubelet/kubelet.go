// Package kubelet finds the devices that were allocated to a pod.
//
// Client asks this node's kubelet, over a unix socket that it dials for each call. Devices joins
// what it says with the ResourceClaims of the pod, which a source of pkg/kube has.
//
// Contract: errors of a kubelet that cannot be asked are of the class DeviceUnavailable. A kubelet
// that restarts, or is asked too often, is asked again for a while. The kubelet is asked without a
// gRPC library, for two unary calls: grpc-go is 6.6 MB of binary, connect 1.9 MB.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

const (
	service = "/v1.PodResourcesLister/"
	tries   = 6
)

// Client asks this node's kubelet which devices it allocated, over its PodResources API
// (k8s.io/kubelet/pkg/apis/podresources/v1).
type Client struct {
	socket string
}

// New names the socket. It is dialled by each call.
func New(socket string) *Client { return &Client{socket: socket} }

// Devices returns the IDs of all devices that the kubelet allocated to the pod's containers, by
// resource name. The IDs are sorted: the kubelet gives them in another order each time, and an ADD
// and its CHECK have to agree. A pod without devices has an empty map.
func (k *Client) Devices(ctx context.Context, namespace, pod string) (map[string][]string, error) {
	if err := objects.CheckNames(namespace, pod); err != nil {
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
func (k *Client) Has(ctx context.Context, resource string) bool {
	conn := newGRPC(k.socket)
	defer conn.close()
	answer, err := retryGRPC(ctx, func() ([]byte, error) {
		return conn.call(ctx, service+"GetAllocatableResources", nil)
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
	answer, err := conn.call(ctx, service+"Get", encodePodRequest(namespace, pod))
	if err == nil {
		return decodeGetResponse(answer)
	}
	if code := grpcCode(err); code != grpcUnknown && code != grpcUnimplemented {
		return nil, err
	}
	answer, err = conn.call(ctx, service+"List", nil)
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
func retryGRPC[T any](ctx context.Context, ask func() (T, error)) (answer T, err error) {
	pauses := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: tries}
	end := wait.ExponentialBackoffWithContext(ctx, pauses, func(context.Context) (bool, error) {
		answer, err = ask()
		return err == nil || !transientGRPC(err), nil
	})
	if err == nil {
		err = end // ctx was done before it was asked
	}
	return answer, err
}

// transientGRPC reports whether a call may be tried again: the kubelet starts, or has too much to
// do.
func transientGRPC(err error) bool {
	switch grpcCode(err) {
	case grpcUnavailable, grpcResourceExhausted:
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.ENOENT)
}
