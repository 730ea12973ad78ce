package install_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
)

// recorded is what a record says of one.
type recorded struct {
	ContainerID, NetNS, Runtime string
	Complete                    bool
	Pod                         struct{ Name string }
}

// sandboxes are those of a pod that a node has recorded.
func (w *world) sandboxes(n *lab.Node, pod string) (found []recorded) {
	w.t.Helper()
	files, err := filepath.Glob(n.Path("/run/braid/sandboxes/*.json"))
	w.must(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		w.must(err)
		var s recorded
		w.must(json.Unmarshal(text, &s))
		if s.Pod.Name == pod {
			found = append(found, s)
		}
	}
	return found
}

// links are the links of a sandbox's network namespace.
func (w *world) links(n *lab.Node, s recorded) string {
	w.t.Helper()
	out, err := n.Run(w.ctx, "nsenter", "--net="+s.NetNS, "ip", "-o", "link")
	w.must(err)
	return out
}

// forgets has the runtime of a node forget a sandbox, as one that was killed at the wrong moment.
// No DEL comes, and what the plugins made stays. The pod is gone then, too.
func (w *world) forgets(n *lab.Node, s recorded, pod string) {
	w.t.Helper()
	n.KillKubelet() // which would have the sandbox made anew
	if runtime == lab.CRIO {
		w.crioForgets(n, s)
	} else {
		w.containerdForgets(n, s)
	}
	now := int64(0)
	w.must(w.Client().CoreV1().Pods("default").
		Delete(w.ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	w.must(n.StartKubelet())
}

// crioForgets has CRI-O start with a configuration that wants no GC, which would remove the sandbox
// at once. The agent, which is killed, puts its own back.
func (w *world) crioForgets(n *lab.Node, s recorded) {
	w.t.Helper()
	n.KillRuntime()
	w.killAgent(n)
	list, err := os.ReadFile(n.Path(configuration))
	w.must(err)
	list = bytes.Replace(list, []byte("{"), []byte(`{"disableGC": true, `), 1)
	w.must(n.WriteFile(configuration, list, 0o600))
	w.must(n.ForgetSandbox(w.ctx, s.ContainerID, filepath.Base(s.NetNS)))
	w.must(n.StartRuntime(w.ctx))
}

func (w *world) containerdForgets(n *lab.Node, s recorded) {
	w.t.Helper()
	out, err := n.Ctr(w.ctx, "containers", "list")
	w.must(err)
	uid, err := n.Run(w.ctx, "sh", "-c",
		fmt.Sprintf("grep -o '\"uid\":\"[^\"]*\"' /run/braid/sandboxes/%s.json | head -1 | cut "+
			"-d'\"' -f4", s.ContainerID))
	w.must(err)
	for line := range strings.Lines(out) {
		id, _, _ := strings.Cut(line, " ")
		info, err := n.Ctr(w.ctx, "containers", "info", id)
		if err != nil || !strings.Contains(info, strings.TrimSpace(uid)) {
			continue
		}
		n.Ctr(w.ctx, "tasks", "kill", "--signal=KILL", id) //nolint:errcheck // it may have ended
		w.eventually("container "+id+" is removed", func() error {
			n.Ctr(w.ctx, "tasks", "delete", "--force", id) //nolint:errcheck // the next fails if this did
			_, err := n.Ctr(w.ctx, "containers", "delete", id)
			return err
		})
	}
	n.Ctr(w.ctx, "sandboxes", "remove", "--force", s.ContainerID)
	n.KillRuntime()
	w.must(n.StartRuntime(w.ctx))
}

// restartAgents replaces all agents by new ones.
func (w *world) restartAgents() {
	w.t.Helper()
	second := int64(0)
	for _, agent := range w.agents() {
		w.must(w.Client().CoreV1().Pods(namespace).
			Delete(w.ctx, agent.Name, metav1.DeleteOptions{GracePeriodSeconds: &second}))
	}
	w.eventually("agents are back", w.rolledOut)
	w.eventually("both nodes are ready", w.ready)
}

// TestRuntimeForgets: of a sandbox that the runtime has forgotten the agent removes links,
// addresses and record, and live pods keep theirs.
func TestRuntimeForgets(t *testing.T) {
	w := newWorld(t)
	w.private()
	n := w.Nodes()[0]
	w.pod("lives", n.Name)
	w.pod("lost", n.Name)
	lost, lives := w.sandboxes(n, "lost"), w.sandboxes(n, "lives")
	if len(lost) != 1 || len(lives) != 1 || lost[0].Runtime != string(runtime) {
		t.Fatalf("sandboxes %+v and %+v", lost, lives)
	}
	w.forgets(n, lost[0], "lost")
	if links := w.links(n, lost[0]); !strings.Contains(links, "net1") {
		t.Fatalf("the runtime removed the networks: %s", links)
	}
	w.restartAgents() // which look at their start, and a minute later
	w.eventually("the record is gone", func() error {
		if left := w.sandboxes(n, "lost"); len(left) > 0 {
			return fmt.Errorf("there is still %+v", left)
		}
		return nil
	})
	if links := w.links(n, lost[0]); strings.Contains(links, "net1") ||
		strings.Contains(links, "eth0") {
		t.Errorf("links of the sandbox: %s", links)
	}
	held, err := filepath.Glob(n.Path("/run/braid/ipam/held/*" + lost[0].ContainerID + "*"))
	if err != nil || len(held) > 0 {
		t.Errorf("addresses are held by %v, %v", held, err)
	}
	if got := w.sandboxes(n, "lives"); len(got) != 1 || got[0] != lives[0] {
		t.Errorf("the sandbox of a pod that lives is now %+v", got)
	}
	if links := w.links(n, lives[0]); !strings.Contains(links, "net1") ||
		!strings.Contains(links, "eth0") {
		t.Errorf("links of the pod that lives: %s", links)
	}
	w.must(n.WaitReady(w.ctx))
	w.gone("lives")
	_, err = n.Run(w.ctx, "ip", "netns", "delete", filepath.Base(lost[0].NetNS))
	w.must(err)
}
