package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
)

// label sets labels of a node, and makes it if it is not there.
func (h *hookedAPI) label(node, labels string) {
	h.t.Helper()
	h.apply(fmt.Sprintf("{apiVersion: v1, kind: Node, metadata: {name: %s, labels: {%s}}}",
		node, labels))
	h.t.Cleanup(func() { h.ask(http.MethodDelete, "/api/v1/nodes/"+node, "") })
}

// TestU2NodePools: a network that is tied to a pool of worker nodes is on these alone: its pods
// select them, and none is admitted that is bound to another node.
func TestU2NodePools(t *testing.T) {
	h := newHookedAPI(t, "u2")
	h.start()
	pools := map[string][]string{
		"blue": {"blue-1", "blue-2"}, "green": {"green-1"}, "": {"u2-control-plane"},
	}
	for pool, nodes := range pools {
		for _, node := range nodes {
			h.label(node, "pool: \""+pool+"\"")
		}
	}
	for _, pool := range []string{"blue", "green"} {
		h.nad(pool, plainNAD, "pool="+pool).says(t, "NAD "+pool, 201)
		a, pod := h.pod("of-"+pool, pool, "")
		a.says(t, "a pod of "+pool, 201)
		if want := map[string]string{"pool": pool}; !maps.Equal(pod.Spec.NodeSelector, want) {
			t.Errorf("a pod of %s selects %v", pool, pod.Spec.NodeSelector)
		}
		for _, node := range slices.Concat(pools["blue"], pools["green"], pools[""]) {
			code := http.StatusForbidden
			if slices.Contains(pools[pool], node) {
				code = http.StatusCreated
			}
			a, _ := h.pod(pool+"-on-"+node, pool, fmt.Sprintf(`, "nodeName": %q`, node))
			a.says(t, fmt.Sprintf("a pod of %s on %s", pool, node), code)
		}
	}
}

// TestU11LabelIsEnough: the label that the refusal names is all that makes a node one of the
// network. A node that loses it gets no more pods.
func TestU11LabelIsEnough(t *testing.T) {
	h := newHookedAPI(t, "u11")
	h.start()
	const node, path = "u11-node", "/api/v1/nodes/u11-node"
	h.label(node, "kubernetes.io/hostname: u11-node")
	h.nad("data", plainNAD, "cloud.google.com/gke-nodepool=sample-pool").says(t, "a NAD", 201)
	bound := func(name string) answer {
		t.Helper()
		a, _ := h.pod(name, "data", `, "nodeName": "u11-node"`)
		return a
	}
	bound("early").says(t, "without the label", 403,
		"kubectl label nodes u11-node --overwrite cloud.google.com/gke-nodepool=sample-pool")
	h.ask(http.MethodPatch, path,
		`{"metadata": {"labels": {"cloud.google.com/gke-nodepool": "sample-pool"}}}`).
		says(t, "the label", 200)
	bound("early").says(t, "with the label", 201)
	h.ask(http.MethodPatch, path, `{"metadata": {"labels": {"cloud.google.com/gke-nodepool": null}}}`).
		says(t, "no label", 200)
	bound("late").says(t, "without it again", 403)
	h.ask(http.MethodGet, "/api/v1/namespaces/u11/pods/early", "").says(t, "the pod from before", 200)
}
