package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/netconf"
)

// The keys of Multus's configuration, by their effect on pods and node, and "exec" of Braid's own.
// What other tests show is not here: capabilities and runtimeConfig (S45), readinessindicatorfile
// (S39), logOptions (U20), confDir (S4), kubeconfig (C8, M5).

// noSuch is a network that no pod can get.
const noSuch = `{"cniVersion":"1.0.0","name":"other","type":"nosuch"}`

// cluster sets clusterNetwork, beside delegates that cannot be attached: with clusterNetwork they
// are ignored.
func (h *host) cluster(network string) {
	h.conf["clusterNetwork"] = network
	h.conf["delegates"] = []any{map[string]any{"name": "ignored", "type": "nosuch"}}
}

// named adds a name to a configuration.
func named(config, name string) string {
	return strings.Replace(config, "{", `{"name":"`+name+`",`, 1)
}

// encode is a value in JSON.
func encode(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// mkdir makes a directory of the host.
func (h *host) mkdir(elem ...string) {
	h.t.Helper()
	if err := os.MkdirAll(h.path(elem...), 0o700); err != nil {
		h.t.Fatal(err)
	}
}

// networks are the pod's networks by its network-status, as "name interface address".
func (h *host) networks(p *pod) []string {
	h.t.Helper()
	var networks []string
	for _, s := range h.status(p) {
		networks = append(networks, s.Name+" "+s.Interface+" "+strings.Join(s.IPs, ","))
	}
	return networks
}

// gone says that there is no such file.
func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

func TestKeysClusterNetwork(t *testing.T) {
	t.Parallel()
	for form, put := range map[string]func(h *host, network string) (clusterNetwork, name string){
		"NAD": func(h *host, network string) (string, string) {
			h.nad("kube-system/main", network)
			return "main", "kube-system/main"
		},
		"CNI name": func(h *host, network string) (string, string) {
			h.write("net.d/10-other.conf", noSuch)
			h.write("net.d/20-main.conf", network)
			return "pods", "pods"
		},
		"directory": func(h *host, network string) (string, string) {
			h.write("net.d/00-braid.conflist",
				`{"cniVersion":"1.0.0","name":"braid","plugins":[{"type":"braid"}]}`)
			h.write("net.d/05-other.txt", noSuch)
			h.write("net.d/10-main.conflist", `{"cniVersion":"1.0.0","name":"pods","plugins":[`+network+`]}`)
			h.write("net.d/20-other.conf", noSuch)
			return h.path("net.d"), "pods"
		},
		"file": func(h *host, network string) (string, string) {
			h.write("main.conf", network)
			return h.path("main.conf"), "pods"
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			clusterNetwork, name := put(h, encode(t, h.defaultNetwork()))
			h.cluster(clusterNetwork)
			h.nad("a", h.macvlan(11, ""))
			p := h.pod("p", "a")
			h.must("STATUS", nil)
			same(t, "result", h.add(p).IPs[0].Address.String(), "10.1.0.2/16")
			h.has(p, "eth0", "net1")
			same(t, "networks", h.networks(p), []string{name + " eth0 10.1.0.2", "default/a net1 10.11.0.2"})
			same(t, "default", h.status(p)[0].Default, true)
			h.must("CHECK", p)
			h.remove("net.d")
			h.remove("manifests")
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// A CNI name can be one that no NAD can have.
func TestKeysClusterNetworkThatIsNoDNSName(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("net.d/10-main.conf", encode(t, with(h.defaultNetwork(), "name", "My_net")))
	h.cluster("My_net")
	p := h.pod("p", "")
	h.must("STATUS", nil)
	h.add(p)
	same(t, "leases", h.leases(), []string{"My_net/10.1.0.2"})
	h.must("DEL", p)
	h.clean(p)
}

// A NAD of multusNamespace comes before a network on disk. Without either, no pod starts.
func TestKeysClusterNetworkNADBeforeDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("kube-system/pods", h.macvlan(12, ""))
	h.nad("pods", noSuch) // of a namespace that does not count
	h.write("net.d/10-pods.conf", encode(t, h.defaultNetwork()))
	h.cluster("pods")
	p, q, none := h.pod("p", "a"), h.pod("q", "a"), h.pod("none", "a")
	h.add(p)
	same(t, "with both", h.networks(p),
		[]string{"kube-system/pods eth0 10.12.0.2", "default/a net1 10.11.0.2"})
	h.remove("manifests", nadv1.Kind+"-kube-system-pods.yaml")
	h.add(q)
	same(t, "on disk", h.networks(q), []string{"pods eth0 10.1.0.2", "default/a net1 10.11.0.3"})
	h.remove("net.d", "10-pods.conf")
	for _, missing := range []string{"pods", h.path("net.d"), h.path("main.conf")} {
		h.cluster(missing)
		h.fails("ADD", none, 7, "default/none", missing)
		h.fails("STATUS", nil, 50, missing)
	}
	for _, p := range []*pod{p, q, none} {
		h.must("DEL", p)
	}
	h.clean(p, q, none)
}

// All forms of clusterNetwork do for defaultNetworks too.
func TestKeysDefaultNetworks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("main.conf", encode(t, h.defaultNetwork()))
	h.nad("kube-system/storage", h.macvlan(11, ""))
	h.write("net.d/10-disk.conf", named(h.macvlan(12, ""), "disk"))
	h.write("backup.conf", named(h.macvlan(13, ""), "backup"))
	h.cluster(h.path("main.conf"))
	h.conf["defaultNetworks"] = []any{"storage", "disk", h.path("backup.conf")}
	h.nad("a", h.macvlan(14, ""))
	asks, silent, system := h.pod("asks", "a"), h.pod("silent", ""), h.pod("kube-system/system",
		"default/a")
	for _, p := range []*pod{asks, silent, system} {
		h.add(p)
		h.must("CHECK", p)
	}
	h.has(asks, "eth0", "net1", "net2", "net3", "net4")
	same(t, "pod with a network of its own", h.networks(asks), []string{
		"pods eth0 10.1.0.2", "kube-system/storage net1 10.11.0.2", "disk net2 10.12.0.2",
		"backup net3 10.13.0.2", "default/a net4 10.14.0.2",
	})
	h.has(silent, "eth0", "net1", "net2", "net3")
	same(t, "pod without", h.networks(silent), []string{
		"pods eth0 10.1.0.3", "kube-system/storage net1 10.11.0.3", "disk net2 10.12.0.3",
		"backup net3 10.13.0.3",
	})
	h.has(system, "eth0", "net1")
	same(t, "pod of kube-system", h.networks(system),
		[]string{"pods eth0 10.1.0.4", "default/a net1 10.14.0.3"})
	for _, p := range []*pod{asks, silent, system} {
		h.must("DEL", p)
	}
	h.clean(asks, silent, system)
}

// A network that every pod should get and that is not there keeps pods from starting, but not those
// of system namespaces; so the node is ready, and is cleaned up.
func TestKeysDefaultNetworksMissing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("main.conf", encode(t, h.defaultNetwork()))
	h.cluster(h.path("main.conf"))
	h.conf["defaultNetworks"] = []any{"storage"}
	p, system := h.pod("p", ""), h.pod("kube-system/system", "")
	h.must("STATUS", nil)
	h.fails("ADD", p, 7, "default/p", "storage")
	h.add(system)
	h.has(system, "eth0")
	h.conf["cni.dev/valid-attachments"] = []any{}
	h.must("GC", nil)
	h.clean(p, system)
}

func TestKeysSystemNamespaces(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("main.conf", encode(t, h.defaultNetwork()))
	h.nad("kube-system/storage", h.macvlan(11, ""))
	h.cluster(h.path("main.conf"))
	h.conf["defaultNetworks"] = []any{"storage"}
	h.conf["systemNamespaces"] = []any{"infra", "admin"}
	one, two, other := h.pod("infra/one", ""), h.pod("admin/two", ""), h.pod("kube-system/other", "")
	for _, p := range []*pod{one, two, other} {
		h.add(p)
	}
	h.has(one, "eth0")
	h.has(two, "eth0")
	h.has(other, "eth0", "net1")
	h.conf["systemNamespaces"] = []any{}
	three := h.pod("infra/three", "")
	h.add(three)
	h.has(three, "eth0", "net1")
	for _, p := range []*pod{one, two, other, three} {
		h.must("DEL", p)
	}
	h.clean(one, two, other, three)
}

// The namespace of clusterNetwork, of defaultNetworks and of a pod's own default network.
func TestKeysMultusNamespace(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("networks/main", encode(t, h.defaultNetwork()))
	h.nad("networks/storage", h.macvlan(11, ""))
	h.nad("networks/blue", h.macvlan(12, ""))
	for _, name := range []string{"main", "storage", "blue"} {
		h.nad("kube-system/"+name, noSuch)
	}
	h.cluster("main")
	h.conf["defaultNetworks"] = []any{"storage"}
	h.conf["multusNamespace"] = "networks"
	p, q := h.pod("p", ""), h.pod("q", "", nadv1.DefaultNetworkAnnotation, "blue")
	h.add(p)
	same(t, "networks", h.networks(p),
		[]string{"networks/main eth0 10.1.0.2", "networks/storage net1 10.11.0.2"})
	h.add(q)
	same(t, "networks with a default network of its own", h.networks(q),
		[]string{"networks/blue eth0 10.12.0.2", "networks/storage net1 10.11.0.3"})
	h.must("DEL", p)
	h.must("DEL", q)
	h.clean(p, q)
}

// The annotation replaces the default network, of clusterNetwork or of delegates, and nothing else.
func TestKeysPodsOwnDefaultNetwork(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"clusterNetwork", "delegates"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("kube-system/blue", h.macvlan(11, ""))
			h.nad("team/red", h.macvlan(12, ""))
			h.nad("a", h.macvlan(13, ""))
			if key == "clusterNetwork" {
				h.write("main.conf", encode(t, h.defaultNetwork()))
				h.cluster(h.path("main.conf"))
			}
			blue, red := h.pod("blue", "a", nadv1.DefaultNetworkAnnotation, "blue"), h.pod("team/red", "",
				nadv1.DefaultNetworkAnnotation, "team/red")
			plain := h.pod("plain", "a")
			same(t, "result", h.add(blue).IPs[0].Address.String(), "10.11.0.2/24")
			same(t, "result", h.add(red).IPs[0].Address.String(), "10.12.0.2/24")
			h.add(plain)
			same(t, "blue", h.networks(blue),
				[]string{"kube-system/blue eth0 10.11.0.2", "default/a net1 10.13.0.2"})
			same(t, "default", h.status(blue)[0].Default, true)
			same(t, "red", h.networks(red), []string{"team/red eth0 10.12.0.2"})
			same(t, "plain", h.networks(plain), []string{"pods eth0 10.1.0.2", "default/a net1 10.13.0.3"})
			h.has(blue, "eth0", "net1")
			h.has(red, "eth0")
			for _, p := range []*pod{blue, red, plain} {
				h.must("CHECK", p)
				h.must("DEL", p)
			}
			h.clean(blue, red, plain)
		})
	}
}

func TestKeysPodsOwnDefaultNetworkRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("kube-system/blue", h.macvlan(11, ""))
	h.nad("team/red", h.macvlan(12, ""))
	for annotation, reason := range map[string]string{
		"blue,blue": "InvalidAnnotation", "": "InvalidAnnotation", "team/red": "NADForbidden",
		"green":                                "NADNotFound",
		`[{"name":"blue","interface":"net7"}]`: "InvalidAnnotation",
	} {
		p := h.pod("p", "", nadv1.DefaultNetworkAnnotation, annotation)
		h.fails("ADD", p, 7, "default/p")
		e := h.lastEvent(p)
		same(t, "event of "+annotation, e.Reason, reason)
		if strings.Contains(e.Message, nadv1.NetworksAnnotation) {
			t.Errorf("%q is the wrong annotation", e.Message)
		}
		h.clean(p)
	}
}

// Where globalNamespaces is set, "default" is global only if it is named.
func TestKeysGlobalNamespaces(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		key, value any
		allowed    []string // of team, shared and default
	}{
		"one string":   {"globalNamespaces", " team , shared ", []string{"team", "shared"}},
		"list":         {"globalNamespaces", []any{"shared"}, []string{"shared"}},
		"blank":        {"globalNamespaces", "", []string{"default"}},
		"no isolation": {"namespaceIsolation", false, []string{"team", "shared", "default"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := statusHost(t, "")
			h.conf[test.key.(string)] = test.value
			for i, namespace := range []string{"team", "shared", "default"} {
				h.nad(namespace+"/a", h.macvlan(11+i, ""))
				p := h.pod("web/of-"+namespace, namespace+"/a")
				if !slices.Contains(test.allowed, namespace) {
					h.fails("ADD", p, 7, namespace+"/a", "globalNamespaces")
					same(t, "event", h.lastEvent(p).Reason, "NADForbidden")
					h.has(p)
					continue
				}
				h.add(p)
				h.has(p, "net1")
				same(t, "network", h.status(p)[1].Name, namespace+"/a")
			}
		})
	}
}

// auxiliary adds two fakes, and tuning between them, to every pod: the chain "extras" beside the
// file of the default network.
func auxiliary(h *host) {
	h.mkdir("net.d", "extras")
	h.write("net.d/10-pods.conf", encode(h.t, h.defaultNetwork()))
	h.write("net.d/extras/10-first.conf", `{"name":"mine","type":"first","level":7}`)
	h.write("net.d/extras/20-tuning.conf",
		`{"type":"tuning","sysctl":{"net.ipv4.conf.eth0.arp_filter":"1"}}`)
	h.write("net.d/extras/30-second.conf", `{"type":"second"}`)
	h.write("net.d/extras/40-list.conflist", noSuch) // not of the chain
	h.fake("first", passOn)
	h.fake("second", passOn)
	h.cluster(h.path("net.d/10-pods.conf"))
	h.conf["auxiliaryCNIChainName"] = "extras"
}

func TestKeysAuxiliaryChain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	auxiliary(h)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p, system := h.pod("p", "a"), h.pod("kube-system/system", "")
	for q, calls := range map[*pod][]string{
		p:      {"one ADD net1", "first ADD net2", "second ADD net2"},
		system: {"first ADD net1", "second ADD net1"},
	} {
		same(t, "result", len(h.add(q).IPs), 1)
		same(t, "calls of ADD", h.calls(), calls)
		h.has(q, "eth0")
		same(t, "arp_filter of eth0", sysctl(t, q, "net/ipv4/conf/eth0/arp_filter"), "1")
	}
	got := h.stdin("first", "ADD", p, "net2")
	same(t, "prevResult", got["prevResult"], any(map[string]any{"cniVersion": "1.1.0"}))
	same(t, "name and level", []any{got["name"], got["level"]}, []any{"extras", 7})
	// tuning would not find the interface that is named after the chain's place: there is none
	h.must("CHECK", p)
	same(t, "calls of CHECK", h.calls(), []string{"one CHECK net1"})
	h.remove("net.d", "extras", "30-second.conf") // the pod has it all the same
	h.must("DEL", p)
	same(t, "calls of DEL", h.calls(), []string{"second DEL net2", "first DEL net2", "one DEL net1"})
	h.must("DEL", system)
	same(t, "calls of DEL", h.calls(), []string{"second DEL net1", "first DEL net1"})
	h.clean(p, system)
}

// sysctl reads a value below /proc/sys in the pod.
func sysctl(t *testing.T, p *pod, name string) string {
	t.Helper()
	var value []byte
	err := p.Run(func() (err error) {
		value, err = os.ReadFile("/proc/sys/" + name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(value))
}

func TestKeysAuxiliaryChainFails(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	auxiliary(h)
	h.fake("second", failing("ADD", 104, "will not"))
	p := h.pod("p", "")
	h.fails("ADD", p, 104, "default/p", "extras", "plugin second", "will not")
	same(t, "calls", h.calls(),
		[]string{"first ADD net1", "second ADD net1", "second DEL net1", "first DEL net1"})
	h.clean(p)
	h.write("net.d/extras/15-broken.conf", "{")
	h.fails("ADD", p, 7, "default/p", "15-broken.conf")
	h.clean(p)
	h.cluster("pods") // has no directory beside it
	h.fails("ADD", p, 7, "auxiliaryCNIChainName")
	h.clean(p)
}

func TestKeysAuxiliaryChainWithoutPlugins(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	auxiliary(h)
	p := h.pod("p", "")
	h.remove("net.d", "extras")
	h.mkdir("net.d", "extras")
	h.add(p)
	h.must("DEL", p)
	same(t, "calls", len(h.calls()), 0)
	gone(t, h.path("manifests", "default_p.network-status.json"))
	h.clean(p)
}

func TestKeysBinDir(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	h.fake("one", `echo "in binDir" >>"$dir/list"`)
	if err := os.Rename(h.path("bin"), h.path("more")); err != nil {
		t.Fatal(err)
	}
	p, q, none := h.pod("p", "a"), h.pod("q", "a"), h.pod("none", "a")
	h.fails("ADD", none, 7, "default/a", "one", "install")
	h.conf["binDir"] = h.path("more")
	h.add(p)
	same(t, "not in CNI_PATH", h.calls(), []string{"one ADD net1", "in binDir"})
	h.fake("one", "")
	h.add(q)
	same(t, "in both", h.calls(), []string{"one ADD net1"})
	h.remove("bin", "one")
	h.must("DEL", p)
	h.must("DEL", q)
	same(t, "calls of DEL", h.calls(),
		[]string{"one DEL net1", "in binDir", "one DEL net1", "in binDir"})
	h.remove("more")
	h.fails("ADD", none, 7, "default/a", "one", h.path("bin")+" or ", " or "+h.path("more"))
	h.clean(p, q, none)
}

func TestKeysCNIDir(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["cniDir"] = h.path("cache")
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	var got []string
	for _, path := range globbed(t, h.path("cache/results/*")) {
		got = append(got, strings.TrimPrefix(path, h.path("cache/results")+"/"))
	}
	same(t, "cache", got, []string{"a-id-p-net1", "pods-id-p-eth0"})
	gone(t, h.path("state/cni"))
	h.must("CHECK", p)
	h.must("DEL", p)
	same(t, "cache after DEL", len(globbed(t, h.path("cache/results/*"))), 0)
	h.clean(p)
}

func TestKeysLogFile(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	h.conf["logFile"] = h.path("logs", "other.log")
	p := h.pod("p", "")
	h.add(p)
	data, err := os.ReadFile(h.path("logs", "other.log"))
	if err != nil || !strings.Contains(string(data), "msg=ADD pod=default/p") {
		t.Errorf("log: %s, %v", data, err)
	}
	h.conf["logFile"] = ""
	h.must("DEL", p)
	after, err := os.ReadFile(h.path("logs", "other.log"))
	if err != nil || !bytes.Equal(after, data) {
		t.Errorf("log without logFile: %s, %v", after, err)
	}
	gone(t, h.path("braid.log"))
}

func TestKeysLogLevel(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	p := h.pod("p", "")
	for level, want := range map[string][]string{
		"debug": {"DEBUG", "ERROR", "INFO"}, "verbose": {"ERROR", "INFO", "WARN"},
		"info": {"ERROR", "INFO"},
		"warn": {"ERROR"}, "error": {"ERROR"}, "panic": {"ERROR"}, "Error": {"ERROR"},
		"loud": {"ERROR", "INFO", "WARN"},
	} {
		h.conf["logLevel"] = level
		h.fails("CHECK", p, 3)
		h.add(p)
		h.must("DEL", p)
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^time=\S+ level=(\S+) `).
			FindAllStringSubmatch(h.log(), -1) {
			got = append(got, m[1])
		}
		slices.Sort(got)
		same(t, level, slices.Compact(got), want)
		h.remove("braid.log")
	}
	h.conf["logLevel"] = 5
	h.fails("ADD", p, 7, "logLevel", "is a number")
}

func TestKeysLogToStderr(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	h.conf["logLevel"] = "info"
	for _, to := range []struct{ stderr, file bool }{
		{true, true}, {true, false}, {false, true}, {false, false},
	} {
		h.conf["logToStderr"], h.conf["logFile"] = to.stderr, ""
		if to.file {
			h.conf["logFile"] = h.path("braid.log")
		}
		h.write("braid.log", "")
		var stdout, stderr bytes.Buffer
		cmd := h.command("ADD", h.pod("p", ""))
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := h.node.Run(cmd.Run); err != nil || !json.Valid(stdout.Bytes()) {
			t.Fatalf("ADD: %v, %s", err, stdout.Bytes())
		}
		same(t, "on stderr", strings.Contains(stderr.String(), "msg=ADD pod=default/p"), to.stderr)
		same(t, "in the file", strings.Contains(h.log(), "msg=ADD pod=default/p"), to.file)
		same(t, "quiet", stderr.Len() == 0, !to.stderr)
		h.must("DEL", h.pod("p", ""))
	}
}

// Braid always remembers what a DEL could not remove, so either value is that of Multus's true.
func TestKeysRetryDeleteOnError(t *testing.T) {
	t.Parallel()
	for _, value := range []bool{true, false} {
		h := statusHost(t, "")
		h.conf["retryDeleteOnError"] = value
		h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
		h.fake("one", failing("DEL", 11, "still in use"))
		p := h.pod("p", "a")
		h.add(p)
		h.calls()
		h.fails("DEL", p, 11, "default/a", "still in use")
		same(t, "calls", h.calls(), []string{"one DEL net1", "main DEL eth0"})
		h.fake("one", "")
		h.must("DEL", p)
		same(t, "calls of the retry", h.calls(), []string{"one DEL net1"})
		h.clean(p)
	}
}

// The first delegate is the default network, further ones are networks of every pod:
// defaultNetworks and systemNamespaces go with clusterNetwork only. A delegate without a name has
// Braid's.
func TestKeysDelegates(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["delegates"] = []any{
		h.defaultNetwork(), json.RawMessage(h.macvlan(11, "")),
		json.RawMessage(named(h.macvlan(12, ""), "backup")),
	}
	h.conf["defaultNetworks"] = []any{"nosuch"}
	h.nad("a", h.macvlan(13, ""))
	asks, system, unnamed := h.pod("asks", "a"), h.pod("kube-system/system", ""), h.pod("unnamed", "a")
	h.add(asks)
	same(t, "pod with a network of its own", h.networks(asks), []string{
		"pods eth0 10.1.0.2", "braid net1 10.11.0.2", "backup net2 10.12.0.2", "default/a net3 10.13.0.2",
	})
	h.has(asks, "eth0", "net1", "net2", "net3")
	h.add(system)
	same(t, "pod of kube-system", h.networks(system),
		[]string{"pods eth0 10.1.0.3", "braid net1 10.11.0.3", "backup net2 10.12.0.3"})
	h.must("ADD", unnamed, "CNI_ARGS=") // a runtime without pods
	h.has(unnamed, "eth0", "net1", "net2")
	for _, p := range []*pod{asks, system, unnamed} {
		h.must("CHECK", p)
		h.must("DEL", p)
	}
	h.clean(asks, system, unnamed)
}

// passthru is built in; only with "exec" it is that of the plugin path, which has to be there then.
func TestKeysExec(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	h.fake(netconf.PassthruType, "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"passthru"}`)
	p, q, none := h.pod("p", "a"), h.pod("q", "a"), h.pod("none", "a")
	h.add(p)
	h.must("DEL", p)
	same(t, "built in", h.calls(), []string{"main ADD eth0", "main DEL eth0"})
	h.conf["braid"] = with(h.conf["braid"].(map[string]any), "exec", []any{"other", "passthru"})
	h.add(q)
	h.must("CHECK", q)
	h.must("DEL", q)
	same(t, "exec'd", h.calls(), []string{
		"main ADD eth0", "passthru ADD net1", "main CHECK eth0", "passthru CHECK net1",
		"passthru DEL net1", "main DEL eth0",
	})
	h.remove("bin", "passthru")
	h.fails("ADD", none, 7, "default/a", "passthru", "install")
	same(t, "calls", len(h.calls()), 0)
	h.clean(p, q, none)
}

// encoding/json does not look at the case of keys, so neither do Multus's configurations.
func TestKeysInAnyCase(t *testing.T) {
	t.Parallel()
	for form, change := range map[string]func(string) string{
		"upper": strings.ToUpper, "lower": strings.ToLower,
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("networks/main", encode(t, h.defaultNetwork()))
			h.nad("networks/storage", h.macvlan(11, ""))
			h.nad("team/a", `{"cniVersion":"1.0.0","type":"one"}`)
			h.fake("one", "")
			h.mkdir("more")
			if err := os.Rename(h.path("bin", "one"), h.path("more", "one")); err != nil {
				t.Fatal(err)
			}
			maps.Copy(h.conf, map[string]any{
				"clusterNetwork": "main", "defaultNetworks": []any{"storage"}, "multusNamespace": "networks",
				"systemNamespaces": []any{"infra"},
				"globalNamespaces": "team", "binDir": h.path("more"), "cniDir": h.path("cache"),
				"logLevel":               "error",
				"readinessIndicatorFile": h.path("ready"), "namespaceIsolation": true,
				"retryDeleteOnError": true,
			})
			all := map[string]any{}
			for key, value := range h.conf {
				if key != "braid" {
					key = change(key)
				}
				all[key] = value
			}
			h.conf = all
			p, system := h.pod("p", "team/a"), h.pod("infra/system", "team/a")
			h.fails("ADD", p, 11, "readinessindicatorfile")
			h.write("ready", "")
			h.add(p)
			h.add(system)
			same(t, "networks", h.networks(p)[:2],
				[]string{"networks/main eth0 10.1.0.2", "networks/storage net1 10.11.0.2"})
			same(t, "calls", h.calls(), []string{"one ADD net2", "one ADD net1"})
			h.has(system, "eth0")
			same(t, "cache", len(globbed(t, h.path("cache/results/*"))), 5)
			if log := h.log(); !strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=INFO") {
				t.Errorf("log: %s", log)
			}
			h.must("DEL", p)
			h.must("DEL", system)
			same(t, "cache after DEL", len(globbed(t, h.path("cache/results/*"))), 0)
			h.clean(p, system)
		})
	}
}
