package engine_test

import (
	"encoding/json"
	"slices"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// An operation on a sandbox reads each plugin's configuration once: from the check that the plugins
// are there to the roll-back, for as many plugins of the same type as there are.
func TestConfigurationsAreReadOnce(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"a", "b"} {
		config, err := json.Marshal(map[string]any{"type": pluginType, "of": name})
		n.must(err)
		n.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{"config": string(config)})
	}
	p := n.pod("p", "a,b")
	once := func(operation string, err error, networks int) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", operation, err)
		}
		read := slices.Sorted(slices.Values(n.plugin.read))
		if n.plugin.read = nil; len(read) != networks ||
			len(slices.Compact(slices.Clone(read))) != networks {
			t.Errorf("%s of %d networks read %q", operation, networks, read)
		}
	}
	n.plugin.fails("ADD net2", 100)
	if err := n.add(p); err == nil {
		t.Fatal("an ADD of a network that fails succeeds")
	}
	once("ADD with roll-back", nil, 3)
	n.plugin.on("ADD net2", nil)
	once("ADD", n.add(p), 3)
	once("CHECK", n.check(p), 3)
	once("DEL", n.del(p), 3)

	// Within another pod's DEL it is asked first whether all plugins are built in.
	n.must(n.add(p))
	n.plugin.fails("DEL net2", 111)
	n.fails(n.del(p), 111)
	n.plugin.on("DEL net2", nil)
	p.Unmount()
	other := n.pod("other", "")
	n.must(n.add(other))
	n.plugin.read, n.plugin.calls = nil, nil
	n.must(n.del(other))
	if !slices.Contains(n.plugin.calls, "DEL net2") {
		t.Errorf("another pod's DEL called %q", n.plugin.calls)
	}
	for _, config := range n.plugin.read {
		want := []string{`{"of":"a","type":"pair"}`, `{"of":"b","type":"pair"}`, `{"type":"pair"}`}
		if !slices.Contains(want, config) {
			t.Errorf("another pod's DEL read %s", config)
		}
	}
}
