package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cmd/internal/node"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
)

// The test binary is braid when it is called with asPlugin in its environment, so that tests run
// the real command, in a process of its own, under the race detector. With killAt it stops itself,
// as SIGKILL does, at that point of its work.
const (
	asPlugin = "BRAID_TEST_AS_PLUGIN"
	killAt   = "BRAID_TEST_KILL_AT"
	traceTo  = "BRAID_TEST_TRACE"
	// later is by how much the engine's clock is fast.
	later = "BRAID_TEST_LATER"
	// aloneState and aloneManifests are for a plugin that is called under its own name.
	aloneState     = "BRAID_TEST_STATE"
	aloneManifests = "BRAID_TEST_MANIFESTS"
)

func TestMain(m *testing.M) {
	if os.Getenv(asOverride) != "" {
		os.Exit(overrideRoutes())
	}
	if os.Getenv(inProcess) != "" {
		os.Exit(runInProcess())
	}
	if os.Getenv(asAgent) != "" {
		os.Exit(runAgent())
	}
	if os.Getenv(asPlugin) == "" {
		if err := nettest.Isolate(); err != nil {
			fmt.Fprintln(os.Stderr, "isolate the tests:", err)
			os.Exit(1)
		}
		os.Exit(cluster.Main(m))
	}
	if os.Getenv("CNI_COMMAND") == update {
		os.Exit(updateOnce())
	}
	alone := node.DefaultPlugin()
	alone.StateDir, alone.Manifests = os.Getenv(aloneState), os.Getenv(aloneManifests)
	os.Exit((&app{stdout: os.Stdout, stderr: os.Stderr, trace: fault(), now: clock(), alone: alone}).
		run(os.Args))
}

// clock is fast by what later says; nil where it says nothing.
func clock() func() time.Time {
	fast, err := time.ParseDuration(os.Getenv(later))
	if err != nil {
		return nil
	}
	return func() time.Time { return time.Now().Add(fast) }
}

// fault returns the trace that kills the process at the point that killAt counts, and writes the
// names of points to traceTo.
func fault() func(string) {
	at, err := strconv.Atoi(os.Getenv(killAt))
	if err != nil {
		return nil
	}
	n := 0
	return func(point string) {
		f, err := os.OpenFile(os.Getenv(traceTo), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintln(f, point) //nolint:errcheck // a test reads it
			f.Close()              //nolint:errcheck // a test reads it
		}
		if n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // cannot fail
			select {}
		}
		n++
	}
}

// host is the node of one test: a network namespace with a NIC, directories of its own, and a
// default network of bridge and host-local.
type host struct {
	t    *testing.T
	node *nettest.Namespace
	// wire has the other end of the NIC, of the same name.
	wire *nettest.Namespace
	dir  string
	// conf is Braid's configuration, to be changed before the first call.
	conf map[string]any
	env  []string
	// socket is the agent's, and full is what the client runs without it; see viaAgent.
	socket, full string
	// braid is the test binary: that without the race detector, if there is one, which starts three
	// times as fast.
	braid string
}

// nodeName is the name of the node.
const nodeName = "node-1"

// nic is the node's interface on the data network; its other end is out of reach.
const nic = "nic0"

func newHost(t *testing.T) *host {
	t.Helper()
	nettest.NeedsRoot(t)
	h := &host{
		t: t, node: nettest.New(t), wire: nettest.New(t), dir: t.TempDir(),
		braid: cmp.Or(os.Getenv("BRAID_TEST_BINARY"), os.Args[0]),
	}
	h.node.Veth(nic, h.wire, "wire")
	for _, dir := range []string{"manifests", "net.d"} {
		if err := os.Mkdir(h.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	h.conf = map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "logFile": h.path("braid.log"),
		"logLevel": "debug",
		"binDir":   pluginDir(t), "confDir": h.path("net.d"),
		"braid": map[string]any{
			"manifests": h.path("manifests"), "stateDir": h.path("state"),
			"deviceInfoDir": h.path("devinfo"), "podResources": h.path("kubelet.sock"), "nodeName": nodeName,
			"dataRoots": []string{h.dir, "/var/lib/cni", "/run/cni"},
		},
		"delegates": []any{h.defaultNetwork()},
	}
	return h
}

func (h *host) defaultNetwork() map[string]any {
	return map[string]any{
		"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": true,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": h.path("leases"), "subnet": "10.1.0.0/16",
			"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
		},
	}
}

func pluginDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BRAID_PLUGINS")
	if dir == "" {
		t.Fatal("BRAID_PLUGINS is not set: run `make test`, or BRAID_PLUGINS=$(scripts/plugins.sh) go " +
			"test ...")
	}
	return dir
}

func (h *host) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir}, elem...)...)
}

// write makes a file of the host.
func (h *host) write(name, content string) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// script puts a plugin written in sh into a directory that is searched before the others.
func (h *host) script(name, body string) {
	h.t.Helper()
	if err := os.MkdirAll(h.path("bin"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.path("bin", name), []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		h.t.Fatal(err)
	}
}

// execs has plugins of these types exec'd although Braid has them built in.
func (h *host) execs(kinds ...string) { h.conf["braid"].(map[string]any)["exec"] = kinds }

// setBraid sets a key of Braid's own.
func (h *host) setBraid(key string, value any) { h.conf["braid"].(map[string]any)[key] = value }

// nad makes a NAD in a namespace, "default" if name has none.
func (h *host) nad(name, config string, annotations ...string) {
	h.t.Helper()
	h.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, map[string]any{"config": config}, annotations)
}

// object writes a manifest; annotations are keys and values in turn.
func (h *host) object(apiVersion, kind, name string, spec any, annotations []string) {
	h.t.Helper()
	namespace, bare, ok := strings.Cut(name, "/")
	if !ok {
		namespace, bare = "default", name
	}
	notes := map[string]string{}
	for pair := range slices.Chunk(annotations, 2) {
		notes[pair[0]] = pair[1]
	}
	data, err := json.Marshal(map[string]any{
		"apiVersion": apiVersion, "kind": kind, "spec": spec,
		"metadata": map[string]any{"name": bare, "namespace": namespace, "annotations": notes},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(filepath.Join("manifests", kind+"-"+namespace+"-"+bare+".yaml"), string(data))
}

// macvlan is the configuration of a NAD with host-local addresses of 10.<net>.0.0/24; extra is put
// into it.
func (h *host) macvlan(net int, extra string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":%q,"mode":"bridge"%s,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/24"}}`, nic, extra, h.path("leases"), net)
}

// pod is a pod and its sandbox.
type pod struct {
	*nettest.Namespace
	id, namespace, name string
}

// pod makes a pod of the namespace "default", or of that which name has, that asks for networks.
func (h *host) pod(name, networks string, annotations ...string) *pod {
	h.t.Helper()
	namespace, bare, ok := strings.Cut(name, "/")
	if !ok {
		namespace, bare = "default", name
	}
	if networks != "" {
		annotations = append(annotations, nadv1.NetworksAnnotation, networks)
	}
	h.object("v1", "Pod", name, map[string]any{}, annotations)
	return &pod{Namespace: nettest.New(h.t), id: "id-" + bare, namespace: namespace, name: bare}
}

// call runs one CNI command and returns what it prints; the error is what the runtime would get.
func (h *host) call(command string, p *pod, env ...string) (string, *types.Error) {
	h.t.Helper()
	stdout, err := h.exec(command, p, env...)
	if err == nil {
		return stdout, nil
	}
	failed := &types.Error{}
	if jerr := json.Unmarshal([]byte(stdout), failed); jerr != nil || failed.Msg == "" {
		h.t.Fatalf("%s: no CNI error on stdout but %q: %v", command, stdout, err)
	}
	return "", failed
}

// exec runs one CNI command, in the node's namespace.
func (h *host) exec(command string, p *pod, env ...string) (string, error) {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := h.command(command, p, env...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := h.node.Run(cmd.Run)
	if stderr.Len() > 0 {
		h.t.Logf("%s stderr: %s", command, stderr.String())
	}
	return stdout.String(), err
}

// command is braid, ready to be started in the node's namespace.
func (h *host) command(command string, p *pod, env ...string) *exec.Cmd {
	h.t.Helper()
	stdin, err := json.Marshal(h.conf)
	if err != nil {
		h.t.Fatal(err)
	}
	cmd := exec.Command(h.braid)
	cmd.Stdin = bytes.NewReader(stdin)
	// The race detector would have each process sleep for a second at its end.
	cmd.Env = append(os.Environ(), asPlugin+"=1", "GORACE=atexit_sleep_ms=0", "CNI_COMMAND="+command,
		"CNI_PATH="+h.path("bin")+":"+pluginDir(h.t))
	if p != nil {
		cmd.Env = append(cmd.Env, "CNI_CONTAINERID="+p.id, "CNI_NETNS="+p.Path, "CNI_IFNAME=eth0",
			fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s",
				p.namespace, p.name))
	}
	cmd.Env = append(append(cmd.Env, h.env...), env...)
	return cmd
}

// must runs a command that has to succeed.
func (h *host) must(command string, p *pod, env ...string) string {
	h.t.Helper()
	out, err := h.call(command, p, env...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", command, err, h.log())
	}
	return out
}

func (h *host) log() string {
	data, _ := os.ReadFile(h.path("braid.log"))
	return string(data)
}

// add is an ADD that has to succeed.
func (h *host) add(p *pod) *types100.Result {
	h.t.Helper()
	result := &types100.Result{}
	if err := json.Unmarshal([]byte(h.must("ADD", p)), result); err != nil {
		h.t.Fatal(err)
	}
	return result
}

// fails is a command that has to fail with this code and a text that has all the words.
func (h *host) fails(command string, p *pod, code uint, words ...string) {
	h.t.Helper()
	out, err := h.call(command, p)
	if err == nil {
		h.t.Fatalf("%s succeeded: %s", command, out)
	}
	if err.Code != code {
		h.t.Errorf("%s: code %d, want %d: %v", command, err.Code, code, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Msg, word) {
			h.t.Errorf("%s: the error does not say %q: %v", command, word, err)
		}
	}
}

// status is the pod's network-status annotation.
func (h *host) status(p *pod) []nadv1.NetworkStatus {
	h.t.Helper()
	data, err := os.ReadFile(h.path("manifests", p.namespace+"_"+p.name+".network-status.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	var list []nadv1.NetworkStatus
	if err := json.Unmarshal(data, &list); err != nil {
		h.t.Fatalf("%v: %s", err, data)
	}
	return list
}

// leases are the addresses that host-local holds, by network.
func (h *host) leases() []string {
	files, err := filepath.Glob(h.path("leases", "*", "*.*.*.*"))
	if err != nil {
		h.t.Fatal(err)
	}
	v6, err := filepath.Glob(h.path("leases", "*", "*:*"))
	if err != nil {
		h.t.Fatal(err)
	}
	var leases []string
	for _, f := range append(files, v6...) {
		rel, _ := filepath.Rel(h.path("leases"), f)
		leases = append(leases, rel)
	}
	slices.Sort(leases)
	return leases
}

// left is everything of pods that is on the node: links but the bridge, leases and other addresses,
// records, libcni's cache, device information, temporary files.
func (h *host) left() []string {
	h.t.Helper()
	left := h.leases()
	for line := range strings.Lines(h.node.Links()) {
		name := strings.Fields(line)[1]
		if !slices.Contains([]string{"lo", nic, "cni0"}, name) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	for _, dir := range []string{
		"state/sandboxes", "state/cni/results", "state/ipam/held", "state/vlans", "devinfo/cni",
	} {
		entries, err := os.ReadDir(h.path(dir))
		if err != nil && !os.IsNotExist(err) {
			h.t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, dir+"/"+e.Name())
		}
	}
	return left
}

// clean fails the test if anything is left on the node or in the pods. Links of a pod whose
// namespace was unmounted go with it, in the kernel's own time.
func (h *host) clean(pods ...*pod) {
	h.t.Helper()
	left := h.left()
	for start := time.Now(); len(left) > 0 && time.Since(start) < 30*time.Second; left = h.left() {
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) > 0 {
		h.t.Errorf("left on the node: %s", strings.Join(left, ", "))
	}
	for _, p := range pods {
		if links := interfaces(p); len(links) > 0 {
			h.t.Errorf("left in pod %s: %v", p.name, links)
		}
		if rules := p.Rules(); strings.Contains(rules, "from 10.") {
			h.t.Errorf("rules left in pod %s: %s", p.name, rules)
		}
	}
}

// interfaces are the pod's links but lo, sorted.
func interfaces(p *pod) []string {
	var names []string
	for line := range strings.Lines(p.Links()) {
		if name := strings.Fields(line)[1]; name != "lo" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// has fails the test unless the pod has exactly these interfaces.
func (h *host) has(p *pod, want ...string) {
	h.t.Helper()
	if got := interfaces(p); !slices.Equal(got, want) {
		h.t.Errorf("pod %s has interfaces %v, want %v", p.name, got, want)
	}
}

// with returns a copy of a configuration with a key set.
func with(conf map[string]any, key string, value any) map[string]any {
	conf = maps.Clone(conf)
	conf[key] = value
	return conf
}
