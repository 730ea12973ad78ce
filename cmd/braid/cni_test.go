package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Items of the CNI specification 1.1, by what the runtime sees of Braid and by what Braid's
// delegates see of their runtime.

// C1, "commands, result or error, exit code".
func TestC1ResultOrErrorOnStdout(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "")
	out, err := h.exec("ADD", p)
	if err != nil || !json.Valid([]byte(out)) {
		t.Errorf("ADD: %q, %v", out, err)
	}
	for _, command := range []string{"CHECK", "DEL", "STATUS"} {
		if out, err := h.exec(command, p); err != nil || out != "" {
			t.Errorf("%s prints %q, %v", command, out, err)
		}
	}
	out, err = h.exec("FLY", p)
	if err == nil || !strings.Contains(out, `"code": 4`) {
		t.Errorf("unknown command: %q, %v", out, err)
	}
	out, err = h.exec("ADD", h.pod("q", "nosuch"))
	if err == nil || !json.Valid([]byte(out)) || !strings.Contains(out, `"code": 7`) ||
		!strings.Contains(out, `"cniVersion": "1.1.0"`) {
		t.Errorf("network that does not exist: %q, %v", out, err)
	}
}

// C2, "versions 0.3.0 to 1.1.0".
func TestC2VersionCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var got struct{ SupportedVersions []string }
	if err := json.Unmarshal([]byte(h.must("VERSION", nil)), &got); err != nil {
		t.Fatal(err)
	}
	same(t, "versions", got.SupportedVersions, []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"})
}

// Outside the CNI protocol, people ask for the version with a flag.
func TestC2VersionFlag(t *testing.T) {
	t.Parallel()
	cmd := newHost(t).command("", nil)
	cmd.Args = append(cmd.Args, "--version")
	out, err := cmd.Output()
	if want := "braid devel, CNI 0.3.0 to 1.1.0\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
}

// The runtime gets the result in the version of Braid's configuration, whatever the delegates
// speak.
func TestC2ResultInBraidsVersion(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.conf["cniVersion"] = version
			p := h.pod("p", "")
			var got struct {
				CNIVersion string
				Interfaces []struct{ Name, Sandbox string }
				IPs        []struct{ Version, Address string }
			}
			if err := json.Unmarshal([]byte(h.must("ADD", p)), &got); err != nil {
				t.Fatal(err)
			}
			family := "4" // which every address says before 1.0.0
			if version >= "1" {
				family = ""
			}
			same(t, "cniVersion", got.CNIVersion, version)
			same(t, "addresses", got.IPs, []struct{ Version, Address string }{{family, "10.1.0.2/16"}})
			same(t, "interfaces", len(got.Interfaces), 3)
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

func TestC2DelegatesOfEveryVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var networks []string
	for i, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		name := fmt.Sprintf("n%d", i)
		h.nad(name, strings.Replace(h.macvlan(11+i, ""), "1.0.0", version, 1))
		networks = append(networks, name)
	}
	p := h.pod("p", strings.Join(networks, ","))
	same(t, "cniVersion", h.add(p).CNIVersion, "1.1.0")
	h.has(p, "eth0", "net1", "net2", "net3", "net4", "net5")
	for i, s := range h.status(p)[1:] {
		same(t, s.Name, s.IPs, []string{fmt.Sprintf("10.%d.0.2", 11+i)})
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

func TestC2CommandsBeforeTheirVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "")
	for version, commands := range map[string][]string{
		"0.3.0": {"CHECK", "GC", "STATUS"}, "0.3.1": {"CHECK", "GC", "STATUS"}, "0.4.0": {"GC", "STATUS"},
		"1.0.0": {"GC", "STATUS"},
	} {
		h.conf["cniVersion"] = version
		for _, command := range commands {
			h.fails(command, p, 1, command)
		}
	}
	h.conf["cniVersion"] = "2.0.0"
	h.fails("ADD", p, 1, "incompatible")
}

// C3, "ADD on an existing interface is an error".
func TestC3SecondAddIsAnError(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	before, leases := p.Snapshot(), h.leases()
	h.fails("ADD", p, 4, "default/p", "attached already")
	same(t, "pod", p.Snapshot(), before)
	same(t, "leases", h.leases(), leases)
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// A link that Braid did not make is not taken, and the roll-back leaves it alone.
func TestC3ExistingInterfaceIsAnError(t *testing.T) {
	t.Parallel()
	for _, ifname := range []string{"eth0", "net1"} {
		t.Run(ifname, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", h.macvlan(11, ""))
			p := h.pod("p", "a")
			p.Bridge(ifname)
			before := p.Snapshot()
			h.fails("ADD", p, 4, "default/p", ifname, "already")
			same(t, "pod", p.Snapshot(), before)
			same(t, "left on the node", len(h.left()), 0)
		})
	}
}

// chain is a network of two fakes; the second passes the result of the first on.
func chain(h *host) {
	h.fake("one", giving(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x"}],`+
		`"ips":[{"interface":0,"address":"192.0.2.5/24"}]}`))
	h.fake("two", passOn)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"one"},{"type":"two"}]}`)
}

// C4, "DEL in reverse with the result; after a failed ADD too".
func TestC4DelInReverseWithTheResult(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	chain(h)
	p := h.pod("p", "a")
	h.add(p)
	h.must("DEL", p)
	same(t, "calls", h.calls(),
		[]string{"one ADD net1", "two ADD net1", "two DEL net1", "one DEL net1"})
	want := h.stdin("two", "ADD", p, "net1")["prevResult"]
	if want == nil {
		t.Fatal("the second plugin got no prevResult")
	}
	for _, kind := range []string{"one", "two"} {
		same(t, kind, h.stdin(kind, "DEL", p, "net1")["prevResult"], want)
	}
}

func TestC4DelAfterFailedAdd(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", strings.Replace(h.macvlan(12, ""), nic, "nosuch0", 1))
	p := h.pod("p", "a,b")
	h.fails("ADD", p, 7, "default/p", "default/b", "plugin macvlan", "nosuch0", "no such interface")
	h.clean(p)
	h.must("DEL", p)
	h.clean(p)
	h.nad("b", h.macvlan(12, ""))
	h.add(p)
	h.has(p, "eth0", "net1", "net2")
}

// C5, "DEL is idempotent, also without a namespace".
func TestC5DelOfUnknownSandbox(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.must("DEL", p)
	h.must("DEL", p, "CNI_NETNS=")
	h.remove("manifests", "Pod-default-p.yaml")
	h.must("DEL", p)
	h.clean(p)
}

// everything is a pod with a chain of macvlan, sbr and tuning: sbr of the reference plugins fails
// without a namespace.
func everything(h *host) *pod {
	macvlan := strings.Replace(h.macvlan(11, ""), `"cniVersion":"1.0.0",`, "", 1)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+macvlan+
		`,{"type":"sbr"},{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_notify":"1"}}]}`)
	p := h.pod("p", "a,a")
	h.add(p)
	return p
}

func TestC5DelWithNamespaceGone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := everything(h)
	p.Unmount()
	h.must("DEL", p)
	h.clean()
	if _, err := os.Lstat(p.Path); !os.IsNotExist(err) {
		t.Errorf("there is something at the namespace's path: %v", err)
	}
	h.must("DEL", p)
}

func TestC5DelWithoutNamespace(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := everything(h)
	p.Unmount()
	h.must("DEL", p, "CNI_NETNS=")
	h.clean()
}

// A namespace path that is a file by now is no namespace.
func TestC5DelWithFileForNamespace(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := everything(h)
	p.Unmount()
	h.write("netns", "not a namespace")
	h.must("DEL", p, "CNI_NETNS="+h.path("netns"))
	h.clean()
}

// C6, "CHECK of every attachment; disableCheck".
func TestC6CheckCoversEveryAttachment(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for i, name := range []string{"a", "b", "c"} {
		h.nad(name, h.macvlan(11+i, ""))
	}
	p := h.pod("p", "a,b,c")
	h.add(p)
	h.must("CHECK", p)
	for _, ifname := range []string{"net1", "net3"} {
		p.Down(ifname)
		flush(p, ifname)
	}
	_, err := h.call("CHECK", p)
	if err == nil || !strings.Contains(err.Msg, "default/a") ||
		!strings.Contains(err.Msg, "default/c") || strings.Contains(err.Msg, "default/b") {
		t.Errorf("CHECK of net1 and net3 without addresses: %v", err)
	}
}

// flush takes all addresses from an interface.
func flush(p *pod, ifname string) {
	link := p.Link(ifname)
	list, err := p.Netlink().AddrList(link, 0)
	for i := 0; err == nil && i < len(list); i++ {
		err = p.Netlink().AddrDel(link, &list[i])
	}
	if err != nil {
		panic(err)
	}
}

func TestC6DisableCheck(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", failing("CHECK", 100, "not as it was"))
	h.nad("checked", `{"cniVersion":"1.0.0","plugins":[{"type":"one"}]}`)
	h.nad("unchecked", `{"cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"one"}]}`)
	p := h.pod("p", "unchecked")
	h.add(p)
	h.must("CHECK", p)
	q := h.pod("q", "checked")
	h.add(q)
	h.fails("CHECK", q, 100, "default/checked", "plugin one", "not as it was")
}

func TestC6CheckOfUnknownSandbox(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fails("CHECK", h.pod("p", ""), 3, "default/p", "not attached")
}

// statusHost has a default network whose plugin answers STATUS.
func statusHost(t *testing.T, body string) *host {
	t.Helper()
	h := newHost(t)
	h.fake("main", body)
	h.conf["delegates"] = []any{map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "main"}}
	return h
}

// C8, "STATUS: immediate, 50, 51, the delegate's".
func TestC8Status(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	h.must("STATUS", nil)
	same(t, "calls", h.calls(), []string{"main STATUS"})
	same(t, "name", h.stdin("main", "STATUS", nil, "")["name"], any("pods"))
}

func TestC8FailureOfTheDelegateIsPassedOn(t *testing.T) {
	t.Parallel()
	for _, code := range []int{50, 51, 100} {
		h := statusHost(t, failing("STATUS", code, "address pool is empty"))
		h.fails("STATUS", nil, uint(code), "pods", "main", "address pool is empty")
	}
}

func TestC8NoPlugin(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	h.remove("bin", "main")
	h.fails("STATUS", nil, 50, "main")
}

// STATUS looks at the node only: it does not wait for an API server that does not answer.
func TestC8StatusIsImmediate(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	awayAPI(h)
	start := time.Now()
	h.must("STATUS", nil)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// STATUS asks no API server, also where the default network is a NAD: what the node knows of it
// counts.
func TestC8StatusAsksNoAPI(t *testing.T) {
	t.Parallel()
	h := statusHost(t, "")
	network := encode(t, h.conf["delegates"].([]any)[0])
	h.nad("kube-system/main", network)
	h.cluster("main")
	p := h.pod("p", "")
	local := h.conf["braid"]
	awayAPI(h)
	h.must("STATUS", nil)
	same(t, "calls, of an unknown network", h.calls(), nil)

	h.conf["readinessindicatorfile"] = h.path("ready")
	h.fails("STATUS", nil, 50, "not ready")
	delete(h.conf, "readinessindicatorfile")

	delete(h.conf, "kubeconfig")
	h.conf["braid"] = local
	h.add(p)
	awayAPI(h)
	h.calls()
	h.must("STATUS", nil)
	same(t, "calls, of a network that was used", h.calls(), []string{"main STATUS"})
	h.fake("main", failing("STATUS", 51, "half of it"))
	h.fails("STATUS", nil, 51, "kube-system/main", "half of it")

	h.write("net.d/10-disk.conf", strings.Replace(network, `"pods"`, `"disk"`, 1))
	h.cluster("disk")
	h.fails("STATUS", nil, 51, "disk", "half of it")
}

// awayAPI has Braid look for pods at an API server that does not answer.
func awayAPI(h *host) {
	h.write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"k","cluster":{"server":"http://127.0.0.1:1"}}],"users":[{"name":"u","user":{"token":"t0ken"}}],
		"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}]}`)
	h.conf["kubeconfig"] = h.path("kubeconfig")
	h.conf["braid"] = map[string]any{
		"stateDir": h.path("state"), "dataRoots": []string{h.dir},
		"timeouts": map[string]any{"api": "500ms"},
	}
}

// C9, "error codes of delegates".
func TestC9CodeOfTheDelegate(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, code := range []int{11, 104} {
		h.fake("one", failing("ADD", code, "come back later"))
		h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
		p := h.pod("p", "a")
		h.fails("ADD", p, uint(code), "default/p", "default/a", "plugin one", "come back later")
		h.clean(p)
	}
}

// What Braid does not know of a configuration reaches the plugin as it was written, integers beyond
// 2^53 included.
func TestC10UnknownFieldsReachThePlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"one","x":{"deep":[1,{"y":null}]},`+
		`"big":9007199254740993}`)
	p := h.pod("p", "a")
	h.add(p)
	h.must("CHECK", p)
	h.must("DEL", p)
	for _, command := range []string{"ADD", "CHECK", "DEL"} {
		got := h.noted("one", command, p, "net1", "json")
		for _, want := range []string{`"x":{"deep":[1,{"y":null}]}`, `"big":9007199254740993`} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %s in %s", command, want, got)
			}
		}
	}
}

// Each plugin gets the values of the capabilities that it declares, and of no other.
func TestC11CapabilitiesReachThePlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.fake("two", "")
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"one","capabilities":{"mac":true,`+
		`"bandwidth":true}},{"type":"two","capabilities":{"ips":true,"mac":false}}]}`)
	p := h.pod("p", `[{"name":"a","mac":"02:00:00:00:00:01","ips":["192.0.2.9/24"],`+
		`"bandwidth":{"ingressRate":1000}}]`)
	h.add(p)
	one, two := runtimeConfigOf(h.stdin("one", "ADD", p, "net1")), runtimeConfigOf(
		h.stdin("two", "ADD", p, "net1"))
	same(t, "one", one, map[string]any{
		"bandwidth": map[string]any{"ingressRate": 1000, "ingressBurst": 524288},
		"mac":       "02:00:00:00:00:01",
	})
	same(t, "two", two, map[string]any{"ips": []any{"192.0.2.9/24"}})
}

// C12, "subdirectory chaining".
func TestC12PluginsOfTheSubdirectory(t *testing.T) {
	t.Parallel()
	for _, inlined := range []bool{false, true} {
		t.Run(fmt.Sprintf("loadOnlyInlinedPlugins=%v", inlined), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake("extra", passOn)
			list, err := json.Marshal(map[string]any{
				"cniVersion": "1.0.0", "name": "pods", "plugins": []any{h.defaultNetwork()},
				"loadOnlyInlinedPlugins": inlined,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(h.path("net.d", "pods"), 0o700); err != nil {
				t.Fatal(err)
			}
			h.write("net.d/10-pods.conflist", string(list))
			h.write("net.d/pods/50-extra.conf", `{"type":"extra","level":7}`)
			delete(h.conf, "delegates")
			h.conf["clusterNetwork"] = h.path("net.d/10-pods.conflist")
			p := h.pod("p", "")
			same(t, "addresses", len(h.add(p).IPs), 1)
			h.must("DEL", p)
			h.clean(p)
			if inlined {
				same(t, "calls", h.calls(), nil)
				return
			}
			same(t, "calls", h.calls(), []string{"extra ADD eth0", "extra DEL eth0"})
			same(t, "level", h.stdin("extra", "ADD", p, "eth0")["level"], any(7))
		})
	}
}

const result11 = `{"cniVersion":"1.1.0",
	"interfaces":[{"name":"net1","mac":"02:00:00:00:00:01","mtu":1400,"sandbox":"/x","socketPath":"/run/s.sock","pciID":"0000:01:02.3"}],
	"ips":[{"interface":0,"address":"192.0.2.5/24","gateway":"192.0.2.1"}],
	"routes":[{"dst":"198.51.100.0/24","gw":"192.0.2.1","mtu":1300,"advmss":1260,"priority":7,"table":100,"scope":253}]}`

// C13, "fields of results 1.1".
func TestC13FieldsOfResult11(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("main", giving(result11))
	h.conf["delegates"] = []any{map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "main"}}
	p := h.pod("p", "")
	var got, want any
	if err := json.Unmarshal([]byte(h.must("ADD", p)), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(result11), &want); err != nil {
		t.Fatal(err)
	}
	same(t, "result", got, want)
	h.must("DEL", p)
	same(t, "prevResult of DEL",
		h.stdin("main", "DEL", p, "eth0")["prevResult"].(map[string]any)["routes"],
		want.(map[string]any)["routes"])
}

// C14, "names: network, container, interface".
func TestC14NamesOfTheRuntime(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "")
	for _, env := range []string{
		"CNI_CONTAINERID=../x", "CNI_CONTAINERID=a b", "CNI_CONTAINERID=",
		"CNI_CONTAINERID=" + strings.Repeat("a", 200),
		"CNI_IFNAME=eth0:1", "CNI_IFNAME=a/b", "CNI_IFNAME=a b", "CNI_IFNAME=sixteenletters00",
		"CNI_IFNAME=..", "CNI_IFNAME=",
	} {
		out, err := h.call("ADD", p, env)
		if err == nil || err.Code != 4 {
			t.Errorf("%s: %s, %v", env, out, err)
		}
	}
	h.clean(p)
	h.conf["name"] = "a/b"
	h.fails("ADD", p, 7, "name")
	h.clean(p)
}

// Tools that look into libcni's cache, nerdctl among them, find every attachment there.
func TestC15CacheOfLibcni(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	cache := libcni.NewCNIConfigWithCacheDir(nil, h.path("state", "cni"), nil)
	found, err := cache.GetCachedAttachments(p.id)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range found {
		result, err := cache.GetNetworkListCachedResult(&libcni.NetworkConfigList{
			Name: a.Network, CNIVersion: "1.0.0",
		},
			&libcni.RuntimeConf{ContainerID: p.id, IfName: a.IfName})
		if err != nil {
			t.Fatal(err)
		}
		current, err := types100.GetResult(result)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "netns", a.NetNS, p.Path)
		got = append(got, fmt.Sprintf("%s %s %s", a.Network, a.IfName, current.IPs[0].Address.String()))
	}
	slices.Sort(got)
	same(t, "attachments", got, []string{"a net1 10.11.0.2/24", "pods eth0 10.1.0.2/16"})
	h.must("DEL", p)
	if found, err := cache.GetCachedAttachments(p.id); err != nil || len(found) != 0 {
		t.Errorf("after DEL: %v, %v", found, err)
	}
}

// C16, "trace context and arguments reach the plugins".
func TestC16TraceContextReachesThePlugin(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p := h.pod("p", "a")
	trace := map[string]string{
		"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "TRACESTATE": "v=1",
		"BAGGAGE": "user=x",
	}
	var env []string
	for key, value := range trace {
		env = append(env, key+"="+value)
	}
	h.must("ADD", p, env...)
	h.must("DEL", p, env...)
	for _, command := range []string{"ADD", "DEL"} {
		got := h.environment("one", command, p, "net1")
		for key, value := range trace {
			same(t, command+" "+key, got[key], value)
		}
	}
}
