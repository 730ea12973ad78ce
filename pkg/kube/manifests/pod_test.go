package manifests

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/failure"
)

// What a pod requests, be it as a string or a number, by whichever container.
func TestR4ResourcesThatArePodRequests(t *testing.T) {
	src, _ := newDirectory(t, map[string]string{"p.yaml": `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  resources: {requests: {pod.example.com/x: 1}}
  initContainers: [{name: i, resources: {limits: {v/init: "2"}}}]
  containers:
  - {name: c, resources: {limits: {v/nic: 1, v/none: 0}, requests: {v/nic: "1", cpu: 100m, v/zero: "0"}}}
  - {name: d}
`, "q.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: q}}", "bad.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: bad}, spec: {containers: 1}}"})
	pod, err := src.Pod(t.Context(), "default", "p")
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff([]string{"cpu", "pod.example.com/x", "v/init", "v/nic"}, pod.Requested)
	if diff != "" {
		t.Errorf("requested (-want +got):\n%s", diff)
	}
	pod, err = src.Pod(t.Context(), "default", "q")
	if err != nil || len(pod.Requested)+len(pod.Claims) > 0 {
		t.Errorf("got %+v, %v", pod, err)
	}
	_, err = src.Pod(t.Context(), "default", "bad")
	if failure.ReasonOf(err) != failure.InvalidAnnotation {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
}
