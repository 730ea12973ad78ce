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

func TestC1ResultOrErrorOnStdout(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.pod("p", "")
	out, err := r.exec("ADD", p)
	if err != nil || !json.Valid([]byte(out)) {
		t.Errorf("ADD: %q, %v", out, err)
	}
	for _, command := range []string{"CHECK", "DEL", "STATUS"} {
		if out, err := r.exec(command, p); err != nil || out != "" {
			t.Errorf("%s prints %q, %v", command, out, err)
		}
	}
	out, err = r.exec("FLY", p)
	if err == nil || !strings.Contains(out, `"code": 4`) {
		t.Errorf("unknown command: %q, %v", out, err)
	}
	out, err = r.exec("ADD", r.pod("q", "nosuch"))
	if err == nil || !json.Valid([]byte(out)) || !strings.Contains(out, `"code": 7`) ||
		!strings.Contains(out, `"cniVersion": "1.1.0"`) {
		t.Errorf("network that does not exist: %q, %v", out, err)
	}
}

func TestC2VersionCommand(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var got struct{ SupportedVersions []string }
	if err := json.Unmarshal([]byte(r.must("VERSION", nil)), &got); err != nil {
		t.Fatal(err)
	}
	same(t, "versions", got.SupportedVersions, []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"})
}

// Outside the CNI protocol, people ask for the version with a flag.
func TestC2VersionFlag(t *testing.T) {
	t.Parallel()
	cmd := newRig(t).command("", nil)
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
			r := newRig(t)
			r.conf["cniVersion"] = version
			p := r.pod("p", "")
			var got struct {
				CNIVersion string
				Interfaces []struct{ Name, Sandbox string }
				IPs        []struct{ Version, Address string }
			}
			if err := json.Unmarshal([]byte(r.must("ADD", p)), &got); err != nil {
				t.Fatal(err)
			}
			family := "4" // which every address says before 1.0.0
			if version >= "1" {
				family = ""
			}
			same(t, "cniVersion", got.CNIVersion, version)
			same(t, "addresses", got.IPs, []struct{ Version, Address string }{{family, "10.1.0.2/16"}})
			same(t, "interfaces", len(got.Interfaces), 3)
			r.must("DEL", p)
			r.clean(p)
		})
	}
}

func TestC2DelegatesOfEveryVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var networks []string
	for i, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		name := fmt.Sprintf("n%d", i)
		r.nad(name, strings.Replace(r.macvlan(11+i, ""), "1.0.0", version, 1))
		networks = append(networks, name)
	}
	p := r.pod("p", strings.Join(networks, ","))
	same(t, "cniVersion", r.add(p).CNIVersion, "1.1.0")
	r.has(p, "eth0", "net1", "net2", "net3", "net4", "net5")
	for i, s := range r.status(p)[1:] {
		same(t, s.Name, s.IPs, []string{fmt.Sprintf("10.%d.0.2", 11+i)})
	}
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
}

func TestC2CommandsBeforeTheirVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.pod("p", "")
	for version, commands := range map[string][]string{
		"0.3.0": {"CHECK", "GC", "STATUS"}, "0.3.1": {"CHECK", "GC", "STATUS"}, "0.4.0": {"GC", "STATUS"},
		"1.0.0": {"GC", "STATUS"},
	} {
		r.conf["cniVersion"] = version
		for _, command := range commands {
			r.fails(command, p, 1, command)
		}
	}
	r.conf["cniVersion"] = "2.0.0"
	r.fails("ADD", p, 1, "incompatible")
}

func TestC3SecondAddIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.add(p)
	before, leases := p.Snapshot(), r.leases()
	r.fails("ADD", p, 4, "default/p", "attached already")
	same(t, "pod", p.Snapshot(), before)
	same(t, "leases", r.leases(), leases)
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
}

// A link that Braid did not make is not taken, and the roll-back leaves it alone.
func TestC3ExistingInterfaceIsAnError(t *testing.T) {
	t.Parallel()
	for _, ifname := range []string{"eth0", "net1"} {
		t.Run(ifname, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nad("a", r.macvlan(11, ""))
			p := r.pod("p", "a")
			p.Bridge(ifname)
			before := p.Snapshot()
			r.fails("ADD", p, 4, "default/p", ifname, "already")
			same(t, "pod", p.Snapshot(), before)
			same(t, "left on the node", len(r.left()), 0)
		})
	}
}

// chain is a network of two fakes; the second passes the result of the first on.
func chain(r *rig) {
	r.fake("one", giving(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x"}],`+
		`"ips":[{"interface":0,"address":"192.0.2.5/24"}]}`))
	r.fake("two", passOn)
	r.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"one"},{"type":"two"}]}`)
}

func TestC4DelInReverseWithTheResult(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	chain(r)
	p := r.pod("p", "a")
	r.add(p)
	r.must("DEL", p)
	same(t, "calls", r.calls(),
		[]string{"one ADD net1", "two ADD net1", "two DEL net1", "one DEL net1"})
	want := r.stdin("two", "ADD", p, "net1")["prevResult"]
	if want == nil {
		t.Fatal("the second plugin got no prevResult")
	}
	for _, kind := range []string{"one", "two"} {
		same(t, kind, r.stdin(kind, "DEL", p, "net1")["prevResult"], want)
	}
}

func TestC4DelAfterFailedAdd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	r.nad("b", strings.Replace(r.macvlan(12, ""), nic, "nosuch0", 1))
	p := r.pod("p", "a,b")
	r.fails("ADD", p, 7, "default/p", "default/b", "plugin macvlan", "nosuch0", "no such interface")
	r.clean(p)
	r.must("DEL", p)
	r.clean(p)
	r.nad("b", r.macvlan(12, ""))
	r.add(p)
	r.has(p, "eth0", "net1", "net2")
}

func TestC5DelOfUnknownSandbox(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.must("DEL", p)
	r.must("DEL", p, "CNI_NETNS=")
	r.remove("manifests", "Pod-default-p.yaml")
	r.must("DEL", p)
	r.clean(p)
}

// everything is a pod with a chain of macvlan, sbr and tuning: sbr of the reference plugins fails
// without a namespace.
func everything(r *rig) *pod {
	macvlan := strings.Replace(r.macvlan(11, ""), `"cniVersion":"1.0.0",`, "", 1)
	r.nad("a", `{"cniVersion":"1.0.0","plugins":[`+macvlan+
		`,{"type":"sbr"},{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_notify":"1"}}]}`)
	p := r.pod("p", "a,a")
	r.add(p)
	return p
}

func TestC5DelWithNamespaceGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := everything(r)
	p.Unmount()
	r.must("DEL", p)
	r.clean()
	if _, err := os.Lstat(p.Path); !os.IsNotExist(err) {
		t.Errorf("there is something at the namespace's path: %v", err)
	}
	r.must("DEL", p)
}

func TestC5DelWithoutNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := everything(r)
	p.Unmount()
	r.must("DEL", p, "CNI_NETNS=")
	r.clean()
}

// A namespace path that is a file by now is no namespace.
func TestC5DelWithFileForNamespace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := everything(r)
	p.Unmount()
	r.write("netns", "not a namespace")
	r.must("DEL", p, "CNI_NETNS="+r.path("netns"))
	r.clean()
}

func TestC6CheckCoversEveryAttachment(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i, name := range []string{"a", "b", "c"} {
		r.nad(name, r.macvlan(11+i, ""))
	}
	p := r.pod("p", "a,b,c")
	r.add(p)
	r.must("CHECK", p)
	for _, ifname := range []string{"net1", "net3"} {
		p.Down(ifname)
		flush(p, ifname)
	}
	_, err := r.call("CHECK", p)
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
	r := newRig(t)
	r.fake("one", failing("CHECK", 100, "not as it was"))
	r.nad("checked", `{"cniVersion":"1.0.0","plugins":[{"type":"one"}]}`)
	r.nad("unchecked", `{"cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"one"}]}`)
	p := r.pod("p", "unchecked")
	r.add(p)
	r.must("CHECK", p)
	q := r.pod("q", "checked")
	r.add(q)
	r.fails("CHECK", q, 100, "default/checked", "plugin one", "not as it was")
}

func TestC6CheckOfUnknownSandbox(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fails("CHECK", r.pod("p", ""), 3, "default/p", "not attached")
}

// statusRig has a default network whose plugin answers STATUS.
func statusRig(t *testing.T, body string) *rig {
	t.Helper()
	r := newRig(t)
	r.fake("main", body)
	r.conf["delegates"] = []any{map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "main"}}
	return r
}

func TestC8Status(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	r.must("STATUS", nil)
	same(t, "calls", r.calls(), []string{"main STATUS"})
	same(t, "name", r.stdin("main", "STATUS", nil, "")["name"], any("pods"))
}

func TestC8FailureOfTheDelegateIsPassedOn(t *testing.T) {
	t.Parallel()
	for _, code := range []int{50, 51, 100} {
		r := statusRig(t, failing("STATUS", code, "address pool is empty"))
		r.fails("STATUS", nil, uint(code), "pods", "main", "address pool is empty")
	}
}

func TestC8NoPlugin(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	r.remove("bin", "main")
	r.fails("STATUS", nil, 50, "main")
}

// STATUS looks at the node only: it does not wait for an API server that does not answer.
func TestC8StatusIsImmediate(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	awayAPI(r)
	start := time.Now()
	r.must("STATUS", nil)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}

// STATUS asks no API server, also where the default network is a NAD: what the node knows of it
// counts.
func TestC8StatusAsksNoAPI(t *testing.T) {
	t.Parallel()
	r := statusRig(t, "")
	network := encode(t, r.conf["delegates"].([]any)[0])
	r.nad("kube-system/main", network)
	r.cluster("main")
	p := r.pod("p", "")
	local := r.conf["braid"]
	awayAPI(r)
	r.must("STATUS", nil)
	same(t, "calls, of an unknown network", r.calls(), nil)

	r.conf["readinessindicatorfile"] = r.path("ready")
	r.fails("STATUS", nil, 50, "not ready")
	delete(r.conf, "readinessindicatorfile")

	delete(r.conf, "kubeconfig")
	r.conf["braid"] = local
	r.add(p)
	awayAPI(r)
	r.calls()
	r.must("STATUS", nil)
	same(t, "calls, of a network that was used", r.calls(), []string{"main STATUS"})
	r.fake("main", failing("STATUS", 51, "half of it"))
	r.fails("STATUS", nil, 51, "kube-system/main", "half of it")

	r.write("net.d/10-disk.conf", strings.Replace(network, `"pods"`, `"disk"`, 1))
	r.cluster("disk")
	r.fails("STATUS", nil, 51, "disk", "half of it")
}

// awayAPI has Braid look for pods at an API server that does not answer.
func awayAPI(r *rig) {
	r.write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"k","cluster":{"server":"http://127.0.0.1:1"}}],"users":[{"name":"u","user":{"token":"t0ken"}}],
		"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}]}`)
	r.conf["kubeconfig"] = r.path("kubeconfig")
	r.conf["braid"] = map[string]any{
		"stateDir": r.path("state"), "dataRoots": []string{r.dir},
		"timeouts": map[string]any{"api": "500ms"},
	}
}

func TestC9CodeOfTheDelegate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, code := range []int{11, 104} {
		r.fake("one", failing("ADD", code, "come back later"))
		r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
		p := r.pod("p", "a")
		r.fails("ADD", p, uint(code), "default/p", "default/a", "plugin one", "come back later")
		r.clean(p)
	}
}

// What Braid does not know of a configuration reaches the plugin as it was written, integers beyond
// 2^53 included.
func TestC10UnknownFieldsReachThePlugin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"one","x":{"deep":[1,{"y":null}]},`+
		`"big":9007199254740993}`)
	p := r.pod("p", "a")
	r.add(p)
	r.must("CHECK", p)
	r.must("DEL", p)
	for _, command := range []string{"ADD", "CHECK", "DEL"} {
		got := r.noted("one", command, p, "net1", "json")
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
	r := newRig(t)
	r.fake("one", "")
	r.fake("two", "")
	r.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"one","capabilities":{"mac":true,`+
		`"bandwidth":true}},{"type":"two","capabilities":{"ips":true,"mac":false}}]}`)
	p := r.pod("p", `[{"name":"a","mac":"02:00:00:00:00:01","ips":["192.0.2.9/24"],`+
		`"bandwidth":{"ingressRate":1000}}]`)
	r.add(p)
	one, two := runtimeConfigOf(r.stdin("one", "ADD", p, "net1")), runtimeConfigOf(
		r.stdin("two", "ADD", p, "net1"))
	same(t, "one", one, map[string]any{
		"bandwidth": map[string]any{"ingressRate": 1000, "ingressBurst": 524288},
		"mac":       "02:00:00:00:00:01",
	})
	same(t, "two", two, map[string]any{"ips": []any{"192.0.2.9/24"}})
}

func TestC12PluginsOfTheSubdirectory(t *testing.T) {
	t.Parallel()
	for _, inlined := range []bool{false, true} {
		t.Run(fmt.Sprintf("loadOnlyInlinedPlugins=%v", inlined), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fake("extra", passOn)
			list, err := json.Marshal(map[string]any{
				"cniVersion": "1.0.0", "name": "pods", "plugins": []any{r.defaultNetwork()},
				"loadOnlyInlinedPlugins": inlined,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(r.path("net.d", "pods"), 0o700); err != nil {
				t.Fatal(err)
			}
			r.write("net.d/10-pods.conflist", string(list))
			r.write("net.d/pods/50-extra.conf", `{"type":"extra","level":7}`)
			delete(r.conf, "delegates")
			r.conf["clusterNetwork"] = r.path("net.d/10-pods.conflist")
			p := r.pod("p", "")
			same(t, "addresses", len(r.add(p).IPs), 1)
			r.must("DEL", p)
			r.clean(p)
			if inlined {
				same(t, "calls", r.calls(), nil)
				return
			}
			same(t, "calls", r.calls(), []string{"extra ADD eth0", "extra DEL eth0"})
			same(t, "level", r.stdin("extra", "ADD", p, "eth0")["level"], any(7))
		})
	}
}

const result11 = `{"cniVersion":"1.1.0",
	"interfaces":[{"name":"net1","mac":"02:00:00:00:00:01","mtu":1400,"sandbox":"/x","socketPath":"/run/s.sock","pciID":"0000:01:02.3"}],
	"ips":[{"interface":0,"address":"192.0.2.5/24","gateway":"192.0.2.1"}],
	"routes":[{"dst":"198.51.100.0/24","gw":"192.0.2.1","mtu":1300,"advmss":1260,"priority":7,"table":100,"scope":253}]}`

func TestC13FieldsOfResult11(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("main", giving(result11))
	r.conf["delegates"] = []any{map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "main"}}
	p := r.pod("p", "")
	var got, want any
	if err := json.Unmarshal([]byte(r.must("ADD", p)), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(result11), &want); err != nil {
		t.Fatal(err)
	}
	same(t, "result", got, want)
	r.must("DEL", p)
	same(t, "prevResult of DEL",
		r.stdin("main", "DEL", p, "eth0")["prevResult"].(map[string]any)["routes"],
		want.(map[string]any)["routes"])
}

func TestC14NamesOfTheRuntime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.pod("p", "")
	for _, env := range []string{
		"CNI_CONTAINERID=../x", "CNI_CONTAINERID=a b", "CNI_CONTAINERID=",
		"CNI_CONTAINERID=" + strings.Repeat("a", 200),
		"CNI_IFNAME=eth0:1", "CNI_IFNAME=a/b", "CNI_IFNAME=a b", "CNI_IFNAME=sixteenletters00",
		"CNI_IFNAME=..", "CNI_IFNAME=",
	} {
		out, err := r.call("ADD", p, env)
		if err == nil || err.Code != 4 {
			t.Errorf("%s: %s, %v", env, out, err)
		}
	}
	r.clean(p)
	r.conf["name"] = "a/b"
	r.fails("ADD", p, 7, "name")
	r.clean(p)
}

// Tools that look into libcni's cache, nerdctl among them, find every attachment there.
func TestC15CacheOfLibcni(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.add(p)
	cache := libcni.NewCNIConfigWithCacheDir(nil, r.path("state", "cni"), nil)
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
	r.must("DEL", p)
	if found, err := cache.GetCachedAttachments(p.id); err != nil || len(found) != 0 {
		t.Errorf("after DEL: %v, %v", found, err)
	}
}

func TestC16TraceContextReachesThePlugin(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p := r.pod("p", "a")
	trace := map[string]string{
		"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "TRACESTATE": "v=1",
		"BAGGAGE": "user=x",
	}
	var env []string
	for key, value := range trace {
		env = append(env, key+"="+value)
	}
	r.must("ADD", p, env...)
	r.must("DEL", p, env...)
	for _, command := range []string{"ADD", "DEL"} {
		got := r.environment("one", command, p, "net1")
		for key, value := range trace {
			same(t, command+" "+key, got[key], value)
		}
	}
}
