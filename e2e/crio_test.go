package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
)

// needCRIO skips unless the node's runtime is CRI-O. scripts/e2e.sh has a run with it.
func needCRIO(t *testing.T) {
	t.Helper()
	if !onCRIO() {
		t.Skip("BRAID_E2E_RUNTIME is not crio")
	}
}

func onCRIO() bool { return engine == lab.CRIO }

// CRI-O asks STATUS when it starts, until it is told that ADDs can succeed. Until then it starts no
// pods, and the reason is Braid's.
func TestCRIOStatus(t *testing.T) {
	needCRIO(t)
	w := newWorkspace(t)
	const network = "/etc/cni/net.d/10-pods.conflist"
	w.node.KillRuntime()
	away := w.node.Path(network) + ".away"
	w.must(os.Rename(w.node.Path(network), away))
	t.Cleanup(func() {
		if t.Failed() {
			os.Rename(away, w.node.Path(network)) //nolint:errcheck // it may be back
		}
	})
	w.must(w.node.StartRuntime(w.ctx))
	w.eventually("CRI-O has Braid's reason", func() error {
		err := w.node.NetworkReady(w.ctx)
		switch {
		case err == nil:
			return errors.New("its network is ready")
		case !strings.Contains(err.Error(), network):
			return err
		}
		return nil
	})
	w.must(os.Rename(away, w.node.Path(network)))
	w.eventually("its network is ready", func() error { return w.node.NetworkReady(w.ctx) })
	w.nad("blue", macvlan("10.91.1.0/24"))
	w.run(w.pod("p", "blue"))
	w.hasLinks("p", "net1 10.91.1.0/24")
	if lines := w.logLines("msg=CHECK ", "level=INFO", "pod="+w.namespace+"/p"); len(lines) == 0 {
		t.Error("the log has no CHECK after the ADD")
	}
}

// When CRI-O starts it calls GC, with the sandboxes that it knows. What it has forgotten is gone
// then, with neither kubelet nor agent, and what it knows stays. So is the cache of a sandbox that
// was removed: a CRI-O that is killed between the plugin's DEL and the removal of its own cache
// leaves that behind.
func TestCRIOGC(t *testing.T) {
	needCRIO(t)
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.91.2.0/24"))
	w.run(w.pod("stays", "blue"))
	w.run(w.pod("lost", "blue"))
	lost := w.netns("lost")
	stale := w.staleCache()
	w.forget("lost")
	w.absent(stale)
	w.eventually("what CRI-O forgot is gone", func() error {
		all, err := records(w.node, w.namespace)
		if err == nil && (len(all) != 1 || all[0].Pod.Name != "stays") {
			err = fmt.Errorf("the records are %+v", all)
		}
		return err
	})
	leases, err := filepath.Glob(w.node.Path("/var/lib/cni/networks/blue/10.91.2.*"))
	if err != nil || len(leases) != 1 {
		t.Errorf("leases %q, %v, want that of one pod", leases, err)
	}
	w.hasLinks("stays", "net1 10.91.2.0/24")
	second := int64(0)
	w.must(w.cluster.Client().CoreV1().Pods(w.namespace).
		Delete(w.ctx, "lost", metav1.DeleteOptions{GracePeriodSeconds: &second}))
	w.kubeletBack()
	_, err = w.node.Run(w.ctx, "ip", "netns", "delete", filepath.Base(lost))
	w.must(err)
}

// staleCache returns the path of what CRI-O's cache has of a pod that is gone.
func (w *workspace) staleCache() string {
	w.t.Helper()
	w.run(w.pod("removed", ""))
	id, err := w.node.PodSandbox(w.ctx, w.namespace, "removed")
	w.must(err)
	path := w.node.Path("/var/lib/cni/results/braid-" + id + "-eth0")
	entry, err := os.ReadFile(path)
	w.must(err)
	w.delete("removed")
	w.absent(path)
	w.must(w.node.RemoveSandboxes(w.ctx, w.namespace))
	w.must(os.WriteFile(path, entry, 0o600))
	return path
}

// absent waits until a file is gone.
func (w *workspace) absent(path string) {
	w.t.Helper()
	w.eventually(path+" is gone", func() error {
		if _, err := os.Lstat(path); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
}

// forget has CRI-O not know a pod's sandbox any more, as if the disk had lost it, and starts it
// again. The kubelet, which would have the sandbox made anew, is dead then.
func (w *workspace) forget(pod string) {
	w.t.Helper()
	id, err := w.node.PodSandbox(w.ctx, w.namespace, pod)
	w.must(err)
	netns := filepath.Base(w.netns(pod))
	w.node.KillKubelet()
	w.node.KillRuntime()
	w.must(w.node.ForgetSandbox(w.ctx, id, netns))
	w.must(w.node.StartRuntime(w.ctx))
}
