package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
)

// One engine serves calls that differ, at the same time: what one passes reaches no other, and what
// the node's operator configured stays as it is.
func TestAnEngineOutlivesItsCalls(t *testing.T) {
	n := newNode(t)
	// name and version are the call's
	n.conf["delegates"] = []any{
		map[string]any{"type": pluginType, "capabilities": map[string]any{"mac": true}},
	}
	const calls = 8
	var pods []*pod
	var requests []*engine.Request
	for i := range calls {
		p := n.sandbox(fmt.Sprintf("id-%d", i))
		req := n.request(p)
		req.Call = &conf.Call{
			Name: fmt.Sprintf("call-%d", i), CNIVersion: []string{"1.0.0", "0.4.0"}[i%2],
			RuntimeConfig: map[string]json.RawMessage{
				"mac": json.RawMessage(fmt.Sprintf(`"02:00:00:00:00:%02x"`, i)),
			},
		}
		pods, requests = append(pods, p), append(requests, req)
	}
	before := shape(t, n.engine, requests)
	var mu sync.Mutex
	got := map[string]string{}
	n.plugin.on("ADD eth0", func(_ context.Context, c *call) error {
		mu.Lock()
		defer mu.Unlock()
		got[c.container] = c.conf.Name + " " + c.conf.CNIVersion
		return nil
	})
	atOnce(t, requests, func(req *engine.Request) error {
		_, err := n.engine.Add(t.Context(), req)
		return err
	})
	records, err := n.engine.Records.Read()
	n.must(err)
	same(t, "records", len(records), calls)
	for _, rec := range records {
		got[rec.ContainerID] += " " + string(rec.Attachments[0].RuntimeConfig["mac"])
	}
	for i := range calls {
		want := fmt.Sprintf(`call-%d %s "02:00:00:00:00:%02x"`, i, []string{"1.0.0", "0.4.0"}[i%2], i)
		same(t, pods[i].id, got[pods[i].id], want)
	}
	atOnce(t, requests, func(req *engine.Request) error { return n.engine.Check(t.Context(), req) })
	atOnce(t, requests, func(req *engine.Request) error { return n.engine.Del(t.Context(), req) })
	same(t, "node, policy and calls", shape(t, n.engine, requests), before)
	n.left(pods)
}

// shape is what an engine and requests were given, as text.
func shape(t *testing.T, e *engine.Engine, requests []*engine.Request) string {
	t.Helper()
	all := []any{e.Node, e.Policy}
	for _, req := range requests {
		all = append(all, req.Call)
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
