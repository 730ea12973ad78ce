package main

import (
	"fmt"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// label writes the node's Node manifest with labels, as YAML.
func (h *host) label(labels string) {
	h.t.Helper()
	h.write("manifests/node.yaml",
		fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s, labels: %s}}\n", nodeName, labels))
}

// TestU10NodeNotSelected: whatever put the pod on a node, a network comes to nodes that its NAD
// selects only. A label is all that it takes, and a node that loses it keeps its pods.
func TestU10NodeNotSelected(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""), nadv1.NodeSelectorAnnotation, "pool=data,zone in (a,b)")
	h.label("{pool: data, zone: c}")
	p := h.pod("p", "a")
	h.fails("ADD", p, 7, "default/a", "nodeSelector", "zone in (a,b)", "zone=c", "default/p")
	same(t, "the event", h.lastEvent(p).Reason, "NodeNotSelected")
	h.clean(p)
	h.must("DEL", p)
	h.label("{pool: data, zone: b}")
	h.add(p)
	h.label("{pool: data}")
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}
