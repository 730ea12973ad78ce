package admit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/failure"
)

// devices finds out of which resources the pod has to request more for its networks: one device for
// each attachment. What it requests itself counts. A pod with claims of dynamic resource allocation
// may get its devices by them, which is not known yet: nothing is added.
func (c *changes) devices(spec *corev1.PodSpec, nads []attached) (warnings []*failure.Error) {
	needed, of := map[string]int64{}, map[string]string{}
	for _, nad := range nads {
		if resource := nad.Annotations[nadv1.ResourceNameAnnotation]; resource != "" {
			needed[resource]++
			of[resource] = nad.Namespace + "/" + nad.Name
		}
	}
	for _, resource := range slices.Sorted(maps.Keys(needed)) {
		more := needed[resource] - requested(spec, resource)
		if more <= 0 {
			continue
		}
		if w := addable(spec, resource, of[resource]); w != nil {
			warnings = append(warnings, w)
			continue
		}
		c.more(resource, more)
	}
	return warnings
}

// rooms finds out of which networks' resources the pod has to request more, for the scheduler to
// find a node that has room for it: one for each attachment. A pod that is bound to a node is not
// scheduled. An address that an IPAMClaim keeps may be there, whatever else is free.
func (c *changes) rooms(spec *corev1.PodSpec, nads []attached) {
	if spec.NodeName != "" {
		return
	}
	needed := map[string]int64{}
	for _, nad := range nads {
		if asks, err := capacity.Asks(&nad.ObjectMeta); asks && err == nil &&
			nad.selection.IPAMClaim == "" {
			needed[capacity.Resource(&nad.ObjectMeta)]++
		}
	}
	for resource, n := range needed {
		c.more(resource, n-requested(spec, resource))
	}
}

// more has the pod request more of a resource.
func (c *changes) more(resource string, amount int64) {
	if amount <= 0 {
		return
	}
	if c.resources == nil {
		c.resources = map[string]int64{}
	}
	c.resources[resource] += amount
}

// addable is why requests of a resource are not added; nil if they are.
func addable(spec *corev1.PodSpec, resource, nad string) *failure.Error {
	const field = "metadata.annotations." + nadv1.ResourceNameAnnotation
	if !extended(resource) {
		return &failure.Error{
			Reason: failure.DeviceUnavailable, NAD: nad, Field: field,
			Err: fmt.Errorf("%.80q is no name of an extended resource, so none is requested", resource),
			Fix: "name it as the device plugin does, such as vendor.com/nic",
		}
	}
	if len(spec.ResourceClaims) > 0 {
		return &failure.Error{
			Reason: failure.DeviceUnavailable, NAD: nad, Field: field,
			Err: errors.New("the pod has resource claims, which may bring the device: no resource is " +
				"requested for it"),
			Fix: "request " + resource + " in a container, if it is a device plugin's",
		}
	}
	return nil
}

// extended reports whether a resource is one that a pod may request and only a device plugin has.
func extended(resource string) bool {
	domain, _, qualified := strings.Cut(resource, "/")
	return qualified && len(validation.IsQualifiedName(resource)) == 0 &&
		len(validation.IsQualifiedName("requests."+resource)) == 0 &&
		domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") &&
		!strings.HasPrefix(resource, "requests.")
}

// requested is how much of a resource the pod's containers have at the same time as its networks.
// An init container that ends gives its devices back.
func requested(spec *corev1.PodSpec, resource string) (sum int64) {
	for i := range spec.InitContainers {
		if policy := spec.InitContainers[i].RestartPolicy; policy != nil &&
			*policy == corev1.ContainerRestartPolicyAlways {
			sum += amount(&spec.InitContainers[i], resource)
		}
	}
	for i := range spec.Containers {
		sum += amount(&spec.Containers[i], resource)
	}
	return sum
}

// amount is how much of a resource a container gets.
func amount(container *corev1.Container, resource string) int64 {
	name := corev1.ResourceName(resource)
	request, limit := container.Resources.Requests[name], container.Resources.Limits[name]
	return max(request.Value(), limit.Value())
}
