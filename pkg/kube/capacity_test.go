package kube

import (
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Resources of a Node are set, both capacity and allocatable, and removed; others stay.
func TestAPINodeResources(t *testing.T) {
	server, api := reporter(t)
	cpu := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4")}
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "resources"},
		Status:     corev1.NodeStatus{Capacity: cpu, Allocatable: cpu},
	}
	nodes := server.Client().CoreV1().Nodes()
	if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const a, b = "braid-cni.io/a", "braid-cni.io/b"
	number := func(n int64) *int64 { return &n }
	for _, step := range []struct {
		set  map[string]*int64
		want map[string]string
	}{
		{map[string]*int64{a: number(10000), b: number(0)}, map[string]string{a: "10k", b: "0"}},
		{map[string]*int64{a: nil, b: number(7)}, map[string]string{b: "7"}},
		{map[string]*int64{a: nil, b: nil}, map[string]string{}},
	} {
		if err := api.SetNodeResources(t.Context(), "resources", step.set); err != nil {
			t.Fatal(err)
		}
		got, err := api.NodeResources(t.Context(), "resources")
		if err != nil || got["cpu"] != "4" {
			t.Errorf("resources %v, %v", got, err)
		}
		maps.DeleteFunc(got, func(name, _ string) bool {
			return !strings.HasPrefix(name, "braid-cni.io/")
		})
		if !maps.Equal(got, step.want) {
			t.Errorf("resources %v, want %v", got, step.want)
		}
		object, err := nodes.Get(t.Context(), "resources", metav1.GetOptions{})
		if err != nil || !maps.EqualFunc(object.Status.Capacity, object.Status.Allocatable,
			func(a, b resource.Quantity) bool {
				return a.Equal(b)
			}) {
			t.Errorf("capacity %v, allocatable %v, %v",
				object.Status.Capacity, object.Status.Allocatable, err)
		}
	}
}
