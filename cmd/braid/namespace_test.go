package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
)

// takes makes the path of a pod whose namespace is gone lead to another pod's, as a runtime does
// that uses names again.
func (r *rig) takes(path string, p *pod) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Mount(p.Path, path, "", unix.MS_BIND, ""); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		unix.Unmount(path, unix.MNT_DETACH) //nolint:errcheck // the test may have
		os.Remove(path)                     //nolint:errcheck // the test may have
	})
}

// by is the pod as a runtime has it that reaches its namespace by this path.
func (p *pod) by(path string) *pod {
	other := *p
	other.Namespace = &nettest.Namespace{Path: path}
	return &other
}

// TestR29PathOfAnother: the path of a sandbox that was forgotten is now that of one that lives,
// whose links stay whoever cleans up.
func TestR29PathOfAnother(t *testing.T) {
	t.Parallel()
	for name, clean := range map[string]func(r *rig, forgotten, live *pod){
		"GC":                 func(r *rig, _, live *pod) { r.valid(live); r.must("GC", nil) },
		"DEL":                func(r *rig, forgotten, _ *pod) { r.must("DEL", forgotten) },
		"DEL without a path": func(r *rig, forgotten, _ *pod) { r.must("DEL", forgotten, "CNI_NETNS=") },
		"DEL of another":     func(r *rig, _, _ *pod) { r.must("DEL", r.pod("other", "")) },
		"ADD again": func(r *rig, forgotten, _ *pod) {
			again := r.pod("forgotten", "a")
			r.add(again)
			r.must("DEL", again)
		},
		"GC by libcni's cache alone": func(r *rig, forgotten, live *pod) {
			r.remove("state", "sandboxes", forgotten.id+".json")
			r.valid(live)
			r.must("GC", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nad("a", r.macvlan(11, ""))
			forgotten := r.pod("forgotten", "a")
			points, failed := r.points("ADD", forgotten)
			if failed != nil {
				t.Fatal(failed)
			}
			r.must("DEL", forgotten)
			r.killedAt("ADD", forgotten, points, slices.Index(points, "after publish status"))
			forgotten.Unmount()
			sandbox := r.pod("live", "a")
			r.takes(forgotten.Path, sandbox)
			live := sandbox.by(forgotten.Path)
			r.add(live)
			before := sandbox.Snapshot()
			clean(r, forgotten, live)
			same(t, "the pod that lives", sandbox.Snapshot(), before)
			same(t, "leases", len(r.leases()), 2)
			r.must("CHECK", live)
			r.must("DEL", live)
			r.clean(sandbox)
		})
	}
}

// TestR30DelWithoutPath: the runtime names no namespace, and it is there: its links go, and not the
// addresses alone.
func TestR30DelWithoutPath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.add(p)
	r.must("DEL", p, "CNI_NETNS=")
	r.clean(p)

	r.add(p) // and with the record lost
	r.remove("state", "sandboxes", p.id+".json")
	r.must("DEL", p, "CNI_NETNS=")
	r.clean(p)
}

// The runtime's path is gone, or leads to another pod, and the namespace lives by the recorded one.
func TestR30DelByAnotherPath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	other := r.pod("other", "a")
	r.add(other)
	before := other.Snapshot()
	for _, path := range []string{r.path("nothing"), other.Path} {
		p := r.pod("p", "a")
		r.add(p)
		r.must("DEL", p, "CNI_NETNS="+path)
		r.has(p)
		same(t, "the other pod", other.Snapshot(), before)
		same(t, "leases", len(r.leases()), 2)
	}
	r.must("DEL", other)
	r.clean(other)
}

// TestM38NodesNamespace: what the runtime calls a pod's namespace is never the node's own, by
// whatever path: an ADD and a CHECK refuse it, and DEL and GC end without touching it.
func TestM38NodesNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(38, ""))
	r.nad("execd", `{"cniVersion":"1.0.0","type":"fake","name":"execd"}`)
	r.fake("fake", "")
	link := r.path("link")
	if err := os.Symlink(r.node.Path, link); err != nil {
		t.Fatal(err)
	}
	mounted := r.path("mounted")
	r.takes(mounted, &pod{Namespace: r.node})
	before := r.node.Snapshot()
	for name, path := range map[string]string{
		"its mount": r.node.Path, "a bind mount": mounted, "a symbolic link": link,
		"the process itself": "/proc/self/ns/net",
		"a thread":           "/proc/thread-self/ns/net", "a task": "/proc/self/task/../ns/net",
	} {
		p := r.pod("p", "a,execd").by(path)
		for _, command := range []string{"ADD", "CHECK"} {
			r.fails(command, p, 4, "CNI_NETNS", path[:min(len(path), 60)], "network namespace of the node",
				"name the namespace of a pod")
		}
		r.must("DEL", p)
		r.valid()
		r.must("GC", nil)
		same(t, name, r.node.Snapshot(), before)
	}
	for _, call := range r.calls() { // of a pod without a record it is not known that there is nothing
		same(t, "call", call, "fake DEL net2")
	}
	same(t, "CNI_NETNS", r.environment("fake", "DEL", r.pod("p", ""), "net2")["CNI_NETNS"], "")
}

// TestM38PathBecomesTheNodes: a sandbox that was attached, and whose path is now that of the node's
// namespace, is removed without touching the node.
func TestM38PathBecomesTheNodes(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(r *rig, p *pod){
		"with its record": func(*rig, *pod) {},
		"with a record that names none": func(r *rig, p *pod) {
			r.edit(p, regexp.MustCompile(`"netnsID":"[^"]*",`).FindString(r.record(p)), "")
		},
		"without its record": func(r *rig, p *pod) { r.remove("state", "sandboxes", p.id+".json") },
		"without its record and cache": func(r *rig, p *pod) {
			r.remove("state", "sandboxes", p.id+".json")
			r.remove("state", "cni", "results")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nad("a", r.macvlan(38, ""))
			p := r.pod("p", "a")
			r.add(p)
			lose(r, p)
			path := p.Path
			p.Unmount()
			r.node.Veth("eth0", r.node, "net1") // as the pod's are called
			r.takes(path, &pod{Namespace: r.node})
			r.must("DEL", p.by(path))
			for _, link := range []string{"eth0", "net1"} {
				if !r.node.HasLink(link) {
					t.Errorf("the node's link %s is gone", link)
				}
			}
			same(t, "leases", r.leases(), nil)
		})
	}
}

// TestM38Standalone: so it is for a plugin that is called under its own name.
func TestM38Standalone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := (&pod{id: "id-p"}).by(r.node.Path)
	before := r.node.Snapshot()
	prev := `,"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"` + p.Path +
		`"}],"ips":[{"address":"10.38.0.2/24","interface":0}]}`
	for kind, conf := range map[string]string{
		"bridge":  `"bridge":"br38"`,
		"macvlan": `"master":"` + nic + `"`,
		"ipvlan": `"master":"` + nic +
			`","ipam":{"type":"static","addresses":[{"address":"10.38.0.3/24"}]}`,
		"tuning": `"sysctl":{"net.ipv4.ip_forward":"1"},"dataDir":"` + r.path("tuning") + `"` + prev,
		"sbr":    prev[1:],
	} {
		conf = fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":%q,%s}`, kind, conf)
		_, failed := r.standalone(kind, "ADD", p, conf)
		if failed == nil || !strings.Contains(failed.Msg, "the node's own") {
			t.Errorf("%s: ADD: %v", kind, failed)
		}
		if _, failed := r.standalone(kind, "DEL", p, conf); failed != nil {
			t.Errorf("%s: DEL: %v", kind, failed)
		}
	}
	if !slices.Contains(interfaces(&pod{Namespace: r.node}), "br38") {
		same(t, "node", r.node.Snapshot(), before)
	}
}
