package kube

import (
	"context"

	"k8s.io/client-go/rest"
)

// wireResources is a node as far as it says what it has.
type wireResources struct {
	wireMetadata

	Status struct {
		Capacity map[string]string `json:"capacity"`
	} `json:"status"`
}

// NodeResources returns the quantities of a node's resources, as they are written.
func (a *API) NodeResources(ctx context.Context, name string) (map[string]string, error) {
	var node wireResources
	c := &call{
		verb: "get node", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return c.core.Get().Resource("nodes").Name(name)
		},
	}
	if err := a.get(ctx, c, &node, &node.Metadata.ObjectMeta); err != nil {
		return nil, err
	}
	return node.Status.Capacity, nil
}

// SetNodeResources sets quantities of a node, both its capacity and what of it is allocatable, by
// one PATCH of nodes/status; a nil removes a resource. Other resources stay as they are. A kubelet
// takes over what it finds there, and sets it to 0 when it makes the Node anew.
func (a *API) SetNodeResources(
	ctx context.Context, name string, quantities map[string]*int64,
) error {
	status := map[string]any{"capacity": quantities, "allocatable": quantities}
	return a.patchNodeStatus(ctx, name, map[string]any{"status": status})
}
