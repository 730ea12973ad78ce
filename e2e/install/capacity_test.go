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
func (r *rig) roomFor(schedule string) {
	r.t.Helper()
	nad := fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": "room", "namespace": "default", "annotations": {%q: %q}}, "spec": {"config": %q}}`, capacity.ScheduleAnnotation, schedule,
		`{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", "ipam": {"type": "whereabouts", `+
			`"range": "10.21.0.0/30"}}`)
	r.eventually("the network is admitted", func() error { return r.Apply(r.ctx, nad) })
}

// ask makes a pod with networks, for the scheduler to find a node.
func (r *rig) ask(name, networks string) {
	r.t.Helper()
	r.must(
		r.create(r.ctx, lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: networks})))
}

// nodesSay waits until each node has so much room for pods that it has not got.
func (r *rig) nodesSay(when string, free map[string]int64) {
	r.t.Helper()
	r.eventually(when, func() error {
		pods, err := r.Client().CoreV1().Pods("default").List(r.ctx, metav1.ListOptions{})
		r.must(err)
		for node, want := range free {
			n, err := r.Client().CoreV1().Nodes().Get(r.ctx, node, metav1.GetOptions{})
			r.must(err)
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
func (r *rig) waits(name string) {
	r.t.Helper()
	r.eventually(name+" is not scheduled", func() error {
		events, err := r.Client().CoreV1().Events("default").
			List(r.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + name})
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
	pod, err := r.Client().CoreV1().Pods("default").Get(r.ctx, name, metav1.GetOptions{})
	r.must(err)
	if pod.Spec.NodeName != "" || pod.Status.Phase != corev1.PodPending {
		r.t.Errorf("pod %s is %s on node %q", name, pod.Status.Phase, pod.Spec.NodeName)
	}
}

// TestU10CapacityKeepsPodsPending: of a network with two addresses two pods run; the third, and one
// that wants two, stay Pending with the reason in their events, and start when addresses are free.
func TestU10CapacityKeepsPodsPending(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.roomFor("true")
	t.Cleanup(func() { r.noRoom() })
	r.nodesSay("two addresses", map[string]int64{"node-1": 2, "node-2": 2})
	r.ask("first", "room")
	r.running("first")
	r.nodesSay("one is left", map[string]int64{"node-1": 1, "node-2": 1})
	r.ask("second", "room")
	r.running("second")
	r.nodesSay("none is left", map[string]int64{"node-1": 0, "node-2": 0})
	r.ask("third", "room")
	r.waits("third")
	r.ask("both", "room,room")
	r.waits("both")
	start := time.Now()
	r.gone("first")
	r.running("third")
	t.Logf("from the deletion of a pod to the start of the one that waited: %v",
		time.Since(start).Round(100*time.Millisecond))
	r.gone("second", "third")
	r.running("both")
	r.gone("both")
}

// TestU10CapacityWithoutMaster: a pod comes to the node that has the network's master.
func TestU10CapacityWithoutMaster(t *testing.T) {
	r := newRig(t)
	r.installed()
	n := r.Nodes()[0]
	rename := func(from, to string) {
		_, err := n.Run(context.WithoutCancel(r.ctx), "sh", "-c",
			fmt.Sprintf("ip link set %[1]s down && ip link set %[1]s name %[2]s && ip link set %[2]s up",
				from, to))
		r.must(err)
	}
	rename("eth1", "away")
	defer rename("away", "eth1")
	r.roomFor("true")
	t.Cleanup(func() { r.noRoom() })
	r.nodesSay("one node has no master", map[string]int64{"node-1": 0, "node-2": 2})
	for _, name := range []string{"here", "there"} {
		r.ask(name, "room")
		if pod := r.running(name); pod.Spec.NodeName != "node-2" {
			t.Errorf("pod %s runs on %s", name, pod.Spec.NodeName)
		}
	}
	r.gone("here", "there")
}

// TestU10CapacityAfterKubelet: a kubelet that starts keeps the pods that run, and the node says
// what it said before, also after a kubelet that has set what it does not know to 0, as some do.
// What no NAD asks for any more goes.
func TestU10CapacityAfterKubelet(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.roomFor("true")
	r.nodesSay("at first", map[string]int64{"node-1": 2, "node-2": 2})
	r.ask("runs", "room")
	pod := r.running("runs")
	r.nodesSay("one is left", map[string]int64{"node-1": 1, "node-2": 1})
	n := r.Node(pod.Spec.NodeName)
	for _, zero := range []bool{false, true} {
		n.KillKubelet()
		r.must(n.StartKubelet())
		if zero {
			patch := fmt.Sprintf(`{"status": {"capacity": {%[1]q: "0"}, "allocatable": {%[1]q: "0"}}}`, room)
			_, err := r.Client().CoreV1().Nodes().
				Patch(r.ctx, n.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{},
					"status")
			r.must(err)
		}
		r.must(n.WaitReady(r.ctx))
		r.nodesSay(fmt.Sprintf("after a kubelet (zero: %v)", zero),
			map[string]int64{"node-1": 1, "node-2": 1})
		if still := r.running("runs"); still.UID != pod.UID || still.Status.Phase != corev1.PodRunning {
			t.Errorf("zero %v: the pod is %s", zero, still.Status.Phase)
		}
	}
	r.noRoom()
	r.eventually("the nodes say nothing of the network", func() error {
		nodes, err := r.Client().CoreV1().Nodes().List(r.ctx, metav1.ListOptions{})
		r.must(err)
		for i := range nodes.Items {
			if _, has := nodes.Items[i].Status.Capacity[room]; has {
				return fmt.Errorf("node %s has %v", nodes.Items[i].Name, nodes.Items[i].Status.Capacity)
			}
		}
		return nil
	})
	r.running("runs")
	r.gone("runs")
}

// noRoom deletes the network.
func (r *rig) noRoom() {
	r.t.Helper()
	nads := r.Client().CoreV1().RESTClient().Delete().
		AbsPath("/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/room")
	if err := nads.Do(context.WithoutCancel(r.ctx)).Error(); err != nil && !apierrors.IsNotFound(err) {
		r.t.Error(err)
	}
}
