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
func (h *host) noPlugins() {
	h.conf["binDir"], h.env = h.path("none"), append(h.env, "CNI_PATH="+h.path("bin"))
}

// What the reference ignores is ignored where no binary could know it, and the pod told.
func TestR32UnknownKeysWithoutABinary(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.noPlugins()
	h.nad("a",
		fmt.Sprintf(`{"cniVersion":"1.0.0","type":"bridge","bridge":"cni0","mode":"bridge",`+
			`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24","vendor":{"x":1}}}`,
			h.path("leases")))
	h.nad("b", `{"cniVersion":"1.0.0","type":"bridge","bridge":"cni0","ipam":{"type":"static",`+
		`"ranges":[[{"subnet":"10.13.0.0/24"}]],"addresses":[{"address":"10.13.0.7/24"}]}}`)
	p := h.pod("p", "a,b")
	h.add(p)
	same(t, "networks", h.networks(p)[1:],
		[]string{"default/a net1 10.12.0.2", "default/b net2 10.13.0.7"})
	h.warned(p, "IgnoredKey: default/a net1 bridge mode ignored",
		"IgnoredKey: default/a net1 host-local ipam.vendor",
		"IgnoredKey: default/b net2 static ipam.ranges")
	h.must("CHECK", p)
	h.must("STATUS", nil)
	h.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
	h.must("GC", nil)
	h.has(p, "eth0", "net1", "net2")
	delete(h.conf, "cni.dev/valid-attachments")
	h.must("DEL", p)
	h.clean(p)
}

// A binary that comes between ADD and DEL is not asked to remove what it did not make.
func TestR32BinaryThatComesLater(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.noPlugins()
	h.nad("a",
		fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":%q,"vendor":1,`+
			`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24","vendor":1}}`, nic,
			h.path("leases")))
	p, q := h.pod("p", "a"), h.pod("q", "a")
	h.add(p)
	h.fake("macvlan", failing("DEL", 7, "not mine"))
	h.fake("host-local", failing("DEL", 7, "not mine"))
	h.must("CHECK", p)
	h.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
	h.must("GC", nil)
	delete(h.conf, "cni.dev/valid-attachments")
	h.must("DEL", p)
	for _, call := range h.calls() {
		if !strings.HasSuffix(call, "GC ") && !strings.HasSuffix(call, "GC") {
			t.Errorf("the binary was asked for %q", call)
		}
	}
	h.clean(p)
	h.fake("macvlan", "")
	h.add(q) // a new pod is the binary's
	h.warned(q, "PluginExecuted: default/a net1 macvlan vendor "+h.path("bin/macvlan"),
		"PluginExecuted: host-local ipam.vendor")
	same(t, "calls", h.calls(), []string{"macvlan ADD net1"})
	h.must("CHECK", q)
	h.must("DEL", q)
	same(t, "calls", h.calls(), []string{"macvlan CHECK net1", "macvlan DEL net1"})
}

// A key that is most likely meant for another is refused, whether a binary is there or not.
func TestR32SlipsAreRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, paths := range []string{h.path("bin"), pluginDir(t)} {
		h.conf["binDir"], h.env = h.path("none"), []string{"CNI_PATH=" + paths}
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
			h.nad("a", config)
			h.refuses(h.pod("p", "a"), append(words, "default/a")...)
		}
	}
}

// "unknownKeys": "refuse" refuses what no binary may know.
func TestR32UnknownKeysRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.noPlugins()
	h.conf["braid"].(map[string]any)["unknownKeys"] = "refuse"
	h.nad("a", `{"cniVersion":"1.0.0","type":"bridge","mode":"bridge"}`)
	h.refuses(h.pod("p", "a"), "default/a", "plugin bridge", "field mode", "remove it")
	h.fake("bridge", "")
	q := h.pod("q", "a")
	h.add(q)
	h.warned(q, "PluginExecuted: bridge mode")
	h.must("DEL", q)
}

// Keys of a NAD match whatever their case, as with Multus.
func TestR34KeysOfANADMatchWithoutCase(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.noPlugins()
	h.nad("a",
		fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","Master":%q,"IPAM":{"type":"host-local",`+
			`"DataDir":%q,"subnet":"10.12.0.0/24","Name":"x"}}`, nic, h.path("leases")))
	p := h.pod("p", "a")
	h.add(p)
	same(t, "networks", h.networks(p)[1:], []string{"default/a net1 10.12.0.2"})
	h.warned(p, "MiscasedKey: plugins[0].IPAM ipam", "MiscasedKey: macvlan Master master",
		"MiscasedKey: host-local ipam.DataDir dataDir", "MiscasedKey: ipam.Name name")
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// alone calls braid under the name of a plugin, with its links and then dir in the plugin path,
// and returns what it prints on both.
func (h *host) alone(
	kind, command string, p *pod, stdin, dir string,
) (stdout, stderr string, failed *types.Error) {
	h.t.Helper()
	warnings := filepath.Join(h.t.TempDir(), "stderr")
	file, err := os.Create(warnings)
	if err != nil {
		h.t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // a test reads it
	h.env = []string{"CNI_PATH=" + h.path("links") + ":" + dir}
	stdout, failed = h.standaloneTo(file, kind, command, p, stdin)
	data, err := os.ReadFile(warnings)
	if err != nil {
		h.t.Fatal(err)
	}
	return stdout, string(data), failed
}

func TestR34LinkTakesKeysInAnyCase(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","NAME":"net","type":"macvlan","Master":%q,`+
		`"colour":"red","IPAM":{"type":"host-local","dataDir":%q,"Subnet":"10.11.0.0/24","Name":"x",`+
		`"colour":1}}`,
		nic, h.path("leases"))
	out, warnings, failed := h.alone("macvlan", "ADD", p, config, h.path("none"))
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
	h.has(p, "net1")
	if _, _, failed := h.alone("macvlan", "DEL", p, config, h.path("none")); failed != nil {
		t.Error("DEL:", failed)
	}
	same(t, "leases", h.leases(), nil)
	twins := strings.Replace(config, `"colour":"red"`, `"master":"lo"`, 1)
	_, _, failed = h.alone("macvlan", "ADD", p, twins, h.path("none"))
	if failed == nil || failed.Code != 7 || !strings.Contains(failed.Msg, "case alone") {
		t.Errorf("two keys that differ by case: %v", failed)
	}
	if _, _, failed := h.alone("macvlan", "DEL", p, twins, h.path("none")); failed != nil {
		t.Error("DEL after that:", failed)
	}
	h.has(p)
}

// What only the reference does, its binary further down the path does.
func TestR34LinkRunsTheReferenceForIPTables(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"bridge","bridge":"br9",`+
		`"ipMasq":true,"ipMasqBackend":"iptables","ipam":{"type":"host-local","dataDir":%q,`+
		`"subnet":"10.11.0.0/24"}}`,
		h.path("leases"))
	h.fake("bridge", `[ "$CNI_COMMAND" != ADD ] || { echo '{"cniVersion":"1.0.0",`+
		`"ips":[{"address":"10.11.0.99/24"}]}'; exit; }`)
	out, warnings, failed := h.alone("bridge", "ADD", p, config, h.path("bin"))
	if failed != nil || !strings.Contains(out, "10.11.0.99") || warnings != "" {
		t.Fatalf("ADD: %s, %v, %s", out, failed, warnings)
	}
	if _, _, failed := h.alone("bridge", "DEL", p, config, h.path("bin")); failed != nil {
		t.Error("DEL:", failed)
	}
	same(t, "calls", h.calls(), []string{"bridge ADD net1", "bridge DEL net1"})
	// Copies of this program do not call each other for ever.
	h.mkdir("copies")
	copied, err := exec.Command("cp", h.braid, h.path("copies", "bridge")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, copied)
	}
	_, _, failed = h.alone("bridge", "ADD", p, config, h.path("copies"))
	if failed == nil || failed.Code != 7 || !strings.Contains(failed.Msg, "ipMasqBackend") ||
		!strings.Contains(failed.Msg, "install") {
		t.Errorf("without the reference: %v", failed)
	}
	h.has(p)
	// or the pod would never go
	if _, _, failed := h.alone("bridge", "DEL", p, config, h.path("none")); failed != nil {
		t.Error("DEL after that:", failed)
	}
	unknown := strings.Replace(config, `"ipMasqBackend":"iptables"`, `"colour":1`, 1)
	_, warnings, failed = h.alone("bridge", "ADD", p, unknown, h.path("bin"))
	if failed != nil || !strings.Contains(warnings, "colour") ||
		!strings.Contains(warnings, h.path("bin/bridge")) {
		t.Errorf("a key that the reference may know: %v, %s", failed, warnings)
	}
}
