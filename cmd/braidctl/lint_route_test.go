package main

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/lint"
)

// TestR3Lint: who applies a network with a default route is told what becomes of it.
func TestR3Lint(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string]string{
		"keep":   "[warning DefaultRouteKept plugins[0].ipam.routes[0]]",
		"take":   "[warning DefaultRouteTaken plugins[0].ipam.routes[0]]",
		"refuse": "[refused DefaultRouteRefused plugins[0].ipam.routes[0]]",
	} {
		in, err := new(nodeInput).input()
		if err != nil {
			t.Fatal(err)
		}
		in.Config.SecondaryDefaultRoute = policy
		nad := lint.NAD{}
		nad.Namespace, nad.Name = "default", "a"
		nad.Spec.Config = `{"cniVersion":"1.0.0","type":"macvlan","ipam":{"type":"host-local",` +
			`"subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}`
		in.NADs = []lint.NAD{nad}
		in.Pods = []lint.Pod{{Kind: "Pod", Pod: podv1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "asks",
			Annotations: map[string]string{nadv1.NetworksAnnotation: `[{"name":"a","default-route":[]}]`},
		}}}}
		var got []string
		for _, f := range lint.Check(t.Context(), *in) {
			if f.Kind == nadv1.Kind {
				got = append(got, fmt.Sprint(f.Verdict, " ", f.Reason, " ", f.Field))
			}
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, want %s", policy, got, want)
		}
	}
}
