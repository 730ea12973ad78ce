package engine_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
)

// devices are those of the node's one pod, and the resources that the node has.
type devices struct {
	pod   map[string][]string
	node  []string
	calls []string
}

func (d *devices) Devices(context.Context, *podv1.Pod) (map[string][]string, error) {
	d.calls = append(d.calls, "pod")
	return d.pod, nil
}

func (d *devices) Has(_ context.Context, resource string) bool {
	d.calls = append(d.calls, "node "+resource)
	return slices.Contains(d.node, resource)
}

// The kubelet is asked only where its answer matters. A resource that pods request may mark nodes,
// as those of KubeVirt's bridges do: then the node has no device of it.
func TestR4DevicesThatAreAskedFor(t *testing.T) {
	const mark = "bridge.network.kubevirt.io/br1"
	for name, test := range map[string]struct {
		spec    any
		devices devices
		calls   []string
		fails   bool
	}{
		"nothing requested": {map[string]any{}, devices{node: []string{mark}}, nil, false},
		"another requested": {
			requesting("cpu", "v/nic"),
			devices{node: []string{mark, "v/nic"}},
			nil,
			false,
		},
		"mark requested": {requesting(mark), devices{}, []string{"pod", "node " + mark}, false},
		"device requested": {
			requesting(mark),
			devices{node: []string{mark}},
			[]string{"pod", "node " + mark},
			true,
		},
		"device given": {
			requesting(mark),
			devices{pod: map[string][]string{mark: {"d"}}},
			[]string{"pod"},
			false,
		},
		"claim without": {
			map[string]any{
				"resourceClaims": []any{map[string]string{"name": "c", "resourceClaimName": "c"}},
			},
			devices{},
			[]string{"pod"},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.engine.Devices = &test.devices
			config, err := json.Marshal(network("a"))
			n.must(err)
			n.object("k8s.cni.cncf.io/v1", nadv1.Kind, "a",
				map[string]string{nadv1.ResourceNameAnnotation: mark}, map[string]any{"config": string(config)})
			p := n.pod("p", "a")
			n.object("v1", "Pod", "p", map[string]string{nadv1.NetworksAnnotation: "a"}, test.spec)
			err = n.add(p)
			same(t, "calls", test.devices.calls, test.calls)
			if test.fails {
				n.fails(err, 7, "default/a", mark)
				n.left([]*pod{p})
				return
			}
			n.must(err)
			n.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
		})
	}
}

// requesting is the spec of a pod that requests one of each resource.
func requesting(resources ...string) any {
	requests := map[string]int{}
	for _, name := range resources {
		requests[name] = 1
	}
	return map[string]any{
		"containers": []any{
			map[string]any{"name": "c", "resources": map[string]any{"requests": requests}},
		},
	}
}
