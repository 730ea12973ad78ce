package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// RemoveTaint removes all taints of a node that have the key. It is an error, and nothing is
// changed, if others change the taints at the same time.
func (a *API) RemoveTaint(ctx context.Context, name, key string) error {
	var node struct {
		wireMetadata

		Spec struct {
			Taints []map[string]any `json:"taints"`
		} `json:"spec"`
	}
	get := &call{
		verb: "get node", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return c.core.Get().Resource("nodes").Name(name)
		},
	}
	if err := a.get(ctx, get, &node, &node.Metadata.ObjectMeta); err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(taint map[string]any) bool {
		return taint["key"] == key
	})
	if len(left) == len(node.Spec.Taints) {
		return nil
	}
	body, err := json.Marshal([]patchStep{
		{"test", "/spec/taints", node.Spec.Taints}, {"replace", "/spec/taints", left},
	})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	return a.patchNodeSpec(ctx, name, body)
}

// patchNodeSpec sends a JSON patch of a Node.
func (a *API) patchNodeSpec(ctx context.Context, name string, steps []byte) error {
	_, err := a.do(ctx, &call{
		verb: "patch taints of node", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return send(c.core.Patch(types.JSONPatchType).Resource("nodes").Name(name).
				SetHeader("Accept", metadataType), steps)
		},
	})
	return err
}
