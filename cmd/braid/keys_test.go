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
func (r *rig) cluster(network string) {
	r.conf["clusterNetwork"] = network
	r.conf["delegates"] = []any{map[string]any{"name": "ignored", "type": "nosuch"}}
}

// named gives a configuration a name.
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

// mkdir makes a directory of the rig.
func (r *rig) mkdir(elem ...string) {
	r.t.Helper()
	if err := os.MkdirAll(r.path(elem...), 0o700); err != nil {
		r.t.Fatal(err)
	}
}

// networks are the pod's networks by its network-status, as "name interface address".
func (r *rig) networks(p *pod) []string {
	r.t.Helper()
	var networks []string
	for _, s := range r.status(p) {
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
	for form, put := range map[string]func(r *rig, network string) (clusterNetwork, name string){
		"NAD": func(r *rig, network string) (string, string) {
			r.nad("kube-system/main", network)
			return "main", "kube-system/main"
		},
		"CNI name": func(r *rig, network string) (string, string) {
			r.write("net.d/10-other.conf", noSuch)
			r.write("net.d/20-main.conf", network)
			return "pods", "pods"
		},
		"directory": func(r *rig, network string) (string, string) {
			r.write("net.d/00-braid.conflist",
				`{"cniVersion":"1.0.0","name":"braid","plugins":[{"type":"braid"}]}`)
			r.write("net.d/05-other.txt", noSuch)
			r.write("net.d/10-main.conflist", `{"cniVersion":"1.0.0","name":"pods","plugins":[`+network+`]}`)
			r.write("net.d/20-other.conf", noSuch)
			return r.path("net.d"), "pods"
		},
		"file": func(r *rig, network string) (string, string) {
			r.write("main.conf", network)
			return r.path("main.conf"), "pods"
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			clusterNetwork, name := put(r, encode(t, r.defaultNetwork()))
			r.cluster(clusterNetwork)
			r.nad("a", r.macvlan(11, ""))
			p := r.pod("p", "a")
			r.must("STATUS", nil)
			same(t, "result", r.add(p).IPs[0].Address.String(), "10.1.0.2/16")
			r.has(p, "eth0", "net1")
			same(t, "networks", r.networks(p), []string{name + " eth0 10.1.0.2", "default/a net1 10.11.0.2"})
			same(t, "default", r.status(p)[0].Default, true)
			r.must("CHECK", p)
			r.remove("net.d")
			r.remove("manifests")
			r.must("DEL", p)
			r.clean(p)
		})
	}
}

// A CNI name can be one that no NAD can have.
func TestKeysClusterNetworkThatIsNoDNSName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("net.d/10-main.conf", encode(t, with(r.defaultNetwork(), "name", "My_net")))
	r.cluster("My_net")
	p := r.pod("p", "")
	r.must("STATUS", nil)
	r.add(p)
	same(t, "leases", r.leases(), []string{"My_net/10.1.0.2"})
	r.must("DEL", p)
	r.clean(p)
}

// A NAD of multusNamespace comes before a network on disk. Without either, no pod starts.
func TestKeysClusterNetworkNADBeforeDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	r.nad("kube-system/pods", r.macvlan(12, ""))
	r.nad("pods", noSuch) // of a namespace that does not count
	r.write("net.d/10-pods.conf", encode(t, r.defaultNetwork()))
	r.cluster("pods")
	p, q, none := r.pod("p", "a"), r.pod("q", "a"), r.pod("none", "a")
	r.add(p)
	same(t, "with both", r.networks(p),
		[]string{"kube-system/pods eth0 10.12.0.2", "default/a net1 10.11.0.2"})
	r.remove("manifests", nadv1.Kind+"-kube-system-pods.yaml")
	r.add(q)
	same(t, "on disk", r.networks(q), []string{"pods eth0 10.1.0.2", "default/a net1 10.11.0.3"})
	r.remove("net.d", "10-pods.conf")
	for _, missing := range []string{"pods", r.path("net.d"), r.path("main.conf")} {
		r.cluster(missing)
		r.fails("ADD", none, 7, "default/none", missing)
		r.fails("STATUS", nil, 50, missing)
	}
	for _, p := range []*pod{p, q, none} {
		r.must("DEL", p)
	}
	r.clean(p, q, none)
}

// All forms of clusterNetwork do for defaultNetworks too.
func TestKeysDefaultNetworks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("main.conf", encode(t, r.defaultNetwork()))
	r.nad("kube-system/storage", r.macvlan(11, ""))
	r.write("net.d/10-disk.conf", named(r.macvlan(12, ""), "disk"))
	r.write("backup.conf", named(r.macvlan(13, ""), "backup"))
	r.cluster(r.path("main.conf"))
	r.conf["defaultNetworks"] = []any{"storage", "disk", r.path("backup.conf")}
	r.nad("a", r.macvlan(14, ""))
	asks, silent, system := r.pod("asks", "a"), r.pod("silent", ""), r.pod("kube-system/system",
		"default/a")
	for _, p := range []*pod{asks, silent, system} {
		r.add(p)
		r.must("CHECK", p)
	}
	r.has(asks, "eth0", "net1", "net2", "net3", "net4")
	same(t, "pod with a network of its own", r.networks(asks), []string{
		"pods eth0 10.1.0.2", "kube-system/storage net1 10.11.0.2", "disk net2 10.12.0.2",
		"backup net3 10.13.0.2", "default/a net4 10.14.0.2",
	})
	r.has(silent, "eth0", "net1", "net2", "net3")
	same(t, "pod without", r.networks(silent), []string{
		"pods eth0 10.1.0.3", "kube-system/storage net1 10.11.0.3", "disk net2 10.12.0.3",
		"backup net3 10.13.0.3",
	})
	r.has(system, "eth0", "net1")
	same(t, "pod of kube-system", r.networks(system),
		[]string{"pods eth0 10.1.0.4", "default/a net1 10.14.0.3"})
	for _, p := range []*pod{asks, silent, system} {
		r.must("DEL", p)
	}
	r.clean(asks, silent, system)
}

// A network that every pod should get and that is not there keeps pods from starting, but not those
// of system namespaces; so the node is ready, and is cleaned up.
func TestKeysDefaultNetworksMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("main.conf", encode(t, r.defaultNetwork()))
	r.cluster(r.path("main.conf"))
	r.conf["defaultNetworks"] = []any{"storage"}
	p, system := r.pod("p", ""), r.pod("kube-system/system", "")
	r.must("STATUS", nil)
	r.fails("ADD", p, 7, "default/p", "storage")
	r.add(system)
	r.has(system, "eth0")
	r.conf["cni.dev/valid-attachments"] = []any{}
	r.must("GC", nil)
	r.clean(p, system)
}

func TestKeysSystemNamespaces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.write("main.conf", encode(t, r.defaultNetwork()))
	r.nad("kube-system/storage", r.macvlan(11, ""))
	r.cluster(r.path("main.conf"))
	r.conf["defaultNetworks"] = []any{"storage"}
	r.conf["systemNamespaces"] = []any{"infra", "admin"}
	one, two, other := r.pod("infra/one", ""), r.pod("admin/two", ""), r.pod("kube-system/other", "")
	for _, p := range []*pod{one, two, other} {
		r.add(p)
	}
	r.has(one, "eth0")
	r.has(two, "eth0")
	r.has(other, "eth0", "net1")
	r.conf["systemNamespaces"] = []any{}
	three := r.pod("infra/three", "")
	r.add(three)
	r.has(three, "eth0", "net1")
	for _, p := range []*pod{one, two, other, three} {
		r.must("DEL", p)
	}
	r.clean(one, two, other, three)
}

// The namespace of clusterNetwork, of defaultNetworks and of a pod's own default network.
func TestKeysMultusNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("networks/main", encode(t, r.defaultNetwork()))
	r.nad("networks/storage", r.macvlan(11, ""))
	r.nad("networks/blue", r.macvlan(12, ""))
	for _, name := range []string{"main", "storage", "blue"} {
		r.nad("kube-system/"+name, noSuch)
	}
	r.cluster("main")
	r.conf["defaultNetworks"] = []any{"storage"}
	r.conf["multusNamespace"] = "networks"
	p, q := r.pod("p", ""), r.pod("q", "", nadv1.DefaultNetworkAnnotation, "blue")
	r.add(p)
	same(t, "networks", r.networks(p),
		[]string{"networks/main eth0 10.1.0.2", "networks/storage net1 10.11.0.2"})
	r.add(q)
	same(t, "networks with a default network of its own", r.networks(q),
		[]string{"networks/blue eth0 10.12.0.2", "networks/storage net1 10.11.0.3"})
	r.must("DEL", p)
	r.must("DEL", q)
	r.clean(p, q)
}

// The annotation replaces the default network, of clusterNetwork or of delegates, and nothing else.
func TestKeysPodsOwnDefaultNetwork(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"clusterNetwork", "delegates"} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nad("kube-system/blue", r.macvlan(11, ""))
			r.nad("team/red", r.macvlan(12, ""))
			r.nad("a", r.macvlan(13, ""))
			if key == "clusterNetwork" {
				r.write("main.conf", encode(t, r.defaultNetwork()))
				r.cluster(r.path("main.conf"))
			}
			blue, red := r.pod("blue", "a", nadv1.DefaultNetworkAnnotation, "blue"), r.pod("team/red", "",
				nadv1.DefaultNetworkAnnotation, "team/red")
			plain := r.pod("plain", "a")
			same(t, "result", r.add(blue).IPs[0].Address.String(), "10.11.0.2/24")
			same(t, "result", r.add(red).IPs[0].Address.String(), "10.12.0.2/24")
			r.add(plain)
			same(t, "blue", r.networks(blue),
				[]string{"kube-system/blue eth0 10.11.0.2", "default/a net1 10.13.0.2"})
			same(t, "default", r.status(blue)[0].Default, true)
			same(t, "red", r.networks(red), []string{"team/red eth0 10.12.0.2"})
			same(t, "plain", r.networks(plain), []string{"pods eth0 10.1.0.2", "default/a net1 10.13.0.3"})
			r.has(blue, "eth0", "net1")
			r.has(red, "eth0")
			for _, p := range []*pod{blue, red, plain} {
				r.must("CHECK", p)
				r.must("DEL", p)
			}
			r.clean(blue, red, plain)
		})
	}
}

func TestKeysPodsOwnDefaultNetworkRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("kube-system/blue", r.macvlan(11, ""))
	r.nad("team/red", r.macvlan(12, ""))
	for annotation, reason := range map[string]string{
		"blue,blue": "InvalidAnnotation", "": "InvalidAnnotation", "team/red": "NADForbidden",
		"green":                                "NADNotFound",
		`[{"name":"blue","interface":"net7"}]`: "InvalidAnnotation",
	} {
		p := r.pod("p", "", nadv1.DefaultNetworkAnnotation, annotation)
		r.fails("ADD", p, 7, "default/p")
		e := r.lastEvent(p)
		same(t, "event of "+annotation, e.Reason, reason)
		if strings.Contains(e.Message, nadv1.NetworksAnnotation) {
			t.Errorf("%q is the wrong annotation", e.Message)
		}
		r.clean(p)
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
			r := statusRig(t, "")
			r.conf[test.key.(string)] = test.value
			for i, namespace := range []string{"team", "shared", "default"} {
				r.nad(namespace+"/a", r.macvlan(11+i, ""))
				p := r.pod("web/of-"+namespace, namespace+"/a")
				if !slices.Contains(test.allowed, namespace) {
					r.fails("ADD", p, 7, namespace+"/a", "globalNamespaces")
					same(t, "event", r.lastEvent(p).Reason, "NADForbidden")
					r.has(p)
					continue
				}
				r.add(p)
				r.has(p, "net1")
				same(t, "network", r.status(p)[1].Name, namespace+"/a")
			}
		})
	}
}

// auxiliary adds two fakes, and tuning between them, to every pod: the chain "extras" beside the
// file of the default network.
func auxiliary(r *rig) {
	r.mkdir("net.d", "extras")
	r.write("net.d/10-pods.conf", encode(r.t, r.defaultNetwork()))
	r.write("net.d/extras/10-first.conf", `{"name":"mine","type":"first","level":7}`)
	r.write("net.d/extras/20-tuning.conf",
		`{"type":"tuning","sysctl":{"net.ipv4.conf.eth0.arp_filter":"1"}}`)
	r.write("net.d/extras/30-second.conf", `{"type":"second"}`)
	r.write("net.d/extras/40-list.conflist", noSuch) // not of the chain
	r.fake("first", passOn)
	r.fake("second", passOn)
	r.cluster(r.path("net.d/10-pods.conf"))
	r.conf["auxiliaryCNIChainName"] = "extras"
}

func TestKeysAuxiliaryChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	auxiliary(r)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p, system := r.pod("p", "a"), r.pod("kube-system/system", "")
	for q, calls := range map[*pod][]string{
		p:      {"one ADD net1", "first ADD net2", "second ADD net2"},
		system: {"first ADD net1", "second ADD net1"},
	} {
		same(t, "result", len(r.add(q).IPs), 1)
		same(t, "calls of ADD", r.calls(), calls)
		r.has(q, "eth0")
		same(t, "arp_filter of eth0", sysctl(t, q, "net/ipv4/conf/eth0/arp_filter"), "1")
	}
	got := r.stdin("first", "ADD", p, "net2")
	same(t, "prevResult", got["prevResult"], any(map[string]any{"cniVersion": "1.1.0"}))
	same(t, "name and level", []any{got["name"], got["level"]}, []any{"extras", 7})
	// tuning would not find the interface that is named after the chain's place: there is none
	r.must("CHECK", p)
	same(t, "calls of CHECK", r.calls(), []string{"one CHECK net1"})
	r.remove("net.d", "extras", "30-second.conf") // the pod has it all the same
	r.must("DEL", p)
	same(t, "calls of DEL", r.calls(), []string{"second DEL net2", "first DEL net2", "one DEL net1"})
	r.must("DEL", system)
	same(t, "calls of DEL", r.calls(), []string{"second DEL net1", "first DEL net1"})
	r.clean(p, system)
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
	r := newRig(t)
	auxiliary(r)
	r.fake("second", failing("ADD", 104, "will not"))
	p := r.pod("p", "")
	r.fails("ADD", p, 104, "default/p", "extras", "plugin second", "will not")
	same(t, "calls", r.calls(),
		[]string{"first ADD net1", "second ADD net1", "second DEL net1", "first DEL net1"})
	r.clean(p)
	r.write("net.d/extras/15-broken.conf", "{")
	r.fails("ADD", p, 7, "default/p", "15-broken.conf")
	r.clean(p)
	r.cluster("pods") // has no directory beside it
	r.fails("ADD", p, 7, "auxiliaryCNIChainName")
	r.clean(p)
}

func TestKeysAuxiliaryChainWithoutPlugins(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	auxiliary(r)
	p := r.pod("p", "")
	r.remove("net.d", "extras")
	r.mkdir("net.d", "extras")
	r.add(p)
	r.must("DEL", p)
	same(t, "calls", len(r.calls()), 0)
	gone(t, r.path("manifests", "default_p.network-status.json"))
	r.clean(p)
}

func TestKeysBinDir(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	r.fake("one", `echo "in binDir" >>"$dir/list"`)
	if err := os.Rename(r.path("bin"), r.path("more")); err != nil {
		t.Fatal(err)
	}
	p, q, none := r.pod("p", "a"), r.pod("q", "a"), r.pod("none", "a")
	r.fails("ADD", none, 7, "default/a", "one", "install")
	r.conf["binDir"] = r.path("more")
	r.add(p)
	same(t, "not in CNI_PATH", r.calls(), []string{"one ADD net1", "in binDir"})
	r.fake("one", "")
	r.add(q)
	same(t, "in both", r.calls(), []string{"one ADD net1"})
	r.remove("bin", "one")
	r.must("DEL", p)
	r.must("DEL", q)
	same(t, "calls of DEL", r.calls(),
		[]string{"one DEL net1", "in binDir", "one DEL net1", "in binDir"})
	r.remove("more")
	r.fails("ADD", none, 7, "default/a", "one", r.path("bin")+" or ", " or "+r.path("more"))
	r.clean(p, q, none)
}

func TestKeysCNIDir(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.conf["cniDir"] = r.path("cache")
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.add(p)
	var got []string
	for _, path := range globbed(t, r.path("cache/results/*")) {
		got = append(got, strings.TrimPrefix(path, r.path("cache/results")+"/"))
	}
	same(t, "cache", got, []string{"a-id-p-net1", "pods-id-p-eth0"})
	gone(t, r.path("state/cni"))
	r.must("CHECK", p)
	r.must("DEL", p)
	same(t, "cache after DEL", len(globbed(t, r.path("cache/results/*"))), 0)
	r.clean(p)
}

func TestKeysLogFile(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	r.conf["logFile"] = r.path("logs", "other.log")
	p := r.pod("p", "")
	r.add(p)
	data, err := os.ReadFile(r.path("logs", "other.log"))
	if err != nil || !strings.Contains(string(data), "msg=ADD pod=default/p") {
		t.Errorf("log: %s, %v", data, err)
	}
	r.conf["logFile"] = ""
	r.must("DEL", p)
	after, err := os.ReadFile(r.path("logs", "other.log"))
	if err != nil || !bytes.Equal(after, data) {
		t.Errorf("log without logFile: %s, %v", after, err)
	}
	gone(t, r.path("braid.log"))
}

func TestKeysLogLevel(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	p := r.pod("p", "")
	for level, want := range map[string][]string{
		"debug": {"DEBUG", "ERROR", "INFO"}, "verbose": {"ERROR", "INFO", "WARN"},
		"info": {"ERROR", "INFO"},
		"warn": {"ERROR"}, "error": {"ERROR"}, "panic": {"ERROR"}, "Error": {"ERROR"},
		"loud": {"ERROR", "INFO", "WARN"},
	} {
		r.conf["logLevel"] = level
		r.fails("CHECK", p, 3)
		r.add(p)
		r.must("DEL", p)
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^time=\S+ level=(\S+) `).
			FindAllStringSubmatch(r.log(), -1) {
			got = append(got, m[1])
		}
		slices.Sort(got)
		same(t, level, slices.Compact(got), want)
		r.remove("braid.log")
	}
	r.conf["logLevel"] = 5
	r.fails("ADD", p, 7, "logLevel", "is a number")
}

func TestKeysLogToStderr(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	r.conf["logLevel"] = "info"
	for _, to := range []struct{ stderr, file bool }{
		{true, true}, {true, false}, {false, true}, {false, false},
	} {
		r.conf["logToStderr"], r.conf["logFile"] = to.stderr, ""
		if to.file {
			r.conf["logFile"] = r.path("braid.log")
		}
		r.write("braid.log", "")
		var stdout, stderr bytes.Buffer
		cmd := r.command("ADD", r.pod("p", ""))
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := r.node.Run(cmd.Run); err != nil || !json.Valid(stdout.Bytes()) {
			t.Fatalf("ADD: %v, %s", err, stdout.Bytes())
		}
		same(t, "on stderr", strings.Contains(stderr.String(), "msg=ADD pod=default/p"), to.stderr)
		same(t, "in the file", strings.Contains(r.log(), "msg=ADD pod=default/p"), to.file)
		same(t, "quiet", stderr.Len() == 0, !to.stderr)
		r.must("DEL", r.pod("p", ""))
	}
}

// Braid always remembers what a DEL could not remove, so either value is that of Multus's true.
func TestKeysRetryDeleteOnError(t *testing.T) {
	t.Parallel()
	for _, value := range []bool{true, false} {
		r := statusRig(t, "")
		r.conf["retryDeleteOnError"] = value
		r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
		r.fake("one", failing("DEL", 11, "still in use"))
		p := r.pod("p", "a")
		r.add(p)
		r.calls()
		r.fails("DEL", p, 11, "default/a", "still in use")
		same(t, "calls", r.calls(), []string{"one DEL net1", "main DEL eth0"})
		r.fake("one", "")
		r.must("DEL", p)
		same(t, "calls of the retry", r.calls(), []string{"one DEL net1"})
		r.clean(p)
	}
}

// The first delegate is the default network, further ones are networks of every pod:
// defaultNetworks and systemNamespaces go with clusterNetwork only. A delegate without a name has
// Braid's.
func TestKeysDelegates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.conf["delegates"] = []any{
		r.defaultNetwork(), json.RawMessage(r.macvlan(11, "")),
		json.RawMessage(named(r.macvlan(12, ""), "backup")),
	}
	r.conf["defaultNetworks"] = []any{"nosuch"}
	r.nad("a", r.macvlan(13, ""))
	asks, system, unnamed := r.pod("asks", "a"), r.pod("kube-system/system", ""), r.pod("unnamed", "a")
	r.add(asks)
	same(t, "pod with a network of its own", r.networks(asks), []string{
		"pods eth0 10.1.0.2", "braid net1 10.11.0.2", "backup net2 10.12.0.2", "default/a net3 10.13.0.2",
	})
	r.has(asks, "eth0", "net1", "net2", "net3")
	r.add(system)
	same(t, "pod of kube-system", r.networks(system),
		[]string{"pods eth0 10.1.0.3", "braid net1 10.11.0.3", "backup net2 10.12.0.3"})
	r.must("ADD", unnamed, "CNI_ARGS=") // a runtime without pods
	r.has(unnamed, "eth0", "net1", "net2")
	for _, p := range []*pod{asks, system, unnamed} {
		r.must("CHECK", p)
		r.must("DEL", p)
	}
	r.clean(asks, system, unnamed)
}

// passthru is built in; only with "exec" it is that of the plugin path, which has to be there then.
func TestKeysExec(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	r.fake(netconf.PassthruType, "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"passthru"}`)
	p, q, none := r.pod("p", "a"), r.pod("q", "a"), r.pod("none", "a")
	r.add(p)
	r.must("DEL", p)
	same(t, "built in", r.calls(), []string{"main ADD eth0", "main DEL eth0"})
	r.conf["braid"] = with(r.conf["braid"].(map[string]any), "exec", []any{"other", "passthru"})
	r.add(q)
	r.must("CHECK", q)
	r.must("DEL", q)
	same(t, "exec'd", r.calls(), []string{
		"main ADD eth0", "passthru ADD net1", "main CHECK eth0", "passthru CHECK net1",
		"passthru DEL net1", "main DEL eth0",
	})
	r.remove("bin", "passthru")
	r.fails("ADD", none, 7, "default/a", "passthru", "install")
	same(t, "calls", len(r.calls()), 0)
	r.clean(p, q, none)
}

// encoding/json does not look at the case of keys, so neither do Multus's configurations.
func TestKeysInAnyCase(t *testing.T) {
	t.Parallel()
	for form, change := range map[string]func(string) string{
		"upper": strings.ToUpper, "lower": strings.ToLower,
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nad("networks/main", encode(t, r.defaultNetwork()))
			r.nad("networks/storage", r.macvlan(11, ""))
			r.nad("team/a", `{"cniVersion":"1.0.0","type":"one"}`)
			r.fake("one", "")
			r.mkdir("more")
			if err := os.Rename(r.path("bin", "one"), r.path("more", "one")); err != nil {
				t.Fatal(err)
			}
			maps.Copy(r.conf, map[string]any{
				"clusterNetwork": "main", "defaultNetworks": []any{"storage"}, "multusNamespace": "networks",
				"systemNamespaces": []any{"infra"},
				"globalNamespaces": "team", "binDir": r.path("more"), "cniDir": r.path("cache"),
				"logLevel":               "error",
				"readinessIndicatorFile": r.path("ready"), "namespaceIsolation": true,
				"retryDeleteOnError": true,
			})
			all := map[string]any{}
			for key, value := range r.conf {
				if key != "braid" {
					key = change(key)
				}
				all[key] = value
			}
			r.conf = all
			p, system := r.pod("p", "team/a"), r.pod("infra/system", "team/a")
			r.fails("ADD", p, 11, "readinessindicatorfile")
			r.write("ready", "")
			r.add(p)
			r.add(system)
			same(t, "networks", r.networks(p)[:2],
				[]string{"networks/main eth0 10.1.0.2", "networks/storage net1 10.11.0.2"})
			same(t, "calls", r.calls(), []string{"one ADD net2", "one ADD net1"})
			r.has(system, "eth0")
			same(t, "cache", len(globbed(t, r.path("cache/results/*"))), 5)
			if log := r.log(); !strings.Contains(log, "level=ERROR") || strings.Contains(log, "level=INFO") {
				t.Errorf("log: %s", log)
			}
			r.must("DEL", p)
			r.must("DEL", system)
			same(t, "cache after DEL", len(globbed(t, r.path("cache/results/*"))), 0)
			r.clean(p, system)
		})
	}
}
