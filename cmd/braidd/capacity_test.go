package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// network makes or changes a NAD whose plugin is a macvlan on ens224. It goes with the test.
func (a *agentNode) network(name, schedule, ipam string) {
	a.t.Helper()
	config := `{"cniVersion": "1.0.0", "type": "macvlan", "master": "ens224", "ipam": {` + ipam + `}}`
	must(a.t, a.server.Apply(a.t.Context(), fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": %q, "namespace": "capacity", "annotations": {%q: %q}}, "spec": {"config": %q}}`, name, capacity.ScheduleAnnotation, schedule, config)))
}

// capacities are those of networks that the Node has, by the names of NADs of the test's namespace.
// One whose capacity and allocatable differ is less than 0.
func (a *agentNode) capacities() map[string]int64 {
	a.t.Helper()
	node, err := a.server.Client().CoreV1().Nodes().Get(a.t.Context(), a.name, metav1.GetOptions{})
	must(a.t, err)
	all := map[string]int64{}
	for _, list := range []corev1.ResourceList{node.Status.Capacity, node.Status.Allocatable} {
		for name := range list {
			if ours, ok := strings.CutPrefix(string(name), capacity.Prefix); ok {
				a, b := node.Status.Capacity[name], node.Status.Allocatable[name]
				all[strings.TrimPrefix(ours, "capacity.")] = a.Value()
				if !a.Equal(b) {
					all[strings.TrimPrefix(ours, "capacity.")] = -1
				}
			}
		}
	}
	return all
}

// has waits until the Node has these.
func (a *agentNode) has(when string, want map[string]int64) {
	a.t.Helper()
	var got map[string]int64
	defer func() {
		if a.t.Failed() {
			a.t.Logf("%s: the Node has %v, want %v", when, got, want)
		}
	}()
	a.await(when, func() bool {
		got = a.capacities()
		return maps.Equal(got, want)
	})
}

func (a *agentNode) patchNode(patch string) {
	a.t.Helper()
	_, err := a.server.Client().CoreV1().Nodes().
		Patch(a.t.Context(), a.name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{},
			"status")
	must(a.t, err)
}

// bind makes a pod on the node that requests one of a network.
func (a *agentNode) bind(name, network string) *corev1.Pod {
	a.t.Helper()
	one := corev1.ResourceList{
		corev1.ResourceName(capacity.Prefix + "capacity." + network): resource.MustParse("1"),
	}
	pod, err := a.server.Client().CoreV1().Pods("capacity").Create(a.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
			NodeName: a.name, Containers: []corev1.Container{
				{Name: "c", Image: "i", Resources: corev1.ResourceRequirements{Requests: one, Limits: one}},
			},
		},
	}, metav1.CreateOptions{})
	must(a.t, err)
	return pod
}

// watches counts what the agent has watched, or listed to watch it.
func (a *agentNode) watches(resource string) (n int) {
	a.t.Helper()
	all, err := a.server.Requests(a.t.Context(), "system:serviceaccount:kube-system:braid-agent")
	must(a.t, err)
	for _, e := range all {
		if e.Resource == resource && strings.Contains(e.URI, "watch=true") {
			n++
		}
	}
	return n
}

// newCapacityNode is an agent's node with the NIC ens224, its Node's status of a former agent, and
// a NAD that does not ask for capacity.
func newCapacityNode(t *testing.T) (*agentNode, *nettest.Namespace) {
	t.Helper()
	node := nettest.New(t)
	node.Veth("ens224", nettest.New(t), "port")
	a := newAgentNode(t, "node-room")
	a.netns = node.Path
	_, err := a.server.Client().CoreV1().Namespaces().
		Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "capacity"}},
			metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { // other agents of this package would go on with them
		const nads = "/apis/k8s.cni.cncf.io/v1/namespaces/capacity/network-attachment-definitions"
		err := a.server.Client().CoreV1().RESTClient().Delete().AbsPath(nads).
			Do(context.WithoutCancel(t.Context())).Error()
		must(t, err)
	})
	a.network("silent", "false", `"type": "host-local", "subnet": "10.8.0.0/24"`)
	a.patchNode(`{"status": {"capacity": {"braid-cni.io/capacity.former": "3", "cpu": "4"}, ` +
		`"allocatable": {"braid-cni.io/capacity.former": "3", "cpu": "4"}}}`)
	return a, node
}

// othersTake makes a block whose addresses pods of other nodes have, all 14.
func (a *agentNode) othersTake() *v1alpha1.IPBlock {
	a.t.Helper()
	block := &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: "default-10-8-1-0-28"},
		Spec:       v1alpha1.IPBlockSpec{Space: "default", CIDR: "10.8.1.0/28"},
	}
	for i := range 14 {
		block.Spec.Allocations = append(block.Spec.Allocations,
			v1alpha1.Allocation{Address: fmt.Sprint("10.8.1.", i+1)})
	}
	made, err := a.api.CreateBlock(a.t.Context(), block)
	must(a.t, err)
	return made
}

// renewNode deletes the agent's Node and makes another one with its name.
func (a *agentNode) renewNode() {
	a.t.Helper()
	nodes := a.server.Client().CoreV1().Nodes()
	must(a.t, nodes.Delete(a.t.Context(), a.name, metav1.DeleteOptions{}))
	_, err := nodes.Create(a.t.Context(),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.name}, Status: corev1.NodeStatus{
			Capacity: corev1.ResourceList{"cpu": resource.MustParse("4")},
		}}, metav1.CreateOptions{})
	must(a.t, err)
}

// TestU10Capacity: the Node says of the networks that ask for it how many more pods it can take, as
// long as they ask, and so that the scheduler, which subtracts what pods request, is right.
func TestU10Capacity(t *testing.T) {
	a, node := newCapacityNode(t)
	stop := a.start()
	a.await("ready", a.ready)
	a.has("what no NAD asks for is removed", map[string]int64{})
	must(t, stop()) // what was watched is told of when it has ended
	for resource, most := range map[string]int{
		"network-attachment-definitions": 1, "pods": 0, "nodes": 0, "ipblocks": 0,
	} {
		if n := a.watches(resource); n > most {
			t.Errorf("while no NAD asks, %s are watched %d times", resource, n)
		}
	}
	a.network("local", "true", `"type": "host-local", "subnet": "10.8.0.0/28"`)
	a.network("wide", "true", `"type": "whereabouts", "range": "10.8.1.0/28"`)
	a.network("free", "true", `"type": "static", "addresses": [{"address": "10.8.2.1/24"}]`)
	stop = a.start()
	a.has("at first", map[string]int64{"local": 13, "wide": 14, "free": capacity.Plenty})

	pod := a.bind("p", "local")
	a.patchNode(`{"status": {"capacity": {"braid-cni.io/capacity.local": "0"}, ` +
		`"allocatable": {"braid-cni.io/capacity.local": "0"}}}`)
	a.has("a pod that waits is counted, and a kubelet's zero put right",
		map[string]int64{"local": 13, "wide": 14, "free": capacity.Plenty})
	a.attached(pod, "local")
	made := a.othersTake()
	a.has("others have taken all", map[string]int64{"local": 14, "wide": 0, "free": capacity.Plenty})
	made.Spec.Allocations = made.Spec.Allocations[1:]
	made, err := a.api.UpdateBlock(t.Context(), made)
	must(t, err)
	a.has("an address is free again",
		map[string]int64{"local": 14, "wide": 1, "free": capacity.Plenty})

	node.Rename("ens224", "gone")
	a.has("without the master", map[string]int64{"local": 1, "wide": 0, "free": 0})
	node.Rename("gone", "ens224")
	a.network("free", "false", `"type": "static", "addresses": [{"address": "10.8.2.1/24"}]`)
	a.has("with it, and one asks no longer", map[string]int64{"local": 14, "wide": 1})
	a.renewNode()
	a.has("on a Node that was made anew", map[string]int64{"local": 14, "wide": 1})
	if page := a.metrics(); !strings.Contains(page, `braid_network_room{network="capacity/wide"} 1`) {
		t.Error("no metric says what is free")
	}
	must(t, stop())
	a.uninstall = true
	stop = a.start()
	a.has("after the uninstall", map[string]int64{})
	must(t, stop())
	must(t, a.api.DeleteBlock(t.Context(), made))
	got, err := a.server.Client().CoreV1().Nodes().Get(t.Context(), a.name, metav1.GetOptions{})
	must(t, err)
	if got.Status.Capacity.Cpu().Value() != 4 {
		t.Errorf("of other resources there is %v", got.Status.Capacity)
	}
}

// attached records that a pod has its network.
func (a *agentNode) attached(pod *corev1.Pod, network string) {
	a.t.Helper()
	records := record.New(a.path("run/braid"))
	sandbox, err := records.Lock(a.t.Context(), "sandbox-of-"+pod.Name)
	must(a.t, err)
	defer sandbox.Unlock()
	must(a.t, sandbox.Save(&record.Record{
		Complete: true, Pod: record.Pod{
			Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		}, Attachments: []record.Attachment{{
			State: record.Added, Attachment: plan.Attachment{
				Name: "capacity/" + network, Network: network, IfName: "net1", Conf: json.RawMessage("{}"),
			},
		}},
	}))
}
