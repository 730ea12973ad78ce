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
func (r *rig) formerly(p *pod, config string) {
	r.t.Helper()
	r.engine.RuntimeCache = r.path("runtime")
	r.must(os.MkdirAll(r.path("made"), 0o700))
	r.must(os.MkdirAll(r.path("bin"), 0o700))
	r.must(os.WriteFile(r.path("bin/older"), fmt.Appendf(nil, older, r.dir), 0o700))
	list, err := libcni.NetworkConfFromBytes([]byte(config))
	r.must(err)
	cni := libcni.NewCNIConfigWithCacheDir([]string{r.path("bin")}, r.path("runtime"), nil)
	_, err = cni.AddNetworkList(r.t.Context(), list, &libcni.RuntimeConf{
		ContainerID: p.id, NetNS: p.Path, IfName: "eth0",
		Args:           [][2]string{{"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.name}},
		CapabilityArgs: map[string]any{"portMappings": []any{map[string]any{"hostPort": 80}}},
	})
	r.must(err)
	r.must(os.Truncate(r.path("calls"), 0))
}

// formerLeft fails the test unless this is what the former plugin and the runtime's cache hold.
func (r *rig) formerLeft(want ...string) {
	r.t.Helper()
	var got []string
	for _, dir := range []string{"made", "runtime/results"} {
		files, err := os.ReadDir(r.path(dir))
		r.must(err)
		for _, f := range files {
			got = append(got, f.Name())
		}
	}
	same(r.t, "left of the former configuration", got, want)
}

func (r *rig) formerCalls() string {
	r.t.Helper()
	text, err := os.ReadFile(r.path("calls"))
	r.must(err)
	r.must(os.Truncate(r.path("calls"), 0))
	return string(text)
}

// A sandbox that another configuration made, as Multus's, is checked and removed by it, though the
// runtime asks Braid: the plugin gets what it would get from the runtime, and nothing is left of
// it.
func TestAnothersSandbox(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p, own := r.pod("p", "a"), r.pod("own", "a")
	r.formerly(p, former)
	r.must(r.add(own))
	r.plugin.called()
	args := p.Path + " K8S_POD_NAMESPACE=default;K8S_POD_NAME=p\n"

	r.must(r.check(p))
	same(t, "calls of CHECK", r.formerCalls(), "CHECK "+args)
	r.must(os.WriteFile(r.path("stuck"), nil, 0o600))
	r.fails(r.del(p), 130, "pod default/p", "network former", "plugin older", "told to fail",
		"until its pods are gone")
	r.formerLeft("id-p-eth0", "former-id-p-eth0")
	r.must(os.Remove(r.path("stuck")))
	r.must(r.del(p))
	same(t, "calls of two DELs", r.formerCalls(), "DEL "+args+"DEL "+args)
	var told struct {
		Name          string
		PrevResult    json.RawMessage
		RuntimeConfig map[string]any
	}
	stdin, err := os.ReadFile(r.path("stdin"))
	r.must(err)
	r.must(json.Unmarshal(stdin, &told))
	if told.Name != "former" || !strings.Contains(string(told.PrevResult), "10.1.2.3") ||
		told.RuntimeConfig["portMappings"] == nil {
		t.Errorf("DEL was told %s", stdin)
	}
	r.formerLeft()
	r.must(r.del(p)) // the kubelet does so once more
	same(t, "calls of a repeated DEL", r.formerCalls(), "")
	same(t, "Braid's own plugins were called", r.plugin.called(), nil)
	r.left([]*pod{p, own}, own.whole("pods eth0", "a net1")...)
	r.fails(r.check(p), 3, "not attached")
}

// GC looks for what Braid recorded, and for nothing of others.
func TestGCLeavesAnothersSandbox(t *testing.T) {
	r := newRig(t)
	p, own := r.pod("p", "a"), r.pod("own", "a")
	r.nads("a")
	r.formerly(p, former)
	r.must(r.add(own))
	r.must(r.gc(p))
	r.formerLeft("id-p-eth0", "former-id-p-eth0")
	r.must(r.gc())
	r.formerLeft("id-p-eth0", "former-id-p-eth0")
	same(t, "calls", r.formerCalls(), "")
}

// A plugin that is built in is run as the binary that made the sandbox, where that is there.
func TestAnothersSandboxOfBuiltinType(t *testing.T) {
	r := newRig(t)
	p := r.pod("p", "")
	r.must(os.MkdirAll(r.path("bin"), 0o700))
	r.must(os.Symlink("older", r.path("bin", pluginType)))
	r.formerly(p, strings.ReplaceAll(former, "older", pluginType))
	r.must(r.del(p))
	r.formerLeft()
	same(t, "the built-in plugin was called", r.plugin.called(), nil)
}

// What made a sandbox may be gone from the node. Then Braid removes what it would have made itself.
func TestAnothersSandboxWithoutItsPlugin(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.formerly(p, former)
	r.must(os.Remove(r.path("bin/older")))
	err := r.check(p)
	if failure.ReasonOf(err) != failure.PluginFailed || !strings.Contains(err.Error(), "older") {
		t.Errorf("CHECK: %v", err)
	}
	r.must(r.del(p))
	same(t, "calls", r.plugin.called(), []string{"DEL net1", "DEL eth0"})
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
			r := newRig(t)
			p := r.pod("p", "")
			r.engine.RuntimeCache = r.path("runtime")
			r.must(os.MkdirAll(r.path("runtime/results"), 0o700))
			r.must(os.MkdirAll(r.path("bin"), 0o700))
			r.must(os.WriteFile(r.path("bin/braid"), []byte("#!/bin/sh\nexit 1\n"), 0o700)) // is not called
			config := []byte(`{"cniVersion": "1.0.0", "name": "braid", "plugins": [{"type": "braid"}]}`)
			if strings.Contains(entry, "%") {
				quoted, err := json.Marshal(config) // base64, as libcni has it
				r.must(err)
				entry = strings.Replace(entry, "%q", string(quoted), 1)
			}
			path := r.path("runtime/results/braid-id-p-eth0")
			r.must(os.WriteFile(path, []byte(entry), 0o600))
			r.must(r.del(p))
			same(t, "calls", r.plugin.called(), []string{"DEL eth0"})
			q := r.pod("q", "")
			r.must(r.add(q))
			r.must(os.WriteFile(filepath.Join(filepath.Dir(path), "braid-id-q-eth0"),
				[]byte(strings.ReplaceAll(entry, "id-p", "id-q")), 0o600))
			q.Unmount()
			_, err := r.engine.Drain(t.Context())
			r.must(err)
			_, err = os.Stat(filepath.Join(filepath.Dir(path), "braid-id-q-eth0"))
			if gone := os.IsNotExist(err); gone != (name == "own") {
				t.Errorf("after the drain the entry is gone: %t, %v", gone, err)
			}
		})
	}
}
