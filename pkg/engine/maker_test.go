package engine_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/failure"
)

// former is the configuration of a node before Braid's, with a plugin that keeps what it made in
// files.
const former = `{"cniVersion": "1.0.0", "name": "former", "plugins": [{"type": "older", ` +
	`"capabilities": {"portMappings": true}}]}`

// older is that plugin: its ADD makes the file made/CONTAINER-INTERFACE, CHECK looks for it, DEL
// removes it and fails as long as the file "stuck" is there. It keeps what it was told last.
const older = `#!/bin/sh
cd %s
made=made/$CNI_CONTAINERID-$CNI_IFNAME
cat >stdin
echo "$CNI_COMMAND $CNI_NETNS $CNI_ARGS" >>calls
error() { echo "{\"cniVersion\": \"1.0.0\", \"code\": $1, \"msg\": \"$2\"}"; exit 1; }
case $CNI_COMMAND in
ADD) : >"$made"; echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}' ;;
CHECK) [ -e "$made" ] || error 120 "it is not there" ;;
DEL) [ ! -e stuck ] || error 130 "told to fail"; rm -f "$made" ;;
esac
`

// formerly has a runtime's libcni make a sandbox with a configuration that is not Braid's.
func (n *node) formerly(p *pod, config string) {
	n.t.Helper()
	n.engine.RuntimeCache = n.path("runtime")
	n.must(os.MkdirAll(n.path("made"), 0o700))
	n.must(os.MkdirAll(n.path("bin"), 0o700))
	n.must(os.WriteFile(n.path("bin/older"), fmt.Appendf(nil, older, n.dir), 0o700))
	list, err := libcni.NetworkConfFromBytes([]byte(config))
	n.must(err)
	cni := libcni.NewCNIConfigWithCacheDir([]string{n.path("bin")}, n.path("runtime"), nil)
	_, err = cni.AddNetworkList(n.t.Context(), list, &libcni.RuntimeConf{
		ContainerID: p.id, NetNS: p.Path, IfName: "eth0",
		Args:           [][2]string{{"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.name}},
		CapabilityArgs: map[string]any{"portMappings": []any{map[string]any{"hostPort": 80}}},
	})
	n.must(err)
	n.must(os.Truncate(n.path("calls"), 0))
}

// formerLeft fails the test unless this is what the former plugin and the runtime's cache hold.
func (n *node) formerLeft(want ...string) {
	n.t.Helper()
	var got []string
	for _, dir := range []string{"made", "runtime/results"} {
		files, err := os.ReadDir(n.path(dir))
		n.must(err)
		for _, f := range files {
			got = append(got, f.Name())
		}
	}
	same(n.t, "left of the former configuration", got, want)
}

func (n *node) formerCalls() string {
	n.t.Helper()
	text, err := os.ReadFile(n.path("calls"))
	n.must(err)
	n.must(os.Truncate(n.path("calls"), 0))
	return string(text)
}

// A sandbox that another configuration made, as Multus's, is checked and removed by it, though the
// runtime asks Braid: the plugin gets what it would get from the runtime, and nothing is left of
// it.
func TestAnothersSandbox(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p, own := n.pod("p", "a"), n.pod("own", "a")
	n.formerly(p, former)
	n.must(n.add(own))
	n.plugin.called()
	args := p.Path + " K8S_POD_NAMESPACE=default;K8S_POD_NAME=p\n"

	n.must(n.check(p))
	same(t, "calls of CHECK", n.formerCalls(), "CHECK "+args)
	n.must(os.WriteFile(n.path("stuck"), nil, 0o600))
	n.fails(n.del(p), 130, "pod default/p", "network former", "plugin older", "told to fail",
		"until its pods are gone")
	n.formerLeft("id-p-eth0", "former-id-p-eth0")
	n.must(os.Remove(n.path("stuck")))
	n.must(n.del(p))
	same(t, "calls of two DELs", n.formerCalls(), "DEL "+args+"DEL "+args)
	var told struct {
		Name          string
		PrevResult    json.RawMessage
		RuntimeConfig map[string]any
	}
	stdin, err := os.ReadFile(n.path("stdin"))
	n.must(err)
	n.must(json.Unmarshal(stdin, &told))
	if told.Name != "former" || !strings.Contains(string(told.PrevResult), "10.1.2.3") ||
		told.RuntimeConfig["portMappings"] == nil {
		t.Errorf("DEL was told %s", stdin)
	}
	n.formerLeft()
	n.must(n.del(p)) // the kubelet does so once more
	same(t, "calls of a repeated DEL", n.formerCalls(), "")
	same(t, "Braid's own plugins were called", n.plugin.called(), nil)
	n.left([]*pod{p, own}, own.whole("pods eth0", "a net1")...)
	n.fails(n.check(p), 3, "not attached")
}

// GC looks for what Braid recorded, and for nothing of others.
func TestGCLeavesAnothersSandbox(t *testing.T) {
	n := newNode(t)
	p, own := n.pod("p", "a"), n.pod("own", "a")
	n.nads("a")
	n.formerly(p, former)
	n.must(n.add(own))
	n.must(n.gc(p))
	n.formerLeft("id-p-eth0", "former-id-p-eth0")
	n.must(n.gc())
	n.formerLeft("id-p-eth0", "former-id-p-eth0")
	same(t, "calls", n.formerCalls(), "")
}

// A plugin that is built in is run as the binary that made the sandbox, where that is there.
func TestAnothersSandboxOfBuiltinType(t *testing.T) {
	n := newNode(t)
	p := n.pod("p", "")
	n.must(os.MkdirAll(n.path("bin"), 0o700))
	n.must(os.Symlink("older", n.path("bin", pluginType)))
	n.formerly(p, strings.ReplaceAll(former, "older", pluginType))
	n.must(n.del(p))
	n.formerLeft()
	same(t, "the built-in plugin was called", n.plugin.called(), nil)
}

// What made a sandbox may be gone from the node. Then Braid removes what it would have made itself.
func TestAnothersSandboxWithoutItsPlugin(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.formerly(p, former)
	n.must(os.Remove(n.path("bin/older")))
	err := n.check(p)
	if failure.ReasonOf(err) != failure.PluginFailed || !strings.Contains(err.Error(), "older") {
		t.Errorf("CHECK: %v", err)
	}
	n.must(n.del(p))
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "DEL eth0"})
}

// The runtime's cache says of Braid's own sandboxes that they are its own, and of those that are
// damaged nothing. Its entries go where no runtime asks for them any more.
func TestRuntimeCacheOfOwnSandbox(t *testing.T) {
	for name, entry := range map[string]string{
		"own": `{"kind": "cniCacheV1", "containerId": "id-p", "ifName": "eth0", ` +
			`"networkName": "braid", "config": %q}`, "truncated": `{"kind": "cni`,
		"of another container": `{"kind": "cniCacheV1", "containerId": "id", "ifName": "p-eth0", ` +
			`"networkName": "braid", "config": %q}`,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			p := n.pod("p", "")
			n.engine.RuntimeCache = n.path("runtime")
			n.must(os.MkdirAll(n.path("runtime/results"), 0o700))
			n.must(os.MkdirAll(n.path("bin"), 0o700))
			n.must(os.WriteFile(n.path("bin/braid"), []byte("#!/bin/sh\nexit 1\n"), 0o700)) // is not called
			config := []byte(`{"cniVersion": "1.0.0", "name": "braid", "plugins": [{"type": "braid"}]}`)
			if strings.Contains(entry, "%") {
				quoted, err := json.Marshal(config) // base64, as libcni has it
				n.must(err)
				entry = strings.Replace(entry, "%q", string(quoted), 1)
			}
			path := n.path("runtime/results/braid-id-p-eth0")
			n.must(os.WriteFile(path, []byte(entry), 0o600))
			n.must(n.del(p))
			same(t, "calls", n.plugin.called(), []string{"DEL eth0"})
			q := n.pod("q", "")
			n.must(n.add(q))
			n.must(os.WriteFile(filepath.Join(filepath.Dir(path), "braid-id-q-eth0"),
				[]byte(strings.ReplaceAll(entry, "id-p", "id-q")), 0o600))
			q.Unmount()
			_, err := n.engine.Drain(t.Context())
			n.must(err)
			_, err = os.Stat(filepath.Join(filepath.Dir(path), "braid-id-q-eth0"))
			if gone := os.IsNotExist(err); gone != (name == "own") {
				t.Errorf("after the drain the entry is gone: %t, %v", gone, err)
			}
		})
	}
}
