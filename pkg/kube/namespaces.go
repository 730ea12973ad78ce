package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
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
