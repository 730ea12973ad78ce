package lab

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestMain(m *testing.M) {
	if os.Getenv("BRAID_LAB_VICTIM") != "" {
		if err := beVictim(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// beVictim does what a test does, until TestKilledTestLeavesNothing kills it.
func beVictim() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cluster, err := NewCluster(Options{Prepare: installBridge})
	if err != nil {
		return err
	}
	defer cluster.Stop()
	if err := runPods(ctx, cluster, Pod("default", "p", nil)); err != nil {
		return err
	}
	fmt.Println("lab is in " + cluster.dir.path)
	<-ctx.Done()
	return errors.New("nobody killed this process")
}

func TestBinDirSaysHowToBuild(t *testing.T) {
	t.Setenv("BRAID_LAB_BIN", t.TempDir())
	_, err := binDir(apiBinaries)
	if err == nil || !strings.Contains(err.Error(), "scripts/lab.sh") {
		t.Errorf("error is %v, want one that names scripts/lab.sh", err)
	}
}

func TestAuthority(t *testing.T) {
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.pem)
	for _, test := range []struct {
		name  string
		issue func() ([]byte, []byte, error)
		check x509.VerifyOptions
	}{
		{
			"server", func() ([]byte, []byte, error) { return ca.server("s", "10.0.0.1", "a.b") },
			x509.VerifyOptions{DNSName: "a.b", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		},
		{
			"server by IP address", func() ([]byte, []byte, error) {
				return ca.server("s", "10.0.0.1", "a.b")
			},
			x509.VerifyOptions{
				DNSName: "10.0.0.1", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			},
		},
		{
			"client", func() ([]byte, []byte, error) { return ca.client("jane", "dev") },
			x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			certPEM, _, err := test.issue()
			if err != nil {
				t.Fatal(err)
			}
			block, _ := pem.Decode(certPEM)
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			test.check.Roots = roots
			if _, err := cert.Verify(test.check); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOCIArchive(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := ociArchive(&archive, program, PauseImage, ToolImage); err != nil {
		t.Fatal(err)
	}
	whole := slices.Clone(archive.Bytes())
	files := map[string][]byte{}
	for r := tar.NewReader(&archive); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name], _ = io.ReadAll(r)
	}
	if tail := make([]byte, 1024); !bytes.HasSuffix(whole, tail) {
		t.Error("the archive has no end")
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range index.Manifests {
		names = append(names, m.Annotations["io.containerd.image.name"])
	}
	if want := []string{PauseImage, ToolImage}; !slices.Equal(names, want) {
		t.Errorf("images are %q, want %q", names, want)
	}
	for name, content := range files {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok {
			if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != digest {
				t.Errorf("%s has another digest: %x", name, sum)
			}
		}
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var content strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&content, "line %d\n", i)
	}
	if err := os.WriteFile(path, []byte(content.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := tail(path, 2), "line 9998\nline 9999"; got != want {
		t.Errorf("tail is %q, want %q", got, want)
	}
}

// A lab whose process was killed leaves a directory; the next one removes it, and no directory that
// is in use.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{"left", "used", "young"} {
		path := filepath.Join(dir, workdirPrefix+name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		lock, err := lockFile(filepath.Join(path, "lock"), os.O_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		if name == "used" {
			defer lock.Close()
		} else {
			lock.Close()
		}
		if name != "young" {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	sweep(dir)
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		names = append(names, strings.TrimPrefix(entry.Name(), workdirPrefix))
	}
	if want := []string{"used", "young"}; !slices.Equal(names, want) {
		t.Errorf("left are %q, want %q", names, want)
	}
}

// needAPI skips where scripts/lab.sh has not run; make test runs it before.
func needAPI(t *testing.T) {
	t.Helper()
	if _, err := binDir(apiBinaries); err != nil {
		t.Skip(err)
	}
}

func TestAPIServer(t *testing.T) {
	needAPI(t)
	began := time.Now()
	api := StartAPI(t)
	t.Logf("API server ready in %v", time.Since(began).Round(time.Millisecond))
	ctx := t.Context()

	t.Run("keeps objects when it goes and comes back", func(t *testing.T) {
		err := api.Apply(ctx, "{apiVersion: v1, kind: Namespace, metadata: {name: kept}}")
		if err != nil {
			t.Fatal(err)
		}
		api.StopAPIServer()
		if _, err := api.get(ctx, "/readyz"); err == nil {
			t.Error("it answers after StopAPIServer")
		}
		if err := api.StartAPIServer(ctx); err != nil {
			t.Fatal(err)
		}
		_, err = api.Client().CoreV1().Namespaces().Get(ctx, "kept", metav1.GetOptions{})
		if err != nil {
			t.Error(err)
		}
	})

	t.Run("counts requests", func(t *testing.T) {
		client := userClient(t, api, UserBraid)
		got, err := api.RequestsDuring(ctx, UserBraid, func() error {
			_, err := client.CoreV1().Pods("default").Get(ctx, "nginx", metav1.GetOptions{})
			if !apierrors.IsForbidden(err) {
				return fmt.Errorf("user without a role is not refused: %w", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Verb != "get" || got[0].Resource != "pods" || got[0].Name != "nginx" ||
			got[0].Code != http.StatusForbidden {
			t.Errorf("requests are %+v, want one GET of pod nginx, forbidden", got)
		}
	})

	t.Run("knows users by certificate", func(t *testing.T) {
		jane := userClient(t, api, "jane:doe", "system:masters")
		if _, err := jane.CoreV1().Namespaces().List(ctx, metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		requests, err := api.Requests(ctx, "jane:doe")
		if err != nil || len(requests) != 1 || requests[0].Resource != "namespaces" {
			t.Errorf("requests are %+v, %v, want one LIST of namespaces", requests, err)
		}
	})

	t.Run("judges manifests and changes nothing", func(t *testing.T) {
		const right = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: judged}\ndata: {a: b}\n---\n# " +
			"nothing\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: judged}\n"
		if err := api.DryRun(ctx, right); err != nil {
			t.Error(err)
		}
		err := api.DryRun(ctx, right+"datas: {a: b}\n")
		if err == nil || !strings.Contains(err.Error(), "datas") {
			t.Errorf("a field that does not exist: %v", err)
		}
		_, err = api.Client().CoreV1().ConfigMaps("default").Get(ctx, "judged", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("a ConfigMap that was only judged: %v", err)
		}
	})

	t.Run("takes pods", func(t *testing.T) {
		admin := api.Client()
		pod := Pod("default", "p", map[string]string{"k8s.v1.cni.cncf.io/networks": "a"})
		if _, err := admin.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func userClient(t *testing.T, api *API, user string, groups ...string) kubernetes.Interface {
	t.Helper()
	path, err := api.Kubeconfig(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.ClientOf(path)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestStopLeavesNothing: see also TestNodeRunsAPod for what a node would leave.
func TestStopLeavesNothing(t *testing.T) {
	needAPI(t)
	api, err := NewAPI()
	if err != nil {
		t.Fatal(err)
	}
	dir := api.dir.path
	if err := api.Stop(); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t, dir)
}

// assertNothingLeft looks for the lab's directory, cgroups of its name, and processes that were
// given a path in it.
func assertNothingLeft(t *testing.T, dir string) {
	t.Helper()
	id := filepath.Base(dir)
	for _, pattern := range []string{dir, "/sys/fs/cgroup/" + id, "/sys/fs/cgroup/*/" + id} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			t.Errorf("left: %q", found)
		}
	}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		cmdline, _ := os.ReadFile(filepath.Join(process, "cmdline"))
		cgroup, _ := os.ReadFile(filepath.Join(process, "cgroup"))
		if bytes.Contains(cmdline, []byte(id)) || bytes.Contains(cgroup, []byte(id)) {
			t.Errorf("left: %s %q", process, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if bytes.Contains(mounts, []byte(id)) {
		t.Errorf("left: a mount in %s", dir)
	}
}

// TestNodeRunsAPod shows that a node is a node, whatever its runtime: a pod gets its network from a
// plain CNI configuration, survives the runtime, and nothing is left after all.
func TestNodeRunsAPod(t *testing.T) {
	needE2E(t)
	for _, runtime := range []Runtime{Containerd, CRIO} {
		t.Run(string(runtime), func(t *testing.T) { runsAPod(t, runtime) })
	}
}

func runsAPod(t *testing.T, runtime Runtime) {
	machine := linkNames(t, "/proc/self/ns/net")
	began := time.Now()
	step := func(what string) {
		t.Logf("%6.2f s: %s", time.Since(began).Seconds(), what)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster, err := NewCluster(Options{Runtime: runtime, Prepare: installBridge})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(cluster.Logs())
		}
		if !stopped {
			_ = cluster.Stop()
		}
	})
	step("node registered")
	if err := cluster.Node("node-1").WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	step("node Ready")
	address := runPod(ctx, t, cluster)
	step("pod Running, and looked into")
	outlives(ctx, t, cluster, address)
	step("pod deleted, after a restart of runtime and kubelet")
	stopped = true
	if err := cluster.Stop(); err != nil {
		t.Fatal(err)
	}
	step("stopped")
	assertNothingLeft(t, cluster.dir.path)
	if after := linkNames(t, "/proc/self/ns/net"); !slices.Equal(after, machine) {
		t.Errorf("the machine's links were %q and are %q", machine, after)
	}
}

// runPod starts the pod p, looks into it and returns its address.
func runPod(ctx context.Context, t *testing.T, cluster *Cluster) (address string) {
	t.Helper()
	pods := cluster.Client().CoreV1().Pods("default")
	if _, err := pods.Create(ctx, Pod("default", "p", nil), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := cluster.WaitPodRunning(ctx, "default", "p")
	if err != nil {
		t.Fatal(err)
	}
	address = pod.Status.PodIP
	out, err := cluster.Exec(ctx, "default", "p", "/tool", "addrs")
	if err != nil || !strings.Contains(out, address+"/24") {
		t.Errorf("pod's address is %s, in the pod are %s, %v", address, out, err)
	}
	netns, err := cluster.Node("node-1").PodNetns(ctx, "default", "p")
	if err != nil {
		t.Fatal(err)
	}
	if got := linkNames(t, netns); !slices.Equal(got, []string{"eth0", "lo"}) {
		t.Errorf("pod's links are %q, want eth0 and lo", got)
	}
	return address
}

// outlives kills runtime and kubelet, which the pod p survives, and deletes the pod.
func outlives(ctx context.Context, t *testing.T, cluster *Cluster, address string) {
	t.Helper()
	node := cluster.Node("node-1")
	node.KillRuntime()
	node.KillKubelet()
	if err := node.StartRuntime(ctx); err != nil {
		t.Fatal(err)
	}
	if err := node.StartKubelet(); err != nil {
		t.Fatal(err)
	}
	out, err := node.PodRun(ctx, "default", "p", "ip", "-brief", "address")
	if err != nil || !strings.Contains(out, address) {
		t.Errorf("pod did not survive: %s, %v", out, err)
	}
	pods := cluster.Client().CoreV1().Pods("default")
	if err := pods.Delete(ctx, "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := cluster.WaitPodGone(ctx, "default", "p"); err != nil {
		t.Fatal(err)
	}
}

// Two nodes are two machines: both run pods, both have the API server, and the bare switch is
// between them.
func TestTwoNodes(t *testing.T) {
	needE2E(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cluster := StartCluster(t, Options{Nodes: []string{"left"}, Prepare: installBridge})
	if _, err := cluster.AddNode(ctx, "right"); err != nil {
		t.Fatal(err)
	}
	var pods []*corev1.Pod
	for i, node := range cluster.Nodes() {
		if err := node.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		pod := Pod("default", "on-"+node.Name, nil)
		pod.Spec.NodeName = node.Name
		pods = append(pods, pod)
		_, err := node.Run(ctx, "ip", "address", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth1")
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := runPods(ctx, cluster, pods...); err != nil {
		t.Fatal(err)
	}
	for _, node := range cluster.Nodes() {
		pod, err := cluster.WaitPodRunning(ctx, "default", "on-"+node.Name)
		if err != nil {
			t.Fatal(err)
		}
		if pod.Status.HostIP != node.Address {
			t.Errorf("pod on %s has host address %s, want %s", node.Name, pod.Status.HostIP, node.Address)
		}
	}
	for _, command := range []string{
		"echo > /dev/tcp/192.0.2.2/10250",            // the other node's kubelet, over the switch
		"echo > /dev/tcp/" + serviceAddress + "/443", // the API server, as pods are told of it
	} {
		if _, err := cluster.Node("left").Run(ctx, "bash", "-c", command); err != nil {
			t.Error(err)
		}
	}
}

// TestAgentPod runs a pod as a node agent's DaemonSet would, and has it see a network namespace
// that is made after its start.
func TestAgentPod(t *testing.T) {
	needE2E(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	node := StartNode(t, installBridge)
	cluster := node.Cluster
	if err := node.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	agent := Pod("default", "agent", nil)
	agent.Spec.HostNetwork = true
	yes, propagation := true, corev1.MountPropagationHostToContainer
	agent.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: &yes}
	agent.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
		{Name: "netns", MountPath: "/run/netns", MountPropagation: &propagation},
	}
	agent.Spec.Volumes = []corev1.Volume{{Name: "netns", VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: "/run/netns"},
	}}}
	for _, pod := range []*corev1.Pod{agent, Pod("default", "later", nil)} { // one after the other
		if err := runPods(ctx, cluster, pod); err != nil {
			t.Fatal(err)
		}
	}
	netns, err := node.PodNetns(ctx, "default", "later")
	if err != nil {
		t.Fatal(err)
	}
	out, err := cluster.Exec(ctx, "default", "agent", "/tool", "addrs",
		"/run/netns/"+filepath.Base(netns))
	if err != nil || !strings.Contains(out, "10.244.0.") {
		t.Errorf("agent sees in the pod's network namespace: %s, %v", out, err)
	}
}

// What a killed test leaves is a directory and cgroups, but nothing that lives; and the next lab
// removes them.
func TestKilledTestLeavesNothing(t *testing.T) {
	needE2E(t)
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), "BRAID_LAB_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		_, dir, _ = strings.Cut(lines.Text(), "lab is in ")
	}
	_ = victim.Process.Kill()
	_ = victim.Wait()
	if dir == "" {
		t.Fatal("the victim did not get as far as to run a pod")
	}
	// The lock is free as soon as the process is gone; then the sweep of a later lab does this.
	lock, err := lockFile(filepath.Join(dir, "lock"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := removeLeftovers(dir); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t, dir)
}

// needE2E skips unless make e2e, which builds the node's binaries before, runs the test.
func needE2E(t *testing.T) {
	t.Helper()
	if os.Getenv("BRAID_E2E") != "1" {
		t.Skip("BRAID_E2E is not 1")
	}
}

// installBridge installs the plainest network that there is on a node.
func installBridge(ctx context.Context, n *Node) error {
	if err := n.InstallPlugins(ctx, "bridge", "host-local"); err != nil {
		return err
	}
	return n.WriteFile("/etc/cni/net.d/10-bridge.conflist", []byte(`{"cniVersion": "1.0.0", "name": "plain", "plugins": [
		{"type": "bridge", "bridge": "cni0", "isGateway": true,
		 "ipam": {"type": "host-local", "subnet": "10.244.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]}`), 0o644)
}

// runPods creates pods and waits until all of them run.
func runPods(ctx context.Context, c *Cluster, pods ...*corev1.Pod) error {
	client := c.Client()
	for _, pod := range pods {
		_, err := client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	for _, pod := range pods {
		if _, err := c.WaitPodRunning(ctx, pod.Namespace, pod.Name); err != nil {
			return err
		}
	}
	return nil
}

// linkNames returns the links of a network namespace, sorted.
func linkNames(t *testing.T, netns string) []string {
	t.Helper()
	out, err := (*sandbox)(nil).
		output(t.Context(), "", "nsenter", "--net="+netns, "ip", "-json", "link")
	if err != nil {
		t.Fatal(err)
	}
	var links []struct{ Ifname string }
	if err := json.Unmarshal([]byte(out), &links); err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(links))
	for i, link := range links {
		names[i] = link.Ifname
	}
	slices.Sort(names)
	return names
}
