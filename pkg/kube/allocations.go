package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fieldselector "k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"

	resourcev1 "github.com/braid-cni/braid/pkg/api/resource/v1"
)

const resourcePath = "/apis/" + resourcev1.GroupName + "/" + resourcev1.Version

// Allocated returns the devices that were allocated for a ResourceClaim.
func (a *API) Allocated(
	ctx context.Context, namespace, claim string,
) ([]resourcev1.Allocated, error) {
	var object struct {
		described
		resourcev1.Claim
	}
	c := &call{
		verb: "get ResourceClaim", namespace: namespace, name: claim,
		request: func(c *client) *rest.Request {
			return c.core.Get().AbsPath(resourcePath).Namespace(namespace).
				Resource(resourcev1.ClaimResource).Name(claim)
		},
	}
	if err := a.get(ctx, c, &object, &object); err != nil {
		return nil, err
	}
	return object.Status.Allocation.Devices.Results, nil
}

// DriverDevices returns the devices of a driver on a node, or for "" those that belong to no single
// node.
func (a *API) DriverDevices(
	ctx context.Context, driver, node string,
) ([]resourcev1.Device, error) {
	selector := fieldselector.SelectorFromSet(fieldselector.Set{
		"spec.driver": driver, "spec.nodeName": node,
	}).String()
	slices, err := listOf[resourcev1.Slice](ctx, a,
		&call{verb: "list ResourceSlices", request: func(c *client) *rest.Request {
			return c.core.Get().AbsPath(resourcePath).Resource(resourcev1.SliceResource)
		}}, metav1.ListOptions{FieldSelector: selector}, resourcev1.SliceKind+"List")
	return resourcev1.Devices(slices), err
}
