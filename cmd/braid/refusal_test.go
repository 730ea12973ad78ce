package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// untouched fails the test unless a pod whose ADD was refused has nothing, the node remembers
// nothing of it, and its DEL succeeds.
func (h *host) untouched(p *pod) {
	h.t.Helper()
	h.has(p)
	for _, dir := range []string{"state/sandboxes", "state/networks"} {
		if entries, err := os.ReadDir(h.path(dir)); err == nil && len(entries) > 0 {
			h.t.Errorf("%s has %s", dir, entries[0].Name())
		}
	}
	h.must("DEL", p)
	h.clean(p)
}

// refuses fails the test unless the pod's ADD is refused long before a deadline, with all the
// words, and nothing is left.
func (h *host) refuses(p *pod, words ...string) {
	h.t.Helper()
	start := time.Now()
	h.fails("ADD", p, 7, words...)
	if took := time.Since(start); took > 30*time.Second {
		h.t.Errorf("ADD took %v", took)
	}
	h.untouched(p)
}

// Braid and Multus as a network of their own called themselves until the time was up.
func TestR11MetaPluginInANAD(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, kind := range []string{"braid", "multus", "multus-shim", "genie", "danm"} {
		h.script(kind, "exit 1")
		for config, field := range map[string]string{
			`{"cniVersion":"1.0.0","type":%q,"binDir":"/tmp","delegates":[{"type":"macvlan"}]}`: "plugins[0].type",
			`{"cniVersion":"1.0.0","plugins":[{"type":"macvlan"},{"type":%q}]}`:                 "plugins[1].type",
			`{"cniVersion":"1.0.0","type":"macvlan","ipam":{"type":%q}}`:                        "plugins[0].ipam.type",
			`{"cniVersion":"1.0.0","type":"flannel","delegate":{"type":%q}}`:                    "plugins[0].delegate.type",
			`{"cniVersion":"1.0.0","type":"any","delegates":[{"plugins":[{"type":"any",` +
				`"ipam":{"type":%q}}]}]}`: "plugins[0].delegates[0].plugins[0].ipam.type",
		} {
			h.nad("a", fmt.Sprintf(config, kind))
			p := h.pod("p", "a")
			h.refuses(p, "NAD default/a", field, `"`+kind+`" would call itself`, "name the plugin")
			same(t, "event", h.lastEvent(p).Reason, "NADInvalid")
		}
	}
}

// TestM24TenantsBinary: whoever wrote such a NAD had any file of the node run as root, in the
// roll-back, too.
func TestM24TenantsBinary(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, ran := t.TempDir(), h.path("ran")
	script := "#!/bin/sh\ntouch " + ran + "\n"
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{
		`{"cniVersion":"1.0.0","type":"braid","binDir":%q,"delegates":[{"type":"mine"}]}`,
		`{"cniVersion":"1.0.0","plugins":[{"type":"bridge","bridge":"cni0"},{"type":"braid",` +
			`"binDir":%q,"delegates":[{"type":"mine"}]}]}`,
		`{"cniVersion":"1.0.0","type":"mine","binDir":%q}`,
	} {
		h.nad("a", fmt.Sprintf(config, dir))
		p := h.pod("p", "a")
		h.refuses(p, "NAD default/a")
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a binary of the NAD's choice was run")
	}
}

// TestM24BraidUnderAnotherName: so it is where Braid has another name in the plugin path, whoever
// calls it: there a NAD would be its configuration.
func TestM24BraidUnderAnotherName(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, ran := t.TempDir(), h.path("ran")
	err := os.WriteFile(filepath.Join(dir, "mine"), []byte("#!/bin/sh\ntouch "+ran+"\n"), 0o700)
	if err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	braid, err := os.ReadFile(h.braid)
	if err != nil {
		t.Fatal(err)
	}
	h.script("wrapper", `exec `+h.path("bin/copied"))
	h.script("caller", `exec env - CNI_COMMAND=$CNI_COMMAND CNI_CONTAINERID=$CNI_CONTAINERID `+
		`CNI_NETNS=$CNI_NETNS CNI_IFNAME=$CNI_IFNAME CNI_PATH=$CNI_PATH BRAID_CALLER=$BRAID_CALLER `+
		asPlugin+`=1 `+h.path("bin/copied"))
	if err := os.WriteFile(h.path("bin", "copied"), braid, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(h.braid, h.path("bin", "linked")); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"copied", "linked", "wrapper", "caller"} {
		h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","type":%q,"binDir":%q,`+
			`"delegates":[{"type":"mine","name":"x"}],"braid":{"manifests":%q,"stateDir":%q}}`,
			kind, dir, h.path("manifests"), h.path("other")))
		p := h.pod("p", "a")
		h.fails("ADD", p, 7, "NAD default/a", "Braid")
		h.must("DEL", p)
		h.clean(p)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a binary of the NAD's choice was run")
	}
}

// TestM24ForbiddenPluginIsNotMissed: nobody is told to install what the policy forbids.
func TestM24ForbiddenPluginIsNotMissed(t *testing.T) {
	t.Parallel()
	for _, config := range []string{
		`{"cniVersion":"1.0.0","type":"nosuch"}`,
		`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"nosuch"}}`,
	} {
		h := newHost(t)
		h.nad("a", config)
		p := h.pod("p", "a")
		h.refuses(p, "NAD default/a", "nosuch", "install")
		same(t, "event", h.lastEvent(p).Reason, "PluginNotFound")
		h.tenants("default")
		h.refuses(p, "NAD default/a", "nosuch", "let the operator")
		e := h.lastEvent(p)
		same(t, "event of a tenant", e.Reason, "PolicyRefused")
		if strings.Contains(e.Message, "install") {
			t.Errorf("it is told to install what is forbidden: %s", e.Message)
		}
	}
}

// The default network and those of every pod.
func TestR11MetaPluginInTheConfiguration(t *testing.T) {
	t.Parallel()
	const meta = `{"cniVersion":"1.0.0","name":"again","plugins":[{"type":"multus-shim"}]}`
	for form, put := range map[string]func(h *host) (field string){
		"delegate": func(h *host) string {
			h.conf["delegates"] = []any{map[string]any{"name": "x", "type": "braid"}}
			return "delegates[0].plugins[0].type"
		},
		"further delegate": func(h *host) string {
			h.conf["delegates"] = []any{h.defaultNetwork(), map[string]any{"name": "x", "type": "braid"}}
			return "delegates[1].plugins[0].type"
		},
		"NAD": func(h *host) string {
			h.nad("kube-system/main", meta)
			h.cluster("main")
			return "NAD kube-system/main"
		},
		"file": func(h *host) string {
			h.write("main.conflist", meta)
			h.cluster(h.path("main.conflist"))
			return "file " + h.path("main.conflist") + ": plugin multus-shim: field plugins[0].type"
		},
		"directory": func(h *host) string {
			h.write("net.d/00.conflist", meta)
			h.cluster(h.path("net.d"))
			return "00.conflist"
		},
		"name": func(h *host) string {
			h.write("net.d/00.conflist", meta)
			h.cluster("again")
			return "00.conflist"
		},
		"auxiliary chain": func(h *host) string {
			auxiliary(h)
			h.write("net.d/extras/15-again.conf", `{"type":"braid"}`)
			return "file " + h.path("net.d/extras/15-again.conf") + ": plugin braid: field type"
		},
		"default network of the pod": func(h *host) string {
			h.nad("kube-system/main", meta)
			return "NAD kube-system/main"
		},
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", h.macvlan(11, ""))
			field := put(h)
			annotations := []string{}
			if strings.HasPrefix(form, "default") {
				annotations = []string{nadv1.DefaultNetworkAnnotation, "main"}
			}
			h.refuses(h.pod("p", "a", annotations...), field, "would call itself")
		})
	}
}

// A NAD's keys are its plugin's, whatever they mean in Braid's own configuration.
func TestR11BinDirOfANADHasNoEffect(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", `echo "in the tenant's directory" >>"$dir/list"`)
	if err := os.Rename(h.path("bin"), h.path("tenant")); err != nil {
		t.Fatal(err)
	}
	h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"one","binDir":%q,"confDir":%q,`+
		`"delegates":[{"type":"one"}]}`, h.path("tenant"), h.path("tenant")))
	p := h.pod("p", "a")
	h.refuses(p, "default/a", "one", "install")
	same(t, "calls", len(h.calls()), 0)
}

// What is broken stays refused, says where and what to do, and leaves nothing.
func TestR10BrokenConfigurations(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for config, words := range map[string][]string{
		"{\n\"type\":\"macvlan\",\n}": {
			"spec.config", "line 3 column 1",
			"comma", "remove the comma",
		},
		"{\"plugins\":[{\"type\":\"macvlan\"},\n]}": {
			"spec.config", "line 2 column 1",
			"remove the comma",
		},
		"{\n\"type\":\"macvlan\" # the type\n}": {
			"spec.config", "line 2 column 18",
			`"#" comment`, "remove the comment",
		},
		"{\"type\":\"macvlan\",\n\"ipam\":{\"type\":\"host-loc": {
			"spec.config", "line 2 column",
			"cut off",
		},
		`{"type":"bridge","bridge":"br1","vlan":4095}`: {"plugin bridge", "vlan 4095", "4094"},
		`{"type":"macvlan","master":"nic0","ipam":{"type":"host-local",` +
			`"subnet":"10.11.0.0/240"}}`: {"plugin host-local", "ipam.subnet", "10.11.0.0/240"},
		`{"type":"macvlan","master":"nic0","ipam":{"type":"host-local","subnet":"10.11.0.0/24",` +
			`"rangeStart":"10.12.0.8"}}`: {"plugin host-local", "ipam.rangeStart", "10.12.0.8"},
		`{"type":"macvlan","master":"nic0","ipam":{"type":"whereabouts",` +
			`"range":"10.11.0.0-10.11.0.50/2 4"}}`: {"plugin whereabouts", "ipam.range"},
		`{"type":"macvlan","master":"nic0","ipam":{"type":"static",` +
			`"addresses":[{"address":"10.11.0.256/24"}]}}`: {
			"plugin static", "ipam.addresses[0].address",
			"10.11.0.256/24",
		},
		`{"type":"macvlan","type":"bridge"}`: {"type", "line 1 column 19", "twice", "keep one"},
	} {
		h.nad("a", config)
		p := h.pod("p", "a")
		h.refuses(p, append(words, "NAD default/a")...)
		if e := h.lastEvent(p); !strings.Contains(e.Message, "; ") {
			t.Errorf("%s: no remedy in %q", config, e.Message)
		}
	}
}

// Blanks are no configuration, so the network is that of the name on disk.
func TestR18BlankConfigIsLookedUpOnDisk(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.write("net.d/10-a.conf", named(h.macvlan(11, ""), "a"))
	for _, blank := range []string{"", " ", "\n", "\t \r\n"} {
		h.nad("a", blank)
		p := h.pod("p", "a")
		h.add(p)
		same(t, "networks", h.networks(p)[1][:len("default/a net1")], "default/a net1")
		h.must("DEL", p)
		h.clean(p)
	}
	h.remove("net.d", "10-a.conf")
	none := h.pod("none", "a")
	h.fails("ADD", none, 7, "default/a", "net.d", "name \"a\"")
	h.must("DEL", none)
	h.clean(none)
}

// Broken JSON of an annotation says where, and what to do.
func TestR23BrokenAnnotation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for annotation, words := range map[string][]string{
		"[{\"name\":\"a\",}]":                 {"line 1 column 14", "remove the comma"},
		"[\n{'name':'a'}\n]":                  {"line 2 column 2", "double quotes"},
		"[{\"name\":\"a\"} {\"name\":\"a\"}]": {"line 1 column 15", "put a comma"},
		"[{\"name\":\"a\"":                    {"line 1 column", "cut off"},
		"[{\"name\":tru}]":                    {"line 1 column", "correct the JSON"},
		"{\"name\":\"a\"}":                    {"JSON object", "wrap it in a list"},
	} {
		p := h.pod("p", annotation)
		h.refuses(p, append(words, nadv1.NetworksAnnotation)...)
	}
}

// The node's files are no NADs, and are named once.
func TestR23FilesAreNamedOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	auxiliary(h)
	p := h.pod("p", "")
	for name, put := range map[string]struct {
		do    func()
		path  string
		words []string
	}{
		"broken file of the auxiliary chain": {func() {
			h.write("net.d/extras/15-broken.conf", "{\"type\":")
		}, "net.d/extras/15-broken.conf", []string{"line 1 column", "cut off"}},
		"directory instead of a file": {
			func() {
				h.mkdir("net.d/extras/15-broken.conf.d")
				h.link("net.d/extras/15-broken.conf.d", "net.d/extras/15-broken.conf")
			},
			"net.d/extras/15-broken.conf",
			[]string{"regular file", "see that"},
		},
		"broken file of the default network": {func() {
			h.write("net.d/10-pods.conf", "{,}")
		}, "net.d/10-pods.conf", []string{"line 1 column 2", "correct the JSON"}},
		"no file of the default network": {func() {
			h.remove("net.d/10-pods.conf")
		}, "net.d/10-pods.conf", []string{"no such file", "put a CNI configuration there"}},
	} {
		os.RemoveAll(h.path("net.d/extras/15-broken.conf")) //nolint:errcheck // of the case before
		h.write("net.d/10-pods.conf", encode(t, h.defaultNetwork()))
		put.do()
		_, err := h.call("ADD", p)
		if err == nil {
			t.Errorf("%s: ADD succeeded", name)
			continue
		}
		if n := strings.Count(err.Msg, h.path(put.path)); n != 1 || strings.Contains(err.Msg, "NAD") {
			t.Errorf("%s: the path is there %d times: %s", name, n, err.Msg)
		}
		for _, word := range put.words {
			if !strings.Contains(err.Msg, word) {
				t.Errorf("%s: %q is not in: %s", name, word, err.Msg)
			}
		}
		h.must("DEL", p)
	}
}

// link makes a symbolic link.
func (h *host) link(target, name string) {
	h.t.Helper()
	if err := os.Symlink(h.path(target), h.path(name)); err != nil {
		h.t.Fatal(err)
	}
}
