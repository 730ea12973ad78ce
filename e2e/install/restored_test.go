package install_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/e2e/lab"
)

// formerNetwork is what the nodes had before Braid, in this test.
const formerNetwork = `{"cniVersion": "1.0.0", "name": "former", "plugins": [{"type": "bridge", "bridge": "cni7", "isDefaultGateway": true,
	"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.247.0.0/16"}]]}}]}`

// TestUninstallRestores: the nodes get their former configuration back under a pod that runs, and
// Braid's plugin stays. New pods have the former network, and when the pod is gone nothing of it is
// left. Then Braid is installed once more.
func TestUninstallRestores(t *testing.T) {
	w := newWorld(t)
	w.private()
	for _, n := range w.Nodes() {
		w.must(n.WriteFile("/etc/cni/05-former.conflist.bak", []byte(formerNetwork), 0o600))
	}
	n := w.Nodes()[0]
	w.pod("alive", n.Name)
	config, err := w.Kubeconfig(lab.UserAdmin)
	w.must(err)
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	w.must(err)
	_, err = w.Run(w.ctx, cli, "uninstall", "--kubeconfig", config, "--keep-files", "--restore",
		"/etc/cni/05-former.conflist.bak")
	w.must(err)
	for _, n := range w.Nodes() {
		names, err := filepath.Glob(n.Path(confDir) + "/*")
		w.must(err)
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		if want := []string{"05-former.conflist", networkName}; !slices.Equal(names, want) {
			t.Errorf("%s has %q, want %q", n.Name, names, want)
		}
		w.must(has(n, confDir+"/05-former.conflist", formerNetwork))
		for _, path := range []string{binDir + "/braid", binDir + "/braid-full", kubeconfig} {
			if _, err := os.Stat(n.Path(path)); err != nil {
				t.Errorf("what was to be kept is gone: %v", err)
			}
		}
	}
	former := lab.Pod("default", "former", nil)
	former.Spec.NodeName = n.Name
	err = w.create(w.ctx, former)
	w.must(err)
	former, err = w.WaitPodRunning(w.ctx, "default", "former")
	w.must(err)
	if !strings.HasPrefix(former.Status.PodIP, "10.247.") {
		t.Errorf("a new pod has address %s", former.Status.PodIP)
	}
	w.gone("alive", "former")
	for _, n := range w.Nodes() {
		w.eventually("nothing is left on "+n.Name, func() error { return nothingLeft(n) })
		w.must(os.Remove(n.Path(confDir + "/05-former.conflist")))
		w.must(os.Remove(n.Path("/etc/cni/05-former.conflist.bak")))
	}
	_, err = w.Kubectl(w.ctx, "delete", "daemonset", "--namespace="+namespace, "braid-agent")
	w.must(err)
	w.private()
	w.pod("again", n.Name)
	w.gone("again")
}
