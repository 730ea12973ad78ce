package install_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// configure restarts the agents with a configuration of Braid.
func (w *world) configure(config string) {
	w.t.Helper()
	maps := w.Client().CoreV1().ConfigMaps(namespace)
	m, err := maps.Get(w.ctx, "braid-agent", metav1.GetOptions{})
	w.must(err)
	m.Data["config.json"] = config
	_, err = maps.Update(w.ctx, m, metav1.UpdateOptions{})
	w.must(err)
	w.restartAgents()
}

// asks changes the annotation of a pod that runs.
func (w *world) asks(pod, networks string) {
	w.t.Helper()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{nadv1.NetworksAnnotation: networks}},
	})
	w.must(err)
	_, err = w.Client().CoreV1().Pods("default").
		Patch(w.ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
	w.must(err)
}

// plugging has the networks of running pods follow their annotations.
func (w *world) plugging() (end func()) {
	w.t.Helper()
	w.configure(`{"braid": {"hotplug": true}}`)
	return func() { w.configure(`{}`) }
}

// TestHotPlug: a pod that runs gets a network when its annotation asks for one, and loses it again.
// A pod that was not made by Braid is left alone.
func TestHotPlug(t *testing.T) {
	w := newWorld(t)
	w.installed()
	defer w.plugging()()
	n := w.Nodes()[0]
	for name, networks := range map[string]string{"plain": "", "others": "data-plane"} {
		pod := lab.Pod("default", name, map[string]string{})
		if networks != "" {
			pod.Annotations[nadv1.NetworksAnnotation] = networks
		}
		pod.Spec.NodeName = n.Name
		w.must(w.create(w.ctx, pod))
		_, err := w.WaitPodRunning(w.ctx, "default", name)
		w.must(err)
	}
	// As if Multus had made it: there is a want, and no record.
	others := w.sandboxes(n, "others")[0]
	record := n.Path("/run/braid/sandboxes/" + others.ContainerID + ".json")
	w.must(os.Rename(record, record+".away"))
	w.asks("others", "")

	w.asks("plain", "data-plane")
	w.eventually("the network is there", func() error { return w.published("plain", `"net1"`, true) })
	s := w.sandboxes(n, "plain")[0]
	if links := w.links(n, s); !strings.Contains(links, "net1") {
		t.Errorf("links: %s", links)
	}
	w.asks("plain", "")
	w.eventually("the network is gone", func() error { return w.published("plain", `"net1"`, false) })
	if links := w.links(n, s); strings.Contains(links, "net1") || !strings.Contains(links, "eth0") {
		t.Errorf("links: %s", links)
	}
	w.asks("plain", "data-plane@late")
	w.eventually("the network is there again", func() error {
		return w.published("plain", `"late"`, true)
	})
	if links := w.links(n, others); !strings.Contains(links, "net1") {
		t.Errorf("links of a pod that is not Braid's: %s", links)
	}
	w.must(os.Rename(record+".away", record))
	w.gone("plain", "others")
	for _, pod := range []string{"plain", "others"} {
		w.eventually("nothing is recorded of "+pod, func() error {
			if left := w.sandboxes(n, pod); len(left) > 0 {
				return fmt.Errorf("there is still %+v", left)
			}
			return nil
		})
	}
}

// published is an error unless a pod's network-status has that text, or has not.
func (w *world) published(pod, text string, want bool) error {
	p, err := w.Client().CoreV1().Pods("default").Get(w.ctx, pod, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if status := p.Annotations[nadv1.StatusAnnotation]; strings.Contains(status, text) != want {
		return errors.New("network-status is " + status)
	}
	return nil
}
