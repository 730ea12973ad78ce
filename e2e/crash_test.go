package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// While 50 pods with two networks each come up, the runtime and the kubelet are killed, twice. Then
// all pods run with the right interfaces; and when they are deleted, again with a kill in between,
// nothing is left. CRI-O, which is slower, has 30 pods.
func TestKillRuntimeDuringBurst(t *testing.T) {
	w := newWorkspaceFor(t, 3*patience)
	pods := 50
	if onCRIO() {
		pods = 30
	}
	b := w.burst(pods, "blue,green")
	for _, made := range []int{pods / 6, pods / 2} {
		b.waitMade(made)
		w.killRuntime()
	}
	b.verify()
	b.delete()
	b.waitMade(-pods / 2)
	w.killRuntime()
	b.waitGone()
	if onCRIO() {
		w.must(w.node.RemoveSandboxes(w.ctx, w.namespace))
		w.killRuntime() // killed after the plugin's DEL, it removes its own cache by its next GC
	}
	w.clean()
}

// The same, and it is braid itself that dies, in the middle of its work: in ADDs, in the DELs that
// follow those, and in the DELs of pods that are deleted. A sandbox whose ADD and DEL were both
// killed is forgotten by containerd 2.4 (sandbox_run.go: an error of DEL does not count where ADD
// gave no result). The DEL of another pod removes what built-in plugins made, and by then the
// namespace is gone, which the bridge's masquerade must not depend on (M17). A plugin of others is
// not run there (R27): its part is GC's.
func TestKillBraidDuringBurst(t *testing.T) {
	w := newWorkspaceFor(t, 3*patience)
	w.nad("assassin", `{"cniVersion": "1.0.0", "type": "assassin"}`)
	w.order("ADD", 10)
	w.order("DEL", 5)
	b := w.burst(20, "blue,assassin,green")
	for _, name := range b.names {
		b.running(b.namespace, name)
	}
	w.executed()
	w.run(w.pod("other", ""))
	w.delete("other")
	w.gc()
	b.verify()

	w.order("DEL", 10)
	b.delete()
	b.waitGone()
	w.executed()
	w.gc()
	w.clean()
}

// gc is a runtime's GC, which containerd 2.4 does not call, and CRI-O only when it starts. Valid
// are the sandboxes of pods that run.
func (w *workspace) gc() {
	w.t.Helper()
	text, err := os.ReadFile(w.node.Path("/etc/cni/net.d/00-braid.conflist"))
	w.must(err)
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	w.must(json.Unmarshal(text, &list))
	all, err := records(w.node, w.namespace)
	w.must(err)
	valid := []map[string]string{}
	for _, rec := range all {
		if rec.Complete {
			valid = append(valid, map[string]string{"containerID": rec.ContainerID, "ifname": "eth0"})
		}
	}
	config := list.Plugins[0]
	config["cniVersion"], config["name"] = list.CNIVersion, list.Name
	config["cni.dev/valid-attachments"] = valid
	stdin, err := json.Marshal(config)
	w.must(err)
	w.must(w.node.WriteFile(gcFile, stdin, 0o600))
	out, err := w.node.Run(w.ctx, "bash", "-c",
		"CNI_COMMAND=GC CNI_PATH=/opt/cni/bin /opt/cni/bin/braid <"+gcFile)
	if err != nil {
		w.t.Fatalf("GC: %v: %s", err, out)
	}
}

// order has the next n calls of a command through the network "assassin" end with the death of
// their braid.
func (w *workspace) order(command string, n int) {
	w.t.Helper()
	for i := range n {
		w.must(os.WriteFile(w.node.Path(fmt.Sprintf("%s/%s-%d", killDir, command, i)), nil, 0o600))
	}
}

// executed fails the test if an order is left.
func (w *workspace) executed() {
	w.t.Helper()
	left, err := filepath.Glob(w.node.Path(killDir) + "/*")
	w.must(err)
	if len(left) > 0 {
		w.t.Errorf("not executed: %q", left)
	}
}

// killRuntime kills the runtime and the kubelet and starts them again.
func (w *workspace) killRuntime() {
	w.t.Helper()
	w.node.KillRuntime()
	w.node.KillKubelet()
	w.must(w.node.StartRuntime(w.ctx))
	w.kubeletBack()
}

// kubeletBack starts the kubelet. It ends when containerd's CRI is not there yet; elsewhere systemd
// starts it again.
func (w *workspace) kubeletBack() {
	w.t.Helper()
	w.eventually("the kubelet is back", func() error {
		_ = w.node.StartKubelet() // fails where it runs
		_, err := w.node.Run(w.ctx, "bash", "-c", "sleep 0.3; echo >/dev/tcp/127.0.0.1/10248")
		return err
	})
}

// burst is many pods with two networks each, created at once.
type burst struct {
	*workspace
	names []string
	began time.Time
	// interfaces are those of each pod, in their order, and subnets where their addresses are; entries
	// is how many its network-status has.
	interfaces, subnets []string
	entries             int
}

// burst makes n pods, with the networks "blue" first, "green" last, and others between. annotations
// are keys and values in turn.
func (w *workspace) burst(n int, networks string, annotations ...string) *burst {
	w.t.Helper()
	w.nad("blue", macvlan("10.50.0.0/22"))
	w.nad("green", macvlan("10.50.4.0/22"))
	last := len(strings.Split(networks, ","))
	b := &burst{
		workspace: w, began: time.Now(),
		interfaces: []string{"eth0", "net1", fmt.Sprintf("net%d", last)},
		subnets:    []string{"10.244.0.0/16", "10.50.0.0/22", "10.50.4.0/22"},
		entries:    last + 1,
	}
	var pods []*corev1.Pod
	for i := range n {
		b.names = append(b.names, fmt.Sprintf("p%02d", i))
		pod := w.pod(b.names[i], networks)
		for pair := range slices.Chunk(annotations, 2) {
			pod.Annotations[pair[0]] = pair[1]
		}
		pods = append(pods, pod)
	}
	w.create(pods...)
	return b
}

// waitMade waits until at least n pods have a complete record; with a negative n, until at most -n
// have one.
func (b *burst) waitMade(n int) {
	b.t.Helper()
	b.eventually(fmt.Sprintf("%d complete records", n), func() error {
		all, err := records(b.node, b.namespace)
		if err != nil {
			return err
		}
		complete := 0
		for _, rec := range all {
			if rec.Complete {
				complete++
			}
		}
		if n >= 0 && complete < n || n < 0 && complete > -n {
			return fmt.Errorf("there are %d", complete)
		}
		return nil
	})
}

// verify waits until all pods run, and looks at what each has: the links, and addresses that no
// other pod has, the same in its network-status. And that no sandbox and no lease is there that
// belongs to none of them.
func (b *burst) verify() {
	b.t.Helper()
	for _, name := range b.names {
		b.running(b.namespace, name)
	}
	b.t.Logf("all %d pods run after %.1f s", len(b.names), time.Since(b.began).Seconds())
	b.eventually("one sandbox for each pod", b.oneSandboxEach)

	netns, err := b.netnsOfPods()
	b.must(err)
	owner := map[string]string{}
	for _, name := range b.names {
		links := b.linksIn(netns[name])
		if got := slices.Sorted(maps.Keys(links)); !slices.Equal(got, b.interfaces) {
			b.t.Errorf("pod %s has interfaces %q, want %q", name, got, b.interfaces)
			continue
		}
		status := b.status(name)
		for i, ifname := range b.interfaces {
			address := b.addressIn(links[ifname], b.subnets[i])
			if other, taken := owner[address]; taken {
				b.t.Errorf("pods %s and %s both have %s", name, other, address)
			}
			owner[address] = name
			reported := slices.ContainsFunc(status, func(s nadv1.NetworkStatus) bool {
				return s.Interface == ifname && slices.Equal(s.IPs, []string{address}) &&
					s.Mac == links[ifname].MAC
			})
			if !reported || len(status) != b.entries {
				b.t.Errorf("network-status of pod %s is %+v, want %s with %s %s",
					name, status, ifname, address, links[ifname].MAC)
			}
		}
	}
}

// oneSandboxEach reports whether the node has exactly one network namespace, one record and three
// leases for each pod: what was begun and killed is gone.
func (b *burst) oneSandboxEach() error {
	left, err := leftovers(b.ctx, b.node)
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, item := range beyond(left, clean) {
		switch {
		case strings.HasPrefix(item, "namespace "):
			count["network namespaces"]++
		case strings.HasPrefix(item, "file run/braid/sandboxes/") && strings.HasSuffix(item, ".json"):
			count["records"]++
		case strings.HasPrefix(item, "file var/lib/cni/networks/"):
			count["leases"]++
		case strings.HasPrefix(item, "link veth"):
			count["veths"]++
		}
	}
	n := len(b.names)
	want := map[string]int{"network namespaces": n, "records": n, "leases": 3 * n, "veths": n}
	if !maps.Equal(count, want) {
		return fmt.Errorf("the node has %v, want %v", count, want)
	}
	return nil
}

// netnsOfPods are the paths, from outside, of the pods' network namespaces. As many calls of ctr as
// there are pods would take long.
func (b *burst) netnsOfPods() (map[string]string, error) {
	all, err := records(b.node, b.namespace)
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for _, rec := range all {
		if paths[rec.Pod.Name] != "" {
			return nil, errors.New("two records of pod " + rec.Pod.Name)
		}
		paths[rec.Pod.Name] = rec.NetNS
	}
	return paths, nil
}

// linksIn are the links but lo of a network namespace of the node.
func (b *burst) linksIn(netns string) map[string]link {
	b.t.Helper()
	out, err := b.node.Run(b.ctx, "nsenter", "--net="+netns, "ip", "-json", "address")
	b.must(err)
	byName, err := linksByName(out)
	b.must(err)
	return byName
}

func (b *burst) delete() {
	b.t.Helper()
	b.began = time.Now()
	b.must(b.cluster.Client().CoreV1().Pods(b.namespace).
		DeleteCollection(b.ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
}

func (b *burst) waitGone() {
	b.t.Helper()
	for _, name := range b.names {
		b.must(b.cluster.WaitPodGone(b.ctx, b.namespace, name))
	}
	b.t.Logf("all %d pods are gone after %.1f s", len(b.names), time.Since(b.began).Seconds())
}
