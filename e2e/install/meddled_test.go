package install_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/conf"
)

// TestMeddlers: whatever others do to Braid's file and to their own, it is put back and the node's
// events name the cause. Pods wait for that moment; none starts without its networks.
func TestMeddlers(t *testing.T) {
	w := newWorld(t)
	w.private()
	w.forgetEvents()
	c := w.churn()
	again := map[*lab.Node]string{} // each node has addresses of its own
	for _, n := range w.Nodes() {
		network, err := os.ReadFile(n.Path(privateDir + "/" + networkName))
		w.must(err)
		again[n] = strings.Replace(string(network), "{", `{"meddled": true, `, 1)
	}
	const renamed = "05-pods.conflist"
	for _, m := range []struct {
		what  string
		do    func(n *lab.Node) error
		done  func(n *lab.Node) error
		event string
	}{
		{
			"its agent writes the default network anew",
			func(n *lab.Node) error {
				return n.WriteFile(confDir+"/"+networkName, []byte(again[n]), 0o600)
			},
			func(n *lab.Node) error { return has(n, privateDir+"/"+networkName, again[n]) },
			networkName + " has returned",
		},
		{
			"cilium wants to be alone", func(n *lab.Node) error {
				return os.Rename(n.Path(configuration), n.Path(configuration+".cilium_bak"))
			},
			refers(networkName), "was renamed (00-braid.conflist.cilium_bak, by cilium with cni.exclusive)",
		},
		{"somebody deletes it", func(n *lab.Node) error {
			return os.Remove(n.Path(configuration))
		}, refers(networkName), "00-braid.conflist was deleted"},
		{"somebody empties it", func(n *lab.Node) error {
			return os.Truncate(n.Path(configuration), 0)
		}, refers(networkName), "00-braid.conflist was changed"},
		{
			"its agent gives the default network another name",
			func(n *lab.Node) error {
				return n.WriteFile(confDir+"/"+renamed, []byte(again[n]), 0o600)
			},
			refers(renamed), "the default network is now " + privateDir + "/" + renamed,
		},
		{
			"its operator takes that back", func(n *lab.Node) error {
				return os.Remove(n.Path(privateDir + "/" + renamed))
			},
			refers(networkName), "the default network is now " + privateDir + "/" + networkName,
		},
	} {
		for _, n := range w.Nodes() {
			w.must(m.do(n))
		}
		for _, n := range w.Nodes() {
			w.eventually(m.what, func() error {
				return errors.Join(m.done(n), w.told(n, m.event), onlyBraid(n))
			})
		}
	}
	for _, n := range w.Nodes() {
		w.must(os.Remove(n.Path(configuration + ".cilium_bak")))
	}
	c.more()
	c.end()
	w.eventually("both nodes are ready", w.ready)
}

// has wants a file of a node to have that content.
func has(n *lab.Node, path, content string) error {
	text, err := os.ReadFile(n.Path(path))
	if err == nil && string(text) != content {
		err = fmt.Errorf("%s is %s", path, text)
	}
	return err
}

// refers wants Braid's configuration to be there, with that default network.
func refers(network string) func(n *lab.Node) error {
	return func(n *lab.Node) error {
		cfg, err := conf.LoadFile(n.Path(configuration))
		if err == nil && cfg.ClusterNetwork != privateDir+"/"+network {
			err = fmt.Errorf("the default network is %s", cfg.ClusterNetwork)
		}
		return err
	}
}

// onlyBraid wants the runtime to find no other configuration.
func onlyBraid(n *lab.Node) error {
	files, err := filepath.Glob(n.Path(confDir) + "/*.conflist")
	if err == nil && len(files) != 1 {
		err = fmt.Errorf("the runtime finds %q", files)
	}
	return err
}

// forgetEvents deletes the nodes' events, which other tests have led to. (kubectl would delete one
// at a time.)
func (w *world) forgetEvents() {
	w.t.Helper()
	nodes := metav1.ListOptions{FieldSelector: "involvedObject.kind=Node"}
	w.must(w.Client().CoreV1().Events("default").
		DeleteCollection(w.ctx, metav1.DeleteOptions{}, nodes))
}

// told wants a node's events to have those words.
func (w *world) told(n *lab.Node, words string) error {
	out, err := w.Kubectl(w.ctx, "get", "events",
		"--field-selector=involvedObject.kind=Node,involvedObject.name="+n.Name,
		"--output=jsonpath={.items[*].message}")
	if err == nil && !strings.Contains(out, words) {
		err = fmt.Errorf("its events are %s", out)
	}
	return err
}
