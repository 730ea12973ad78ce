package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nodeid"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/plugins/builtin"
)

// whereabouts is the configuration of a NAD with cluster-wide addresses; ipam and more are put into
// it.
func (h *host) whereabouts(kind, ipam, more string) string {
	return fmt.Sprintf(`{"type":%q,"master":%q,"ipam":{"type":"whereabouts",%s}%s}`,
		kind, nic, ipam, more)
}

// address is the pod's address of an interface, without the length.
func (h *host) address(p *pod, ifname string) string {
	h.t.Helper()
	for _, s := range h.status(p) {
		if s.Interface == ifname && len(s.IPs) > 0 {
			return s.IPs[0]
		}
	}
	h.t.Fatalf("pod %s has no address on %s", p.name, ifname)
	return ""
}

// Networks whose ranges overlap never assign the same address, and assign every one.
func TestWhereabouts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/29"`, "")+`]}`)
	h.nad("b", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/30","ipRanges":[{"range":"fd20::/64"}]`, "")+`]}`)
	var pods []*pod
	seen := map[string]bool{}
	for i := range 3 {
		p := h.pod(fmt.Sprint("p", i), "a,a")
		if i == 0 {
			p = h.pod("p0", "b,b")
		}
		h.add(p)
		h.must("CHECK", p)
		for _, ifname := range []string{"net1", "net2"} {
			seen[h.address(p, ifname)] = true
		}
		pods = append(pods, p)
	}
	same(t, "addresses", len(seen), 6)
	q := h.pod("q", "a")
	h.fails("ADD", q, 11, "default/q", "default/a", "plugin whereabouts", "no address is free",
		"10.20.0.0/29", "delete pods, or give the network a larger range")
	same(t, "reason", h.lastEvent(q).Reason, "PluginFailed")
	for _, p := range pods {
		h.must("DEL", p)
	}
	h.must("DEL", q)
	h.clean(append(pods, q)...)
}

// The addresses of a pod that fails later are freed.
func TestWhereaboutsRollBack(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.1/32"`, "")+`]}`)
	h.nad("b", strings.Replace(h.macvlan(12, ""), nic, "nosuch0", 1))
	h.fails("ADD", h.pod("p", "a,b"), 7, "nosuch0")
	h.clean()
	h.add(h.pod("q", "a"))
}

func TestWhereaboutsGC(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.1/32"`, "")+`]}`)
	p := h.pod("p", "a")
	h.add(p)
	p.Unmount()
	h.valid()
	h.must("GC", nil)
	h.clean()
	same(t, "address", h.address(p, "net1"), "10.20.0.1")
	q := h.pod("q", "a")
	h.add(q)
	same(t, "address", h.address(q, "net1"), "10.20.0.1")
}

// TestS46ClaimOutlivesThePod: the next pod that names the claim has the address, and nobody has it
// meanwhile.
func TestS46ClaimOutlivesThePod(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/30"`, "")+`]}`)
	h.object("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", "vm",
		map[string]any{"network": "a", "interface": "net1"}, nil)
	const networks = `[{"name":"a","ipam-claim-reference":"vm"}]`
	p := h.pod("p", networks)
	h.add(p)
	kept := h.address(p, "net1")
	h.must("DEL", p)
	h.clean(p)
	h.add(h.pod("q", "a"))
	h.fails("ADD", h.pod("s", "a"), 11, "no address is free")
	again := h.pod("p2", networks)
	h.add(again)
	same(t, "address", h.address(again, "net1"), kept)
	h.fails("ADD", h.pod("none", strings.Replace(networks, "vm", "none", 1)), 7, "default/none",
		"default/a", "ipam-claim-reference", "no such IPAMClaim")
}

// TestU16WhereaboutsWithSourceBasedRouting is the guide's network: the gateway is in the range, and
// in the pod's own table.
func TestU16WhereaboutsWithSourceBasedRouting(t *testing.T) {
	t.Parallel()
	whereaboutsSourceBased(t, "macvlan")
}

func TestU16WhereaboutsWithSourceBasedRoutingAndIPvlan(t *testing.T) {
	nettest.NeedsLink(t, "ipvlan")
	t.Parallel()
	whereaboutsSourceBased(t, "ipvlan")
}

func whereaboutsSourceBased(t *testing.T, kind string) {
	t.Helper()
	h := newHost(t)
	ipam := `"range":"21.0.104.0/21","range_start":"21.0.111.1","gateway":"21.0.111.254",` +
		`"log_file":"` + h.varLog("whereabouts.log") + `","log_level":"debug"`
	h.nad("a", `{"cniVersion":"0.3.0","plugins":[`+h.whereabouts(kind, ipam, "")+`,{"type":"sbr"}]}`)
	p := h.pod("p", "a")
	h.add(p)
	addr := h.address(p, "net1")
	if !strings.HasPrefix(addr, "21.0.111.") || addr == "21.0.111.254" || addr == "21.0.111.255" {
		t.Errorf("address %s", addr)
	}
	same(t, "ip route", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src 10.1.0.2",
		"default via 10.1.0.1 dev eth0",
	})
	same(t, "ip route list table 100", table(p, 4, "100"), []string{
		"21.0.104.0/21 dev net1 proto kernel scope link src " + addr,
		"default via 21.0.111.254 dev net1",
	})
	h.must("DEL", p)
	h.clean(p)
}

// U17, "static routes; no default route unasked".
func TestU17WhereaboutsRoute(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	ipam := `"range":"21.0.104.0/21","exclude":["21.0.110.0/23"],"gateway":"21.0.111.254",` +
		`"routes":[{"dst":"172.31.0.0/16"}]`
	h.nad("a", `{"cniVersion":"0.3.0","plugins":[`+h.whereabouts("macvlan", ipam, "")+`]}`)
	p := h.pod("p", "a")
	h.add(p)
	same(t, "ip route", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src 10.1.0.2",
		"172.31.0.0/16 via 21.0.111.254 dev net1",
		"21.0.104.0/21 dev net1 proto kernel scope link src " + h.address(p, "net1"),
		"default via 10.1.0.1 dev eth0",
	})
	h.nad("b", `{"cniVersion":"0.3.0","plugins":[`+
		h.whereabouts("macvlan", strings.Replace(ipam, "172.31.0.0/16", "0.0.0.0/0", 1), "")+`]}`)
	q := h.pod("q", "b")
	h.add(q)
	same(t, "default routes", defaults(table(q, 4, "main")), []string{"default via 10.1.0.1 dev eth0"})
}

// varLog is a file of the test in the directory for logs, which the tests have for themselves.
func (h *host) varLog(name string) string { return "/var/log/" + h.t.Name() + "-" + name }

// TestU20WhereaboutsLog: a log of its own has a line for each operation, and what cannot be a log
// holds up nothing.
func TestU20WhereaboutsLog(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["logOptions"] = map[string]any{"maxSize": 1, "maxBackups": 2, "compress": false}
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+h.whereabouts("macvlan",
		`"range":"10.20.0.1/32","log_file":"`+h.varLog("whereabouts.log")+`"`, "")+`]}`)
	p := h.pod("p", "a")
	h.add(p)
	h.fails("ADD", h.pod("q", "a"), 11)
	h.must("DEL", p)
	read := func() string {
		text, err := os.ReadFile(h.varLog("whereabouts.log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var got []string
	for line := range strings.Lines(read()) {
		m := regexp.MustCompile(`level=(\S+) msg=(\S+) pod=(\S+) network=a container=\S+ ` +
			`interface=net1 duration=\S+s error=`).FindStringSubmatch(line)
		if m == nil {
			t.Errorf("unexpected: %s", line)
			continue
		}
		got = append(got, strings.Join(m[1:], " "))
	}
	same(t, "log", got, []string{
		"INFO ADD default/p", "ERROR ADD default/q", "INFO DEL default/q", "INFO DEL default/p",
	})
	err := os.WriteFile(h.varLog("whereabouts.log"),
		[]byte(strings.Repeat("time=", 1<<20/5+1)[:1<<20]), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	h.add(p)
	h.must("DEL", p)
	info, err := os.Stat(h.varLog("whereabouts.log"))
	if err != nil || info.Mode().String() != "-rw-------" || len(read()) > 2<<10 {
		t.Errorf("not rotated: %v, %v, %d bytes", info, err, len(read()))
	}
	if info, err = os.Stat(h.varLog("whereabouts.log.old")); err != nil || info.Size() != 1<<20 {
		t.Errorf("the log before: %v, %v", info, err)
	}
	for name, mk := range map[string]func(string) error{
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("/dev/full", path) },
	} {
		if err := mk(h.varLog(name)); err != nil {
			t.Fatal(err)
		}
		h.nad("b", `{"cniVersion":"1.0.0","plugins":[`+
			h.whereabouts("macvlan", `"range":"10.20.0.1/32","log_file":"`+h.varLog(name)+`"`, "")+`]}`)
		p := h.pod(name, "b")
		h.add(p)
		h.must("DEL", p)
		if !strings.Contains(h.log(),
			`msg="its own log cannot be used" ipam=whereabouts file=`+h.varLog(name)) {
			t.Errorf("%s: the log does not say that it is none", name)
		}
	}
	h.clean(p)
}

// Called under their own names, plugins share the node's addresses with Braid.
func TestStandaloneWhereabouts(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("net", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/30"`, "")+`]}`)
	p := h.pod("p", "net")
	h.add(p)
	q := &pod{Namespace: nettest.New(t), id: "id-q"}
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"macvlan","master":%q,`+
		`"ipam":{"type":"whereabouts","range":"10.20.0.0/30"}}`, nic)
	out, failed := h.standalone("macvlan", "ADD", q, conf)
	if failed != nil {
		t.Fatal(failed)
	}
	var result struct{ IPs []struct{ Address string } }
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.IPs) != 1 {
		t.Fatalf("%s: %v", out, err)
	}
	all := []string{strings.TrimSuffix(result.IPs[0].Address, "/30"), h.address(p, "net1")}
	if all[0] == all[1] || !strings.HasPrefix(all[0], "10.20.0.") {
		t.Errorf("addresses %q", all)
	}
	s := &pod{Namespace: nettest.New(t), id: "id-s"}
	_, failed = h.standalone("whereabouts", "ADD", s, conf)
	if failed == nil || failed.Code != 11 ||
		!strings.Contains(failed.Msg, "no address is free in 10.20.0.0/30") {
		t.Errorf("third address of two: %v", failed)
	}
	_, failed = h.standalone("whereabouts", "STATUS", nil, strings.Replace(conf, "1.0.0", "1.1.0", 1))
	if failed == nil || failed.Code != 50 {
		t.Errorf("STATUS: %v", failed)
	}
	if _, failed := h.standalone("macvlan", "DEL", q, conf); failed != nil {
		t.Error(failed)
	}
	out, failed = h.standalone("whereabouts", "ADD", s, conf)
	if failed != nil || !strings.Contains(out, all[0]) {
		t.Errorf("the address that is free again: %s, %v", out, failed)
	}
	_, failed = h.standalone("whereabouts", "CHECK", s,
		strings.TrimSuffix(conf, "}")+`,"prevResult":`+out+"}")
	if failed != nil {
		t.Error(failed)
	}
	if _, failed := h.standalone("whereabouts", "DEL", s, conf); failed != nil {
		t.Error(failed)
	}
	h.must("DEL", p)
	h.clean(p)
}

// A node that the API server does not know by the hostname is told by its name, and how to name it.
// The way to the server is that of the configuration, or of the flat file.
func TestNodeThatIsNotKnown(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound",`+
			`"code":404,"message":"%s not found","details":{"name":%q,"kind":"nodes"}}`,
			req.URL.Path, filepath.Base(req.URL.Path))
	}))
	t.Cleanup(server.Close)
	h := newHost(t)
	h.node = &nettest.Namespace{Path: "/proc/self/ns/net"} // where the server is
	kubeconfig := h.path("kubeconfig")
	h.write("kubeconfig", fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":%q}}],
		"users":[{"name":"u","user":{"token":"t0ken"}}],"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}]}`, server.URL))
	h.write("flat", fmt.Sprintf(`{"kubernetes":{"kubeconfig":%q}}`, kubeconfig))
	host, err := nodeid.Hostname()
	if err != nil || host != strings.ToLower(host) {
		t.Fatalf("hostname %q, %v", host, err)
	}
	for name, how := range map[string]struct{ env, key string }{
		"n9.example": {"NODENAME=n9.example", fmt.Sprintf(`"kubernetes":{"kubeconfig":%q}`, kubeconfig)},
		"bad_name":   {"NODENAME=bad_name", fmt.Sprintf(`"kubernetes":{"kubeconfig":%q}`, kubeconfig)},
		host:         {"NODENAME=", fmt.Sprintf(`"configuration_path":%q`, h.path("flat"))},
	} {
		h.env = []string{aloneManifests + "=", how.env}
		conf := `{"cniVersion":"1.0.0","name":"net","type":"macvlan","ipam":{"type":"whereabouts",` +
			`"range":"10.20.0.0/24",` + how.key + `}}`
		_, failed := h.standalone("whereabouts", "ADD", &pod{Namespace: nettest.New(t), id: "id-p"}, conf)
		if failed == nil || failed.Code != 7 || !strings.Contains(failed.Msg, name) ||
			!strings.Contains(failed.Msg, "braid.nodeName") {
			t.Errorf("%s: %v", name, failed)
		}
	}
}

// TestU14ExamplesRunInProcess: the built-in plugins know every key of the examples of conf/, and
// whereabouts has no other fault to find.
func TestU14ExamplesRunInProcess(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	session := plugin.NewSession(plugin.HostNS)
	defer session.Close()
	plugins := builtin.Plugins(builtin.Node{})
	checked := map[string]bool{}
	for _, config := range exampleNADs(t) {
		var list struct{ Plugins []map[string]any }
		if err := json.Unmarshal([]byte(config), &list); err != nil {
			t.Fatal(err)
		}
		if list.Plugins == nil {
			list.Plugins = make([]map[string]any, 1)
			if err := json.Unmarshal([]byte(config), &list.Plugins[0]); err != nil {
				t.Fatal(err)
			}
		}
		for _, conf := range list.Plugins {
			conf["cniVersion"], conf["name"] = "1.1.0", "example"
			text, err := json.Marshal(conf)
			if err != nil {
				t.Fatal(err)
			}
			ipam, _ := conf["ipam"].(map[string]any)
			for _, kind := range []any{conf["type"], ipam["type"]} {
				name, _ := kind.(string)
				if plugins[name] == nil {
					continue
				}
				checked[name] = true
				prepared, err := session.Bind(plugins[name]).Prepare(text)
				if err != nil || prepared.Unknown != nil {
					t.Errorf("%s: %+v, %v\n%s", name, prepared, err, text)
				}
			}
			if ipam["type"] != "whereabouts" {
				continue
			}
			ipam["log_file"] = h.varLog("whereabouts.log")
			if text, err = json.Marshal(conf); err != nil {
				t.Fatal(err)
			}
			if _, failed := h.standalone("whereabouts", "STATUS", nil, string(text)); failed != nil {
				t.Errorf("%v\n%s", failed, text)
			}
		}
	}
	for _, kind := range strings.Fields(
		"bridge host-local ipvlan macvlan portmap sbr static tuning whereabouts") {
		if !checked[kind] {
			t.Errorf("no example has %s", kind)
		}
	}
}

// exampleNADs are the configurations of the NADs of conf/.
func exampleNADs(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../conf/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var configs []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(data), "\n---\n") {
			var nad nadv1.NetworkAttachmentDefinition
			if err := yaml.Unmarshal([]byte(document), &nad); err == nil && nad.Kind == nadv1.Kind {
				configs = append(configs, nad.Spec.Config)
			}
		}
	}
	return configs
}
