package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// bench collects times by the name of what was timed.
type bench struct {
	api                     *lab.API
	bin, plugins, work, log string
	braid, reference        *meta
	// agent is Braid as its node's runtime calls it, of the process agentPID.
	agent    *meta
	agentPID int
	// onlyAgent is that nothing else is measured.
	onlyAgent bool
	// kept has a connection to the API server that lasts.
	kept *http.Transport
	// patches is how many were sent.
	patches int
	times   map[string][]time.Duration
	// networks are what the pods ask for, by their names.
	networks map[string]string
	// uids are theirs.
	uids map[string]string
}

// podName returns the name of the pod that asks for n networks.
func podName(n int) string { return fmt.Sprintf("bench-%d", n) }

// prepare fills the API server: the CRD, Braid's rights, networks and a pod for each number of
// them.
func (b *bench) prepare(ctx context.Context) error {
	var manifests bytes.Buffer
	if err := errors.Join(writeRights(&manifests), b.writePods(&manifests)); err != nil {
		return err
	}
	bin, flat, err := b.oldPlugins(ctx)
	if err != nil {
		return err
	}
	manifests.WriteString(b.whereManifests(flat))
	if err := b.api.Apply(ctx, manifests.String()); err != nil {
		return err
	}
	pods, err := b.api.Client().CoreV1().Pods("default").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		b.uids[pod.Name] = string(pod.UID)
	}
	if b.braid, err = b.newBraid("Braid", b.plugins); err != nil {
		return err
	}
	b.reference, err = b.newReference(bin)
	return err
}

// writeRights writes the CRDs and Braid's rights.
func writeRights(manifests *bytes.Buffer) error {
	for _, file := range []string{
		"conf/crd/network-attachment-definition.yaml", "conf/crd/ipblocks.yaml", "conf/rbac/node.yaml",
		"conf/rbac/node-pods.yaml",
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		manifests.Write(append(data, "\n---\n"...))
	}
	// the second for bases that read each pod
	for _, role := range []string{"braid-node", "braid-node-pods"} {
		fmt.Fprintf(manifests, "apiVersion: rbac.authorization.k8s.io/v1\nkind: "+
			"ClusterRoleBinding\nmetadata: {name: bench-%s}\n"+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}\n"+
			"subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}]\n---\n", role, role,
			lab.UserBraid)
	}
	return nil
}

// writePods writes as many networks as the greatest pod has, and a pod for each number of them.
func (b *bench) writePods(manifests *bytes.Buffer) error {
	for i := 1; i <= networks()[len(networks())-1]; i++ {
		config, err := json.Marshal(macvlan(i, braidLeases))
		if err != nil {
			return err
		}
		fmt.Fprintf(manifests, "apiVersion: k8s.cni.cncf.io/v1\nkind: "+
			"NetworkAttachmentDefinition\nmetadata: {name: n%d, namespace: default}\n"+
			"spec: {config: %s}\n---\n", i, config)
	}
	for _, n := range networks() {
		var names []string
		for i := 1; i <= n; i++ {
			names = append(names, fmt.Sprintf("n%d", i))
		}
		manifests.WriteString(b.pod(podName(n), names))
	}
	return nil
}

// pod is the manifest of a pod that asks for networks.
func (b *bench) pod(name string, networks []string) string {
	b.networks[name] = strings.Join(networks, ",")
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default, "+
		"annotations: {k8s.v1.cni.cncf.io/networks: %q}}\n"+
		"spec: {nodeName: bench, containers: [{name: c, image: none}]}\n---\n", name, b.networks[name])
}

// timed runs fn and keeps how long it took.
func (b *bench) timed(name string, fn func() error) error {
	start := time.Now()
	err := fn()
	b.times[name] = append(b.times[name], time.Since(start))
	return err
}

// round attaches and detaches a pod of each number of networks in both ways. Which way is first
// alternates.
func (b *bench) round(ctx context.Context, round int) error {
	for _, n := range networks() {
		ways := []func() error{
			func() error { return b.attach(n, "chains", b.byChains(ctx, n)) },
			func() error { return b.attach(n, "braid", b.byBraid(ctx, n)) },
			func() error { return b.timed("api", func() error { return b.roundTrips(ctx) }) },
		}
		for i := range ways {
			if err := ways[(i+round)%len(ways)](); err != nil {
				return err
			}
		}
	}
	return nil
}

// way returns ADD and DEL of a container in a namespace.
type way func(id, netns string) (add, del func() error, err error)

// byChains returns the way of libcni, which runs the plugins of one network after the other.
func (b *bench) byChains(ctx context.Context, n int) way {
	return func(id, netns string) (add, del func() error, err error) {
		c, err := b.newChains(n, id, netns)
		if err != nil {
			return nil, nil, err
		}
		return func() error { return c.add(ctx) }, func() error { return c.del(ctx) }, nil
	}
}

// fresh takes the network-status of an earlier round from a pod. A kubelet would know it and the
// runtime pass it on, as calls do not.
func (b *bench) fresh(ctx context.Context, pod string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, nadv1.StatusAnnotation)
	_, err := b.api.Client().CoreV1().Pods("default").
		Patch(ctx, pod, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// byBraid returns the way of Braid's CNI plugin.
func (b *bench) byBraid(ctx context.Context, n int) way {
	return func(id, netns string) (add, del func() error, err error) {
		if err := b.fresh(ctx, podName(n)); err != nil {
			return nil, nil, err
		}
		call := func(command string) func() error {
			return func() error { return b.braid.call(ctx, command, podName(n), id, netns) }
		}
		return call("ADD"), call("DEL"), nil
	}
}

// attach times ADD and DEL of a pod in a namespace that is new, and the CPU time of both.
func (b *bench) attach(n int, name string, by way) error {
	return inNetns(func(netns string) error {
		add, del, err := by("bench", netns)
		if err != nil {
			return err
		}
		before, err := usedCPU()
		if err != nil {
			return err
		}
		if err := b.timed(key("ADD", name, n), add); err != nil {
			return err
		}
		if err := b.timed(key("DEL", name, n), del); err != nil {
			return err
		}
		after, err := usedCPU()
		b.times[key("CPU", name, n)] = append(b.times[key("CPU", name, n)], after-before)
		return err
	})
}

// key names the times of a command with n networks.
func key(what, way string, n int) string { return fmt.Sprintf("%s %s %d", what, way, n) }

// versions times the shortest call of Braid and of a binary that does nothing else.
func (b *bench) versions(ctx context.Context) error {
	for _, name := range []string{"bare", "braid"} {
		cmd := exec.CommandContext(ctx, filepath.Join(b.bin, name))
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		cmd.Stdin = strings.NewReader(`{"cniVersion":"1.1.0"}`)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := b.timed("VERSION "+name, cmd.Run); err != nil {
			return fmt.Errorf("%s VERSION: %w: %s", name, err, out.String())
		}
	}
	return nil
}
