package soak_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/nettest"
)

const (
	// callers are how many pods are attached and removed at a time.
	callers = 8
	// checks are how often each of them is looked at, which is quick: a removal waits for the kernel.
	checks = 9
	// What the agent may have more at the end than after a tenth of the time: connections and
	// goroutines that are at work on something else.
	moreDescriptors, moreGoroutines, moreThreads = 10, 30, 8
	// memoryGrowth is by how much its memory may grow, and memoryRoom what it may grow anyhow.
	memoryGrowth, memoryRoom = 1.25, 12 << 20
	throughNAD               = `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": "through", "namespace": "default"}, "spec": {"config": "{\"cniVersion\": \"1.0.0\",
		\"type\": \"macvlan\", \"master\": \"nic0\", \"ipam\": {\"type\": \"whereabouts\", \"range\": \"10.50.0.0/16\"}}"}}`
	throughMetrics = "127.0.0.1:9876"
	throughDefault = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge",
		"bridge": "cni0", "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.51.0.0/16"}}]}`
)

// through is a node with an agent.
type through struct {
	*testing.T

	server     *lab.API
	agent      *lab.Agent
	kubeconfig string
	uids       []string
	calls      atomic.Int64
}

// TestAgentKeepsNothing: however many calls the agent does, and however many clients leave in the
// middle of theirs, it has no more descriptors, goroutines, threads and memory than before.
// BRAID_SOAK_AGENT is how long that goes on.
func TestAgentKeepsNothing(t *testing.T) {
	nettest.NeedsRoot(t)
	lasts, err := time.ParseDuration(cmp.Or(os.Getenv("BRAID_SOAK_AGENT"), "8s"))
	must(t, err)
	s := newThrough(t, callers)
	s.during(lasts / 10)
	before, calls := s.usage(), s.calls.Load()
	start := time.Now()
	s.during(lasts - lasts/10)
	took := time.Since(start)
	after := s.usage()
	t.Logf("%d calls in %v, before them %+v, after them %+v; without the agent %d of all",
		s.calls.Load()-calls, took.Round(time.Second), before, after, s.fallbacks())
	most := max(int(memoryGrowth*float64(before.Resident)), before.Resident+memoryRoom)
	if after.Descriptors > before.Descriptors+moreDescriptors ||
		after.Goroutines > before.Goroutines+moreGoroutines ||
		after.Threads > before.Threads+moreThreads || after.Resident > most {
		t.Errorf("it has %+v, and had %+v", after, before)
	}
	left, err := filepath.Glob(stateDir + "/sandboxes/*.json")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newThrough makes pods with their network namespaces, objects besides, and the agent with the
// environment of the shipped one.
func newThrough(t *testing.T, pods int, objects ...string) *through {
	t.Helper()
	ownNode(t)
	server := lab.StartAPI(t)
	for _, file := range []string{"network-attachment-definition", "ipblocks", "ipam-claim"} {
		kind, err := os.ReadFile("../../conf/crd/" + file + ".yaml")
		must(t, err)
		must(t, server.Apply(t.Context(), string(kind)))
	}
	must(t, server.Apply(t.Context(), throughNAD))
	atOnce(len(objects), func(i int) error { return server.Apply(t.Context(), objects[i]) }, t)
	s := &through{T: t, server: server}
	var err error
	s.kubeconfig, err = server.Kubeconfig(lab.UserAdmin)
	must(t, err)
	for i := range pods {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("through-", i)},
			Spec:       corev1.PodSpec{NodeName: "soak", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		pod.Annotations = map[string]string{"k8s.v1.cni.cncf.io/networks": "through"}
		pod, err := server.Client().CoreV1().Pods("default").
			Create(t.Context(), pod, metav1.CreateOptions{})
		must(t, err)
		s.uids = append(s.uids, string(pod.UID))
		must(t, makeNetns(s.netns(i)))
	}
	s.agent, err = server.StartAgent(t.Context(), filepath.Dir(s.binary()), t.TempDir(), "soak",
		"GOMEMLIMIT=128MiB", "BRAID_METRICS_ADDRESS="+throughMetrics)
	must(t, err)
	t.Cleanup(func() {
		if err := s.agent.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// ownNode makes the directories and the NIC of a node. They are gone after the test.
func ownNode(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"/run", "/var/lib/cni"} {
		must(t, os.MkdirAll(dir, 0o755))
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
		t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	}
	must(t, os.Mkdir(netnsDir, 0o755))
	removeLinks(t) // of a test before
	t.Cleanup(func() { removeLinks(t) })
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "nic0", Flags: net.FlagUp}, PeerName: "wire",
	}))
}

func removeLinks(t *testing.T) {
	t.Helper()
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if l.Type() == "bridge" || l.Type() == "veth" {
			must(t, gone(netlink.LinkDel(l)))
		}
	}
}

// binary is braid, beside which the agent and its client are.
func (s *through) binary() string {
	s.Helper()
	if binary := os.Getenv("BRAID_BINARY"); binary != "" {
		return binary
	}
	dir := s.TempDir()
	const commands = "github.com/braid-cni/braid/cmd/"
	out, err := exec.CommandContext(s.Context(), "go", "build", "-o", dir+"/",
		commands+"braid", commands+"braidd", commands+"braid-client").CombinedOutput()
	if err != nil {
		s.Fatalf("build: %v: %s", err, out)
	}
	return filepath.Join(dir, "braid")
}

func (s *through) netns(i int) string { return fmt.Sprintf("%s/through-%d", netnsDir, i) }

// during has pods come and go for a time. At its end there is none.
func (s *through) during(lasts time.Duration) {
	until := time.Now().Add(lasts)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := 0; time.Now().Before(until) && !s.Failed(); n++ {
				s.life(i)
			}
		})
	}
	all.Wait()
}

// life is that of one sandbox. Of some the client leaves in the middle of the ADD.
func (s *through) life(i int) {
	id := fmt.Sprintf("through-%d-%d", i, s.calls.Load())
	if dice := rand.IntN(200); dice < 20 { //nolint:gosec // a test
		ctx, cancel := context.WithTimeout(s.Context(), time.Duration(dice)*time.Millisecond)
		s.call(ctx, "ADD", id, i) //nolint:errcheck // it may be killed
		cancel()
	} else {
		for _, verb := range append([]string{"ADD"}, slices.Repeat([]string{"CHECK"}, checks)...) {
			if err := s.call(s.Context(), verb, id, i); err != nil {
				s.Error(err)
			}
		}
	}
	if err := s.call(s.Context(), "DEL", id, i); err != nil {
		s.Error(err)
	}
}

func (s *through) call(ctx context.Context, verb, id string, i int) error {
	s.calls.Add(1)
	cmd := exec.CommandContext(ctx, s.agent.Client)
	cmd.Stdin = bytes.NewReader(s.stdin("through"))
	cmd.Env = s.environ(verb, id, i)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s of %s: %w: %s", verb, id, err, out)
	}
	return nil
}

// stdin is what a runtime passes for a pod with these networks.
func (s *through) stdin(networks string) []byte {
	s.Helper()
	stdin, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "kubeconfig": s.kubeconfig,
		"logFile": "/run/braid.log", "braid": map[string]any{"nodeName": "soak"},
		"delegates": []any{json.RawMessage(throughDefault)},
		"runtimeConfig": map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{
			"kubernetes.io/config.source": "api", "k8s.v1.cni.cncf.io/networks": networks,
		}},
	})
	must(s.T, err)
	return stdin
}

// environ are the variables of a call for a pod.
func (s *through) environ(verb, id string, i int) []string {
	return []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + s.netns(i),
		"CNI_IFNAME=eth0", "CNI_PATH=/none",
		fmt.Sprintf("CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=through-%d;K8S_POD_UID=%s",
			i, s.uids[i]),
	}
}

// usage is what the agent has when it has come to rest.
func (s *through) usage() (u lab.Usage) {
	s.Helper()
	time.Sleep(time.Second)
	u, err := s.agent.Usage(s.Context(), stateDir)
	must(s.T, err)
	return u
}

// fallbacks is how many calls were done without the agent, by its log.
func (s *through) fallbacks() (n int) {
	note := regexp.MustCompile(`done without the agent.* calls=(\d+)`)
	for line := range strings.Lines(s.agent.Log()) {
		if found := note.FindStringSubmatch(line); found != nil {
			calls, err := strconv.Atoi(found[1])
			must(s.T, err)
			n += calls
		}
	}
	return n
}
