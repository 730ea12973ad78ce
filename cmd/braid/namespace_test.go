package main

import (
	"os"
	"path/filepath"
	"slices"
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
