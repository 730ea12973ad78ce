package node

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/notes"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
)

// LabelAge is for how long a node trusts what it knows of a namespace's policy.TenantLabel.
const LabelAge = 2 * time.Minute

// tenants is a source that asks another for a namespace once in LabelAge. Of the labels it keeps
// policy.TenantLabel alone, without its value.
type tenants struct {
	resolve.Source
	known *notes.Notes
}

// What is noted of a namespace.
const (
	tenant    = "tenant"
	other     = "other"
	forbidden = "forbidden"
)

// remembering wraps a source for processes that live for one call: what they ask over the network
// is stored on the node.
func remembering(source resolve.Source, o Options, remote bool) resolve.Source {
	if !remote {
		return source
	}
	return &tenants{
		source, &notes.Notes{
			Dir: filepath.Join(o.Node.StateDir, "namespaces"), Life: LabelAge, Now: o.Now,
		},
	}
}

// Namespace implements resolve.Source.
func (t *tenants) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	switch text, _ := t.known.Get(name); text { // "" is that nothing is known
	case tenant:
		return &metav1.ObjectMeta{Name: name, Labels: map[string]string{policy.TenantLabel: ""}}, nil
	case other:
		return &metav1.ObjectMeta{Name: name}, nil
	case forbidden:
		return nil, apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, name,
			errors.New("the API server said so a short while ago"))
	}
	namespace, err := t.Source.Namespace(ctx, name)
	switch {
	case apierrors.IsForbidden(err):
		t.known.Put(name, forbidden)
	case err != nil:
	case metav1.HasLabel(*namespace, policy.TenantLabel):
		t.known.Put(name, tenant)
	default:
		t.known.Put(name, other)
	}
	return namespace, err
}
