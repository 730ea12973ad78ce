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

// configure gives Braid's configuration to the agents, which begin anew with it.
func (r *rig) configure(config string) {
	r.t.Helper()
	maps := r.Client().CoreV1().ConfigMaps(namespace)
	m, err := maps.Get(r.ctx, "braid-agent", metav1.GetOptions{})
	r.must(err)
	m.Data["config.json"] = config
	_, err = maps.Update(r.ctx, m, metav1.UpdateOptions{})
	r.must(err)
	r.restartAgents()
}

// asks changes the annotation of a pod that runs.
func (r *rig) asks(pod, networks string) {
	r.t.Helper()
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{nadv1.NetworksAnnotation: networks}},
	})
	r.must(err)
	_, err = r.Client().CoreV1().Pods("default").
		Patch(r.ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
	r.must(err)
}

// plugging has the networks of running pods follow their annotations.
func (r *rig) plugging() (end func()) {
	r.t.Helper()
	r.configure(`{"braid": {"hotplug": true}}`)
	return func() { r.configure(`{}`) }
}

// TestHotPlug: a pod that runs gets a network when its annotation asks for one, and loses it again.
// A pod that was not made by Braid is left alone.
func TestHotPlug(t *testing.T) {
	r := newRig(t)
	r.installed()
	defer r.plugging()()
	n := r.Nodes()[0]
	for name, networks := range map[string]string{"plain": "", "others": "data-plane"} {
		pod := lab.Pod("default", name, map[string]string{})
		if networks != "" {
			pod.Annotations[nadv1.NetworksAnnotation] = networks
		}
		pod.Spec.NodeName = n.Name
		r.must(r.create(r.ctx, pod))
		_, err := r.WaitPodRunning(r.ctx, "default", name)
		r.must(err)
	}
	// As if Multus had made it: there is a want, and no record.
	others := r.sandboxes(n, "others")[0]
	record := n.Path("/run/braid/sandboxes/" + others.ContainerID + ".json")
	r.must(os.Rename(record, record+".away"))
	r.asks("others", "")

	r.asks("plain", "data-plane")
	r.eventually("the network is there", func() error { return r.published("plain", `"net1"`, true) })
	s := r.sandboxes(n, "plain")[0]
	if links := r.links(n, s); !strings.Contains(links, "net1") {
		t.Errorf("links: %s", links)
	}
	r.asks("plain", "")
	r.eventually("the network is gone", func() error { return r.published("plain", `"net1"`, false) })
	if links := r.links(n, s); strings.Contains(links, "net1") || !strings.Contains(links, "eth0") {
		t.Errorf("links: %s", links)
	}
	r.asks("plain", "data-plane@late")
	r.eventually("the network is there again", func() error {
		return r.published("plain", `"late"`, true)
	})
	if links := r.links(n, others); !strings.Contains(links, "net1") {
		t.Errorf("links of a pod that is not Braid's: %s", links)
	}
	r.must(os.Rename(record+".away", record))
	r.gone("plain", "others")
	for _, pod := range []string{"plain", "others"} {
		r.eventually("nothing is recorded of "+pod, func() error {
			if left := r.sandboxes(n, pod); len(left) > 0 {
				return fmt.Errorf("there is still %+v", left)
			}
			return nil
		})
	}
}

// published is an error unless a pod's network-status has that text, or has not.
func (r *rig) published(pod, text string, want bool) error {
	p, err := r.Client().CoreV1().Pods("default").Get(r.ctx, pod, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if status := p.Annotations[nadv1.StatusAnnotation]; strings.Contains(status, text) != want {
		return errors.New("network-status is " + status)
	}
	return nil
}
