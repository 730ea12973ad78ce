package objects

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// MaxName is how many bytes the name of an object may have.
const MaxName = 253

// PodResource is what pods are called in errors and URLs, as are the others below.
func PodResource() schema.GroupResource { return schema.GroupResource{Resource: "pods"} }

// NodeResource is that of nodes.
func NodeResource() schema.GroupResource { return schema.GroupResource{Resource: "nodes"} }

// NADResource is that of network-attachment-definitions.
func NADResource() schema.GroupResource {
	return schema.GroupResource{Group: nadv1.GroupName, Resource: nadv1.Resource}
}

// BlockType is the type that an IPBlock names.
func BlockType() metav1.TypeMeta {
	return metav1.TypeMeta{
		APIVersion: v1alpha1.GroupName + "/" + v1alpha1.Version, Kind: v1alpha1.Kind,
	}
}

// BlockResource is that of IPBlocks.
func BlockResource() schema.GroupResource {
	return schema.GroupResource{Group: v1alpha1.GroupName, Resource: v1alpha1.Resource}
}

// ClaimResource is that of IPAMClaims.
func ClaimResource() schema.GroupResource {
	return schema.GroupResource{Group: claimv1.GroupName, Resource: claimv1.Resource}
}

// CheckNames refuses what cannot name an object, before it becomes part of a URL or a path. What
// passes holds no slash, no underscore, and no empty or dot-only element.
func CheckNames(namespace, name string) error {
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%.80q names no namespace: %s",
			namespace, strings.Join(problems, "; ")))
	}
	return CheckName(name)
}

// CheckName is CheckNames for what has no namespace.
func CheckName(name string) error {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%.80q names no object: %s",
			name, strings.Join(problems, "; ")))
	}
	return nil
}

// CheckUID returns an error if an object has no uid: it could not be told from another of its name.
func CheckUID(kind string, meta *metav1.ObjectMeta) error {
	if meta.UID == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s %.80q has no uid",
			kind, meta.Namespace+"/"+meta.Name))
	}
	return nil
}

// CheckVersion returns an error if a block has no uid or version: it could not be told from another
// of its name.
func CheckVersion(block *v1alpha1.IPBlock) error {
	if block.UID == "" || block.ResourceVersion == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("block %.80q has no uid or no resourceVersion",
			block.Name))
	}
	return nil
}

// Answered reports whether an error is an API server's answer, or one that stands for it. It is
// false if there was no answer.
func Answered(err error) bool {
	_, ok := errors.AsType[*apierrors.StatusError](err)
	return ok
}
