package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The agent's installation is the object that made its pod.
func TestAPIOwnerOf(t *testing.T) {
	server, api := reporter(t)
	controller := true
	for name, owners := range map[string][]metav1.OwnerReference{
		"owned": {{
			APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "the-uid",
			Controller: &controller,
		}},
		"alone": nil,
	} {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: owners},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		_, err := server.Client().CoreV1().Pods("default").
			Create(t.Context(), pod, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := types.UID("")
		if owners != nil {
			want = "the-uid"
		}
		if got, err := api.OwnerOf(t.Context(), "default", name); err != nil || got != want {
			t.Errorf("owner of %s: %q, %v, want %q", name, got, err, want)
		}
	}
}
