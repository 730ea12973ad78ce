package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/nettest"
)

// noPlugins leaves the node without a binary of the reference.
func (r *rig) noPlugins() {
	r.conf["binDir"], r.env = r.path("none"), append(r.env, "CNI_PATH="+r.path("bin"))
}

// What the reference ignores is ignored where no binary could know it, and the pod told.
func TestR32UnknownKeysWithoutABinary(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.noPlugins()
	r.nad("a",
		fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":"cni0","mode":"bridge",`+
			`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24","vendor":{"x":1}}}`,
			r.path("leases")))
	r.nad("b", `{"cniVersion":"1.0.0","type":"bridge","bridge":"cni0","ipam":{"type":"static",`+
		`"ranges":[[{"subnet":"10.13.0.0/24"}]],"addresses":[{"address":"10.13.0.7/24"}]}}`)
	p := r.pod("p", "a,b")
	r.add(p)
	same(t, "networks", r.networks(p)[1:],
		[]string{"default/a net1 10.12.0.2", "default/b net2 10.13.0.7"})
	r.warned(p, "IgnoredKey: default/a net1 bridge mode ignored",
		"IgnoredKey: default/a net1 host-local ipam.vendor",
		"IgnoredKey: default/b net2 static ipam.ranges")
	r.must("CHECK", p)
	r.must("STATUS", nil)
	r.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
	r.must("GC", nil)
	r.has(p, "eth0", "net1", "net2")
	delete(r.conf, "cni.dev/valid-attachments")
	r.must("DEL", p)
	r.clean(p)
}

// A binary that comes between ADD and DEL is not asked to remove what it did not make.
func TestR32BinaryThatComesLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.noPlugins()
	r.nad("a",
		fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":%q,"vendor":1,`+
			`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24","vendor":1}}`, nic,
			r.path("leases")))
	p, q := r.pod("p", "a"), r.pod("q", "a")
	r.add(p)
	r.fake("macvlan", failing("DEL", 7, "not mine"))
	r.fake("host-local", failing("DEL", 7, "not mine"))
	r.must("CHECK", p)
	r.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
	r.must("GC", nil)
	delete(r.conf, "cni.dev/valid-attachments")
	r.must("DEL", p)
	for _, call := range r.calls() {
		if !strings.HasSuffix(call, "GC ") && !strings.HasSuffix(call, "GC") {
			t.Errorf("the binary was asked for %q", call)
		}
	}
	r.clean(p)
	r.fake("macvlan", "")
	r.add(q) // a new pod is the binary's
	r.warned(q, "PluginExecuted: default/a net1 macvlan vendor "+r.path("bin/macvlan"),
		"PluginExecuted: host-local ipam.vendor")
	same(t, "calls", r.calls(), []string{"macvlan ADD net1"})
	r.must("CHECK", q)
	r.must("DEL", q)
	same(t, "calls", r.calls(), []string{"macvlan CHECK net1", "macvlan DEL net1"})
}

// A key that is most likely meant for another is refused, whether a binary is there or not.
func TestR32SlipsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, paths := range []string{r.path("bin"), pluginDir(t)} {
		r.conf["binDir"], r.env = r.path("none"), []string{"CNI_PATH=" + paths}
		for config, words := range map[string][]string{
			`{"cniVersion":"1.0.0","type":"bridge","vlans":5}`: {"plugin bridge", "vlans", "write vlan"},
			`{"cniVersion":"1.0.0","type":"macvlan",` +
				`"maste":"nic0"}`: {"plugin macvlan", "maste", "write master"},
			`{"cniVersion":"1.0.0","type":"macvlan","Master":"nic0",` +
				`"master":"nic0"}`: {"plugin macvlan", "master", "case alone"},
			`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"host-local",` +
				`"subnets":"10.12.0.0/24"}}`: {"plugin host-local", "ipam.subnets", "write subnet"},
			`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"static",` +
				`"address":[{"address":"10.1.1.1/8"}]}}`: {"plugin static", "ipam.address", "write addresses"},
		} {
			r.nad("a", config)
			r.refuses(r.pod("p", "a"), append(words, "default/a")...)
		}
	}
}

// "unknownKeys": "refuse" refuses what no binary may know.
func TestR32UnknownKeysRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.noPlugins()
	r.conf["braid"].(map[string]any)["unknownKeys"] = "refuse"
	r.nad("a", `{"cniVersion":"1.0.0","type":"bridge","mode":"bridge"}`)
	r.refuses(r.pod("p", "a"), "default/a", "plugin bridge", "field mode", "remove it")
	r.fake("bridge", "")
	q := r.pod("q", "a")
	r.add(q)
	r.warned(q, "PluginExecuted: bridge mode")
	r.must("DEL", q)
}

// Keys of a NAD match whatever their case, as with Multus.
func TestR34KeysOfANADMatchWithoutCase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.noPlugins()
	r.nad("a",
		fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","Master":%q,"IPAM":{"type":"host-local",`+
			`"DataDir":%q,"subnet":"10.12.0.0/24","Name":"x"}}`, nic, r.path("leases")))
	p := r.pod("p", "a")
	r.add(p)
	same(t, "networks", r.networks(p)[1:], []string{"default/a net1 10.12.0.2"})
	r.warned(p, "MiscasedKey: plugins[0].IPAM ipam", "MiscasedKey: macvlan Master master",
		"MiscasedKey: host-local ipam.DataDir dataDir", "MiscasedKey: ipam.Name name")
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
}

// alone calls braid under the name of a plugin, with its links and then dir in the plugin path,
// and returns what it prints on both.
func (r *rig) alone(
	kind, command string, p *pod, stdin, dir string,
) (stdout, stderr string, failed *types.Error) {
	r.t.Helper()
	warnings := filepath.Join(r.t.TempDir(), "stderr")
	file, err := os.Create(warnings)
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // a test reads it
	r.env = []string{"CNI_PATH=" + r.path("links") + ":" + dir}
	stdout, failed = r.standaloneTo(file, kind, command, p, stdin)
	data, err := os.ReadFile(warnings)
	if err != nil {
		r.t.Fatal(err)
	}
	return stdout, string(data), failed
}

func TestR34LinkTakesKeysInAnyCase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","NAME":"net","type":"macvlan","Master":%q,`+
		`"colour":"red","IPAM":{"type":"host-local","dataDir":%q,"Subnet":"10.11.0.0/24","Name":"x",`+
		`"colour":1}}`,
		nic, r.path("leases"))
	out, warnings, failed := r.alone("macvlan", "ADD", p, config, r.path("none"))
	if failed != nil || !strings.Contains(out, "10.11.0.2/24") {
		t.Fatalf("ADD: %s, %v", out, failed)
	}
	for _, word := range []string{
		"Master: the key is read as master", "colour: the key is ignored", "ipam.Subnet", "ipam.colour",
	} {
		if !strings.Contains(warnings, word) {
			t.Errorf("stderr does not say %q: %s", word, warnings)
		}
	}
	r.has(p, "net1")
	if _, _, failed := r.alone("macvlan", "DEL", p, config, r.path("none")); failed != nil {
		t.Error("DEL:", failed)
	}
	same(t, "leases", r.leases(), nil)
	twins := strings.Replace(config, `"colour":"red"`, `"master":"lo"`, 1)
	_, _, failed = r.alone("macvlan", "ADD", p, twins, r.path("none"))
	if failed == nil || failed.Code != 7 || !strings.Contains(failed.Msg, "case alone") {
		t.Errorf("two keys that differ by case: %v", failed)
	}
	if _, _, failed := r.alone("macvlan", "DEL", p, twins, r.path("none")); failed != nil {
		t.Error("DEL after that:", failed)
	}
	r.has(p)
}

// What only the reference does, its binary further down the path does.
func TestR34LinkRunsTheReferenceForIPTables(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"bridge","bridge":"br9",`+
		`"ipMasq":true,"ipMasqBackend":"iptables","ipam":{"type":"host-local","dataDir":%q,`+
		`"subnet":"10.11.0.0/24"}}`,
		r.path("leases"))
	r.fake("bridge", `[ "$CNI_COMMAND" != ADD ] || { echo '{"cniVersion":"1.0.0",`+
		`"ips":[{"address":"10.11.0.99/24"}]}'; exit; }`)
	out, warnings, failed := r.alone("bridge", "ADD", p, config, r.path("bin"))
	if failed != nil || !strings.Contains(out, "10.11.0.99") || warnings != "" {
		t.Fatalf("ADD: %s, %v, %s", out, failed, warnings)
	}
	if _, _, failed := r.alone("bridge", "DEL", p, config, r.path("bin")); failed != nil {
		t.Error("DEL:", failed)
	}
	same(t, "calls", r.calls(), []string{"bridge ADD net1", "bridge DEL net1"})
	// Copies of this program do not call each other for ever.
	r.mkdir("copies")
	copied, err := exec.Command("cp", r.braid, r.path("copies", "bridge")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, copied)
	}
	_, _, failed = r.alone("bridge", "ADD", p, config, r.path("copies"))
	if failed == nil || failed.Code != 7 || !strings.Contains(failed.Msg, "ipMasqBackend") ||
		!strings.Contains(failed.Msg, "install") {
		t.Errorf("without the reference: %v", failed)
	}
	r.has(p)
	// or the pod would never go
	if _, _, failed := r.alone("bridge", "DEL", p, config, r.path("none")); failed != nil {
		t.Error("DEL after that:", failed)
	}
	unknown := strings.Replace(config, `"ipMasqBackend":"iptables"`, `"colour":1`, 1)
	_, warnings, failed = r.alone("bridge", "ADD", p, unknown, r.path("bin"))
	if failed != nil || !strings.Contains(warnings, "colour") ||
		!strings.Contains(warnings, r.path("bin/bridge")) {
		t.Errorf("a key that the reference may know: %v, %s", failed, warnings)
	}
}
