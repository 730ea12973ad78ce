package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// applyWait is how often Apply looks for what the API server does in its own time.
const applyWait = 20 * time.Millisecond

// Apply applies manifests, as YAML or JSON, one object after the other, as UserAdmin (server-side
// apply). When it returns, objects of the kinds that it defined can be made.
func (a *API) Apply(ctx context.Context, manifests string) error {
	return a.applyAll(ctx, manifests, false)
}

// DryRun has the API server judge manifests as if they were applied, one object after the other,
// and changes nothing. A field that it does not know is an error. What the objects need, such as
// namespaces and definitions of kinds, has to be there.
func (a *API) DryRun(ctx context.Context, manifests string) error {
	return a.applyAll(ctx, manifests, true)
}

// applyAll applies the documents of manifests in order, up to the first that is refused.
func (a *API) applyAll(ctx context.Context, manifests string, dry bool) error {
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		var object unstructured.Unstructured
		err := documents.Decode(&object.Object)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("parse manifest: %w", err)
		case len(object.Object) == 0:
			continue // comments between two lines of dashes
		}
		if err := a.apply(ctx, &object, dry); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

// apply applies one object. It returns when objects of a kind that it defines can be made.
func (a *API) apply(ctx context.Context, object *unstructured.Unstructured, dry bool) error {
	path, err := a.resourcePath(object.GroupVersionKind(), object.GetNamespace())
	if err != nil {
		return err
	}
	body, err := object.MarshalJSON()
	if err != nil {
		return err
	}
	request := a.client.CoreV1().RESTClient().Patch(types.ApplyPatchType).
		AbsPath(path, object.GetName())
	if dry {
		request.Param("dryRun", metav1.DryRunAll).Param("fieldValidation", metav1.FieldValidationStrict)
	}
	err = request.Param("fieldManager", "lab").Param("force", "true").Body(body).Do(ctx).Error()
	if err != nil {
		return err
	}
	if dry || object.GetKind() != "CustomResourceDefinition" {
		return nil
	}
	return a.awaitCustomResource(ctx, object)
}

// resourcePath is the URL's path of the objects of a kind in a namespace, "default" where that is
// empty.
func (a *API) resourcePath(kind schema.GroupVersionKind, namespace string) (string, error) {
	list, err := a.client.Discovery().ServerResourcesForGroupVersion(kind.GroupVersion().String())
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool {
		return r.Kind == kind.Kind && !strings.Contains(r.Name, "/")
	})
	if i < 0 {
		return "", fmt.Errorf("the API server has no %s", kind)
	}
	elements := []string{"apis", kind.Group, kind.Version}
	if kind.Group == "" {
		elements = []string{"api", kind.Version}
	}
	if list.APIResources[i].Namespaced {
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		elements = append(elements, "namespaces", namespace)
	}
	return url.JoinPath("/", append(elements, list.APIResources[i].Name)...)
}

// awaitCustomResource waits until objects of a kind that was just defined can be listed, in all of
// its versions.
func (a *API) awaitCustomResource(
	ctx context.Context, definition *unstructured.Unstructured,
) error {
	field := func(path ...string) string {
		value, _, _ := unstructured.NestedString(definition.Object, path...)
		return value
	}
	versions, _, err := unstructured.NestedSlice(definition.Object, "spec", "versions")
	if err != nil {
		return err
	}
	for _, v := range versions {
		version, ok := v.(map[string]any)
		if !ok || version["served"] != true {
			continue
		}
		path := fmt.Sprintf("/apis/%s/%v/%s",
			field("spec", "group"), version["name"], field("spec", "names", "plural"))
		if err := a.await(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// await waits until there is something at a path.
func (a *API) await(ctx context.Context, path string) error {
	for {
		err := a.client.CoreV1().RESTClient().Get().AbsPath(path).Do(ctx).Error()
		if err == nil || !apierrors.IsNotFound(err) {
			return err
		}
		if sleep(ctx, applyWait) != nil {
			return fmt.Errorf("wait for %s: %w", path, err)
		}
	}
}
