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
func (r *rig) valid(pods ...*pod) {
	list := []any{}
	for _, p := range pods {
		list = append(list, map[string]any{"containerID": p.id, "ifname": "eth0"})
	}
	r.conf["cni.dev/valid-attachments"] = list
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
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	stays, goes := r.pod("stays", "a"), r.pod("goes", "a,a")
	r.add(stays)
	before, leases := stays.Snapshot(), r.leases()
	r.add(goes)
	goes.Unmount()
	r.valid(stays)
	r.must("GC", nil)
	same(t, "leases", r.leases(), leases)
	same(t, "pod", stays.Snapshot(), before)
	for _, left := range r.left() {
		if strings.Contains(left, goes.id) {
			t.Errorf("left: %s", left)
		}
	}
	r.must("CHECK", stays)
	r.must("DEL", stays)
	r.clean(stays)
}

// The list names the default interface of each sandbox; each network's plugins get all interfaces
// that are theirs in it.
func TestC7ExpandedAndForwardedToEveryNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, kind := range []string{"main", "one", "two"} {
		r.fake(kind, "")
	}
	r.conf["delegates"] = []any{map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "main"}}
	r.nad("a", `{"cniVersion":"1.1.0","type":"one"}`)
	r.nad("b", `{"cniVersion":"1.1.0","type":"two"}`)
	p, q := r.pod("p", "a,a@data"), r.pod("q", "b")
	r.add(p)
	r.add(q)
	r.must("DEL", q) // its network has no live pod any more
	r.valid(p)
	r.must("GC", nil)
	same(t, "default network", given(r.stdin("main", "GC", nil, "")), []string{"id-p eth0"})
	same(t, "network of p", given(r.stdin("one", "GC", nil, "")), []string{"id-p data", "id-p net1"})
	same(t, "network of q", given(r.stdin("two", "GC", nil, "")), []string{})
}

func TestC7ErrorsDoNotStopIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("bad", failing("GC", 100, "no idea")+"\n"+failing("DEL", 100, "will not"))
	r.fake("good", "")
	r.nad("a", `{"cniVersion":"1.1.0","type":"bad"}`)
	r.nad("b", `{"cniVersion":"1.1.0","type":"good"}`)
	p, q := r.pod("p", "a"), r.pod("q", "b")
	r.add(p)
	r.add(q)
	r.calls()
	r.valid()
	r.fails("GC", nil, 100, "default/a", "plugin bad", "no idea", "will not")
	calls := r.calls()
	for _, want := range []string{"bad DEL net1", "bad GC", "good DEL net1", "good GC"} {
		if !slices.Contains(calls, want) {
			t.Errorf("no %q in %q", want, calls)
		}
	}
	same(t, "leases", len(r.leases()), 0)
}

func TestC7DisableGC(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.1.0","disableGC":true,"plugins":[{"type":"one"}]}`)
	p := r.pod("p", "a")
	r.add(p)
	r.valid(p)
	r.must("GC", nil)
	if calls := r.calls(); slices.Contains(calls, "one GC") {
		t.Errorf("calls: %q", calls)
	}
}

// A missing list is not an empty one. Without pods it is all the same: CRI-O sends none then.
func TestC7NoListRemovesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must("GC", nil)
	p := r.pod("p", "")
	r.add(p)
	r.fails("GC", nil, 7, "cni.dev/valid-attachments")
	r.has(p, "eth0")
	r.must("CHECK", p)
	r.must("DEL", p)
	r.must("GC", nil)
}

// A sandbox whose ADD began after the runtime made its list cannot be on it.
func TestC7LaterAddIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", r.macvlan(11, ""))
	r.nad("b", `{"cniVersion":"1.1.0","type":"one"}`)
	p := r.pod("p", "a,b")
	r.add(p)
	r.calls()
	before := p.Snapshot()
	begunLater(r, p)
	r.valid()
	r.must("GC", nil)
	same(t, "pod", p.Snapshot(), before)
	same(t, "leases", r.leases(), []string{"a/10.11.0.2", "pods/10.1.0.2"})
	same(t, "calls", r.calls(), []string{"one GC"})
	same(t, "valid", given(r.stdin("one", "GC", nil, "")), []string{"id-p net2"})
	r.must("CHECK", p)
}

// begunLater makes a pod's record one of an ADD that begins in an hour.
func begunLater(r *rig, p *pod) {
	path := r.path("state", "sandboxes", p.id+".json")
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	var rec map[string]json.RawMessage
	if err := json.Unmarshal(data, &rec); err != nil {
		r.t.Fatal(err)
	}
	rec["created"], err = json.Marshal(time.Now().Add(time.Hour))
	if err != nil {
		r.t.Fatal(err)
	}
	if data, err = json.Marshal(rec); err != nil {
		r.t.Fatal(err)
	}
	r.write("state/sandboxes/"+p.id+".json", string(data))
}

// TestR28GCOfOldVersions: plugins that are built in have a GC whatever the network's version of
// CNI; those that are exec'd are not asked.
func TestR28GCOfOldVersions(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fake("meta", passOn)
			r.conf["delegates"] = []any{with(r.defaultNetwork(), "cniVersion", version)}
			r.nad("a", `{"cniVersion":"`+version+`","plugins":[`+r.macvlan(11, "")+`,{"type":"meta"}]}`)
			r.nad("b", strings.Replace(r.macvlan(12, ""), "1.0.0", version, 1))
			p := r.pod("p", "a,b")
			r.add(p)
			for _, lease := range []string{"a/10.11.0.77", "b/10.12.0.77", "pods/10.1.0.77"} {
				r.write("leases/"+lease, "id-lost\r\nnet1")
			}
			r.calls()
			r.valid(p)
			r.must("GC", nil)
			same(t, "leases", r.leases(), []string{"a/10.11.0.2", "b/10.12.0.2", "pods/10.1.0.2"})
			same(t, "calls", r.calls(), nil)
			r.must("CHECK", p)
			r.must("DEL", p)
			r.clean(p)
		})
	}
}

// What libcni's cache has of a sandbox whose record is lost is removed; what others have put into
// the directory is theirs.
func TestR28GCOfLostRecords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.add(p)
	r.remove("state", "sandboxes", p.id+".json")
	r.script("theirs", "touch "+r.path("executed"))
	const entry = `{"kind":"cniCacheV1","containerId":"id-other","ifName":"eth0",` +
		`"networkName":"theirs",` +
		`"config":"eyJjbmlWZXJzaW9uIjoiMS4wLjAiLCJuYW1lIjoidGhlaXJzIiwidHlwZSI6InRoZWlycyJ9"}`
	r.write("state/cni/results/theirs-id-other-eth0", entry)
	r.valid()
	r.must("GC", nil)
	r.has(p)
	same(t, "leases", len(r.leases()), 0)
	same(t, "cache", globbed(t, r.path("state/cni/results/*")),
		[]string{r.path("state/cni/results/theirs-id-other-eth0")})
	gone(t, r.path("executed"))
}
