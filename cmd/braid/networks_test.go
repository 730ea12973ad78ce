package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// Items of the NPWG specification that only the whole shows: operations, their order, and what is
// in the pod in the end.

// dual has the default network, and macvlan networks made by it, assign addresses and default
// routes of both families.
func dual(h *host) {
	network := h.defaultNetwork()
	network["ipam"] = map[string]any{
		"type": "host-local", "dataDir": h.path("leases"),
		"ranges": []any{
			[]any{map[string]any{"subnet": "10.1.0.0/16"}}, []any{map[string]any{"subnet": "fd01::/64"}},
		},
		"routes": []any{map[string]any{"dst": "0.0.0.0/0"}, map[string]any{"dst": "::/0"}},
	}
	h.conf["delegates"] = []any{network}
}

const dualNAD = `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"static","addresses":[
	{"address":"10.11.0.2/24","gateway":"10.11.0.1"},{"address":"fd11::2/64","gateway":"fd11::1"}]}}`

// A pod without annotation gets all of its network from Braid, with every command.
func TestS1EveryOperationGoesThroughBraid(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "")
	h.add(p)
	h.has(p, "eth0")
	h.must("CHECK", p)
	h.must("STATUS", nil)
	h.must("VERSION", nil)
	h.conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": p.id, "ifname": "eth0"}}
	h.must("GC", nil)
	h.has(p, "eth0")
	h.must("DEL", p)
	h.clean(p)
}

// S4, "without spec: the network of the object's name on disk".
func TestS4NetworkOnDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("net.d/10-broken.conf", `{`)
	h.write("net.d/20-disk.conf", strings.Replace(h.macvlan(11, ""), "{", `{"name":"disk",`, 1))
	h.object("k8s.cni.cncf.io/v1", nadv1.Kind, "disk", map[string]any{}, nil)
	p := h.pod("p", "disk")
	h.add(p)
	h.has(p, "eth0", "net1")
	same(t, "leases", h.leases(), []string{"disk/10.11.0.2", "pods/10.1.0.2"})
	h.must("DEL", p)
	h.clean(p)
}

// S5, "names are DNS-1123 labels".
func TestS5NamesAreDNSLabels(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, name := range []string{"Bad", "a_b", "-a", "a.b", strings.Repeat("a", 64), "UP/a"} {
		p := h.pod("p", name)
		h.fails("ADD", p, 7, "default/p", "k8s.v1.cni.cncf.io/networks")
		h.clean(p)
	}
}

// S22, "the default route moves, per family".
func TestS22DefaultRouteMoves(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", `[{"name":"a","default-route":["10.11.0.1"]}]`)
	h.add(p)
	same(t, "default routes", defaults(table(p, 4, "main")),
		[]string{"default via 10.11.0.1 dev net1"})
	same(t, "status", h.status(p)[1].DefaultRoute, []string{"10.11.0.1"})
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

func TestS22DefaultRouteMovesInBothFamilies(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dual(h)
	h.nad("a", dualNAD)
	p := h.pod("p", `[{"name":"a","default-route":[]}]`)
	h.add(p)
	same(t, "IPv4", defaults(table(p, 4, "main")), []string{"default via 10.11.0.1 dev net1"})
	same(t, "IPv6", len(defaults(table(p, 6, "main"))), 1)
	got := defaults(table(p, 6, "main"))[0]
	if !strings.HasPrefix(got, "default via fd11::1 dev net1 ") {
		t.Errorf("IPv6 default route: %s", got)
	}
}

// M1 is S22: the old default route is gone, not only outweighed. M2: the other family keeps its
// own.
func TestM2OtherFamilyStays(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dual(h)
	h.nad("a", dualNAD)
	p := h.pod("p", `[{"name":"a","default-route":["10.11.0.1"]}]`)
	h.add(p)
	same(t, "IPv4", defaults(table(p, 4, "main")), []string{"default via 10.11.0.1 dev net1"})
	got := defaults(table(p, 6, "main"))
	if len(got) != 1 || !strings.HasPrefix(got[0], "default via fd01::1 dev eth0 ") {
		t.Errorf("IPv6 default routes: %q", got)
	}
}

// The DEL of a delegate names what its ADD named, although pod and NAD have changed since.
func TestS25SameOnAddAndDel(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.0.0","name":"first","type":"one"}`)
	p := h.pod("p", "a@data,a")
	h.add(p)
	h.nad("a", `{"cniVersion":"1.0.0","name":"second","type":"one"}`)
	h.pod("p", "")
	h.must("DEL", p)
	same(t, "calls", h.calls(),
		[]string{"one ADD data", "one ADD net2", "one DEL net2", "one DEL data"})
	for _, ifname := range []string{"data", "net2"} {
		for _, command := range []string{"ADD", "DEL"} {
			same(t, command, h.environment("one", command, p, ifname)["CNI_CONTAINERID"], p.id)
			same(t, command, h.stdin("one", command, p, ifname)["name"], any("first"))
		}
	}
}

// S29, "status: what others wrote stays".
func TestS29StatusOfOthersStays(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	other := `{"name":"other/hot","interface":"hot0","ips":["192.0.2.7"],"dns":{},` +
		`"example.com/x":{"y":1}}`
	p := h.pod("p", "a", nadv1.StatusAnnotation, "["+other+"]")
	h.add(p)
	data, err := os.ReadFile(h.path("manifests", "default_p.network-status.json"))
	if err != nil {
		t.Fatal(err)
	}
	var entries []json.RawMessage
	if err := json.Unmarshal(data, &entries); err != nil {
		t.Fatal(err)
	}
	same(t, "entries", len(entries), 3)
	if !slices.ContainsFunc(entries, func(e json.RawMessage) bool { return compact(t, e) == other }) {
		t.Errorf("the other's entry is gone: %s", data)
	}
}

// S39, "not before the default network is ready".
func TestS39NotReadyHoldsPodsBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["readinessindicatorfile"] = h.path("ready")
	p := h.pod("p", "")
	h.fails("ADD", p, 11, "default/p", "readinessindicatorfile")
	h.fails("STATUS", nil, 50, "not ready")
	h.clean(p)
	h.write("ready", "")
	h.must("STATUS", nil)
	h.add(p)
	h.has(p, "eth0")
}

// ... a DEL does not wait for it.
func TestS39NotReadyDoesNotHoldDelBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "")
	h.add(p)
	h.conf["readinessindicatorfile"] = h.path("ready")
	h.must("DEL", p)
	h.clean(p)
}

// three is a pod with three networks, of the plugins one, two and three.
func three(h *host) *pod {
	for _, kind := range []string{"one", "two", "three"} {
		h.nad("n-"+kind, `{"cniVersion":"1.0.0","type":"`+kind+`"}`)
	}
	return h.pod("p", "n-one,n-two,n-three")
}

// S41, "set-up: the first failure ends it".
func TestS41FirstFailureEndsTheAdd(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.fake("two", failing("ADD", 105, "no such VLAN"))
	h.fake("three", "")
	p := three(h)
	h.fails("ADD", p, 105, "default/p", "default/n-two", "plugin two", "no such VLAN")
	same(t, "calls", h.calls(),
		[]string{"one ADD net1", "two ADD net2", "two DEL net2", "one DEL net1"})
	h.clean(p)
	if _, err := os.Stat(h.path("manifests", "default_p.network-status.json")); !os.IsNotExist(err) {
		t.Errorf("a pod without networks has a network-status: %v", err)
	}
}

// S42, "tear-down: everything is attempted, the error is returned".
func TestS42TearDownGoesOnPastErrors(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.fake("two", `[ ! -e `+h.path("stuck")+` ] || { `+failing("DEL", 11, "still in use")+"\n}")
	h.fake("three", "")
	p := three(h)
	h.add(p)
	h.calls()
	h.write("stuck", "")
	h.fails("DEL", p, 11, "default/p", "default/n-two", "plugin two", "still in use")
	same(t, "calls", h.calls(), []string{"three DEL net3", "two DEL net2", "one DEL net1"})
	h.has(p)
	same(t, "leases", len(h.leases()), 0)
	h.remove("stuck")
	h.must("DEL", p)
	same(t, "calls of the retry", h.calls(), []string{"two DEL net2"})
	h.clean(p)
}

// S43, "no parallel attachments within a pod".
func TestS43OneAfterTheOther(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, kind := range []string{"one", "two", "three"} {
		h.fake(kind, `sleep 0.1; echo "$kind done" >>"$dir/list"`)
	}
	p := three(h)
	h.add(p)
	same(t, "calls", h.calls(),
		[]string{"one ADD net1", "one done", "two ADD net2", "two done", "three ADD net3", "three done"})
	h.must("DEL", p)
	same(t, "calls", h.calls(),
		[]string{"three DEL net3", "three done", "two DEL net2", "two done", "one DEL net1", "one done"})
}

// The runtime's port mappings are those of the pod's hostPorts: they reach the default network and
// no other.
func TestS45HostPortsOnlyToTheDefaultNetwork(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("ports", "")
	ports := map[string]any{"type": "ports", "capabilities": map[string]any{"portMappings": true}}
	h.conf["delegates"] = []any{
		map[string]any{
			"cniVersion": "1.0.0", "name": "pods", "plugins": []any{ports, h.defaultNetwork()},
		},
	}
	h.conf["capabilities"] = map[string]any{"portMappings": true}
	h.conf["runtimeConfig"] = map[string]any{
		"portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
	}
	h.nad("a", `{"cniVersion":"1.0.0","type":"ports","capabilities":{"portMappings":true}}`)
	p := h.pod("p", "a")
	h.add(p)
	h.must("DEL", p)
	for _, command := range []string{"ADD", "DEL"} {
		got := runtimeConfigOf(h.stdin("ports", command, p, "eth0"))
		same(t, command+" of the default network", got["portMappings"],
			h.conf["runtimeConfig"].(map[string]any)["portMappings"])
		same(t, command+" of net1",
			runtimeConfigOf(h.stdin("ports", command, p, "net1"))["portMappings"], nil)
	}
}
