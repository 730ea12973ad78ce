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
	r := newRig(t)
	r.installed()
	r.guide("node-pool.yaml")
	const name = "sample-pod-on-pool"
	r.unschedulable(name)
	n := r.Nodes()[1]
	_, err := r.Kubectl(r.ctx, "label", "nodes", n.Name, poolLabel+"=sample-pool")
	r.must(err)
	if pod := r.running(name); pod.Spec.NodeName != n.Name {
		t.Errorf("the pod runs on %s, and %s has the label", pod.Spec.NodeName, n.Name)
	}
	_, err = r.Kubectl(r.ctx, "label", "nodes", n.Name, poolLabel+"-")
	r.must(err)
	r.must(r.create(r.ctx, lab.Pod("default", "late",
		map[string]string{nadv1.NetworksAnnotation: secondNetwork})))
	r.unschedulable("late")
	r.running(name)
	r.gone(name, "late")
	r.delete("net-attach-def", secondNetwork)
}

// TestU2NodePools: networks are tied to the worker nodes of their pools. The pods of two
// Deployments run where theirs is, and on no node of the control plane that has it; a pod that
// wants both is refused by the names of both.
func TestU2NodePools(t *testing.T) {
	r := newRig(t)
	r.installed()
	first, second := r.Nodes()[0], r.Nodes()[1]
	label := func(n *lab.Node, value string) {
		t.Helper()
		_, err := r.Kubectl(r.ctx, "label", "nodes", n.Name, "--overwrite", poolLabel+value)
		r.must(err)
	}
	label(first, "=blue")
	label(second, "=green")
	defer label(first, "-")
	defer label(second, "-")
	for _, pool := range []string{"blue", "green"} {
		nad := r.nad(pool, dataPlane, poolLabel+"="+pool)
		r.eventually("the network is admitted", func() error { return r.Apply(r.ctx, nad) })
		_, err := r.Client().AppsV1().Deployments("default").
			Create(r.ctx, deployment(pool, 3), metav1.CreateOptions{})
		r.must(err)
	}
	r.eventually("all pods run where their networks are", func() error {
		return errors.Join(r.allOn("blue", first, 3), r.allOn("green", second, 3))
	})
	both := lab.Pod("default", "both", map[string]string{nadv1.NetworksAnnotation: "blue,green"})
	err := r.create(r.ctx, both)
	for _, word := range []string{
		"default/both", "NAD default/blue (" + poolLabel + "=blue)",
		"NAD default/green (" + poolLabel + "=green)", "have one of the networks only",
	} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("a pod of both pools: %v, want %q", err, word)
		}
	}

	const role = "node-role.kubernetes.io/control-plane"
	_, err = r.Kubectl(r.ctx, "taint", "nodes", first.Name, role+":NoSchedule")
	r.must(err)
	defer func() { // for a test that fails
		r.Kubectl(r.ctx, "taint", "nodes", first.Name, role+":NoSchedule-")
	}()
	label(first, "=green")
	_, err = r.Kubectl(r.ctx, "scale", "--replicas=5", "deployment/green")
	r.must(err)
	r.eventually("the pods run on the worker nodes of the pool", func() error {
		return r.allOn("green", second, 5)
	})
	_, err = r.Kubectl(r.ctx, "taint", "nodes", first.Name, role+":NoSchedule-")
	r.must(err)
	r.delete("deployments", "blue", "green")
	r.eventually("their pods are gone", func() error {
		return errors.Join(r.allOn("blue", first, 0), r.allOn("green", second, 0))
	})
	r.delete("net-attach-def", "blue", "green")
}

// nad is a NAD of the namespace default; selector is empty for none.
func (r *rig) nad(name, config, selector string) string {
	r.t.Helper()
	annotations := map[string]string{}
	if selector != "" {
		annotations[nadv1.NodeSelectorAnnotation] = selector
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": nadv1.GroupName + "/" + nadv1.Version, "kind": nadv1.Kind,
		"metadata": map[string]any{"name": name, "namespace": "default", "annotations": annotations},
		"spec":     map[string]any{"config": config},
	})
	r.must(err)
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
func (r *rig) allOn(name string, n *lab.Node, want int) error {
	pods, err := r.Client().CoreV1().Pods("default").
		List(r.ctx, metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if p.Spec.NodeName != n.Name && p.Spec.NodeName != "" {
			r.t.Fatalf("pod %s of %s is on %s, and not on %s", p.Name, name, p.Spec.NodeName, n.Name)
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
func (r *rig) unschedulable(name string) {
	r.t.Helper()
	r.eventually("no node is "+name+"'s", func() error {
		out, err := r.Kubectl(r.ctx, "events", "--for=pod/"+name)
		if err == nil && (!strings.Contains(out, "FailedScheduling") ||
			!strings.Contains(out, "didn't match Pod's node affinity/selector")) {
			err = errors.New(out)
		}
		return err
	})
	pod, err := r.Client().CoreV1().Pods("default").Get(r.ctx, name, metav1.GetOptions{})
	r.must(err)
	if pod.Spec.NodeName != "" {
		r.t.Errorf("pod %s is on %s", name, pod.Spec.NodeName)
	}
}

// delete deletes objects of one kind in the namespace default.
func (r *rig) delete(kind string, names ...string) {
	r.t.Helper()
	_, err := r.Kubectl(r.ctx, append([]string{"delete", kind}, names...)...)
	r.must(err)
}
