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
	r := newRig(t)
	for _, name := range []string{"a", "b"} {
		config, err := json.Marshal(map[string]any{"type": pluginType, "of": name})
		r.must(err)
		r.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{"config": string(config)})
	}
	p := r.pod("p", "a,b")
	once := func(operation string, err error, networks int) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", operation, err)
		}
		read := slices.Sorted(slices.Values(r.plugin.read))
		if r.plugin.read = nil; len(read) != networks ||
			len(slices.Compact(slices.Clone(read))) != networks {
			t.Errorf("%s of %d networks read %q", operation, networks, read)
		}
	}
	r.plugin.fails("ADD net2", 100)
	if err := r.add(p); err == nil {
		t.Fatal("an ADD of a network that fails succeeds")
	}
	once("ADD with roll-back", nil, 3)
	r.plugin.on("ADD net2", nil)
	once("ADD", r.add(p), 3)
	once("CHECK", r.check(p), 3)
	once("DEL", r.del(p), 3)

	// Within another pod's DEL it is asked first whether all plugins are built in.
	r.must(r.add(p))
	r.plugin.fails("DEL net2", 111)
	r.fails(r.del(p), 111)
	r.plugin.on("DEL net2", nil)
	p.Unmount()
	other := r.pod("other", "")
	r.must(r.add(other))
	r.plugin.read, r.plugin.calls = nil, nil
	r.must(r.del(other))
	if !slices.Contains(r.plugin.calls, "DEL net2") {
		t.Errorf("another pod's DEL called %q", r.plugin.calls)
	}
	for _, config := range r.plugin.read {
		want := []string{`{"of":"a","type":"pair"}`, `{"of":"b","type":"pair"}`, `{"type":"pair"}`}
		if !slices.Contains(want, config) {
			t.Errorf("another pod's DEL read %s", config)
		}
	}
}
