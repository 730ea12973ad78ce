package room

import (
	"context"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/kube/watch"
)

// asked is what is watched while a NAD asks.
type asked struct {
	*Publisher

	node   *watch.Memory[nodeState]
	pods   *watch.Memory[podState]
	blocks *watch.Blocks
	// complete are the pods that have had all that they request, by UID.
	complete map[string]bool
}

// nodeState is what is kept of the Node.
type nodeState struct {
	meta metav1.ObjectMeta
	// written are the resources of pkg/capacity; less than 0 for one whose capacity and allocatable
	// differ.
	written map[string]int64
}

// podState is what is kept of a pod of the node.
type podState struct {
	name, uid string
	requests  map[string]int64
}

// open begins the memories, which last until ctx is done.
func (a *asked) open(ctx context.Context, work *sync.WaitGroup) (err error) {
	a.node, err = watch.NewMemory(a.API, watch.Objects[corev1.Node, nodeState]{
		Resource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"},
		Fields:   "metadata.name=" + a.Node,
		Keep:     func(n *corev1.Node) (nodeState, bool) { return nodeOf(n), true },
		Changed:  func(nodeState) { a.wake.wake() }, // a kubelet that starts may have set all to 0
	})
	if err != nil {
		return err
	}
	a.pods, err = watch.NewMemory(a.API, watch.Objects[corev1.Pod, podState]{
		Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"},
		Fields:   "spec.nodeName=" + a.Node,
		Keep: func(pod *corev1.Pod) (podState, bool) {
			requests := capacity.Requests(pod)
			return podState{pod.Namespace + "/" + pod.Name, string(pod.UID), requests}, len(requests) > 0
		},
	})
	if err != nil {
		return err
	}
	if a.blocks, err = watch.NewBlocks(a.API); err != nil {
		return err
	}
	work.Go(func() { a.node.Run(ctx) })
	work.Go(func() { a.pods.Run(ctx) })
	work.Go(func() { a.blocks.Run(ctx) })
	return nil
}

// nodeOf is what is kept of a Node.
func nodeOf(n *corev1.Node) nodeState {
	state := nodeState{metav1.ObjectMeta{Name: n.Name, Labels: n.Labels}, map[string]int64{}}
	for _, list := range []corev1.ResourceList{n.Status.Capacity, n.Status.Allocatable} {
		for name := range list {
			if !strings.HasPrefix(string(name), capacity.Prefix) {
				continue
			}
			all, allocatable := n.Status.Capacity[name], n.Status.Allocatable[name]
			state.written[string(name)] = all.Value()
			if !all.Equal(allocatable) {
				state.written[string(name)] = -1
			}
		}
	}
	return state
}

// ThisNode implements resolve.ThisNode.
func (n nodeState) ThisNode(context.Context) (*metav1.ObjectMeta, error) { return &n.meta, nil }
