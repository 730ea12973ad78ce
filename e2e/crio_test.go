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
	r := newRig(t)
	const network = "/etc/cni/net.d/10-pods.conflist"
	r.node.KillRuntime()
	away := r.node.Path(network) + ".away"
	r.must(os.Rename(r.node.Path(network), away))
	t.Cleanup(func() {
		if t.Failed() {
			os.Rename(away, r.node.Path(network)) //nolint:errcheck // it may be back
		}
	})
	r.must(r.node.StartRuntime(r.ctx))
	r.eventually("CRI-O has Braid's reason", func() error {
		err := r.node.NetworkReady(r.ctx)
		switch {
		case err == nil:
			return errors.New("its network is ready")
		case !strings.Contains(err.Error(), network):
			return err
		}
		return nil
	})
	r.must(os.Rename(away, r.node.Path(network)))
	r.eventually("its network is ready", func() error { return r.node.NetworkReady(r.ctx) })
	r.nad("blue", macvlan("10.91.1.0/24"))
	r.run(r.pod("p", "blue"))
	r.hasLinks("p", "net1 10.91.1.0/24")
	if lines := r.logLines("msg=CHECK ", "level=INFO", "pod="+r.namespace+"/p"); len(lines) == 0 {
		t.Error("the log has no CHECK after the ADD")
	}
}

// When CRI-O starts it calls GC, with the sandboxes that it knows. What it has forgotten is gone
// then, with neither kubelet nor agent, and what it knows stays.
func TestCRIOGC(t *testing.T) {
	needCRIO(t)
	r := newRig(t)
	r.nad("blue", macvlan("10.91.2.0/24"))
	r.run(r.pod("stays", "blue"))
	r.run(r.pod("lost", "blue"))
	lost := r.netns("lost")
	r.forget("lost")
	r.eventually("what CRI-O forgot is gone", func() error {
		all, err := records(r.node, r.namespace)
		if err == nil && (len(all) != 1 || all[0].Pod.Name != "stays") {
			err = fmt.Errorf("the records are %+v", all)
		}
		return err
	})
	leases, err := filepath.Glob(r.node.Path("/var/lib/cni/networks/blue/10.91.2.*"))
	if err != nil || len(leases) != 1 {
		t.Errorf("leases %q, %v, want that of one pod", leases, err)
	}
	r.hasLinks("stays", "net1 10.91.2.0/24")
	second := int64(0)
	r.must(r.cluster.Client().CoreV1().Pods(r.namespace).
		Delete(r.ctx, "lost", metav1.DeleteOptions{GracePeriodSeconds: &second}))
	r.kubeletBack()
	_, err = r.node.Run(r.ctx, "ip", "netns", "delete", filepath.Base(lost))
	r.must(err)
}

// forget has CRI-O not know a pod's sandbox any more, as if the disk had lost it, and starts it
// again. The kubelet, which would have the sandbox made anew, is dead then.
func (r *rig) forget(pod string) {
	r.t.Helper()
	id, err := r.node.PodSandbox(r.ctx, r.namespace, pod)
	r.must(err)
	netns := filepath.Base(r.netns(pod))
	r.node.KillKubelet()
	r.node.KillRuntime()
	r.must(r.node.ForgetSandbox(r.ctx, id, netns))
	r.must(r.node.StartRuntime(r.ctx))
}
