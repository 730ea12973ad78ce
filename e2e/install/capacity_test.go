package install_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/capacity"
)

// room is the resource of the NAD of these tests.
const room = "braid-cni.io/default.room"

// roomFor makes or changes a network that has two addresses, and has the scheduler heed it, or not.
func (w *world) roomFor(schedule string) {
	w.t.Helper()
	nad := fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": "room", "namespace": "default", "annotations": {%q: %q}}, "spec": {"config": %q}}`, capacity.ScheduleAnnotation, schedule,
		`{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", "ipam": {"type": "whereabouts", `+
			`"range": "10.21.0.0/30"}}`)
	w.eventually("the network is admitted", func() error { return w.Apply(w.ctx, nad) })
}

// ask makes a pod with networks, for the scheduler to find a node.
func (w *world) ask(name, networks string) {
	w.t.Helper()
	w.must(
		w.create(w.ctx, lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: networks})))
}

// nodesSay waits until each node has so much room for pods that it has not got.
func (w *world) nodesSay(when string, free map[string]int64) {
	w.t.Helper()
	w.eventually(when, func() error {
		pods, err := w.Client().CoreV1().Pods("default").List(w.ctx, metav1.ListOptions{})
		w.must(err)
		for node, want := range free {
			n, err := w.Client().CoreV1().Nodes().Get(w.ctx, node, metav1.GetOptions{})
			w.must(err)
			quantity, has := n.Status.Allocatable[room]
			got := quantity.Value()
			for i := range pods.Items {
				if pods.Items[i].Spec.NodeName == node {
					got -= capacity.Requests(&pods.Items[i])[room]
				}
			}
			if !has || got != want {
				return fmt.Errorf("node %s has room for %d (%v), want %d", node, got, has, want)
			}
		}
		return nil
	})
}

// waits waits until a pod is Pending, for the reason that no node has room, as its events say.
func (w *world) waits(name string) {
	w.t.Helper()
	w.eventually(name+" is not scheduled", func() error {
		events, err := w.Client().CoreV1().Events("default").
			List(w.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Reason == "FailedScheduling" && strings.Contains(e.Message, "Insufficient "+room) {
				return nil
			}
		}
		return errors.New("no event says so")
	})
	pod, err := w.Client().CoreV1().Pods("default").Get(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	if pod.Spec.NodeName != "" || pod.Status.Phase != corev1.PodPending {
		w.t.Errorf("pod %s is %s on node %q", name, pod.Status.Phase, pod.Spec.NodeName)
	}
}

// TestU10CapacityKeepsPodsPending: of a network with two addresses two pods run; the third, and one
// that wants two, stay Pending with the reason in their events, and start when addresses are free.
func TestU10CapacityKeepsPodsPending(t *testing.T) {
	w := newWorld(t)
	w.installed()
	w.roomFor("true")
	t.Cleanup(func() { w.noRoom() })
	w.nodesSay("two addresses", map[string]int64{"node-1": 2, "node-2": 2})
	w.ask("first", "room")
	w.running("first")
	w.nodesSay("one is left", map[string]int64{"node-1": 1, "node-2": 1})
	w.ask("second", "room")
	w.running("second")
	w.nodesSay("none is left", map[string]int64{"node-1": 0, "node-2": 0})
	w.ask("third", "room")
	w.waits("third")
	w.ask("both", "room,room")
	w.waits("both")
	start := time.Now()
	w.gone("first")
	w.running("third")
	t.Logf("from the deletion of a pod to the start of the one that waited: %v",
		time.Since(start).Round(100*time.Millisecond))
	w.gone("second", "third")
	w.running("both")
	w.gone("both")
}

// TestU10CapacityWithoutMaster: a pod comes to the node that has the network's master.
func TestU10CapacityWithoutMaster(t *testing.T) {
	w := newWorld(t)
	w.installed()
	n := w.Nodes()[0]
	rename := func(from, to string) {
		_, err := n.Run(context.WithoutCancel(w.ctx), "sh", "-c",
			fmt.Sprintf("ip link set %[1]s down && ip link set %[1]s name %[2]s && ip link set %[2]s up",
				from, to))
		w.must(err)
	}
	rename("eth1", "away")
	defer rename("away", "eth1")
	w.roomFor("true")
	t.Cleanup(func() { w.noRoom() })
	w.nodesSay("one node has no master", map[string]int64{"node-1": 0, "node-2": 2})
	for _, name := range []string{"here", "there"} {
		w.ask(name, "room")
		if pod := w.running(name); pod.Spec.NodeName != "node-2" {
			t.Errorf("pod %s runs on %s", name, pod.Spec.NodeName)
		}
	}
	w.gone("here", "there")
}

// TestU10CapacityAfterKubelet: a kubelet that starts keeps the pods that run, and the node says
// what it said before, also after a kubelet that has set what it does not know to 0, as some do.
// What no NAD asks for any more goes.
func TestU10CapacityAfterKubelet(t *testing.T) {
	w := newWorld(t)
	w.installed()
	w.roomFor("true")
	w.nodesSay("at first", map[string]int64{"node-1": 2, "node-2": 2})
	w.ask("runs", "room")
	pod := w.running("runs")
	w.nodesSay("one is left", map[string]int64{"node-1": 1, "node-2": 1})
	n := w.Node(pod.Spec.NodeName)
	for _, zero := range []bool{false, true} {
		n.KillKubelet()
		w.must(n.StartKubelet())
		if zero {
			patch := fmt.Sprintf(`{"status": {"capacity": {%[1]q: "0"}, "allocatable": {%[1]q: "0"}}}`, room)
			_, err := w.Client().CoreV1().Nodes().
				Patch(w.ctx, n.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{},
					"status")
			w.must(err)
		}
		w.must(n.WaitReady(w.ctx))
		w.nodesSay(fmt.Sprintf("after a kubelet (zero: %v)", zero),
			map[string]int64{"node-1": 1, "node-2": 1})
		if still := w.running("runs"); still.UID != pod.UID || still.Status.Phase != corev1.PodRunning {
			t.Errorf("zero %v: the pod is %s", zero, still.Status.Phase)
		}
	}
	w.noRoom()
	w.eventually("the nodes say nothing of the network", func() error {
		nodes, err := w.Client().CoreV1().Nodes().List(w.ctx, metav1.ListOptions{})
		w.must(err)
		for i := range nodes.Items {
			if _, has := nodes.Items[i].Status.Capacity[room]; has {
				return fmt.Errorf("node %s has %v", nodes.Items[i].Name, nodes.Items[i].Status.Capacity)
			}
		}
		return nil
	})
	w.running("runs")
	w.gone("runs")
}

// noRoom deletes the network.
func (w *world) noRoom() {
	w.t.Helper()
	nads := w.Client().CoreV1().RESTClient().Delete().
		AbsPath("/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/room")
	if err := nads.Do(context.WithoutCancel(w.ctx)).Error(); err != nil && !apierrors.IsNotFound(err) {
		w.t.Error(err)
	}
}
