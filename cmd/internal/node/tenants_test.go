package node

import (
	"context"
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
)

// asked is a source of namespaces that counts how often it is asked.
type asked struct {
	resolve.Source
	labels map[string]string
	err    error
	times  int
}

func (a *asked) Namespace(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	a.times++
	if a.err != nil {
		return nil, a.err
	}
	return &metav1.ObjectMeta{Name: name, Labels: a.labels}, nil
}

// TestM26LabelIsKnownForAWhile: a namespace is asked for once in LabelAge, by whichever process,
// and what cannot be known is asked for again.
func TestM26LabelIsKnownForAWhile(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	dir := t.TempDir()
	source := &asked{}
	get := func() (tenant bool, err error) {
		o := Options{Node: &conf.Node{StateDir: dir}, Now: func() time.Time { return now }}
		namespace, err := remembering(source, o, true).Namespace(t.Context(), "team")
		return err == nil && metav1.HasLabel(*namespace, policy.TenantLabel), err
	}
	is := func(what string, tenant bool, times int) {
		t.Helper()
		if got, err := get(); err != nil || got != tenant || source.times != times {
			t.Errorf("%s: tenant %t, %v, asked %d times; want %t and %d",
				what, got, err, source.times, tenant, times)
		}
	}
	source.err = errors.New("connection refused")
	if _, err := get(); err == nil {
		t.Error("an API server that is away is no error")
	}
	source.err, source.labels = nil, map[string]string{"team": "a"}
	is("no label", false, 2)
	source.labels = map[string]string{policy.TenantLabel: ""}
	is("labelled a moment ago", false, 2)
	now = now.Add(LabelAge)
	is("labelled", true, 3)
	source.labels = nil
	is("not labelled since a moment", true, 3)
	now = now.Add(LabelAge)
	is("not labelled", false, 4)
	now = now.Add(LabelAge)
	source.err = apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, "team",
		errors.New("no role"))
	for range 2 {
		if _, err := get(); !apierrors.IsForbidden(err) || source.times != 5 {
			t.Errorf("forbidden: %v, asked %d times", err, source.times)
		}
	}
	if remembering(source, Options{}, false) != resolve.Source(source) {
		t.Error("what is on the disk is noted, too")
	}
}
