package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// While 50 pods with two networks each come up, containerd and the kubelet are killed, twice. Then all pods run with the right
// interfaces; and when they are deleted, again with a kill in between, nothing is left.
func TestKillRuntimeDuringBurst(t *testing.T) {
	r := newRigFor(t, 3*patience)
	b := r.burst(50)
	for _, made := range []int{8, 25} {
		b.waitMade(made)
		r.killRuntime()
	}
	b.verify()
	b.delete()
	b.waitMade(-30)
	r.killRuntime()
	b.waitGone()
	r.clean()
}

// The same, and it is braid itself that is killed, again and again, wherever it may be: while pods come up in ADDs, while they go in DELs.
// The DEL after a killed ADD is let live. Were it killed too, containerd 2.4 would forget the sandbox (sandbox_run.go: an error of DEL
// does not count where ADD gave no result), and nobody would ever ask for its removal again but a runtime that does CNI's GC.
func TestKillBraidDuringBurst(t *testing.T) {
	r := newRigFor(t, 3*patience)
	b := r.burst(20)
	stop := r.killBraids("ADD", 20)
	b.waitMade(10)
	if killed := stop(); killed == 0 {
		t.Error("no braid was killed")
	}
	b.verify()
	stop = r.killBraids("DEL", 20)
	b.delete()
	b.waitMade(-10)
	if killed := stop(); killed == 0 {
		t.Error("no braid was killed in a DEL")
	}
	b.waitGone()
	r.clean()
}

// killRuntime kills containerd and the kubelet and starts them again.
func (r *rig) killRuntime() {
	r.t.Helper()
	r.node.KillContainerd()
	r.node.KillKubelet()
	r.must(r.node.StartContainerd(r.ctx))
	// A kubelet ends when containerd's CRI is not there yet. Elsewhere systemd starts it again.
	r.eventually("the kubelet is back", func() error {
		_ = r.node.StartKubelet() // fails where it runs
		_, err := r.node.Run(r.ctx, "bash", "-c", "sleep 0.3; echo >/dev/tcp/127.0.0.1/10248")
		return err
	})
}

// killBraids kills braids that do a CNI command until stop is called or so many are dead. stop tells how many were.
func (r *rig) killBraids(command string, atMost int) (stop func() int) {
	ctx, cancel := context.WithCancel(r.ctx)
	var killed int
	var done sync.WaitGroup
	done.Go(func() {
		for killed < atMost && ctx.Err() == nil {
			for _, pid := range braids(r.node, command) {
				// The process IDs are those that the node sees. One that has ended meanwhile is no failure.
				if _, err := r.node.Run(r.ctx, "kill", "-KILL", pid); err == nil {
					if killed++; killed == atMost {
						return
					}
				}
			}
			time.Sleep(30 * time.Millisecond)
		}
	})
	return func() int {
		cancel()
		done.Wait()
		r.t.Logf("%d braids killed", killed)
		return killed
	}
}

// burst is many pods with two networks each, created at once.
type burst struct {
	*rig
	names []string
	began time.Time
}

func (r *rig) burst(n int) *burst {
	r.t.Helper()
	r.nad("blue", macvlan("10.50.0.0/22"))
	r.nad("green", macvlan("10.50.4.0/22"))
	b := &burst{rig: r, began: time.Now()}
	var pods []*corev1.Pod
	for i := range n {
		b.names = append(b.names, fmt.Sprintf("p%02d", i))
		pods = append(pods, r.pod(b.names[i], "blue,green"))
	}
	r.create(pods...)
	return b
}

// waitMade waits until at least n pods have a complete record; with a negative n, until at most -n have one.
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

// verify waits until all pods run, and looks at what each has: the links, and addresses that no other pod has, the same in its
// network-status. And that no sandbox and no lease is there that belongs to none of them.
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
		if got, want := slices.Sorted(maps.Keys(links)), []string{"eth0", "net1", "net2"}; !slices.Equal(got, want) {
			b.t.Errorf("pod %s has interfaces %q, want %q", name, got, want)
			continue
		}
		subnets := map[string]string{"eth0": "10.244.0.0/16", "net1": "10.50.0.0/22", "net2": "10.50.4.0/22"}
		status := b.status(name)
		for i, ifname := range []string{"eth0", "net1", "net2"} {
			address := b.addressIn(links[ifname], subnets[ifname])
			if other, taken := owner[address]; taken {
				b.t.Errorf("pods %s and %s both have %s", name, other, address)
			}
			owner[address] = name
			if len(status) != 3 || status[i].Interface != ifname || !slices.Equal(status[i].IPs, []string{address}) || status[i].Mac != links[ifname].MAC {
				b.t.Errorf("network-status of pod %s is %+v, want %s with %s %s", name, status, ifname, address, links[ifname].MAC)
			}
		}
	}
}

// oneSandboxEach says whether the node has exactly one network namespace, one record and three leases for each pod: what was begun and
// killed is gone.
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

// netnsOfPods are the paths, from outside, of the pods' network namespaces. As many calls of ctr as there are pods would take long.
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
	links, err := parseLinks(out)
	b.must(err)
	byName := map[string]link{}
	for _, l := range links {
		if l.Name != "lo" {
			byName[l.Name] = l
		}
	}
	return byName
}

func (b *burst) delete() {
	b.t.Helper()
	b.began = time.Now()
	b.must(b.cluster.Client().CoreV1().Pods(b.namespace).DeleteCollection(b.ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
}

func (b *burst) waitGone() {
	b.t.Helper()
	for _, name := range b.names {
		b.must(b.cluster.WaitPodGone(b.ctx, b.namespace, name))
	}
	b.t.Logf("all %d pods are gone after %.1f s", len(b.names), time.Since(b.began).Seconds())
}
