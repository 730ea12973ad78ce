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
	w := newWorld(t)
	w.private()
	w.forgetEvents()
	n := w.Nodes()[0]
	c := w.churn()

	putBack := w.small(n)
	empty := w.fill(n, stateDir)
	w.newAgent(n)
	w.eventually("the new agent says why it cannot take over", func() error {
		return w.noSpace(n, stateDir)
	})
	c.more()
	empty()
	w.eventually("the new agent takes over", w.ready)
	putBack()

	_, err := n.Run(w.ctx, "mount", "-o", "remount,size=64k", "/etc/cni")
	w.must(err)
	empty = w.fill(n, "/etc/cni")
	w.must(os.Rename(n.Path(configuration), n.Path(configuration+".cilium_bak")))
	w.eventually("the agent says why it puts nothing back", func() error {
		return w.noSpace(n, configuration)
	})
	if _, err := os.Stat(n.Path(configuration)); err == nil {
		t.Error("the configuration is there, although there is no room")
	}
	empty()
	w.eventually("the configuration is back", w.ready)
	_, err = n.Run(w.ctx, "mount", "-o", "remount,size=50%", "/etc/cni")
	w.must(err)
	w.must(os.Remove(n.Path(configuration + ".cilium_bak")))
	c.more()
	c.end()
}

// small has the agent's state on a file system of its own, with little room.
func (w *world) small(n *lab.Node) (putBack func()) {
	w.t.Helper()
	shell := func(script string) {
		w.t.Helper()
		_, err := n.Run(w.ctx, "sh", "-ec", script)
		w.must(err)
	}
	shell(`mkdir /run/large /run/small
		mount --bind /var/lib/braid /run/large
		mount --make-private /run/large
		mount -t tmpfs -o size=256k,mode=0700 tmpfs /run/small
		cp -a /var/lib/braid/. /run/small
		mount --bind /run/small /var/lib/braid`)
	return func() {
		w.t.Helper()
		shell(`cp -a /run/small/. /run/large
			umount /var/lib/braid /run/small /run/large
			rmdir /run/small /run/large`)
	}
}

// fill writes as much as goes.
func (w *world) fill(n *lab.Node, dir string) (empty func()) {
	w.t.Helper()
	ballast := n.Path(dir + "/ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err == nil {
		w.t.Fatalf("%s has room for a megabyte", dir)
	}
	return func() {
		w.t.Helper()
		w.must(os.Remove(ballast))
	}
}

// newAgent has another pod take the place of a node's agent.
func (w *world) newAgent(n *lab.Node) {
	w.t.Helper()
	second := int64(1)
	for _, agent := range w.agents() {
		if agent.Spec.NodeName == n.Name {
			w.must(w.Client().CoreV1().Pods(namespace).
				Delete(w.ctx, agent.Name, metav1.DeleteOptions{GracePeriodSeconds: &second}))
		}
	}
}

// noSpace wants a node to say, in its condition and by an event, that there is no space for a file.
func (w *world) noSpace(n *lab.Node, path string) error {
	node, err := w.Client().CoreV1().Nodes().Get(w.ctx, n.Name, metav1.GetOptions{})
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
		return errors.Join(w.told(n, "no space left on device; make room on the file system of"))
	}
	return errors.New("there is no condition")
}
