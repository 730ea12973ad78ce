package kubelet

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	resourcev1 "github.com/braid-cni/braid/pkg/api/resource/v1"
)

// Allocations reads ResourceClaims and ResourceSlices (resource.k8s.io/v1).
type Allocations interface {
	// Allocated returns the devices that were allocated for a ResourceClaim.
	Allocated(ctx context.Context, namespace, claim string) ([]resourcev1.Allocated, error)
	// DriverDevices returns the devices of a driver on a node, or for "" those that belong to no
	// single node.
	DriverDevices(ctx context.Context, driver, node string) ([]resourcev1.Device, error)
}

// Devices finds the devices that were allocated to a pod: by device plugins, which the kubelet
// knows, and by drivers of dynamic resource allocation, whose ResourceClaims are in the pod's
// status.
type Devices struct {
	kubelet *Client
	claims  Allocations
}

// NewDevices joins both.
func NewDevices(kubelet *Client, claims Allocations) *Devices {
	return &Devices{kubelet, claims}
}

// Devices returns the IDs of the pod's devices by resource name, sorted, each once. An error of the
// class DeviceUnavailable says that the kubelet could not be asked; the devices of claims are
// returned with it. A claim that has no device for a network adds nothing.
func (d *Devices) Devices(ctx context.Context, pod *podv1.Pod) (map[string][]string, error) {
	claimed, err := d.claimed(ctx, pod)
	if err != nil {
		return nil, err
	}
	all, err := d.kubelet.Devices(ctx, pod.Namespace, pod.Name)
	if all == nil {
		all = map[string][]string{}
	}
	for _, device := range claimed {
		all[device.Resource] = append(all[device.Resource], device.ID)
	}
	for resource, ids := range all {
		slices.Sort(ids)
		all[resource] = slices.Compact(ids)
	}
	return all, err
}

// Has reports whether device plugins of this node have devices of a resource. If the kubelet does
// not say, they may.
func (d *Devices) Has(ctx context.Context, resource string) bool {
	return d.kubelet.Has(ctx, resource)
}

// claimed returns the devices for networks of a pod's claims.
func (d *Devices) claimed(ctx context.Context, pod *podv1.Pod) ([]resourcev1.Device, error) {
	look := &driverLook{
		claims: d.claims, node: pod.NodeName, known: map[[2]string][]resourcev1.Device{},
	}
	var devices []resourcev1.Device
	for _, claim := range pod.Claims {
		allocated, err := d.claims.Allocated(ctx, pod.Namespace, claim)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("get ResourceClaim %s of the pod: %w", claim, err)
		}
		for _, a := range allocated {
			device, err := look.find(ctx, a)
			if err != nil {
				return nil, err
			}
			if device.Resource != "" && device.ID != "" {
				devices = append(devices, device)
			}
		}
	}
	return devices, nil
}

// driverLook looks devices up, and asks about each driver once.
type driverLook struct {
	claims Allocations
	node   string
	known  map[[2]string][]resourcev1.Device // by driver and node
}

// find returns a device as its driver describes it; an empty one if it does not. Nearly all belong
// to the pod's node; a device that several nodes reach belongs to no single one.
func (l *driverLook) find(
	ctx context.Context, a resourcev1.Allocated,
) (found resourcev1.Device, err error) {
	for _, node := range []string{l.node, ""} {
		key := [2]string{a.Driver, node}
		if _, ok := l.known[key]; !ok {
			l.known[key], err = l.claims.DriverDevices(ctx, a.Driver, node)
			if err != nil && !apierrors.IsNotFound(err) {
				return found, fmt.Errorf("list ResourceSlices of driver %.80q: %w", a.Driver, err)
			}
		}
		for _, d := range l.known[key] {
			if d.Allocated == a && (found.Allocated != a || d.Generation > found.Generation) {
				found = d
			}
		}
		if found.Allocated == a {
			break
		}
	}
	return found, nil
}
