package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

var cluster = lab.NewShared(lab.NewAPI)

// Agents that find no configuration keep their state in the default place.
func TestMain(m *testing.M) {
	if err := nettest.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, "isolate the tests:", err)
		os.Exit(1)
	}
	os.Exit(cluster.Main(m))
}

// buffer is a log that is read while it is written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// agentNode is the node of an agent, with its cluster.
type agentNode struct {
	t      *testing.T
	server *lab.API
	api    *kube.API
	dir    string
	name   string
	log    buffer
	// uninstall and restore are the agent's options.
	uninstall bool
	restore   string
	// netns is the path of the node's network namespace; empty for that of the test.
	netns string
	// run is the node's /run, which is no directory where it is empty. move moves the default network.
	run  string
	move bool
	// uid is the agent's pod's, listen where it serves metrics.
	uid, listen string
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newAgentNode makes a node with a default network. The agent's pod on it has a token of its own.
func newAgentNode(t *testing.T, name string) *agentNode {
	t.Helper()
	a := &agentNode{
		t: t, server: cluster.Get(t), dir: t.TempDir(), name: name, uid: "uid-" + name,
		listen: freeAddress(t),
	}
	for _, path := range []string{
		"crd/network-attachment-definition.yaml", "crd/ipblocks.yaml", "crd/ipam-claim.yaml",
		"rbac/agent.yaml", "rbac/cni.yaml",
	} {
		manifests, err := os.ReadFile(filepath.Join("../../conf", path))
		must(t, err)
		must(t, a.server.Apply(t.Context(), string(manifests)))
	}
	_, err := a.server.Client().CoreV1().Nodes().
		Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{})
	must(t, err)
	controller := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "agent-" + name, OwnerReferences: []metav1.OwnerReference{
				{
					APIVersion: "apps/v1", Kind: "DaemonSet", Name: "d", UID: "installation",
					Controller: &controller,
				},
			},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	_, err = a.server.Client().CoreV1().Pods("kube-system").
		Create(t.Context(), pod, metav1.CreateOptions{})
	must(t, err)
	token, err := a.server.Client().CoreV1().ServiceAccounts("kube-system").
		CreateToken(t.Context(), "braid-agent", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	must(t, err)
	for path, content := range map[string]string{
		"image/braid": "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '{\"supportedVersions\": " +
			"[\"1.1.0\"]}'\n",
		"image/token/token":  token.Status.Token,
		"image/token/ca.crt": string(a.server.CA()),
		"image/braid.json": `{"logLevel": "debug", "braid": {"stateDir": "` +
			a.path("run/braid") + `"}}`,
		"conf/10-pods.conflist": `{"cniVersion": "1.0.0", "name": "pods", ` +
			`"plugins": [{"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}},` +
			` {"type": "portmap", "capabilities": {"portMappings": true}}]}`,
		"conf/87-podman.conflist": `{"name": "podman", "plugins": [{"type": "bridge", "bridge": "cni-podman0"}]}`,
	} {
		must(t, os.MkdirAll(filepath.Dir(a.path(path)), 0o755))
		must(t, os.WriteFile(a.path(path), []byte(content), 0o755))
		old := time.Now().Add(-time.Hour)
		must(t, os.Chtimes(a.path(path), old, old))
	}
	must(t, os.MkdirAll(a.path("bin"), 0o755))
	admin, err := a.server.Kubeconfig(lab.UserAdmin)
	must(t, err)
	a.api, err = kube.NewAPI(kube.APIOptions{Kubeconfig: admin})
	must(t, err)
	t.Cleanup(a.api.Close)
	return a
}

func (a *agentNode) path(name string) string { return filepath.Join(a.dir, name) }

// start runs the agent until stop is called.
func (a *agentNode) start() (stop func() error) {
	for key, value := range map[string]string{
		"NODE_NAME": a.name, "POD_NAMESPACE": "kube-system", "POD_NAME": "agent-" + a.name,
		"POD_UID": a.uid,
	} {
		a.t.Setenv(key, value)
	}
	o, err := parse([]string{
		"--config", a.path("image/braid.json"), "--cni-conf-dir", a.path("conf"), "--cni-bin-dir",
		a.path("bin"), "--private-conf-dir", a.path("private"),
		"--state-dir", a.path("state"), "--token-dir", a.path("image/token"), "--api-server", a.url(),
		"--profile", "plain", "--metrics-address", a.listen,
	}, &a.log)
	must(a.t, err)
	o.image, o.uninstall, o.restore = a.path("image"), a.uninstall, a.restore
	o.runDir, o.inContainer, o.movePrivate = a.run, a.run != "", a.move
	if a.netns != "" {
		o.netns = a.netns
	}
	own, err := newAgent(o, slog.New(slog.NewTextHandler(&a.log, nil)))
	must(a.t, err)
	own.capacityEvery = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(a.t.Context())
	ended := make(chan error, 1)
	serve := own.run
	if o.uninstall {
		serve = own.uninstall
	}
	go func() { ended <- serve(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func (a *agentNode) url() string {
	host, port := a.server.Address()
	return "https://" + net.JoinHostPort(host, strconv.Itoa(port))
}

// await waits until what holds.
func (a *agentNode) await(what string, holds func() bool) {
	a.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("%s: not within two minutes; the log:\n%s", what, a.log.String())
		}
	}
}

func (a *agentNode) report() kube.NodeReport {
	report, err := a.api.NodeReport(a.t.Context(), a.name)
	must(a.t, err)
	return report
}

func (a *agentNode) ready() bool {
	c := a.report().Condition
	return c != nil && c.Status == metav1.ConditionTrue
}

// events are those of the node.
func (a *agentNode) events() []corev1.Event {
	a.t.Helper()
	list, err := a.server.Client().CoreV1().Events("default").
		List(a.t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=Node,involvedObject.name=" + a.name,
		})
	must(a.t, err)
	return list.Items
}

// TestAgent: a node gets Braid, says so, and is repaired; what the agent made works without it.
func TestAgent(t *testing.T) {
	a := newAgentNode(t, "node-a")
	stop := a.start()
	a.await("ready", a.ready)
	report := a.report().Report
	if report == nil || report.Config != a.path("conf/00-braid.conflist") ||
		report.DefaultNetwork != a.path("conf/10-pods.conflist") || report.CredentialExpires.IsZero() {
		t.Errorf("report %+v", report)
	}
	cfg, err := conf.LoadFile(a.path("conf/00-braid.conflist"))
	must(t, err)
	for what, ok := range map[string]bool{
		"clusterNetwork": cfg.ClusterNetwork == a.path("conf/10-pods.conflist"),
		"nodeName":       cfg.NodeName == a.name, "logLevel": cfg.LogLevel == "debug",
		"kubeconfig":   cfg.Kubeconfig == a.path("state/kubeconfig"),
		"capabilities": cfg.Capabilities["portMappings"] && cfg.Capabilities[podAnnotations],
		"stateDir":     cfg.StateDir == a.path("run/braid"),
	} {
		if !ok {
			t.Errorf("%s is not as it is to be in %+v", what, cfg)
		}
	}
	if info, err := os.Stat(a.path("state/kubeconfig")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig: %v, %v", info, err)
	}
	plugin, err := kube.NewAPI(kube.APIOptions{Kubeconfig: cfg.Kubeconfig})
	must(t, err)
	t.Cleanup(plugin.Close)
	if id, err := plugin.Whoami(t.Context()); err != nil ||
		id.Username != "system:serviceaccount:kube-system:braid-cni" {
		t.Errorf("the CNI plugin is %+v, %v", id, err)
	}
	if page := a.metrics(); !strings.Contains(page, "braid_node_ready 1\n") {
		t.Errorf("metrics:\n%s", page)
	}
	if node := boundTo(t, a.path("state/kubeconfig")); node != a.name {
		t.Errorf("the token is bound to node %q", node)
	}
	// A file that goes while the agent is at work is put back, and not told of: then it goes again.
	removed := time.Time{}
	a.await("event", func() bool {
		events := a.events()
		if len(events) == 0 && time.Since(removed) > 2*time.Second &&
			os.Remove(a.path("conf/00-braid.conflist")) == nil {
			removed = time.Now()
		}
		return len(events) == 1 && strings.Contains(events[0].Message, "was deleted")
	})
	a.await("repair", func() bool {
		_, err := os.Stat(a.path("conf/00-braid.conflist"))
		return err == nil
	})
	must(t, stop())
	for _, path := range []string{"conf/00-braid.conflist", "bin/braid", "state/kubeconfig"} {
		if _, err := os.Stat(a.path(path)); err != nil {
			t.Errorf("after the agent's end: %v", err)
		}
	}
}

// freeAddress is one on which nobody listens: tests of several checkouts may run at a time.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	must(t, listener.Close())
	return listener.Addr().String()
}

func (a *agentNode) metrics() string {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet,
		"http://"+a.listen+"/metrics", nil)
	must(a.t, err)
	answer, err := http.DefaultClient.Do(request)
	must(a.t, err)
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	must(a.t, err)
	return string(page)
}

// boundTo is the node that the token of a kubeconfig is bound to.
func boundTo(t *testing.T, kubeconfig string) string {
	t.Helper()
	text, err := os.ReadFile(kubeconfig)
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "token: ")
	parts := strings.Split(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]), ".")
	if len(parts) != 3 {
		t.Fatalf("no token in %s", kubeconfig)
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(t, err)
	var c struct {
		Kubernetes struct {
			Node struct{ Name string } `json:"node"`
		} `json:"kubernetes.io"`
	}
	must(t, json.Unmarshal(claims, &c))
	return c.Kubernetes.Node.Name
}

// TestAgentWithoutDefaultNetwork: nothing is put in front of nothing, and the node says what it
// waits for.
func TestAgentWithoutDefaultNetwork(t *testing.T) {
	a := newAgentNode(t, "node-b")
	must(t, os.Remove(a.path("conf/10-pods.conflist")))
	stop := a.start()
	a.await("condition", func() bool {
		c := a.report().Condition
		return c != nil && c.Status == metav1.ConditionFalse &&
			strings.Contains(c.Message, "87-podman.conflist")
	})
	if _, err := os.Stat(a.path("conf/00-braid.conflist")); err == nil {
		t.Error("there is a configuration")
	}
	must(t, os.WriteFile(a.path("conf/05-late.conflist"),
		[]byte(`{"cniVersion":"1.0.0","name":"late","plugins":[{"type":"bridge"}]}`), 0o600))
	a.await("ready", a.ready)
	must(t, os.WriteFile(a.path("conf/01-later.conflist"),
		[]byte(`{"cniVersion":"1.0.0","name":"later","plugins":[{"type":"bridge"}]}`), 0o600))
	a.await("event of another", func() bool {
		return slices.ContainsFunc(a.events(), func(e corev1.Event) bool {
			return e.Reason == "DefaultNetworkChanged" && strings.Contains(e.Message, "01-later.conflist") &&
				strings.Contains(e.Message, "05-late.conflist")
		})
	})
	must(t, stop())
}

// TestAgentRefusesKeys: what the agent sets itself is no matter of the operator's file.
func TestAgentRefusesKeys(t *testing.T) {
	a := newAgentNode(t, "node-c")
	must(t, os.WriteFile(a.path("image/braid.json"), []byte(`{"clusterNetwork": "x"}`), 0o600))
	stop := a.start()
	a.await("condition", func() bool {
		c := a.report().Condition
		return c != nil && c.Reason == "InvalidConfig" && strings.Contains(c.Message,
			"field clusterNetwork: ") && strings.Contains(c.Message, "--default-network")
	})
	must(t, os.WriteFile(a.path("image/braid.json"), []byte(`{}`), 0o600))
	a.await("ready", a.ready)
	must(t, stop())
}

// TestAgentKeepsTheLastPolicy: rules that cannot be read are not installed, and condition and log
// say so. The last good policy stays.
func TestAgentKeepsTheLastPolicy(t *testing.T) {
	a := newAgentNode(t, "node-p")
	write := func(policy string) {
		must(t, os.WriteFile(a.path("image/braid.json"), []byte(`{"braid": {"policy": `+policy+`}}`),
			0o600))
	}
	good := `{"namespaces": ["a"], "masters": ["ens224"]}`
	write(`[` + good + `]`)
	stop := a.start()
	a.await("ready", a.ready)
	for _, bad := range []struct{ name, policy, field, says string }{
		{
			"an unknown key", `[{"namespaces": ["a"], "master": ["*"]}]`, "braid.policy[0].master",
			"a rule has no such key",
		},
		{
			"a rule that names nothing", `[{"masters": ["*"]}]`, "braid.policy[0].namespaces",
			"names no namespace",
		},
		{
			"an empty list of names", `[` + good + `, {"namespaces": []}]`, "braid.policy[1].namespaces",
			"names no namespace",
		},
		{
			"a rule that contradicts itself", `[{"namespaces": ["a"], "all": true, "masters": ["*"]}]`,
			"braid.policy[0].all", "lifts",
		},
		{
			"rules that contradict each other", `[` + good + `, {"namespaces": ["a"]}]`,
			"braid.policy[1].namespaces", "named by rule 0 already",
		},
		{"no list", `{}`, "braid.policy", "list of rules"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			write(bad.policy)
			a.await("condition", func() bool {
				c := a.report().Condition
				return c != nil && c.Reason == "InvalidConfig" &&
					strings.Contains(c.Message, "field "+bad.field+": ") && strings.Contains(c.Message, bad.says)
			})
			cfg, err := conf.LoadFile(a.path("conf/00-braid.conflist"))
			must(t, err)
			if len(cfg.Rules) != 1 || !slices.Equal(cfg.Rules[0].Masters, []string{"ens224"}) {
				t.Errorf("the installed policy is %v", cfg.Rules)
			}
		})
	}
	a.await("line of the log about the last", func() bool {
		return strings.Contains(a.log.String(), "the node is not as it is to be") &&
			strings.Contains(a.log.String(), "field braid.policy: ")
	})
	must(t, stop())
}

// TestAgentWithoutState: a node whose disk takes nothing is no reason to end. It is said, and when
// there is room it goes on.
func TestAgentWithoutState(t *testing.T) {
	a := newAgentNode(t, "node-e")
	must(t, os.WriteFile(a.path("state"), nil, 0o600))
	stop := a.start()
	a.await("condition", func() bool {
		c := a.report().Condition
		return c != nil && c.Status == metav1.ConditionFalse && c.Reason == "StateFailed" &&
			strings.Contains(c.Message, "not a directory")
	})
	a.await("event", func() bool {
		return slices.ContainsFunc(a.events(), func(e corev1.Event) bool {
			return e.Reason == "InstallationFailed" && strings.Contains(e.Message, "not a directory") &&
				strings.Contains(e.Message, "see that")
		})
	})
	must(t, os.Remove(a.path("state")))
	a.await("ready", a.ready)
	must(t, stop())
}

// TestTwoAgents: the agent that came last has the node to itself.
func TestTwoAgents(t *testing.T) {
	a := newAgentNode(t, "node-f")
	stopFirst := a.start()
	a.await("ready", a.ready)
	first := a.listen
	a.uid, a.listen = "uid-of-another", freeAddress(t)
	stopLast := a.start()
	a.await("the first to leave", func() bool {
		return strings.Contains(a.log.String(), "the node is left alone")
	})
	a.await("the first to serve nothing", func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", first)
		if err == nil {
			must(t, conn.Close())
		}
		return err != nil
	})
	must(t, stopFirst())
	configuration := a.path("conf/00-braid.conflist")
	must(t, os.Remove(configuration))
	a.await("repair", func() bool { _, err := os.Stat(configuration); return err == nil })
	a.await("the last to be ready", a.ready)
	must(t, stopLast())
}

// TestStateDir: the agent knows where the CNI plugin's records are before it has rendered a
// configuration, or else it would report pods without networks at each start.
func TestStateDir(t *testing.T) {
	for keys, want := range map[string]string{
		`{"braid": {"stateDir": "/run/other"}}`: "/run/other", `{}`: conf.DefaultStateDir,
		`{"unknown": 1`: conf.DefaultStateDir,
	} {
		path := filepath.Join(t.TempDir(), "braid.json")
		must(t, os.WriteFile(path, []byte(keys), 0o600))
		a := &daemon{o: &options{config: path, nodeName: "n", stateDir: "/var/lib/braid"}}
		if got := a.stateDir(); got != want {
			t.Errorf("%s: %s, want %s", keys, got, want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	for _, name := range []string{"NODE_NAME", "POD_NAMESPACE", "POD_NAME", "POD_UID"} {
		t.Setenv(name, "")
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"--version":                           {0, "braidd devel"},
		"--help":                              {0, "default-network"},
		"":                                    {2, "node-name"},
		"x":                                   {2, `argument "x"`},
		"--node-name n":                       {2, "service-account"},
		"--node-name n --service-account x":   {2, "namespace/name"},
		"--log-level loud":                    {2, "log-level"},
		"--node-name n --service-account a/b": {2, "POD_NAME"},
	} {
		var out buffer
		if code := run(t.Context(), strings.Fields(line), &out, &out); code != want.code ||
			!strings.Contains(out.String(), want.says) {
			t.Errorf("braidd %s: %d, %s", line, code, out.String())
		}
	}
}

// TestAgentUninstalls: the configuration goes at once, and the rest when the last sandbox is gone,
// whose DEL nobody sends any more.
func TestAgentUninstalls(t *testing.T) {
	a := newAgentNode(t, "node-d")
	stop := a.start()
	a.await("ready", a.ready)
	must(t, stop())
	saved := `{"name": "former", "type": "multus", "delegates": []}`
	must(t, os.WriteFile(a.path("former.conf"), []byte(saved), 0o600))
	records := record.New(a.path("run/braid"))
	sandbox, err := records.Lock(t.Context(), "c")
	must(t, err)
	alive := nettest.New(t).Path
	id, err := netns.Identity(alive)
	must(t, err)
	must(t,
		sandbox.Save(&record.Record{
			NetNS: alive, NetNSID: id, Complete: true,
			Attachments: []record.Attachment{{
				Attachment: plan.Attachment{
					Name: "a", Network: "a", IfName: "net1",
					Conf: []byte(`{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"passthru"}]}`),
				}, State: record.Planned,
			}},
		}))
	sandbox.Unlock()
	a.uninstall, a.restore = true, a.path("former.conf")
	stop = a.start()
	a.await("the configuration to go", func() bool {
		_, err := os.Stat(a.path("conf/00-braid.conflist"))
		return err != nil
	})
	a.await("the condition", func() bool {
		c := a.report().Condition
		return c.Status == metav1.ConditionFalse &&
			strings.Contains(c.Message, "the binaries are still needed by 1 sandbox")
	})
	if text, err := os.ReadFile(a.path("conf/former.conf")); err != nil || string(text) != saved {
		t.Errorf("the former configuration is %q, %v", text, err)
	}
	if _, err := os.Stat(a.path("bin/braid")); err != nil {
		t.Errorf("the binary is gone before the last sandbox: %v", err)
	}
	sandbox, err = records.Lock(t.Context(), "c")
	must(t, err)
	rec, err := sandbox.Load()
	must(t, err)
	rec.NetNSID = "of another time"
	must(t, sandbox.Save(rec))
	sandbox.Unlock()
	a.await("the end", func() bool { return a.report().Condition.Reason == nodev1.Uninstalled })
	for _, path := range []string{"bin/braid", "state/kubeconfig"} {
		if _, err := os.Stat(a.path(path)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	must(t, stop())
}
