package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// outsider is a directory that no network may name, with a file in it.
func (h *host) outsider() (dir, file string) {
	h.t.Helper()
	dir = h.t.TempDir()
	file = filepath.Join(dir, "secret")
	err := os.WriteFile(file, []byte("search s3cret.example\nnameserver 10.66.6.6\n"), 0o600)
	if err != nil {
		h.t.Fatal(err)
	}
	return dir, file
}

// sameOutside fails the test if there is more in the directory than its file, or the file is
// another.
func (h *host) sameOutside(dir, file string) {
	h.t.Helper()
	entries, err := os.ReadDir(dir)
	data, ferr := os.ReadFile(file)
	if errors.Join(err, ferr) != nil || len(entries) != 1 || !strings.HasPrefix(string(data),
		"search s3cret.example") || strings.Count(string(data), "\n") != 2 {
		h.t.Errorf("outside: %v, %q, %v, %v", entries, data, err, ferr)
	}
}

// TestM34ExecdPluginsDirectory: a NAD has no plugin work as root in a directory of its choice also
// where a binary runs, by itself or as an IPAM plugin or delegate of another, at any depth and
// however the key is spelt. In Braid's first version one unknown key was enough.
func TestM34ExecdPluginsDirectory(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, file := h.outsider()
	h.fake("fake", "")
	for i, config := range []string{
		`{"type":"macvlan","master":"nic0","ipam":{"type":"host-local","subnet":"10.34.0.0/24",` +
			`"dataDir":DIR,"x":1}}`,
		`{"type":"macvlan","master":"nic0","x":1,"ipam":{"type":"host-local","subnet":"10.34.0.0/24",` +
			`"dataDir":DIR}}`,
		`{"type":"ptp","ipam":{"type":"host-local","subnet":"10.34.0.0/24","dataDir":DIR}}`,
		`{"type":"ptp","ipam":{"type":"host-local","subnet":"10.34.0.0/24","DATADIR":DIR}}`,
		`{"type":"ptp","IPAM":{"Type":"host-local","subnet":"10.34.0.0/24","dataDir":DIR}}`,
		`{"type":"fake","delegate":{"type":"macvlan","ipam":{"type":"host-local",` +
			`"subnet":"10.34.0.0/24","dataDir":DIR}}}`,
		`{"type":"fake","delegates":[{"plugins":[{"type":"fake"},{"type":"tuning","mtu":1400,` +
			`"dataDir":DIR}]}]}`,
		`{"plugins":[{"type":"macvlan","master":"nic0"},{"type":"tuning","mtu":1400,"dataDir":DIR,` +
			`"x":1}]}`,
		`{"type":"fake","ipam":{"type":"dhcp","daemonSocketPath":DIR}}`,
		`{"type":"flannel","SubnetFile":DIR}`,
		`{"type":"fake","delegate":{"type":"flannel","dataDir":DIR}}`,
	} {
		config = strings.Replace(config, "{", `{"cniVersion":"1.0.0",`, 1)
		paths := []string{dir}
		if i == 0 {
			paths = append(paths, h.path("leases")+"/../../x", "relative", "/dev/null",
				"/var/lib/cni\x00"+dir)
		}
		for j, path := range paths {
			name := fmt.Sprintf("n%d-%d", i, j)
			h.nad(name, strings.Replace(config, ":DIR", ":"+encode(t, path), 1))
			p := h.pod("p-"+name, name)
			h.fails("ADD", p, 7, "NAD default/"+name, "is beneath none of", "/var/lib/cni", "dataRoots")
			h.must("DEL", p)
			h.clean(p)
		}
	}
	same(t, "calls", h.calls(), nil)
	h.sameOutside(dir, file)
	fine := fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","x":1,`+
		`"ipam":{"type":"host-local","subnet":"10.34.0.0/24","x":1,"dataDir":%q}}`, h.path("leases"))
	h.nad("fine", fine)
	p := h.pod("fine", "fine")
	h.add(p)
	h.must("DEL", p)
	h.clean(p)
}

// TestM33ExecdResolvConf: nor does a binary read a file of the NAD's choice.
func TestM33ExecdResolvConf(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, file := h.outsider()
	for i, path := range []string{file, "/proc/1/environ", "/etc/../" + file, "secret"} {
		name := fmt.Sprint("n", i)
		h.nad(name, fmt.Sprintf(`{"cniVersion":"1.0.0","type":"ptp","ipam":{"type":"host-local",`+
			`"subnet":"10.33.0.0/24","dataDir":%q,"ResolvConf":%q}}`, h.path("leases"), path))
		p := h.pod("p-"+name, name)
		h.fails("ADD", p, 7, "NAD default/"+name, "ipam.ResolvConf", "/run/systemd/resolve")
		h.must("DEL", p)
		h.clean(p)
	}
	h.sameOutside(dir, file)
}

// TestM25ExecdPluginsFiles: keys that name files of the node do not reach a binary, nor what it
// calls, unless they lead to logs or to an operator's directory. The pod is told, and what its
// network wants besides is as it was written.
func TestM25ExecdPluginsFiles(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	_, file := h.outsider()
	h.fake("fake", "")
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","type":"fake","capabilities":{"CNIDeviceInfoFile":false},"runtimeConfig":{"CNIDeviceInfoFile":%[1]q,"x":1},"logFile":%[1]q,"big":9007199254740993,"ipam":{"type":"whereabouts","range":"10.25.0.0/24",
		"log_file":%[1]q,"LOG_FILE":%[1]q,"other":%[1]q,"configuration_path":%[1]q,"kubernetes":{"kubeconfig":%[1]q,"k8s_api_root":"x"}},
		"delegates":[{"type":"fake","log_file_path":%[1]q,"logFile":"/var/log/fine.log"}]}`, file)
	h.nad("a", config)
	p := h.pod("p", "a")
	h.add(p)
	got := h.noted("fake", "ADD", p, "net1", "json")
	if strings.Count(got, file) != 1 || !strings.Contains(got, `"other":"`+file+`"`) ||
		!strings.Contains(got, "9007199254740993") || !strings.Contains(got, "/var/log/fine.log") ||
		!strings.Contains(got, `"k8s_api_root":"x"`) {
		t.Errorf("the binary got %s", got)
	}
	h.must("DEL", p)
	if got := h.noted("fake", "DEL", p, "net1", "json"); strings.Count(got, file) != 1 {
		t.Errorf("on DEL the binary got %s", got)
	}
	h.clean(p)
	h.warned(p,
		"IgnoredKey: default/a net1 logFile fake", "IgnoredKey: default/a net1 ipam.log_file whereabouts",
		"IgnoredKey: default/a net1 ipam.LOG_FILE whereabouts",
		"IgnoredKey: default/a net1 ipam.configuration_path whereabouts",
		"IgnoredKey: default/a net1 ipam.kubernetes.kubeconfig whereabouts",
		"IgnoredKey: default/a net1 delegates[0].log_file_path fake",
		"IgnoredKey: default/a net1 runtimeConfig.CNIDeviceInfoFile fake")
	operators := h.path("net.d", "whereabouts.d", "whereabouts.kubeconfig")
	h.nad("b", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"fake","ipam":{"type":"whereabouts",`+
		`"kubernetes":{"kubeconfig":%q}}}`, operators))
	p = h.pod("q", "b")
	h.add(p)
	if got := h.noted("fake", "ADD", p, "net1", "json"); !strings.Contains(got, operators) {
		t.Errorf("the binary got %s", got)
	}
	h.must("DEL", p)
	h.warned(p)
}

// TestM34OperatorsPaths: what an operator puts on the node leads where he says.
func TestM34OperatorsPaths(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	dir, _ := h.outsider()
	h.fake("fake", "")
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"disk","type":"fake","logFile":%q,`+
		`"ipam":{"type":"host-local","subnet":"10.34.0.0/24","dataDir":%q}}`, dir+"/log", dir)
	h.write("net.d/10-disk.conf", config)
	h.nad("disk", "")
	h.conf["delegates"] = []any{
		map[string]any{"cniVersion": "1.0.0", "name": "pods", "type": "fake", "logFile": dir + "/log"},
	}
	p := h.pod("p", "disk")
	h.add(p)
	for _, ifname := range []string{"eth0", "net1"} {
		if got := h.noted("fake", "ADD", p, ifname, "json"); !strings.Contains(got, dir) {
			t.Errorf("%s: the binary got %s", ifname, got)
		}
	}
	h.must("DEL", p)
	h.warned(p)
}

// TestM34NamesInPaths: a name that a NAD chose, and that becomes part of a path, leads nowhere
// else: the ADD is refused or does what it is asked for, the DEL ends, and no file is left or made
// elsewhere.
func TestM34NamesInPaths(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	files := func() (names []string) {
		for _, dir := range []string{h.dir, "/proc/sys/net/ipv4/conf/all"} {
			err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
				if !strings.HasPrefix(path, h.path("manifests")) &&
					!strings.HasPrefix(path, h.path("braid.log")) {
					names = append(names, path)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return names
	}
	first := h.pod("first", "")
	h.add(first)
	h.must("DEL", first)
	before := files()
	for i, name := range []string{
		"../../escape", "/escape", "..", ".", "a/b", "all", "default", "a\x00b", strings.Repeat("n", 256),
		"%d", "lo", "",
	} {
		text := encode(t, name)
		for j, config := range []string{
			`{"type":"bridge","bridge":T}`, `{"type":"macvlan","master":T}`,
			`{"type":"macvlan","master":"nic0","ipam":{"type":"whereabouts","range":"10.34.0.0/24",` +
				`"network_name":T}}`,
			`{"name":T,"type":"macvlan","master":"nic0","ipam":{"type":"host-local",` +
				`"subnet":"10.34.0.0/24","dataDir":` + encode(t, h.path("leases")) + `}}`,
			`{"plugins":[{"type":"macvlan","master":"nic0"},{"type":"tuning","sysctl":{T:"1"}}]}`,
			`{"plugins":[{"type":"macvlan","master":"nic0"},{"type":"tuning","mtu":1400,"dataDir":` +
				encode(t, h.path("tuning")+"/"+name) + `}]}`,
			`{"plugins":[{"type":"macvlan","master":"nic0"},{"type":"tuning",` +
				`"sysctl":{"net/ipv4/conf/IFNAME/../all/forwarding":T}}]}`,
		} {
			nad := fmt.Sprintf("n%d-%d", i, j)
			h.nad(nad, strings.Replace(config, "T", text, 1))
			p := h.pod("p-"+nad, nad)
			if out, failed := h.call("ADD", p); failed == nil && strings.Contains(out, "escape") {
				t.Errorf("%s: %s", config, out)
			}
			h.must("DEL", p)
			h.has(p)
		}
	}
	known := map[string]bool{}
	for _, name := range before {
		known[name] = true
	}
	for _, name := range files() {
		state := strings.HasPrefix(name, h.path("state")) || strings.HasPrefix(name, h.path("leases"))
		// as dataDir, which the roots of the host allow
		state = state || strings.HasPrefix(name, h.path("tuning")) || name == h.path("escape")
		if !known[name] && !state {
			t.Errorf("there is %s", name)
		}
	}
	if left := h.leases(); len(left) > 0 {
		t.Errorf("leases %v", left)
	}
	if _, err := os.Lstat("/escape"); err == nil {
		t.Error("there is /escape")
	}
}
