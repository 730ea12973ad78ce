package install_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/braid-cni/braid/e2e/lab"
)

// TestOtherVersion: Braid is upgraded, and rolled back, while pods come and go. Each time the
// nodes have what is in the image, and pods that the other version attached are detached by this
// one. The agent of each version does calls of the other one's client.
func TestOtherVersion(t *testing.T) {
	w := newWorld(t)
	w.private()
	for _, n := range w.Nodes() {
		w.must(n.LoadImages(w.ctx, os.Getenv("BRAID_IMAGE_NEXT")))
	}
	image := w.image()
	c := w.churn()
	before := w.eachNode("before")
	n := w.Nodes()[0]
	w.alone(n, binDir)
	w.setImage(image + "-next")
	w.checked(n, before[0])
	after := w.eachNode("after")
	w.gone(before...)
	c.more()
	w.alone(n, binDir)
	w.setImage(image)
	w.checked(n, after[0])
	w.gone(after...)
	c.more()
	c.end()
	w.eventually("both nodes are ready", w.ready)
}

// checked has the agent do a CHECK of a pod for the client that is alone.
func (w *world) checked(n *lab.Node, pod string) {
	w.t.Helper()
	s := w.sandboxes(n, pod)[0]
	w.must(w.byAgent(n, &call{
		verb: "CHECK", id: s.ContainerID, pod: pod, networks: "data-plane", dir: lonely, path: s.NetNS,
	}))
}

// eachNode makes a pod on each node.
func (w *world) eachNode(name string) (names []string) {
	w.t.Helper()
	for _, n := range w.Nodes() {
		w.pod(name+"-on-"+n.Name, n.Name)
		names = append(names, name+"-on-"+n.Name)
	}
	return names
}

// setImage sets the image of all of Braid, and returns when the nodes have the plugin that is in
// it.
func (w *world) setImage(image string) {
	w.t.Helper()
	for _, set := range [][]string{
		{"daemonset/braid-agent", "agent=" + image},
		{"deployment/braid-controller", "controller=" + image},
	} {
		_, err := w.Kubectl(w.ctx,
			append([]string{"set", "image", "--namespace=" + namespace}, set...)...)
		w.must(err)
	}
	w.eventually("agents are replaced", w.rolledOut)
	version := image[strings.LastIndex(image, ":")+1:]
	for _, n := range w.Nodes() {
		w.eventually("the plugin is "+version, func() error { return w.pluginIs(n, version) })
	}
	w.eventually("both nodes are ready", w.ready)
}

func (w *world) pluginIs(n *lab.Node, version string) error {
	out, err := n.Run(w.ctx, binDir+"/braid", "--version")
	if err == nil && !strings.HasPrefix(out, "braid "+version+",") {
		err = fmt.Errorf("it is %s", out)
	}
	return err
}
