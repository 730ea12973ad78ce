package main

import (
	"fmt"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// label gives the node a Node manifest with labels, as YAML.
func (r *rig) label(labels string) {
	r.t.Helper()
	r.write("manifests/node.yaml",
		fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s, labels: %s}}\n", nodeName, labels))
}

// TestU10NodeNotSelected: whatever put the pod on a node, a network comes to nodes that its NAD
// selects only. A label is all that it takes, and a node that loses it keeps its pods.
func TestU10NodeNotSelected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""), nadv1.NodeSelectorAnnotation, "pool=data,zone in (a,b)")
	r.label("{pool: data, zone: c}")
	p := r.pod("p", "a")
	r.fails("ADD", p, 7, "default/a", "nodeSelector", "zone in (a,b)", "zone=c", "default/p")
	same(t, "the event", r.lastEvent(p).Reason, "NodeNotSelected")
	r.clean(p)
	r.must("DEL", p)
	r.label("{pool: data, zone: b}")
	r.add(p)
	r.label("{pool: data}")
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
}
