package kube

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// DeleteWebhooks deletes the webhook configurations of a name, mutating and validating. One that is
// not there is none to delete.
func (a *API) DeleteWebhooks(ctx context.Context, name string) error {
	for _, resource := range []string{
		"mutatingwebhookconfigurations", "validatingwebhookconfigurations",
	} {
		_, err := a.do(ctx, &call{
			verb: "delete " + resource, scope: clusterScoped, name: name,
			request: func(c *client) *rest.Request {
				return c.core.Delete().AbsPath("/apis/admissionregistration.k8s.io/v1", resource, name).
					SetHeader("Accept", metadataType)
			},
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
