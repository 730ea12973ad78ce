package attack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/weaken"
)

// weakened is the variable by which a build that can be weakened is.
const weakened = "BRAID_TEST_WEAKEN"

// uplink is the interface of the node's default route.
const uplink = "nic0"

// nobody is the user and the group of a local user without rights.
const nobody = 65534

// build is a build of Braid with mechanisms that are switched off, as far as the build has them.
type build struct {
	// bin is the directory of its binaries.
	bin string
	off []weaken.Mechanism
}

// released is what users have, in an environment that would weaken another build.
func released(tb testing.TB, off ...weaken.Mechanism) build {
	tb.Helper()
	return build{filepath.Dir(variable(tb, "BRAID_BINARY")), off}
}

// weak is a build without the mechanisms.
func weak(tb testing.TB, off ...weaken.Mechanism) build {
	tb.Helper()
	return build{variable(tb, "BRAID_WEAKENED"), off}
}

func variable(tb testing.TB, name string) string {
	tb.Helper()
	value := os.Getenv(name)
	if value == "" {
		tb.Fatalf("%s is not set: run `make test`", name)
	}
	return value
}

// environ is the environment of its processes.
func (b build) environ(more ...string) []string {
	names := make([]string, len(b.off))
	for i, m := range b.off {
		names[i] = string(m)
	}
	return slices.Concat(os.Environ(), []string{weakened + "=" + strings.Join(names, ",")}, more)
}

// node is a node with an uplink, directories of its own, and a default network of bridge and
// host-local.
type node struct {
	testing.TB
	build

	host *nettest.Namespace
	dir  string
	// conf is Braid's configuration, and own its key "braid".
	conf, own map[string]any
}

func newNode(tb testing.TB, b build) *node {
	tb.Helper()
	nettest.NeedsRoot(tb)
	wire := nettest.New(tb)
	n := &node{TB: tb, build: b, host: nettest.New(tb), dir: tb.TempDir()}
	n.host.Veth(uplink, wire, "wire")
	n.host.Addr(uplink, "192.168.7.2/24")
	n.host.Route("default", "192.168.7.1", uplink, 0)
	n.host.Route("10.96.0.0/12", "", uplink, 0)
	for _, dir := range []string{"manifests", "net.d", "bin", "data", "outside"} {
		n.must(os.Mkdir(n.path(dir), 0o700))
	}
	n.own = map[string]any{
		"manifests": n.path("manifests"), "stateDir": n.path("state"), "deviceInfoDir": n.path("devinfo"),
		"podResources": n.path("kubelet.sock"),
		"nodeName":     "node-1", "dataRoots": []string{n.path("data")},
	}
	n.conf = map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "logFile": n.path("braid.log"),
		"logLevel": "verbose",
		"binDir":   n.path("bin"), "confDir": n.path("net.d"), "braid": n.own,
		"delegates": []any{json.RawMessage(`{"cniVersion":"1.0.0","name":"pods","type":"bridge","bridge":"cni0","isGateway":true,
			"ipam":{"type":"host-local","dataDir":"` + n.path("data") + `","subnet":"10.1.0.0/24"}}`)},
	}
	return n
}

func (n *node) path(elem ...string) string {
	return filepath.Join(append([]string{n.dir}, elem...)...)
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

// write makes a file of the node.
func (n *node) write(path, content string) {
	n.Helper()
	n.must(os.WriteFile(path, []byte(content), 0o600))
}

// has reports whether there is a file of the node.
func (n *node) has(name string) bool {
	_, err := os.Lstat(n.path(name))
	return err == nil
}

// script puts a plugin written in sh into a directory.
func (n *node) script(path, body string) {
	n.Helper()
	n.must(os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700))
}

// plugin puts a plugin into the plugin path that does what the body says on ADD, and then succeeds.
func (n *node) plugin(name, body string) {
	n.Helper()
	n.script(n.path("bin", name), `[ "$CNI_COMMAND" = ADD ] || exit 0
`+body+`
echo '{"cniVersion":"1.0.0"}'`)
}

// tenant sets the label of tenants on a namespace.
func (n *node) tenant(namespace string) {
	n.Helper()
	n.write(n.path("manifests", "namespace-"+namespace+".yaml"),
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,`+
			`"labels":{"braid-cni.io/tenant":""}}}`, namespace))
}

// nad makes a NAD, "namespace/name", and returns its configuration as it is, in which DIR is the
// node's directory.
func (n *node) nad(name, config string) {
	n.Helper()
	n.object("k8s.cni.cncf.io/v1", nadv1.Kind, name,
		map[string]any{"config": strings.ReplaceAll(config, "DIR", n.dir)}, nil)
}

func (n *node) object(version, kind, name string, spec any, annotations map[string]string) {
	n.Helper()
	namespace, bare, _ := strings.Cut(name, "/")
	data, err := json.Marshal(map[string]any{
		"apiVersion": version, "kind": kind, "spec": spec,
		"metadata": map[string]any{"name": bare, "namespace": namespace, "annotations": annotations},
	})
	n.must(err)
	n.write(n.path("manifests", kind+"-"+namespace+"-"+bare+".yaml"), string(data))
}

// pod is a pod and its sandbox.
type pod struct {
	*nettest.Namespace
	namespace, name string
}

// pod makes a pod, "namespace/name", that asks for networks.
func (n *node) pod(name, networks string) *pod {
	n.Helper()
	n.object("v1", "Pod", name, map[string]any{},
		map[string]string{nadv1.NetworksAnnotation: networks})
	namespace, bare, _ := strings.Cut(name, "/")
	return &pod{nettest.New(n), namespace, bare}
}

// cni is the environment of an operation on a pod.
func (n *node) cni(command string, p *pod) []string {
	return n.environ(
		"CNI_COMMAND="+command, "CNI_PATH="+n.path("bin")+":"+os.Getenv("BRAID_PLUGINS"),
		"CNI_CONTAINERID=id-"+p.name, "CNI_NETNS="+p.Path, "CNI_IFNAME=eth0",
		fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s", p.namespace, p.name),
	)
}

// config is Braid's configuration as text.
func (n *node) config() []byte {
	n.Helper()
	data, err := json.Marshal(n.conf)
	n.must(err)
	return data
}

// call runs an operation in the node's namespace. It fails the test if that fails without a CNI
// error.
func (n *node) call(command string, p *pod) error {
	n.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(n.Context(), filepath.Join(n.bin, "braid"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(n.config()), &stdout, &stderr, n.cni(
		command, p)
	err := n.host.Run(cmd.Run)
	if err == nil {
		return nil
	}
	failed := &types.Error{}
	if jerr := json.Unmarshal(stdout.Bytes(), failed); jerr != nil || failed.Msg == "" {
		n.Fatalf("%s: %v, no CNI error on stdout but %q, %s",
			command, err, stdout.String(), stderr.String())
	}
	n.Logf("%s: %s", command, failed.Msg)
	return failed
}

// starts reports whether a pod does: its ADD succeeds.
func (n *node) starts(p *pod) bool {
	n.Helper()
	return n.call("ADD", p) == nil
}

// begins starts a pod that has to start.
func (n *node) begins(p *pod) {
	n.Helper()
	n.must(n.call("ADD", p))
}

// braidctl returns what braidctl prints, whatever its exit code.
func (n *node) braidctl(args ...string) string {
	n.Helper()
	cmd := exec.CommandContext(n.Context(), filepath.Join(n.bin, "braidctl"), args...)
	cmd.Env = n.environ("HOME=/nowhere", "KUBECONFIG=")
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		n.Fatal(err)
	}
	return string(out)
}

// asNobody runs a command as a local user without rights, and reports whether it succeeds.
func (n *node) asNobody(name string, args ...string) bool {
	n.Helper()
	cmd := exec.CommandContext(n.Context(), name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	n.Logf("%s as nobody: %v %s", name, err, out)
	return err == nil
}
