package main

import (
	"context"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/watch"
	"github.com/braid-cni/braid/pkg/resolve"
)

// waker has one wait that is to be ended. It has room for one.
type waker chan struct{}

// wake does not block.
func (w waker) wake() {
	select {
	case w <- struct{}{}:
	default: // it is awake already
	}
}

// nad is what is kept in memory of a NAD that asks for its capacity.
type nad = *nadv1.NetworkAttachmentDefinition

// asking makes the memory of the NADs that ask for their capacity.
func asking(api *kube.API, w waker) (*watch.Memory[nad], error) {
	return watch.NewMemory(api, watch.Objects[nadv1.NetworkAttachmentDefinition, nad]{
		Resource: schema.GroupVersionResource{
			Group: nadv1.GroupName, Version: nadv1.Version, Resource: nadv1.Resource,
		},
		Keep: func(n *nadv1.NetworkAttachmentDefinition) (nad, bool) {
			asks, err := capacity.Asks(&n.ObjectMeta)
			return n, asks && err == nil
		},
		Changed: w.wake,
	})
}

// publisher is what is watched while a NAD asks.
type publisher struct {
	*daemon

	nads *watch.Memory[nad]
	node *watch.Memory[nodeState]
	pods *watch.Memory[podState]
	// blocks are watched from when they are first asked for.
	blocks func() *watch.Memory[v1alpha1.IPBlock]
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

// open makes the memories.
func (p *publisher) open(ctx context.Context, work *sync.WaitGroup, w waker) (err error) {
	p.node, err = watch.NewMemory(p.api, watch.Objects[corev1.Node, nodeState]{
		Resource: schema.GroupVersionResource{Version: "v1", Resource: "nodes"},
		Fields:   "metadata.name=" + p.o.nodeName,
		Keep:     func(n *corev1.Node) (nodeState, bool) { return nodeOf(n), true },
		Changed:  w.wake, // a kubelet that starts may have set all to 0
	})
	if err != nil {
		return err
	}
	p.pods, err = watch.NewMemory(p.api, watch.Objects[corev1.Pod, podState]{
		Resource: schema.GroupVersionResource{Version: "v1", Resource: "pods"},
		Fields:   "spec.nodeName=" + p.o.nodeName,
		Keep: func(pod *corev1.Pod) (podState, bool) {
			requests := capacity.Requests(pod)
			return podState{pod.Namespace + "/" + pod.Name, string(pod.UID), requests}, len(requests) > 0
		},
	})
	if err != nil {
		return err
	}
	blocks, err := watch.NewMemory(p.api, watch.Objects[v1alpha1.IPBlock, v1alpha1.IPBlock]{
		Resource: schema.GroupVersionResource{
			Group: v1alpha1.GroupName, Version: v1alpha1.Version, Resource: v1alpha1.Resource,
		},
		Keep: func(b *v1alpha1.IPBlock) (v1alpha1.IPBlock, bool) {
			meta := metav1.ObjectMeta{Name: b.Name}
			return v1alpha1.IPBlock{ObjectMeta: meta, Spec: b.Spec, Status: b.Status}, true
		},
	})
	run := sync.OnceFunc(func() { work.Go(func() { blocks.Run(ctx) }) })
	p.blocks = func() *watch.Memory[v1alpha1.IPBlock] {
		run()
		return blocks
	}
	return err
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

// atHand is a source that has a NAD in memory.
type atHand struct {
	resolve.Source
	nad nad
}

// NAD implements resolve.Source.
func (a atHand) NAD(ctx context.Context, namespace, name string) (nad, error) {
	if namespace == a.nad.Namespace && name == a.nad.Name {
		return a.nad, nil
	}
	return a.Source.NAD(ctx, namespace, name)
}

// remembered is the API server, whose blocks are in memory.
type remembered struct {
	*kube.API
	memory func() *watch.Memory[v1alpha1.IPBlock]
}

// Blocks answers from memory where the latest changes may be missing.
func (r remembered) Blocks(
	ctx context.Context, opts metav1.ListOptions,
) (some []v1alpha1.IPBlock, err error) {
	space, ofSpace := strings.CutPrefix(opts.FieldSelector, "spec.space=")
	memory := r.memory()
	if opts.ResourceVersion != "0" || !ofSpace || !memory.Synced() {
		return r.API.Blocks(ctx, opts)
	}
	for _, b := range memory.All() {
		if b.Spec.Space == space {
			some = append(some, b)
		}
	}
	return some, nil
}
