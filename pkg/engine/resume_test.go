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
func (n *node) stuck(name, networks string) *pod {
	n.t.Helper()
	p := n.pod(name, networks)
	n.must(n.add(p))
	n.plugin.fails("DEL net1", 111)
	n.fails(n.del(p), 111)
	p.Unmount()
	return p
}

// tried reports whether the DEL of another pod tries again to remove net1, and how long it takes.
func (n *node) tried(other *pod) (tried bool, took time.Duration) {
	n.t.Helper()
	n.must(n.add(other))
	n.plugin.called()
	start := time.Now()
	n.must(n.del(other))
	return slices.Contains(n.plugin.called(), "DEL net1"), time.Since(start)
}

// TestR27StuckSandboxes: sandboxes that nobody can clean up take a second of a healthy DEL in all,
// and none of the next ones.
func TestR27StuckSandboxes(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	for _, name := range []string{"one", "two", "three"} {
		n.stuck(name, "a")
	}
	n.plugin.on("DEL net1", func(ctx context.Context, _ *call) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
	other := n.pod("other", "")
	tried, took := n.tried(other)
	if !tried || took > 20*time.Second {
		t.Errorf("the first DEL tried %v and took %v", tried, took)
	}
	// The budget was used up by one of them, so each has its own turn.
	for range 2 {
		if _, took := n.tried(other); took > 20*time.Second {
			t.Errorf("another DEL took %v", took)
		}
	}
	tried, took = n.tried(other)
	if tried || took > 20*time.Second {
		t.Errorf("a DEL soon after tried %v and took %v", tried, took)
	}
	n.plugin.on("DEL net1", nil)
	for _, id := range []string{"id-one", "id-two", "id-three"} {
		now := time.Now()
		n.must(os.Chtimes(n.path("state/sandboxes", id+".json.lock"), now, now))
	}
	if tried, _ := n.tried(other); !tried {
		t.Error("not tried again when it is time")
	}
	n.left(nil)
}

// A sandbox's own DEL waits for nothing, nor does GC.
func TestR27OwnDelAndGCDoNotWait(t *testing.T) {
	for _, own := range []bool{true, false} {
		n := newNode(t)
		n.nads("a")
		p, other := n.stuck("p", "a"), n.pod("other", "")
		n.tried(other)
		n.plugin.on("DEL net1", nil)
		if tried, _ := n.tried(other); tried {
			t.Error("tried again at once")
		}
		if own {
			n.must(n.del(p))
		} else {
			n.must(n.gc())
		}
		n.left(nil)
	}
}

// TestR27NoForeignDelegate: within another pod's DEL no plugin is exec'd for what was left, and the
// rest is removed.
func TestR27NoForeignDelegate(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	n.must(os.Mkdir(n.path("bin"), 0o700))
	script := "#!/bin/sh\necho $CNI_COMMAND >>" + n.path("execs") +
		"\n[ $CNI_COMMAND = ADD ] && echo '{\"cniVersion\":\"1.1.0\"}'; exit 0\n"
	for _, name := range []string{"foreign", "ipam"} {
		n.must(os.WriteFile(n.path("bin", name), []byte(script), 0o700))
	}
	for name, plugin := range map[string]string{
		"b": `{"type":"foreign"}`, "c": `{"type":"pair"},{"type":"foreign"}`,
		"d": `{"type":"pair","ipam":{"type":"ipam"}}`,
	} {
		n.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{
			"config": `{"cniVersion":"1.1.0","name":"` + name + `","plugins":[` + plugin + `]}`,
		})
	}
	p, other := n.pod("p", "a,b,c,d"), n.pod("other", "")
	n.must(n.add(p))
	n.plugin.fails("DEL net1", 111)
	n.plugin.fails("DEL net4", 114)
	p.Unmount()
	n.must(os.Rename(n.path("bin"), n.path("away")))
	n.fails(n.del(p), 114, "default/a", "default/b", "default/c", "default/d")
	n.must(os.Rename(n.path("away"), n.path("bin")))
	n.plugin.on("DEL net1", nil)
	n.plugin.on("DEL net4", nil)
	n.must(os.Remove(n.path("execs")))
	n.plugin.called()
	n.must(n.del(other))
	if _, err := os.Stat(n.path("execs")); err == nil {
		t.Error("a plugin was exec'd")
	}
	same(t, "calls", n.plugin.called(), []string{"DEL eth0", "DEL net1"})
	n.must(n.gc())
	n.left(nil)
}
