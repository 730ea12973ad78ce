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
func (h *host) takes(path string, p *pod) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Mount(p.Path, path, "", unix.MS_BIND, ""); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
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
	for name, clean := range map[string]func(h *host, forgotten, live *pod){
		"GC":                 func(h *host, _, live *pod) { h.valid(live); h.must("GC", nil) },
		"DEL":                func(h *host, forgotten, _ *pod) { h.must("DEL", forgotten) },
		"DEL without a path": func(h *host, forgotten, _ *pod) { h.must("DEL", forgotten, "CNI_NETNS=") },
		"DEL of another":     func(h *host, _, _ *pod) { h.must("DEL", h.pod("other", "")) },
		"ADD again": func(h *host, forgotten, _ *pod) {
			again := h.pod("forgotten", "a")
			h.add(again)
			h.must("DEL", again)
		},
		"GC by libcni's cache alone": func(h *host, forgotten, live *pod) {
			h.remove("state", "sandboxes", forgotten.id+".json")
			h.valid(live)
			h.must("GC", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", h.macvlan(11, ""))
			forgotten := h.pod("forgotten", "a")
			points, failed := h.points("ADD", forgotten)
			if failed != nil {
				t.Fatal(failed)
			}
			h.must("DEL", forgotten)
			h.killedAt("ADD", forgotten, points, slices.Index(points, "after publish status"))
			forgotten.Unmount()
			sandbox := h.pod("live", "a")
			h.takes(forgotten.Path, sandbox)
			live := sandbox.by(forgotten.Path)
			h.add(live)
			before := sandbox.Snapshot()
			clean(h, forgotten, live)
			same(t, "the pod that lives", sandbox.Snapshot(), before)
			same(t, "leases", len(h.leases()), 2)
			h.must("CHECK", live)
			h.must("DEL", live)
			h.clean(sandbox)
		})
	}
}

// TestR30DelWithoutPath: the runtime names no namespace, and it is there: its links go, and not the
// addresses alone.
func TestR30DelWithoutPath(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	h.must("DEL", p, "CNI_NETNS=")
	h.clean(p)

	h.add(p) // and with the record lost
	h.remove("state", "sandboxes", p.id+".json")
	h.must("DEL", p, "CNI_NETNS=")
	h.clean(p)
}

// The runtime's path is gone, or leads to another pod, and the namespace lives by the recorded one.
func TestR30DelByAnotherPath(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	other := h.pod("other", "a")
	h.add(other)
	before := other.Snapshot()
	for _, path := range []string{h.path("nothing"), other.Path} {
		p := h.pod("p", "a")
		h.add(p)
		h.must("DEL", p, "CNI_NETNS="+path)
		h.has(p)
		same(t, "the other pod", other.Snapshot(), before)
		same(t, "leases", len(h.leases()), 2)
	}
	h.must("DEL", other)
	h.clean(other)
}

// TestM38NodesNamespace: what the runtime calls a pod's namespace is never the node's own, by
// whatever path: an ADD and a CHECK refuse it, and DEL and GC end without touching it.
func TestM38NodesNamespace(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(38, ""))
	h.nad("execd", `{"cniVersion":"1.0.0","type":"fake","name":"execd"}`)
	h.fake("fake", "")
	link := h.path("link")
	if err := os.Symlink(h.node.Path, link); err != nil {
		t.Fatal(err)
	}
	mounted := h.path("mounted")
	h.takes(mounted, &pod{Namespace: h.node})
	before := h.node.Snapshot()
	for name, path := range map[string]string{
		"its mount": h.node.Path, "a bind mount": mounted, "a symbolic link": link,
		"the process itself": "/proc/self/ns/net",
		"a thread":           "/proc/thread-self/ns/net", "a task": "/proc/self/task/../ns/net",
	} {
		p := h.pod("p", "a,execd").by(path)
		for _, command := range []string{"ADD", "CHECK"} {
			h.fails(command, p, 4, "CNI_NETNS", path[:min(len(path), 60)], "network namespace of the node",
				"name the namespace of a pod")
		}
		h.must("DEL", p)
		h.valid()
		h.must("GC", nil)
		same(t, name, h.node.Snapshot(), before)
	}
	for _, call := range h.calls() { // of a pod without a record it is not known that there is nothing
		same(t, "call", call, "fake DEL net2")
	}
	same(t, "CNI_NETNS", h.environment("fake", "DEL", h.pod("p", ""), "net2")["CNI_NETNS"], "")
}

// TestM38PathBecomesTheNodes: a sandbox that was attached, and whose path is now that of the node's
// namespace, is removed without touching the node.
func TestM38PathBecomesTheNodes(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(h *host, p *pod){
		"with its record": func(*host, *pod) {},
		"with a record that names none": func(h *host, p *pod) {
			h.edit(p, regexp.MustCompile(`"netnsID":"[^"]*",`).FindString(h.record(p)), "")
		},
		"without its record": func(h *host, p *pod) { h.remove("state", "sandboxes", p.id+".json") },
		"without its record and cache": func(h *host, p *pod) {
			h.remove("state", "sandboxes", p.id+".json")
			h.remove("state", "cni", "results")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", h.macvlan(38, ""))
			p := h.pod("p", "a")
			h.add(p)
			lose(h, p)
			path := p.Path
			p.Unmount()
			h.node.Veth("eth0", h.node, "net1") // as the pod's are called
			h.takes(path, &pod{Namespace: h.node})
			h.must("DEL", p.by(path))
			for _, link := range []string{"eth0", "net1"} {
				if !h.node.HasLink(link) {
					t.Errorf("the node's link %s is gone", link)
				}
			}
			same(t, "leases", h.leases(), nil)
		})
	}
}

// TestM38Standalone: so it is for a plugin that is called under its own name.
func TestM38Standalone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := (&pod{id: "id-p"}).by(h.node.Path)
	before := h.node.Snapshot()
	prev := `,"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"` + p.Path +
		`"}],"ips":[{"address":"10.38.0.2/24","interface":0}]}`
	for kind, conf := range map[string]string{
		"bridge":  `"bridge":"br38"`,
		"macvlan": `"master":"` + nic + `"`,
		"ipvlan": `"master":"` + nic +
			`","ipam":{"type":"static","addresses":[{"address":"10.38.0.3/24"}]}`,
		"tuning": `"sysctl":{"net.ipv4.ip_forward":"1"},"dataDir":"` + h.path("tuning") + `"` + prev,
		"sbr":    prev[1:],
	} {
		conf = fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":%q,%s}`, kind, conf)
		_, failed := h.standalone(kind, "ADD", p, conf)
		if failed == nil || !strings.Contains(failed.Msg, "the node's own") {
			t.Errorf("%s: ADD: %v", kind, failed)
		}
		if _, failed := h.standalone(kind, "DEL", p, conf); failed != nil {
			t.Errorf("%s: DEL: %v", kind, failed)
		}
	}
	if !slices.Contains(interfaces(&pod{Namespace: h.node}), "br38") {
		same(t, "node", h.node.Snapshot(), before)
	}
}
