package sourcetest

import (
	"context"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Namespaces is the interface under test, as pkg/resolve consumes it.
type Namespaces interface {
	Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error)
}

// RunNamespaces tests what knows the labels of namespaces.
func RunNamespaces(
	t *testing.T, src Namespaces, create func(t *testing.T, name string, labels map[string]string),
) {
	create(t, "contract-labelled", map[string]string{"example.org/a": "", "b": "c"})
	namespace, err := src.Namespace(t.Context(), "contract-labelled")
	if err != nil {
		t.Fatal(err)
	}
	if got := namespace.Labels; got["b"] != "c" || !metav1.HasLabel(*namespace, "example.org/a") {
		t.Errorf("labels are %v", got)
	}
	if _, err := src.Namespace(t.Context(), "no-such-namespace"); !apierrors.IsNotFound(err) {
		t.Errorf("no such namespace: got error %v, want not found", err)
	}
	for _, name := range badNames() {
		_, err := src.Namespace(t.Context(), name)
		isBadRequest(t, name, map[string]error{"Namespace": err})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = src.Namespace(ctx, "contract-labelled")
	isCancelled(t, map[string]error{"Namespace": err})
}
