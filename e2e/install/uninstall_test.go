package install_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/e2e/lab"
)

// TestUninstall: new pods have the default network alone at once, a pod that runs keeps its
// networks, and when it is gone nothing of Braid is left on the node, although the runtime sends
// Braid no DEL any more. It is the last test of a cluster with Braid: those of userguide_test.go
// and withmultus_test.go begin without.
func TestUninstall(t *testing.T) {
	w := newWorld(t)
	w.installed()
	n := w.Nodes()[0]
	w.pod("alive", n.Name)
	config, err := w.Kubeconfig(lab.UserAdmin)
	w.must(err)
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	w.must(err)
	ended := make(chan error, 1)
	go func() {
		_, err := w.Run(w.ctx, cli, "uninstall", "--kubeconfig", config)
		ended <- err
	}()
	configuration := n.Path("/etc/cni/net.d/00-braid.conflist")
	w.eventually("the configuration goes", func() error {
		if _, err := os.Stat(configuration); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	plain := lab.Pod("default", "plain", nil)
	plain.Spec.NodeName = n.Name
	err = w.create(w.ctx, plain)
	w.must(err)
	_, err = w.WaitPodRunning(w.ctx, "default", "plain")
	w.must(err)
	for _, name := range []string{"braid", "braid-full"} {
		if _, err := os.Stat(n.Path(binDir + "/" + name)); err != nil {
			t.Errorf("the plugin is gone while a pod has its networks: %v", err)
		}
	}
	// The controller's pods, too, are Braid's, if they were started after it was installed.
	_, err = w.Kubectl(w.ctx, "scale", "--namespace="+namespace, "--replicas=0",
		"deployment/braid-controller")
	w.must(err)
	w.gone("alive", "plain")
	w.must(<-ended)
	left, err := filepath.Glob(n.Path("/run/braid/sandboxes") + "/*.json")
	w.must(err)
	for _, path := range append(left, n.Path(binDir+"/braid"), n.Path(binDir+"/braid-full"),
		n.Path("/var/lib/braid/kubeconfig")) {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if _, err := os.Stat(n.Path("/etc/cni/net.d/10-pods.conflist")); err != nil {
		t.Errorf("the default network is gone: %v", err)
	}
}
