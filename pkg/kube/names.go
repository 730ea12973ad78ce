package kube

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// What is called by plural in the API, for URLs and errors. Values: there is nothing to change in
// them.
func podResource() schema.GroupResource { return schema.GroupResource{Resource: "pods"} }

func nodeResource() schema.GroupResource { return schema.GroupResource{Resource: "nodes"} }

func nadResource() schema.GroupResource {
	return schema.GroupResource{Group: nadv1.GroupName, Resource: nadv1.Resource}
}

func blockResource() schema.GroupResource {
	return schema.GroupResource{Group: v1alpha1.GroupName, Resource: v1alpha1.Resource}
}

func claimResource() schema.GroupResource {
	return schema.GroupResource{Group: claimv1.GroupName, Resource: claimv1.Resource}
}

// CheckNames refuses what cannot name an object, before it becomes part of a URL or a path. What
// passes holds no slash, no underscore, and no empty or dot-only element.
func CheckNames(namespace, name string) error {
	if problems := validation.IsDNS1123Label(namespace); len(problems) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%.80q names no namespace: %s",
			namespace, strings.Join(problems, "; ")))
	}
	return checkName(name)
}

// checkName is checkNames for what has no namespace.
func checkName(name string) error {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("%.80q names no object: %s",
			name, strings.Join(problems, "; ")))
	}
	return nil
}
