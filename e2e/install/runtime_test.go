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
func (r *rig) sandboxes(n *lab.Node, pod string) (found []recorded) {
	r.t.Helper()
	files, err := filepath.Glob(n.Path("/run/braid/sandboxes/*.json"))
	r.must(err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		r.must(err)
		var s recorded
		r.must(json.Unmarshal(text, &s))
		if s.Pod.Name == pod {
			found = append(found, s)
		}
	}
	return found
}

// links are the links of a sandbox's network namespace.
func (r *rig) links(n *lab.Node, s recorded) string {
	r.t.Helper()
	out, err := n.Run(r.ctx, "nsenter", "--net="+s.NetNS, "ip", "-o", "link")
	r.must(err)
	return out
}

// forgets has the runtime of a node forget a sandbox, as one that was killed at the wrong moment.
// No DEL comes, and what the plugins made stays. The pod is gone then, too.
func (r *rig) forgets(n *lab.Node, s recorded, pod string) {
	r.t.Helper()
	n.KillKubelet() // which would have the sandbox made anew
	if runtime == lab.CRIO {
		r.crioForgets(n, s)
	} else {
		r.containerdForgets(n, s)
	}
	now := int64(0)
	r.must(r.Client().CoreV1().Pods("default").
		Delete(r.ctx, pod, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	r.must(n.StartKubelet())
}

// crioForgets has CRI-O start with a configuration that wants no GC, which would remove the sandbox
// at once. The agent, which is killed, puts its own back.
func (r *rig) crioForgets(n *lab.Node, s recorded) {
	r.t.Helper()
	n.KillRuntime()
	r.killAgent(n)
	list, err := os.ReadFile(n.Path(configuration))
	r.must(err)
	list = bytes.Replace(list, []byte("{"), []byte(`{"disableGC": true, `), 1)
	r.must(n.WriteFile(configuration, list, 0o600))
	r.must(n.ForgetSandbox(r.ctx, s.ContainerID, filepath.Base(s.NetNS)))
	r.must(n.StartRuntime(r.ctx))
}

func (r *rig) containerdForgets(n *lab.Node, s recorded) {
	r.t.Helper()
	out, err := n.Ctr(r.ctx, "containers", "list")
	r.must(err)
	uid, err := n.Run(r.ctx, "sh", "-c",
		fmt.Sprintf("grep -o '\"uid\":\"[^\"]*\"' /run/braid/sandboxes/%s.json | head -1 | cut "+
			"-d'\"' -f4", s.ContainerID))
	r.must(err)
	for line := range strings.Lines(out) {
		id, _, _ := strings.Cut(line, " ")
		info, err := n.Ctr(r.ctx, "containers", "info", id)
		if err != nil || !strings.Contains(info, strings.TrimSpace(uid)) {
			continue
		}
		n.Ctr(r.ctx, "tasks", "kill", "--signal=KILL", id) //nolint:errcheck // it may have ended
		r.eventually("container "+id+" is removed", func() error {
			n.Ctr(r.ctx, "tasks", "delete", "--force", id) //nolint:errcheck // the next says whether it did
			_, err := n.Ctr(r.ctx, "containers", "delete", id)
			return err
		})
	}
	n.Ctr(r.ctx, "sandboxes", "remove", "--force", s.ContainerID)
	n.KillRuntime()
	r.must(n.StartRuntime(r.ctx))
}

// restartAgents replaces all agents by new ones.
func (r *rig) restartAgents() {
	r.t.Helper()
	second := int64(0)
	for _, agent := range r.agents() {
		r.must(r.Client().CoreV1().Pods(namespace).
			Delete(r.ctx, agent.Name, metav1.DeleteOptions{GracePeriodSeconds: &second}))
	}
	r.eventually("agents are back", r.rolledOut)
	r.eventually("both nodes are ready", r.ready)
}

// TestRuntimeForgets: of a sandbox that the runtime has forgotten the agent removes links,
// addresses and record, and live pods keep theirs.
func TestRuntimeForgets(t *testing.T) {
	r := newRig(t)
	r.private()
	n := r.Nodes()[0]
	r.pod("lives", n.Name)
	r.pod("lost", n.Name)
	lost, lives := r.sandboxes(n, "lost"), r.sandboxes(n, "lives")
	if len(lost) != 1 || len(lives) != 1 || lost[0].Runtime != string(runtime) {
		t.Fatalf("sandboxes %+v and %+v", lost, lives)
	}
	r.forgets(n, lost[0], "lost")
	if links := r.links(n, lost[0]); !strings.Contains(links, "net1") {
		t.Fatalf("the runtime removed the networks: %s", links)
	}
	r.restartAgents() // which look at their start, and a minute later
	r.eventually("the record is gone", func() error {
		if left := r.sandboxes(n, "lost"); len(left) > 0 {
			return fmt.Errorf("there is still %+v", left)
		}
		return nil
	})
	if links := r.links(n, lost[0]); strings.Contains(links, "net1") ||
		strings.Contains(links, "eth0") {
		t.Errorf("links of the sandbox: %s", links)
	}
	held, err := filepath.Glob(n.Path("/run/braid/ipam/held/*" + lost[0].ContainerID + "*"))
	if err != nil || len(held) > 0 {
		t.Errorf("addresses are held by %v, %v", held, err)
	}
	if got := r.sandboxes(n, "lives"); len(got) != 1 || got[0] != lives[0] {
		t.Errorf("the sandbox of a pod that lives is now %+v", got)
	}
	if links := r.links(n, lives[0]); !strings.Contains(links, "net1") ||
		!strings.Contains(links, "eth0") {
		t.Errorf("links of the pod that lives: %s", links)
	}
	r.must(n.WaitReady(r.ctx))
	r.gone("lives")
	_, err = n.Run(r.ctx, "ip", "netns", "delete", filepath.Base(lost[0].NetNS))
	r.must(err)
}
