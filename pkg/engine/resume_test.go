package engine_test

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// stuck is a sandbox that is gone, and was left by a DEL that failed.
func (r *rig) stuck(name, networks string) *pod {
	r.t.Helper()
	p := r.pod(name, networks)
	r.must(r.add(p))
	r.plugin.fails("DEL net1", 111)
	r.fails(r.del(p), 111)
	p.Unmount()
	return p
}

// tried reports whether the DEL of another pod tries again to remove net1, and how long it takes.
func (r *rig) tried(other *pod) (tried bool, took time.Duration) {
	r.t.Helper()
	r.must(r.add(other))
	r.plugin.called()
	start := time.Now()
	r.must(r.del(other))
	return slices.Contains(r.plugin.called(), "DEL net1"), time.Since(start)
}

// TestR27StuckSandboxes: sandboxes that nobody can clean up take a second of a healthy DEL in all,
// and none of the next ones.
func TestR27StuckSandboxes(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	for _, name := range []string{"one", "two", "three"} {
		r.stuck(name, "a")
	}
	r.plugin.on("DEL net1", func(ctx context.Context, _ *call) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	other := r.pod("other", "")
	tried, took := r.tried(other)
	if !tried || took > 20*time.Second {
		t.Errorf("the first DEL tried %v and took %v", tried, took)
	}
	// The budget was used up by one of them, so each has its own turn.
	for range 2 {
		if _, took := r.tried(other); took > 20*time.Second {
			t.Errorf("another DEL took %v", took)
		}
	}
	tried, took = r.tried(other)
	if tried || took > 20*time.Second {
		t.Errorf("a DEL soon after tried %v and took %v", tried, took)
	}
	r.plugin.on("DEL net1", nil)
	for _, id := range []string{"id-one", "id-two", "id-three"} {
		now := time.Now()
		r.must(os.Chtimes(r.path("state/sandboxes", id+".json.lock"), now, now))
	}
	if tried, _ := r.tried(other); !tried {
		t.Error("not tried again when it is time")
	}
	r.left(nil)
}

// A sandbox's own DEL waits for nothing, nor does GC.
func TestR27OwnDelAndGCDoNotWait(t *testing.T) {
	for _, own := range []bool{true, false} {
		r := newRig(t)
		r.nads("a")
		p, other := r.stuck("p", "a"), r.pod("other", "")
		r.tried(other)
		r.plugin.on("DEL net1", nil)
		if tried, _ := r.tried(other); tried {
			t.Error("tried again at once")
		}
		if own {
			r.must(r.del(p))
		} else {
			r.must(r.gc())
		}
		r.left(nil)
	}
}

// TestR27NoForeignDelegate: within another pod's DEL no plugin is exec'd for what was left, and the
// rest is removed.
func TestR27NoForeignDelegate(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	r.must(os.Mkdir(r.path("bin"), 0o700))
	script := "#!/bin/sh\necho $CNI_COMMAND >>" + r.path("execs") +
		"\n[ $CNI_COMMAND = ADD ] && echo '{\"cniVersion\":\"1.1.0\"}'; exit 0\n"
	for _, name := range []string{"foreign", "ipam"} {
		r.must(os.WriteFile(r.path("bin", name), []byte(script), 0o700))
	}
	for name, plugin := range map[string]string{
		"b": `{"type":"foreign"}`, "c": `{"type":"pair"},{"type":"foreign"}`,
		"d": `{"type":"pair","ipam":{"type":"ipam"}}`,
	} {
		r.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{
			"config": `{"cniVersion":"1.1.0","name":"` + name + `","plugins":[` + plugin + `]}`,
		})
	}
	p, other := r.pod("p", "a,b,c,d"), r.pod("other", "")
	r.must(r.add(p))
	r.plugin.fails("DEL net1", 111)
	r.plugin.fails("DEL net4", 114)
	p.Unmount()
	r.must(os.Rename(r.path("bin"), r.path("away")))
	r.fails(r.del(p), 114, "default/a", "default/b", "default/c", "default/d")
	r.must(os.Rename(r.path("away"), r.path("bin")))
	r.plugin.on("DEL net1", nil)
	r.plugin.on("DEL net4", nil)
	r.must(os.Remove(r.path("execs")))
	r.plugin.called()
	r.must(r.del(other))
	if _, err := os.Stat(r.path("execs")); err == nil {
		t.Error("a plugin was exec'd")
	}
	same(t, "calls", r.plugin.called(), []string{"DEL eth0", "DEL net1"})
	r.must(r.gc())
	r.left(nil)
}
