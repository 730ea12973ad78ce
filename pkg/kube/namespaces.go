package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// Namespace returns a namespace, of its metadata the name and the labels.
func (a *API) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	var namespace wireMetadata
	c := &call{
		verb: "get namespace", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return c.core.Get().Resource("namespaces").Name(name).SetHeader("Accept", metadataType)
		},
	}
	if err := a.get(ctx, c, &namespace, &namespace.Metadata.ObjectMeta); err != nil {
		return nil, err
	}
	return &metav1.ObjectMeta{Name: name, Labels: namespace.Metadata.Labels}, nil
}

// Namespace returns the metadata of a Namespace manifest.
func (m *Manifests) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if err := objects.CheckName(name); err != nil {
		return nil, fmt.Errorf("get namespace: %w", err)
	}
	var namespace metaManifest
	kind := schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}
	resource := schema.GroupResource{Resource: "namespaces"}
	err := m.find(ctx, kind, resource, defaultSpace, name, failure.InvalidConfig, &namespace)
	if err != nil {
		return nil, err
	}
	return &metav1.ObjectMeta{Name: name, Labels: namespace.Labels}, nil
}
