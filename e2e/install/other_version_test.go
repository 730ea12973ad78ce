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
	r := newRig(t)
	r.private()
	for _, n := range r.Nodes() {
		r.must(n.LoadImages(r.ctx, os.Getenv("BRAID_IMAGE_NEXT")))
	}
	image := r.image()
	c := r.churn()
	before := r.eachNode("before")
	n := r.Nodes()[0]
	r.alone(n, binDir)
	r.setImage(image + "-next")
	r.checked(n, before[0])
	after := r.eachNode("after")
	r.gone(before...)
	c.more()
	r.alone(n, binDir)
	r.setImage(image)
	r.checked(n, after[0])
	r.gone(after...)
	c.more()
	c.end()
	r.eventually("both nodes are ready", r.ready)
}

// checked has the agent do a CHECK of a pod for the client that is alone.
func (r *rig) checked(n *lab.Node, pod string) {
	r.t.Helper()
	s := r.sandboxes(n, pod)[0]
	r.must(r.byAgent(n, &call{
		verb: "CHECK", id: s.ContainerID, pod: pod, networks: "data-plane", dir: lonely, path: s.NetNS,
	}))
}

// eachNode makes a pod on each node.
func (r *rig) eachNode(name string) (names []string) {
	r.t.Helper()
	for _, n := range r.Nodes() {
		r.pod(name+"-on-"+n.Name, n.Name)
		names = append(names, name+"-on-"+n.Name)
	}
	return names
}

// setImage sets the image of all of Braid, and returns when the nodes have the plugin that is in
// it.
func (r *rig) setImage(image string) {
	r.t.Helper()
	for _, set := range [][]string{
		{"daemonset/braid-agent", "agent=" + image},
		{"deployment/braid-controller", "controller=" + image},
	} {
		_, err := r.Kubectl(r.ctx,
			append([]string{"set", "image", "--namespace=" + namespace}, set...)...)
		r.must(err)
	}
	r.eventually("agents are replaced", r.rolledOut)
	version := image[strings.LastIndex(image, ":")+1:]
	for _, n := range r.Nodes() {
		r.eventually("the plugin is "+version, func() error { return r.pluginIs(n, version) })
	}
	r.eventually("both nodes are ready", r.ready)
}

func (r *rig) pluginIs(n *lab.Node, version string) error {
	out, err := n.Run(r.ctx, binDir+"/braid", "--version")
	if err == nil && !strings.HasPrefix(out, "braid "+version+",") {
		err = fmt.Errorf("it is %s", out)
	}
	return err
}
