package lint_test

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/lint"
)

// content is with every plugin.
type content struct{}

func (content) Find(string, []byte, []string) (invoke.Found, error) { return invoke.Found{}, nil }

// A NAD that is no JSON, and a pod that names it with a key that has no effect.
func ExampleCheck() {
	cfg, err := conf.Load([]byte(
		`{"cniVersion": "1.1.0", "name": "braid", "clusterNetwork": "/etc/cni/net.d/pods.conflist"}`))
	if err != nil {
		panic(err)
	}
	nad := func(name, config string) lint.NAD {
		return lint.NAD{NetworkAttachmentDefinition: nadv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: name},
			Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
		}}
	}
	pod := lint.Pod{
		Kind: "Pod",
		Pod: podv1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "web", Name: "p",
			Annotations: map[string]string{
				nadv1.NetworksAnnotation: `[{"name": "good", "gateway": ["10.0.0.1"]}]`,
			},
		}},
	}
	findings := lint.Check(context.Background(), lint.Input{
		Config: cfg, Pods: []lint.Pod{pod}, Complete: true,
		NADs: []lint.NAD{
			nad("broken", `{"type": "macvlan",}`), nad("good", `{"cniVersion": "1.0.0", "type": "bridge"}`),
		},
		Finder: content{},
	})
	for _, f := range findings {
		fmt.Println(f.Verdict, f.Kind, f.Name, f.Reason)
	}
	// Output:
	// refused NetworkAttachmentDefinition broken NADInvalid
	// warning Pod p IgnoredKey
}
