package install_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// TestNoSpaceLeft: a node's disk is full when a new agent starts, and when the configuration is to
// be put back. The node says so, and pods get their networks, or wait. When there is room, all goes
// on by itself.
func TestNoSpaceLeft(t *testing.T) {
	r := newRig(t)
	r.private()
	r.forgetEvents()
	n := r.Nodes()[0]
	c := r.churn()

	putBack := r.small(n)
	empty := r.fill(n, stateDir)
	r.newAgent(n)
	r.eventually("the new agent says why it cannot take over", func() error {
		return r.noSpace(n, stateDir)
	})
	c.more()
	empty()
	r.eventually("the new agent takes over", r.ready)
	putBack()

	_, err := n.Run(r.ctx, "mount", "-o", "remount,size=64k", "/etc/cni")
	r.must(err)
	empty = r.fill(n, "/etc/cni")
	r.must(os.Rename(n.Path(configuration), n.Path(configuration+".cilium_bak")))
	r.eventually("the agent says why it puts nothing back", func() error {
		return r.noSpace(n, configuration)
	})
	if _, err := os.Stat(n.Path(configuration)); err == nil {
		t.Error("the configuration is there, although there is no room")
	}
	empty()
	r.eventually("the configuration is back", r.ready)
	_, err = n.Run(r.ctx, "mount", "-o", "remount,size=50%", "/etc/cni")
	r.must(err)
	r.must(os.Remove(n.Path(configuration + ".cilium_bak")))
	c.more()
	c.end()
}

// small has the agent's state on a file system of its own, with little room.
func (r *rig) small(n *lab.Node) (putBack func()) {
	r.t.Helper()
	shell := func(script string) {
		r.t.Helper()
		_, err := n.Run(r.ctx, "sh", "-ec", script)
		r.must(err)
	}
	shell(`mkdir /run/large /run/small
		mount --bind /var/lib/braid /run/large
		mount --make-private /run/large
		mount -t tmpfs -o size=256k,mode=0700 tmpfs /run/small
		cp -a /var/lib/braid/. /run/small
		mount --bind /run/small /var/lib/braid`)
	return func() {
		r.t.Helper()
		shell(`cp -a /run/small/. /run/large
			umount /var/lib/braid /run/small /run/large
			rmdir /run/small /run/large`)
	}
}

// fill writes as much as goes.
func (r *rig) fill(n *lab.Node, dir string) (empty func()) {
	r.t.Helper()
	ballast := n.Path(dir + "/ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err == nil {
		r.t.Fatalf("%s has room for a megabyte", dir)
	}
	return func() {
		r.t.Helper()
		r.must(os.Remove(ballast))
	}
}

// newAgent has another pod take the place of a node's agent.
func (r *rig) newAgent(n *lab.Node) {
	r.t.Helper()
	second := int64(1)
	for _, agent := range r.agents() {
		if agent.Spec.NodeName == n.Name {
			r.must(r.Client().CoreV1().Pods(namespace).
				Delete(r.ctx, agent.Name, metav1.DeleteOptions{GracePeriodSeconds: &second}))
		}
	}
}

// noSpace wants a node to say, in its condition and by an event, that there is no space for a file.
func (r *rig) noSpace(n *lab.Node, path string) error {
	node, err := r.Client().CoreV1().Nodes().Get(r.ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type != nodev1.Ready {
			continue
		}
		if c.Status != corev1.ConditionFalse || c.Reason != "StateFailed" ||
			!strings.Contains(c.Message, path) || !strings.Contains(c.Message, "no space left") {
			return fmt.Errorf("the condition is %s, %s: %s", c.Status, c.Reason, c.Message)
		}
		return errors.Join(r.told(n, "no space left on device; make room on the file system of"))
	}
	return errors.New("there is no condition")
}
