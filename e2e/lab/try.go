package lab

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"k8s.io/client-go/kubernetes"
)

// Try has the API server judge one write, at an absolute path, as if it was done, and changes
// nothing. The method is POST, PUT, PATCH or DELETE. A PATCH is a strategic merge patch of nodes,
// else a merge patch; the body of a PUT is one, too, of what UserAdmin finds at the path. DELETE
// has no body.
func (a *API) Try(
	ctx context.Context, client kubernetes.Interface, method, path, body string,
) error {
	kind := types.MergePatchType
	if strings.HasPrefix(path, "/api/v1/nodes/") {
		kind = types.StrategicMergePatchType
	}
	switch method {
	case http.MethodPut:
		merged, err := a.client.CoreV1().RESTClient().Patch(kind).AbsPath(path).
			Param("dryRun", metav1.DryRunAll).Body([]byte(body)).DoRaw(ctx)
		if err != nil {
			return fmt.Errorf("merge into %s: %w", path, err)
		}
		body = string(merged)
	case http.MethodDelete: // its options are either all in the body or none
		body = `{"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]}`
	}
	request := client.CoreV1().RESTClient().Verb(method).AbsPath(path).
		Param("dryRun", metav1.DryRunAll).SetHeader("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.SetHeader("Content-Type", string(kind))
	}
	return request.Body([]byte(body)).Do(ctx).Error()
}
