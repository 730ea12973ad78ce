package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/nettest"
)

// R13: nothing of sbr stays after DEL of networks of CNI 0.3.1, whose plugins get no prevResult on
// DEL. The links of the pod go first.
func TestR13SbrOfOldVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for i, table := range []string{"", `,"table":7`} {
		h.nad(fmt.Sprint("n", i), fmt.Sprintf(`{"cniVersion":"0.3.1","plugins":[{"type":"macvlan","master":%q,
			"ipam":{"type":"static","addresses":[{"address":"10.13.%d.2/24","gateway":"10.13.%[2]d.1"},{"address":"fd13:%[2]d::2/64"}]}},
			{"type":"sbr"%[3]s}]}`, nic, i, table))
	}
	for _, networks := range []string{"n0", "n0,n1"} {
		p := h.pod("p-"+strings.ReplaceAll(networks, ",", "-"), networks)
		before := p.Rules()
		h.add(p)
		if p.Rules() == before {
			t.Fatal("ADD made no rule")
		}
		h.must("DEL", p)
		h.clean(p)
		same(t, "rules", p.Rules(), before)
	}
}

// ported is a network of bridge and portmap with addresses of 10.<net>.0.0/24.
func (h *host) ported(net int, version string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"plugins":[{"type":"bridge","bridge":"br%d","isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%[2]d.0.0/24"}},{"type":"portmap","capabilities":{"portMappings":true}}]}`,
		version, net, h.path("leases"))
}

// R14: the rules go with the pod also where DEL gets neither prevResult nor mappings: the
// annotation is gone, and the record, too.
func TestR14PortsOfOldVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("ports", h.ported(14, "0.3.1"))
	p := h.pod("p", `[{"name":"ports","portMappings":[{"hostPort":8014,"containerPort":80,`+
		`"protocol":"tcp"}]}]`)
	h.add(p)
	if rules := h.nft(); !strings.Contains(rules, "8014") {
		t.Fatalf("rules: %s", rules)
	}
	for _, dir := range []string{"state/sandboxes", "state/cni"} {
		if err := os.RemoveAll(h.path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	h.pod("p", "ports")
	h.must("DEL", p)
	if rules := h.nft(); strings.Contains(rules, "8014") {
		t.Errorf("rules left: %s", rules)
	}
	h.bridgeGone("br14")
	h.clean(p)
}

// R24: the second pod that asks for a port is refused, and the first one keeps it; so is one that
// asks for a port that leads nowhere.
func TestR24HostPortTaken(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("ports", h.ported(24, "1.0.0"))
	ask := func(mapping string) string {
		return `[{"name":"ports","portMappings":[{"hostPort":8024,"containerPort":80,"protocol":"tcp"` +
			mapping + `}]}]`
	}
	first, second, v6 := h.pod("first", ask("")), h.pod("second", ask("")), h.pod("v6",
		ask(`,"hostIP":"fd00::1"`))
	h.add(first)
	before := h.nft()
	h.fails("ADD", second, 11, "hostPort 8024", "first", "choose another hostPort")
	h.fails("ADD", v6, 7, "hostIP", "fd00::1", "leave hostIP out")
	same(t, "rules", h.nft(), before)
	for _, p := range []*pod{second, v6, first} {
		h.must("DEL", p)
	}
	if rules := h.nft(); strings.Contains(rules, "8024") {
		t.Errorf("rules left: %s", rules)
	}
	h.add(second)
	h.must("DEL", second)
	h.bridgeGone("br24")
	h.clean(first, second, v6)
}

// nft is the node's packet filter.
func (h *host) nft() (rules string) {
	h.t.Helper()
	err := h.node.Run(func() error {
		out, err := exec.CommandContext(h.t.Context(), "nft", "list", "ruleset").CombinedOutput()
		rules = string(out)
		return err
	})
	if err != nil {
		h.t.Fatal(err, rules)
	}
	return rules
}

// bridgeGone removes a bridge that was made for pods and stays, as in the reference.
func (h *host) bridgeGone(name string) {
	h.t.Helper()
	if err := h.node.Netlink().LinkDel(h.node.Link(name)); err != nil {
		h.t.Fatal(err)
	}
}

// R33: DEL of every plugin does its work whatever prevResult is; one without a version has the
// configuration's.
func TestR33PrevResult(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	empty, links := p.Snapshot(), h.node.Links()
	ipam := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.33.0.0/24",`+
		`"routes":[{"dst":"10.34.0.0/16"}]}`, h.path("leases"))
	for _, prev := range []string{
		"", `5`, `{"cniVersion":"9.9.9"}`,
		`{"interfaces":[null],"ips":[{"address":"10.33.0.2/24","interface":0}]}`,
	} {
		var chain []string
		result := ""
		for _, conf := range []string{
			fmt.Sprintf(`"type":"macvlan","master":%q,%s`, nic, ipam),
			fmt.Sprintf(`"type":"tuning","dataDir":%q,"mtu":1400`, h.path("tuning")),
			`"type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":8033,"containerPort":80,` +
				`"protocol":"tcp"}]}`,
			`"type":"sbr"`,
		} {
			conf = `{"cniVersion":"1.0.0","name":"net",` + conf
			if chain = append(chain, conf); result != "" {
				conf += `,"prevResult":` + result
			}
			out, failed := h.standalone(kindOf(conf), "ADD", p, conf+"}")
			if failed != nil {
				t.Fatal(failed)
			}
			result = strings.Replace(out, `"cniVersion":"1.0.0",`, "", 1)
			if result == out {
				t.Fatalf("no version in %s", out)
			}
		}
		for _, conf := range chain[1:] {
			_, failed := h.standalone(kindOf(conf), "CHECK", p, conf+`,"prevResult":`+result+"}")
			if failed != nil {
				t.Errorf("CHECK: %v", failed)
			}
		}
		if prev == "" {
			prev = result
		}
		for _, conf := range slices.Backward(chain) {
			_, failed := h.standalone(kindOf(conf), "DEL", p, conf+`,"prevResult":`+prev+"}")
			if failed != nil {
				t.Errorf("DEL with prevResult %s: %v", prev, failed)
			}
		}
		same(t, "pod", p.Snapshot(), empty)
		same(t, "links", h.node.Links(), links)
		same(t, "leases", h.leases(), nil)
		if rules := h.nft(); strings.Contains(rules, "8033") {
			t.Errorf("rules left: %s", rules)
		}
	}
}

// kindOf is the type in a configuration.
func kindOf(conf string) string {
	_, rest, _ := strings.Cut(conf, `"type":"`)
	kind, _, _ := strings.Cut(rest, `"`)
	return kind
}

// R36: a lease that has the container ID alone is the attachment's for CHECK, DEL and GC, however
// it came to be so.
func TestR36OldLease(t *testing.T) {
	t.Parallel()
	for name, rewrite := range map[string]func(path, id string) error{
		"written in place": func(path, id string) error { return os.WriteFile(path, []byte(id), 0o600) },
		"with a line end": func(path, id string) error {
			return os.WriteFile(path, []byte(id+"\n"), 0o600)
		},
		"with no name": func(path, id string) error {
			return os.WriteFile(path, []byte(id+"\r\n"), 0o600)
		},
		"made anew": func(path, id string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte(id), 0o600))
		},
	} {
		for _, version := range []string{"0.3.1", "1.0.0"} {
			h := newHost(t)
			h.conf["delegates"] = []any{with(h.defaultNetwork(), "cniVersion", version)}
			h.nad("a", strings.Replace(h.macvlan(36, ""), "1.0.0", version, 1))
			p, gone := h.pod("p", "a"), h.pod("gone", "a")
			h.add(p)
			h.add(gone)
			for _, lease := range h.leases() {
				path := h.path("leases", lease)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				id, _, _ := strings.Cut(string(data), "\r\n")
				if err := rewrite(path, id); err != nil {
					t.Fatal(err)
				}
			}
			if version != "0.3.1" {
				h.must("CHECK", p)
			}
			h.valid(p)
			h.must("GC", nil)
			delete(h.conf, "cni.dev/valid-attachments")
			if left := len(h.leases()); left != 2 {
				t.Errorf("%s, %s: after GC: %v", name, version, h.leases())
			}
			h.must("DEL", p)
			h.clean(p)
		}
	}
}

// M34: a dataDir of a network leads nowhere but beneath dataRoots: it is refused with field and
// remedy, nothing is made, and the pod can go.
func TestM34DataDir(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.conf["braid"].(map[string]any)["dataRoots"] = []string{h.path("leases"), h.path("tuning")}
	outside := t.TempDir()
	err := errors.Join(os.MkdirAll(h.path("leases"), 0o700),
		os.Symlink(outside, h.path("leases", "out")))
	if err != nil {
		t.Fatal(err)
	}
	tuned := func(dir string) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":%q},`+
			`{"type":"tuning","dataDir":%q,"mtu":1400}]}`, nic, dir)
	}
	leased := func(dir string) string {
		return strings.Replace(h.macvlan(34, ""), h.path("leases"), dir, 1)
	}
	for i, c := range []struct {
		config string
		code   uint
		says   []string
	}{
		{leased(outside), 7, []string{"ipam.dataDir", outside, h.path("leases"), "dataRoots"}},
		{leased("/dev/null"), 7, []string{"ipam.dataDir", "/dev/null", "dataRoots"}},
		{leased(h.path("leases", "..", "etc")), 7, []string{"ipam.dataDir", "dataRoots"}},
		{leased(h.path("leases", "out")), 0, []string{"symbolic links are not followed"}},
		{leased(h.path("leases", "out", "x")), 0, []string{"symbolic links are not followed"}},
		{tuned(outside), 7, []string{"dataDir", outside, "dataRoots"}},
		{tuned("/dev/null"), 7, []string{"dataDir", "dataRoots"}},
		{tuned(h.path("leases", "out")), 0, []string{"symbolic links are not followed"}},
	} {
		name := fmt.Sprint("n", i)
		h.nad(name, c.config)
		p := h.pod(fmt.Sprint("p", i), name)
		_, failed := h.call("ADD", p)
		if failed == nil {
			t.Fatalf("ADD with %s succeeds", c.config)
		}
		if c.code != 0 && failed.Code != c.code {
			t.Errorf("code %d, want %d: %v", failed.Code, c.code, failed)
		}
		for _, text := range c.says {
			if !strings.Contains(failed.Msg, text) {
				t.Errorf("%v, want %q in it", failed, text)
			}
		}
		h.must("DEL", p)
		h.clean(p)
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("outside: %v, %v", entries, err)
	}
	h.nad("good", leased(h.path("leases", "a", "b")))
	h.nad("tuned", tuned(h.path("tuning")))
	p := h.pod("p", "good,tuned")
	h.add(p)
	h.must("DEL", p)
	h.clean(p)
}

// M34: where dataRoots were others at the time of the ADD, CHECK, GC and DEL go by those. A record
// that does not have them is of an older Braid: then DEL says so as long as there is something.
func TestM34RootsChange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[%s,{"type":"tuning","dataDir":%q,`+
		`"mtu":1400}]}`, h.macvlan(34, ""), h.path("tuning")))
	p := h.pod("p", "a")
	h.add(p)
	braid := h.conf["braid"].(map[string]any)
	before := braid["dataRoots"]
	braid["dataRoots"] = []string{h.path("elsewhere")}
	gone := func() {
		t.Helper()
		h.clean(p)
		if left, err := filepath.Glob(h.path("tuning", "*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	h.must("CHECK", p)
	h.write("leases/a/10.34.0.99", "dead\r\nnet1")
	h.valid(p)
	h.must("GC", nil)
	delete(h.conf, "cni.dev/valid-attachments")
	if left := h.leases(); slices.Contains(left, "a/10.34.0.99") {
		t.Errorf("after GC: %v", left)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	gone()

	braid["dataRoots"] = before
	h.add(p)
	record := regexp.MustCompile(`,"dataRoots":\[[^]]*\]`).ReplaceAllString(h.record(p), "")
	h.setRecord(p, record)
	braid["dataRoots"] = []string{h.path("elsewhere")}
	h.fails("DEL", p, 7, "dataDir", "dataRoots")
	braid["dataRoots"] = before
	h.must("DEL", p)
	gone()
}

// M34: under the plugin's own name any dataDir is a root, as in the reference, and one that is no
// directory ends with an error of ADD alone.
func TestM34Standalone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	conf := func(dir string) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"macvlan","master":%q,`+
			`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.11.0.0/24"}}`, nic, dir)
	}
	if _, failed := h.standalone("macvlan", "ADD", p, conf("/dev/null")); failed == nil {
		t.Error("ADD with /dev/null succeeds")
	}
	for _, dir := range []string{"/dev/null", h.path("leases")} {
		if _, failed := h.standalone("macvlan", "DEL", p, conf(dir)); failed != nil {
			t.Errorf("DEL with %s: %v", dir, failed)
		}
	}
	h.has(p)
}

// M33: resolvConf is one of the node's own files, and nothing but addresses, domains and options
// comes out of it.
func TestM33ResolvConf(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	secret := h.path("secret")
	h.write("secret", "nameserver s3cret\nsearch s3cret!\n")
	leased := func(path string) string {
		return strings.Replace(h.macvlan(33, ""), `"subnet"`,
			fmt.Sprintf(`"resolvConf":%q,"subnet"`, path), 1)
	}
	for i, path := range []string{
		secret, "/etc/../root/x", "/proc/self/environ", "/run/systemd/resolve/../../x", "etc/resolv.conf",
	} {
		name := fmt.Sprint("n", i)
		h.nad(name, leased(path))
		p := h.pod(fmt.Sprint("p", i), name)
		h.fails("ADD", p, 7, "ipam.resolvConf", strings.TrimSpace(path), "/etc", "/run/systemd/resolve")
		h.must("DEL", p)
		h.clean(p)
	}
	h.nad("passwd", leased("/etc/passwd"))
	h.nad("own", leased("/etc/resolv.conf"))
	p := h.pod("p", "passwd,own")
	h.add(p)
	for _, s := range h.status(p)[1:] {
		text, err := json.Marshal(s.DNS)
		if err != nil || strings.Contains(string(text), "root") {
			t.Errorf("%s: DNS %s, %v", s.Name, text, err)
		}
	}
	h.must("DEL", p)
	h.clean(p)
}

// M25: a network's configuration chooses no file of the node: neither one to write, outside
// /var/log, nor one to read. Such keys are ignored with a warning.
func TestM25FilesOfTheNode(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("flat", `{"range":"10.99.0.0/24","log_file":"`+h.path("flat.log")+`"}`)
	h.write("target", "kept\n")
	inLogs := h.varLog("link")
	err := errors.Join(os.Symlink(h.dir, inLogs), os.Symlink(h.path("target"), h.varLog("file")))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		keys   string
		warned string
	}{
		{fmt.Sprintf(`"log_file":%q`, h.path("out.log")), "ipam.log_file"},
		{`"log_file":"/var/log/../../` + h.path("out.log") + `"`, "ipam.log_file"},
		{`"log_file":"out.log"`, "ipam.log_file"},
		{fmt.Sprintf(`"log_file":%q`, inLogs+"/out.log"), ""},
		{fmt.Sprintf(`"log_file":%q`, h.varLog("file")), ""},
		{fmt.Sprintf(`"configuration_path":%q`, h.path("flat")), "ipam.configuration_path"},
		{`"configuration_path":"flat"`, "ipam.configuration_path"},
		{
			fmt.Sprintf(`"kubernetes":{"kubeconfig":%q}`, h.path("kubeconfig")),
			"ipam.kubernetes.kubeconfig",
		},
		{fmt.Sprintf(`"log_file":%q,"configuration_path":"/etc/cni/net.d/whereabouts.d/whereabouts.conf"`,
			h.varLog("new/whereabouts.log")), ""},
	} {
		name := fmt.Sprint("n", i)
		h.nad(name, `{"cniVersion":"1.0.0","plugins":[`+
			h.whereabouts("macvlan", `"range":"10.25.0.0/24",`+c.keys, "")+`]}`)
		p := h.pod(fmt.Sprint("p", i), name)
		h.add(p)
		if !strings.HasPrefix(h.address(p, "net1"), "10.25.0.") {
			t.Errorf("%s: address %s", c.keys, h.address(p, "net1"))
		}
		h.must("DEL", p)
		h.clean(p)
		var want []string
		if c.warned != "" {
			want = []string{"IgnoredKey: default/" + name + " net1 " + c.warned + " ignored"}
		}
		h.warned(p, want...)
	}
	for _, file := range []string{"out.log", "flat.log"} {
		if _, err := os.Lstat(h.path(file)); err == nil {
			t.Errorf("%s was made", file)
		}
	}
	if text, err := os.ReadFile(h.path("target")); err != nil || string(text) != "kept\n" {
		t.Errorf("the target of a link is %q, %v", text, err)
	}
	text, err := os.ReadFile(h.varLog("new/whereabouts.log"))
	if err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("log %q, %v", text, err)
	}
}

// brokenByMeta are pods whose chains have meta plugins and IPAM plugins that refuse what they are
// asked for.
func brokenByMeta() map[string]broken {
	ask := func(mapping string) string {
		return `[{"name":"a","portMappings":[{"hostPort":8023,"containerPort":80,"protocol":"tcp"` +
			mapping + `}]}]`
	}
	ported := func(annotation string) func(*host) *pod {
		return func(h *host) *pod {
			h.nad("a", h.ported(24, "1.0.0"))
			return h.pod("p", annotation)
		}
	}
	routed := func(address, sbr string) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",`+
			`"ipam":{"type":"static","addresses":[%s]}},{"type":"sbr"%s}]}`,
			address, sbr)
	}
	const address, far = `{"address":"10.23.0.2/24"}`, `{"address":"10.23.0.2/24","gateway":"10.24.0.1"}`
	fixed := func(config string) func(*host, *pod) *pod {
		return redefine(func(*host) string { return config })
	}
	return map[string]broken{
		"port taken": {"PluginFailed", func(h *host) *pod {
			p := ported(ask(""))(h)
			h.add(h.pod("holder", ask("")))
			return p
		}, "choose another hostPort", annotate(strings.Replace(ask(""), "8023", "8024", 1))},
		"IPv6 hostIP": {
			"PluginFailed", ported(ask(`,"hostIP":"fd00::1"`)), "leave hostIP out",
			annotate(ask("")),
		},
		"dataDir": {
			"NADInvalid",
			asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0",`+
				`"ipam":{"type":"host-local","subnet":"10.23.0.0/24",`+
				`"dataDir":"/etc"}}`), "leave the key out", redefine(func(h *host) string {
				return h.macvlan(23, "")
			}),
		},
		"sbr, gateway": {
			"PluginFailed", asking("a", "a", routed(far, "")), `in "gateways" of sbr`,
			fixed(routed(far, `,"gateways":["10.23.0.1"]`)),
		},
		"sbr, misspelt": {
			"NADInvalid", asking("a", "a", routed(address, `,"gateway":"10.23.0.1"`)),
			"write gateways", fixed(routed(address, `,"gateways":["10.23.0.1"]`)),
		},
		"sbr, no address": {
			"PluginFailed", asking("a", "a",
				`{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0"},{"type":"sbr"}]}`),
			"give the plugin before sbr an IPAM plugin", fixed(routed(address, "")),
		},
	}
}

// R33: what a plugin that is exec'd prints without a version, and what the runtime's cache says of
// it, has the configuration's, too.
func TestR33ResultWithoutVersion(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.script("versionless", `
case $CNI_COMMAND in
ADD) echo '{"interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.33.9.2/24","interface":0}]}' ;;
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["0.3.1","1.0.0"]}' ;;
*) grep -q '"prevResult":{[^}]*"cniVersion":"1.0.0"' || { echo '{"code":7,"msg":"no version in prevResult"}'; exit 1; } ;;
esac
`)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"versionless"},{"type":"passthru"},`+
		`{"type":"portmap","capabilities":{"portMappings":true}}]}`)
	p := h.pod("p", `[{"name":"a","portMappings":[{"hostPort":8133,"containerPort":80,`+
		`"protocol":"tcp"}]}]`)
	h.add(p)
	if rules := h.nft(); !strings.Contains(rules, "10.33.9.2:80") {
		t.Errorf("rules: %s", rules)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	if rules := h.nft(); strings.Contains(rules, "8133") {
		t.Errorf("rules left: %s", rules)
	}
	h.clean(p)
}
