package manifests

import (
	"context"
	"fmt"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime/schema"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	resourcev1 "github.com/braid-cni/braid/pkg/api/resource/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// kind is a kind of object that is looked for by name.
type kind struct {
	schema.GroupVersionKind
	resource schema.GroupResource
	// broken is the class of the error of an object that cannot be decoded.
	broken failure.Reason
}

func coreKind(name string, resource schema.GroupResource, broken failure.Reason) kind {
	return kind{schema.GroupVersionKind{Version: "v1", Kind: name}, resource, broken}
}

func podKind() kind { return coreKind("Pod", objects.PodResource(), failure.InvalidAnnotation) }

func nodeKind() kind { return coreKind("Node", objects.NodeResource(), failure.InvalidConfig) }

func namespaceKind() kind {
	resource := schema.GroupResource{Resource: "namespaces"}
	return coreKind("Namespace", resource, failure.InvalidConfig)
}

func nadKind() kind {
	gvk := schema.GroupVersionKind{
		Group: nadv1.GroupName, Version: nadv1.Version, Kind: nadv1.Kind,
	}
	return kind{gvk, objects.NADResource(), failure.NADInvalid}
}

func ipamClaimKind() kind {
	gvk := schema.GroupVersionKind{
		Group: claimv1.GroupName, Version: claimv1.Version, Kind: claimv1.Kind,
	}
	return kind{gvk, objects.ClaimResource(), failure.InvalidConfig}
}

func resourceClaimKind() kind {
	return resourceKind(resourcev1.ClaimKind, resourcev1.ClaimResource)
}

func resourceSliceKind() kind {
	return resourceKind(resourcev1.SliceKind, resourcev1.SliceResource)
}

func resourceKind(name, plural string) kind {
	gvk := schema.GroupVersionKind{
		Group: resourcev1.GroupName, Version: resourcev1.Version, Kind: name,
	}
	resource := schema.GroupResource{Group: resourcev1.GroupName, Resource: plural}
	return kind{gvk, resource, failure.InvalidConfig}
}

// find decodes the one object of that kind and name into out. A missing one is IsNotFound.
func (d *Directory) find(ctx context.Context, k kind, namespace, name string, out any) error {
	all, err := readDirectory(ctx, d.dir)
	if err != nil {
		return err
	}
	return d.findIn(all, k, namespace, name, out)
}

// findIn decodes the one object of a kind and name among the contents. Two of them are an error.
func (d *Directory) findIn(all *contents, k kind, namespace, name string, out any) error {
	switch found := all.named(k.GroupVersionKind, namespace, name); len(found) {
	case 0:
		return all.notFound(k.resource, name)
	case 1:
		if err := decodeObject(found[0].raw, out); err != nil {
			return &failure.Error{
				Reason: k.broken, Err: fmt.Errorf("decode %s %s/%s in %s: %w",
					k.Kind, namespace, name, filepath.Join(d.dir, found[0].where), err),
				Fix: "correct the manifest",
			}
		}
		return nil
	default:
		return invalid(
			fmt.Errorf("%s %s/%s is in %s twice: in %s and in %s",
				k.Kind, namespace, name, d.dir, found[0].where, found[1].where),
			"remove one of them")
	}
}
