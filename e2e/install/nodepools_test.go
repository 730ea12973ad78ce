package install_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const poolLabel = "cloud.google.com/gke-nodepool"

// TestU11LabelIsEnough: a pod of the guide waits for a node of its network's pool, and says so. The
// label that the guide names is all that it takes; a node that loses it keeps its pods, and gets no
// more.
func TestU11LabelIsEnough(t *testing.T) {
	w := newWorld(t)
	w.installed()
	w.guide("node-pool.yaml")
	const name = "sample-pod-on-pool"
	w.unschedulable(name)
	n := w.Nodes()[1]
	_, err := w.Kubectl(w.ctx, "label", "nodes", n.Name, poolLabel+"=sample-pool")
	w.must(err)
	if pod := w.running(name); pod.Spec.NodeName != n.Name {
		t.Errorf("the pod runs on %s, and %s has the label", pod.Spec.NodeName, n.Name)
	}
	_, err = w.Kubectl(w.ctx, "label", "nodes", n.Name, poolLabel+"-")
	w.must(err)
	w.must(w.create(w.ctx, lab.Pod("default", "late",
		map[string]string{nadv1.NetworksAnnotation: secondNetwork})))
	w.unschedulable("late")
	w.running(name)
	w.gone(name, "late")
	w.delete("net-attach-def", secondNetwork)
}

// TestU2NodePools: networks are tied to the worker nodes of their pools. The pods of two
// Deployments run where theirs is, and on no node of the control plane that has it; a pod that
// wants both is refused by the names of both.
func TestU2NodePools(t *testing.T) {
	w := newWorld(t)
	w.installed()
	first, second := w.Nodes()[0], w.Nodes()[1]
	label := func(n *lab.Node, value string) {
		t.Helper()
		_, err := w.Kubectl(w.ctx, "label", "nodes", n.Name, "--overwrite", poolLabel+value)
		w.must(err)
	}
	label(first, "=blue")
	label(second, "=green")
	defer label(first, "-")
	defer label(second, "-")
	for _, pool := range []string{"blue", "green"} {
		nad := w.nad(pool, dataPlane, poolLabel+"="+pool)
		w.eventually("the network is admitted", func() error { return w.Apply(w.ctx, nad) })
		_, err := w.Client().AppsV1().Deployments("default").
			Create(w.ctx, deployment(pool, 3), metav1.CreateOptions{})
		w.must(err)
	}
	w.eventually("all pods run where their networks are", func() error {
		return errors.Join(w.allOn("blue", first, 3), w.allOn("green", second, 3))
	})
	both := lab.Pod("default", "both", map[string]string{nadv1.NetworksAnnotation: "blue,green"})
	err := w.create(w.ctx, both)
	for _, word := range []string{
		"default/both", "NAD default/blue (" + poolLabel + "=blue)",
		"NAD default/green (" + poolLabel + "=green)", "have one of the networks only",
	} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("a pod of both pools: %v, want %q", err, word)
		}
	}

	const role = "node-role.kubernetes.io/control-plane"
	_, err = w.Kubectl(w.ctx, "taint", "nodes", first.Name, role+":NoSchedule")
	w.must(err)
	defer func() { // for a test that fails
		w.Kubectl(w.ctx, "taint", "nodes", first.Name, role+":NoSchedule-")
	}()
	label(first, "=green")
	_, err = w.Kubectl(w.ctx, "scale", "--replicas=5", "deployment/green")
	w.must(err)
	w.eventually("the pods run on the worker nodes of the pool", func() error {
		return w.allOn("green", second, 5)
	})
	_, err = w.Kubectl(w.ctx, "taint", "nodes", first.Name, role+":NoSchedule-")
	w.must(err)
	w.delete("deployments", "blue", "green")
	w.eventually("their pods are gone", func() error {
		return errors.Join(w.allOn("blue", first, 0), w.allOn("green", second, 0))
	})
	w.delete("net-attach-def", "blue", "green")
}

// nad is a NAD of the namespace default; selector is empty for none.
func (w *world) nad(name, config, selector string) string {
	w.t.Helper()
	annotations := map[string]string{}
	if selector != "" {
		annotations[nadv1.NodeSelectorAnnotation] = selector
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": nadv1.GroupName + "/" + nadv1.Version, "kind": nadv1.Kind,
		"metadata": map[string]any{"name": name, "namespace": "default", "annotations": annotations},
		"spec":     map[string]any{"config": config},
	})
	w.must(err)
	return string(text)
}

// deployment is one of pods that have the network of its name.
func deployment(name string, replicas int32) *appsv1.Deployment {
	pod := lab.Pod("", "", map[string]string{nadv1.NetworksAnnotation: name})
	pod.Labels = map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec},
		},
	}
}

// allOn returns an error unless a Deployment has so many pods, and all run on a node with net1.
func (w *world) allOn(name string, n *lab.Node, want int) error {
	pods, err := w.Client().CoreV1().Pods("default").
		List(w.ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if p.Spec.NodeName != n.Name && p.Spec.NodeName != "" {
			w.t.Fatalf("pod %s of %s is on %s, and not on %s", p.Name, name, p.Spec.NodeName, n.Name)
		}
		if p.Status.Phase != corev1.PodRunning ||
			!strings.Contains(p.Annotations[nadv1.StatusAnnotation], `"net1"`) {
			return fmt.Errorf("pod %s of %s is %s", p.Name, name, p.Status.Phase)
		}
	}
	if len(pods.Items) != want {
		return fmt.Errorf("%s has %d pods, not %d", name, len(pods.Items), want)
	}
	return nil
}

// unschedulable waits for the scheduler's event that no node has what a pod selects.
func (w *world) unschedulable(name string) {
	w.t.Helper()
	w.eventually("no node is "+name+"'s", func() error {
		out, err := w.Kubectl(w.ctx, "events", "--for=pod/"+name)
		if err == nil && (!strings.Contains(out, "FailedScheduling") ||
			!strings.Contains(out, "didn't match Pod's node affinity/selector")) {
			err = errors.New(out)
		}
		return err
	})
	pod, err := w.Client().CoreV1().Pods("default").Get(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	if pod.Spec.NodeName != "" {
		w.t.Errorf("pod %s is on %s", name, pod.Spec.NodeName)
	}
}

// delete deletes objects of one kind in the namespace default.
func (w *world) delete(kind string, names ...string) {
	w.t.Helper()
	_, err := w.Kubectl(w.ctx, append([]string{"delete", kind}, names...)...)
	w.must(err)
}
