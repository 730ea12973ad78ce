package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// OwnerOf returns the uid of the object that manages a pod, such as its DaemonSet; empty if none
// does.
func (a *API) OwnerOf(ctx context.Context, namespace, pod string) (types.UID, error) {
	var object wireMetadata
	c := &call{
		verb: "get pod", namespace: namespace, name: pod,
		request: func(c *client) *rest.Request {
			return c.core.Get().Namespace(namespace).Resource("pods").Name(pod).
				SetHeader("Accept", metadataType)
		},
	}
	if err := a.get(ctx, c, &object, &object.Metadata.ObjectMeta); err != nil {
		return "", err
	}
	if owner := metav1.GetControllerOf(&object.Metadata.ObjectMeta); owner != nil {
		return owner.UID, nil
	}
	return "", nil
}

// SetDaemonSetEnv sets variables in a container of a DaemonSet, which starts its pods anew, all at
// once.
func (a *API) SetDaemonSetEnv(
	ctx context.Context, namespace, name, container string, env map[string]string,
) error {
	type variable struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	var variables []variable
	for _, key := range slices.Sorted(maps.Keys(env)) {
		variables = append(variables, variable{key, env[key]})
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{
		"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxUnavailable": "100%"}},
		"template": map[string]any{"spec": map[string]any{
			"containers": []map[string]any{{"name": container, "env": variables}},
		}},
	}})
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	_, err = a.do(ctx, &call{
		verb: "patch DaemonSet", namespace: namespace, name: name,
		request: func(c *client) *rest.Request {
			return send(c.core.Patch(types.StrategicMergePatchType).
				AbsPath("/apis/apps/v1/namespaces", namespace, "daemonsets", name).
				SetHeader("Accept", metadataType), body)
		},
	})
	return err
}
