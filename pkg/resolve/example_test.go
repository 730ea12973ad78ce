package resolve_test

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/resolve"
)

// storage is a Source of one NAD.
type storage struct{}

func (storage) Pod(_ context.Context, _, name string) (*podv1.Pod, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
}

func (storage) NAD(
	_ context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if name != "storage" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: nadv1.Resource}, name)
	}
	return &nadv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: nadv1.NetworkAttachmentDefinitionSpec{
			Config: `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}`,
		},
	}, nil
}

func (storage) Namespace(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	return &metav1.ObjectMeta{Name: name}, nil
}

// A pod that asks for a network and names its interface, and one that asks for a network that there
// is not.
func ExampleResolver_Attachments() {
	cfg, err := conf.Load([]byte(
		`{"cniVersion": "1.1.0", "name": "braid", "delegates": [{"name": "pods", "type": "bridge"}]}`))
	if err != nil {
		panic(err)
	}
	resolver := &resolve.Resolver{Node: &cfg.Node, Policy: &cfg.Policy, Source: storage{}}
	for _, networks := range []string{"storage@data", "backup"} {
		pod := &podv1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: "p", Annotations: map[string]string{nadv1.NetworksAnnotation: networks},
		}}
		attachments, err := resolver.Attachments(context.Background(), resolve.Any(&cfg.Call), pod)
		if err != nil {
			fmt.Println(failure.ReasonOf(err))
		}
		for _, a := range attachments {
			fmt.Println(a.IfName, a.Name)
		}
	}
	// Output:
	// eth0 pods
	// data web/storage
	// NADNotFound
}
