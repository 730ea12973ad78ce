package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// valid is the runtime's list of what it has, for GC.
func (h *host) valid(pods ...*pod) {
	list := []any{}
	for _, p := range pods {
		list = append(list, map[string]any{"containerID": p.id, "ifname": "eth0"})
	}
	h.conf["cni.dev/valid-attachments"] = list
}

// given is the list of valid attachments that a fake got with GC, as "container interface".
func given(stdin map[string]any) []string {
	list, ok := stdin["cni.dev/valid-attachments"].([]any)
	if !ok {
		return []string{"no list"}
	}
	got := []string{}
	for _, a := range list {
		m := a.(map[string]any)
		got = append(got, m["containerID"].(string)+" "+m["ifname"].(string))
	}
	slices.Sort(got)
	return got
}

// What the runtime does not have any more is removed, although Braid remembers it as attached; what
// it has stays untouched.
func TestM3RuntimeDecidesWhatIsValid(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	stays, goes := h.pod("stays", "a"), h.pod("goes", "a,a")
	h.add(stays)
	before, leases := stays.Snapshot(), h.leases()
	h.add(goes)
	goes.Unmount()
	h.valid(stays)
	h.must("GC", nil)
	same(t, "leases", h.leases(), leases)
	same(t, "pod", stays.Snapshot(), before)
	for _, left := range h.left() {
		if strings.Contains(left, goes.id) {
			t.Errorf("left: %s", left)
		}
	}
	h.must("CHECK", stays)
	h.must("DEL", stays)
	h.clean(stays)
}

// The list names the default interface of each sandbox; each network's plugins get all interfaces
// that are theirs in it.
func TestC7ExpandedAndForwardedToEveryNetwork(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, kind := range []string{"main", "one", "two"} {
		h.fake(kind, "")
	}
	h.conf["delegates"] = []any{map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "main"}}
	h.nad("a", `{"cniVersion":"1.1.0","type":"one"}`)
	h.nad("b", `{"cniVersion":"1.1.0","type":"two"}`)
	p, q := h.pod("p", "a,a@data"), h.pod("q", "b")
	h.add(p)
	h.add(q)
	h.must("DEL", q) // its network has no live pod any more
	h.valid(p)
	h.must("GC", nil)
	same(t, "default network", given(h.stdin("main", "GC", nil, "")), []string{"id-p eth0"})
	same(t, "network of p", given(h.stdin("one", "GC", nil, "")), []string{"id-p data", "id-p net1"})
	same(t, "network of q", given(h.stdin("two", "GC", nil, "")), []string{})
}

func TestC7ErrorsDoNotStopIt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("bad", failing("GC", 100, "no idea")+"\n"+failing("DEL", 100, "will not"))
	h.fake("good", "")
	h.nad("a", `{"cniVersion":"1.1.0","type":"bad"}`)
	h.nad("b", `{"cniVersion":"1.1.0","type":"good"}`)
	p, q := h.pod("p", "a"), h.pod("q", "b")
	h.add(p)
	h.add(q)
	h.calls()
	h.valid()
	h.fails("GC", nil, 100, "default/a", "plugin bad", "no idea", "will not")
	calls := h.calls()
	for _, want := range []string{"bad DEL net1", "bad GC", "good DEL net1", "good GC"} {
		if !slices.Contains(calls, want) {
			t.Errorf("no %q in %q", want, calls)
		}
	}
	same(t, "leases", len(h.leases()), 0)
}

func TestC7DisableGC(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.1.0","disableGC":true,"plugins":[{"type":"one"}]}`)
	p := h.pod("p", "a")
	h.add(p)
	h.valid(p)
	h.must("GC", nil)
	if calls := h.calls(); slices.Contains(calls, "one GC") {
		t.Errorf("calls: %q", calls)
	}
}

// A missing list is not an empty one. Without pods it is all the same: CRI-O sends none then.
func TestC7NoListRemovesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.must("GC", nil)
	p := h.pod("p", "")
	h.add(p)
	h.fails("GC", nil, 7, "cni.dev/valid-attachments")
	h.has(p, "eth0")
	h.must("CHECK", p)
	h.must("DEL", p)
	h.must("GC", nil)
}

// A sandbox whose ADD began after the runtime made its list cannot be on it.
func TestC7LaterAddIsKept(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", `{"cniVersion":"1.1.0","type":"one"}`)
	p := h.pod("p", "a,b")
	h.add(p)
	h.calls()
	before := p.Snapshot()
	begunLater(h, p)
	h.valid()
	h.must("GC", nil)
	same(t, "pod", p.Snapshot(), before)
	same(t, "leases", h.leases(), []string{"a/10.11.0.2", "pods/10.1.0.2"})
	same(t, "calls", h.calls(), []string{"one GC"})
	same(t, "valid", given(h.stdin("one", "GC", nil, "")), []string{"id-p net2"})
	h.must("CHECK", p)
}

// begunLater makes a pod's record one of an ADD that begins in an hour.
func begunLater(h *host, p *pod) {
	path := h.path("state", "sandboxes", p.id+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	var rec map[string]json.RawMessage
	if err := json.Unmarshal(data, &rec); err != nil {
		h.t.Fatal(err)
	}
	rec["created"], err = json.Marshal(time.Now().Add(time.Hour))
	if err != nil {
		h.t.Fatal(err)
	}
	if data, err = json.Marshal(rec); err != nil {
		h.t.Fatal(err)
	}
	h.write("state/sandboxes/"+p.id+".json", string(data))
}

// TestR28GCOfOldVersions: plugins that are built in have a GC whatever the network's version of
// CNI; those that are exec'd are not asked.
func TestR28GCOfOldVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake("meta", passOn)
			h.conf["delegates"] = []any{with(h.defaultNetwork(), "cniVersion", version)}
			h.nad("a", `{"cniVersion":"`+version+`","plugins":[`+h.macvlan(11, "")+`,{"type":"meta"}]}`)
			h.nad("b", strings.Replace(h.macvlan(12, ""), "1.0.0", version, 1))
			p := h.pod("p", "a,b")
			h.add(p)
			for _, lease := range []string{"a/10.11.0.77", "b/10.12.0.77", "pods/10.1.0.77"} {
				h.write("leases/"+lease, "id-lost\r\nnet1")
			}
			h.calls()
			h.valid(p)
			h.must("GC", nil)
			same(t, "leases", h.leases(), []string{"a/10.11.0.2", "b/10.12.0.2", "pods/10.1.0.2"})
			same(t, "calls", h.calls(), nil)
			h.must("CHECK", p)
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// What libcni's cache has of a sandbox whose record is lost is removed; what others have put into
// the directory is theirs.
func TestR28GCOfLostRecords(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	h.remove("state", "sandboxes", p.id+".json")
	h.script("theirs", "touch "+h.path("executed"))
	const entry = `{"kind":"cniCacheV1","containerId":"id-other","ifName":"eth0",` +
		`"networkName":"theirs",` +
		`"config":"eyJjbmlWZXJzaW9uIjoiMS4wLjAiLCJuYW1lIjoidGhlaXJzIiwidHlwZSI6InRoZWlycyJ9"}`
	h.write("state/cni/results/theirs-id-other-eth0", entry)
	h.valid()
	h.must("GC", nil)
	h.has(p)
	same(t, "leases", len(h.leases()), 0)
	same(t, "cache", globbed(t, h.path("state/cni/results/*")),
		[]string{h.path("state/cni/results/theirs-id-other-eth0")})
	gone(t, h.path("executed"))
}
