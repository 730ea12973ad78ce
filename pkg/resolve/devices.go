package resolve

import (
	"context"
	"fmt"
	"slices"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// addDevices finds the pod's devices if one of its networks may use them: it needs a device, or the
// pod requests its resource, or the pod has resource claims. Requests and claims are not in
// annotations, so the pod may have to be fetched.
func (r *Resolver) addDevices(ctx context.Context, pod *podv1.Pod, in *plan.Input) error {
	hasResource := func(d plan.Definition) bool { return d.Resource() != "" }
	if pod == nil || !slices.ContainsFunc(in.Definitions, hasResource) {
		return nil
	}
	if r.Devices == nil {
		in.Devices = standInDevices(pod, in.Definitions)
		return nil
	}
	if pod.MetaOnly {
		var err error
		if pod, err = r.Pod(ctx, pod.Namespace, pod.Name, pod.UID); err != nil {
			return err
		}
	}
	uses := func(d plan.Definition) bool { return mayUseDevice(pod, d) }
	if !slices.ContainsFunc(in.Definitions, uses) {
		return nil
	}
	return r.findDevices(ctx, pod, in)
}

// mayUseDevice reports whether a network needs a device, or may have one of those that the pod asks
// for.
func mayUseDevice(pod *podv1.Pod, d plan.Definition) bool {
	return d.NeedsDevice() || d.Resource() != "" &&
		(len(pod.Claims) > 0 || slices.Contains(pod.Requested, d.Resource()))
}

// findDevices asks the node for the pod's devices. If it does not answer, that fails the networks
// that need one, and no other.
func (r *Resolver) findDevices(ctx context.Context, pod *podv1.Pod, in *plan.Input) (err error) {
	in.Devices, err = r.Devices.Devices(ctx, pod)
	in.Requested = pod.Requested
	if failure.ReasonOf(err) == failure.DeviceUnavailable { // who needs none does not mind
		in.DevicesErr = &failure.Error{
			Reason: failure.DeviceUnavailable, Field: nadv1.ResourceNameAnnotation,
			Err: fmt.Errorf("find the pod's devices: %w", err),
			Fix: "see that the kubelet serves its pod-resources socket",
		}
		return nil
	}
	if err != nil {
		return SourceError("find the pod's devices", err)
	}
	in.Requested = r.deviceRequests(ctx, pod, in)
	return nil
}

// standInDevices returns one for each network of a resource that the pod may have a device of.
func standInDevices(pod *podv1.Pod, definitions []plan.Definition) map[string][]string {
	devices := map[string][]string{}
	for i, d := range definitions {
		resource := d.Resource()
		if resource != "" && (pod.MetaOnly || len(pod.Claims) > 0 ||
			slices.Contains(pod.Requested, resource)) {
			devices[resource] = append(devices[resource], fmt.Sprintf("0000:00:00.%d", i))
		}
	}
	return devices
}

// deviceRequests returns the resources of devices that the pod requests. A resource without
// devices, in the pod or on the node, is a mark of nodes and left out: KubeVirt's pods request such
// marks of their bridges.
func (r *Resolver) deviceRequests(ctx context.Context, pod *podv1.Pod, in *plan.Input) []string {
	return slices.DeleteFunc(slices.Clone(pod.Requested), func(resource string) bool {
		used := slices.ContainsFunc(in.Definitions, func(d plan.Definition) bool {
			return d.Resource() == resource
		})
		return !used || len(pod.Claims) == 0 && len(in.Devices[resource]) == 0 &&
			!r.Devices.Has(ctx, resource)
	})
}
