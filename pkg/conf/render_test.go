package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/internal/checktest"
	"github.com/braid-cni/braid/pkg/policy"
)

// persistent is what a file has of a configuration, in a form that can be compared.
func persistent(t *testing.T, c *Config) *Config {
	t.Helper()
	p := *c
	p.RuntimeConfig, p.ValidAttachments = nil, nil
	p.Call.Warnings, p.Node.Warnings, p.Policy.Warnings = nil, nil, nil
	p.Delegates = nil
	for _, d := range c.Delegates {
		var out bytes.Buffer
		if err := json.Compact(&out, d); err != nil {
			t.Fatal(err)
		}
		p.Delegates = append(p.Delegates, out.Bytes())
	}
	for _, list := range []*[]string{&p.DefaultNetworks, &p.Exec} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	return &p
}

// rendered fails unless what is rendered is read as the configuration, and returns it.
func rendered(t *testing.T, c *Config) []byte {
	t.Helper()
	out, err := Render(c)
	if err != nil {
		t.Fatalf("Render(%+v): %v", c, err)
	}
	got, err := parseFile(out)
	if err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	//nolint:govet // warnings are equal if their causes are
	if got, want := persistent(t, got), persistent(t, c); !reflect.DeepEqual(got, want) {
		t.Fatalf("%s\n got %+v\nwant %+v", out, got, want)
	}
	return out
}

// dice change values half of the time.
type dice struct{ *rand.Rand }

func (d dice) half() bool { return d.IntN(2) == 0 }

func (d dice) text(into *string, values ...string) {
	if d.half() {
		*into = values[d.IntN(len(values))]
	}
}

func (d dice) list(into *[]string, atLeast int, values ...string) {
	if d.half() {
		d.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		*into = append([]string{}, values[:atLeast+d.IntN(len(values)-atLeast+1)]...)
	}
}

// generated is a configuration that Load may have returned. Each key has its default half of the
// time.
func generated(seed uint64) *Config {
	d, c := dice{rand.New(rand.NewPCG(seed, 0))}, Defaults()
	d.networks(c)
	d.text(&c.Name, "n", "a.b-c_d")
	d.text(&c.CNIVersion, "0.3.0", "0.4.0", "1.0.0")
	for _, one := range []struct {
		into   *string
		values []string
	}{
		{&c.ConfDir, []string{"/c"}},
		{&c.CNIDir, []string{"/var/lib/cni"}},
		{&c.Kubeconfig, []string{"/k"}},
		{&c.LogFile, []string{"", "/l"}},
		{&c.LogLevel, []string{"debug", "warn", "error"}},
		{&c.ReadinessIndicatorFile, []string{"/r"}},
		{&c.MultusNamespace, []string{"m"}},
		{&c.Manifests, []string{"/m"}},
		{&c.DeviceInfoDir, []string{"/d"}},
		{&c.PodResources, []string{"/p"}},
		{&c.NodeName, []string{"n.example"}},
		{&c.SecondaryDefaultRoute, []string{"take", "refuse"}},
		{&c.PolicyDefault, []string{"enforce"}},
	} {
		d.text(one.into, one.values...)
	}
	if d.half() {
		c.StateDir = "/s"
		d.text(&c.CNIDir, "/s/cni")
	}
	d.list(&c.SystemNamespaces, 0, "a", "b")
	d.list(&c.GlobalNamespaces, 0, "a", "b", "default")
	d.list(&c.BinDirs, 1, "/opt/x", "/b:c")
	d.list(&c.Exec, 1, "bridge", "portmap")
	d.list(&c.DataRoots, 0, "/d1", "/d2")
	d.rules(c)
	for _, b := range []*bool{
		&c.LogToStderr, &c.NamespaceIsolation, &c.RetryDeleteOnError, &c.RefuseUnknownKeys,
		&c.LogOptions.Compress,
	} {
		*b = *b != d.half()
	}
	for _, n := range []*int{&c.LogOptions.MaxAge, &c.LogOptions.MaxSize, &c.LogOptions.MaxBackups} {
		if d.half() {
			*n = d.IntN(1000)
		}
	}
	if d.half() {
		c.Aliases = map[string]string{"cnv-bridge": "bridge", "cnv-<&>": "tuning"}
	}
	c.HotPlug = d.half()
	for _, t := range []*time.Duration{
		&c.Timeouts.Operation, &c.Timeouts.Rollback, &c.Timeouts.API, &c.Timeouts.Status,
	} {
		if d.half() {
			*t = time.Duration(1 + d.Int64N(int64(time.Hour)))
		}
	}
	return c
}

// rules are some of a policy, each with some of the keys.
func (d dice) rules(c *Config) {
	if d.half() {
		return
	}
	for i := range 1 + d.IntN(3) {
		r := policy.Default()
		r.Namespaces = []string{fmt.Sprintf("team-%d-*", i)}
		d.list(&r.Types, 1, "bridge", "passthru")
		d.list(&r.Exec, 0, "vlan", "sriov")
		d.list(&r.Masters, 0, "ens*", "<&>")
		d.list(&r.Bridges, 0, "br-a", "br-b")
		d.list(&r.Sysctls, 0, "net.*")
		if d.half() {
			r.VLANs = []policy.Span{{From: 1, To: 4094}, {From: 5, To: 5}}
			r.Prefixes = []netip.Prefix{
				netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64"),
			}
			r.HostPorts = policy.HostPorts{Ports: []policy.Span{{From: 80, To: 80}}, Loopback: d.half()}
		}
		r.OnDisk, r.DefaultNetworks = d.half(), d.half()
		r.Networks, r.Ranges = d.IntN(20), d.IntN(20)
		if d.half() {
			r = policy.Default()
			r.Namespaces, r.All = []string{fmt.Sprintf("all-%d", i)}, true
		}
		c.Rules = append(c.Rules, r)
	}
}

func (d dice) networks(c *Config) {
	if d.half() {
		c.Capabilities = map[string]bool{"portMappings": true, "io.kubernetes.cri.pod-annotations": true}
	}
	if d.half() {
		c.Delegates = []json.RawMessage{
			json.RawMessage(`{"type": "bridge", "n": 12345678901234567890, "html": "<&>"}`),
			json.RawMessage(`{"name":"two","plugins":[{"type":"b"}]}`),
		}[:1+d.IntN(2)]
		return
	}
	c.ClusterNetwork = []string{
		"flannel", "/etc/cni/net.d/10-flannel.conflist", "/a <&> \"b\"",
	}[d.IntN(3)]
	d.list(&c.DefaultNetworks, 1, "x", "/y/z.conf", "/ä")
	if strings.HasPrefix(c.ClusterNetwork, "/") {
		d.text(&c.AuxiliaryCNIChainName, "aux")
	}
}

func TestRenderIsTheInverseOfLoad(t *testing.T) {
	for seed := range uint64(2000) {
		rendered(t, generated(seed))
	}
}

// A key that is added to the configuration has to be rendered, and generated.
func TestRenderHasEveryKey(t *testing.T) {
	seen := map[string]bool{}
	var note func(path string, raw json.RawMessage)
	note = func(path string, raw json.RawMessage) {
		var keys map[string]json.RawMessage
		if json.Unmarshal(raw, &keys) != nil || path == "capabilities" || path == "braid.aliases" {
			seen[path] = true
			return
		}
		for key, value := range keys {
			note(strings.TrimPrefix(path+"."+key, "."), value)
		}
	}
	for seed := range uint64(200) {
		var file struct{ Plugins []json.RawMessage }
		if err := json.Unmarshal(rendered(t, generated(seed)), &file); err != nil {
			t.Fatal(err)
		}
		note("", file.Plugins[0])
	}
	for _, key := range braidKeys() {
		if !seen["braid."+key] && !seen["braid."+key+".api"] {
			t.Errorf("braid.%s is never rendered", key)
		}
	}
	// Each field of the parts, but for warnings, is one key: those of runtimes are not rendered, and
	// LogOptions and Timeouts have four keys each. Name and CNIVersion are the list's.
	var fields int
	for _, part := range []any{Node{}, Policy{}} {
		fields += reflect.TypeOf(part).NumField() - 1
	}
	checktest.Same(t, "keys", len(seen)-len([]string{"type"}), fields-2+4+4)
}

func TestRenderLeavesDefaultsOut(t *testing.T) {
	c := Defaults()
	c.ClusterNetwork = "/etc/cni/net.d/10-flannel.conflist"
	checktest.Same(t, "file", string(rendered(t, c)), `{
  "cniVersion": "1.1.0",
  "name": "braid",
  "plugins": [
    {
      "type": "braid",
      "clusterNetwork": "/etc/cni/net.d/10-flannel.conflist"
    }
  ]
}
`)
	read, err := Load([]byte(
		`{"name":"braid","cniVersion":"1.1.0","clusterNetwork":"/etc/cni/net.d/10-flannel.conflist"}`))
	if err != nil {
		t.Fatal(err)
	}
	checktest.Same(t, "defaults", c, read)
}

// What would be refused is not written.
func TestRenderRefuses(t *testing.T) {
	for field, spoil := range map[string]func(*Config){
		"clusterNetwork":  func(c *Config) { c.ClusterNetwork = "" },
		"kubeconfig":      func(c *Config) { c.Kubeconfig = "relative" },
		"name":            func(c *Config) { c.Name = "" },
		"braid.stateDir":  func(c *Config) { c.StateDir, c.CNIDir = "", "/c" },
		"braid.exec":      func(c *Config) { c.Exec = []string{"../x"} },
		"multusNamespace": func(c *Config) { c.MultusNamespace = "A" },
	} {
		c := Defaults()
		c.ClusterNetwork = "main"
		spoil(c)
		out, err := Render(c)
		checktest.Refused(t, err, failure.InvalidConfig, field)
		checktest.Same(t, "file", len(out), 0)
	}
	c := Defaults()
	c.Delegates = []json.RawMessage{json.RawMessage(`{"type"`)}
	if out, err := Render(c); err == nil {
		t.Errorf("a delegate that is no JSON: %s", out)
	}
}

func TestRenderOfTheSamples(t *testing.T) {
	paths, err := filepath.Glob("../../conf/cni/*.conflist")
	if err != nil || len(paths) == 0 {
		t.Fatalf("samples: %d, %v", len(paths), err)
	}
	for _, path := range paths {
		c, err := LoadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rendered(t, c)
	}
}

// FuzzRender: what Load accepts is rendered, and read as it was.
func FuzzRender(f *testing.F) {
	for _, keys := range loadSeeds() {
		f.Add([]byte(`{` + minimal + `,` + keys + `}`))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Load(raw)
		if err != nil {
			return
		}
		// A file has two levels more.
		if _, err := Render(c); err != nil && strings.Contains(err.Error(), "levels deep") {
			return
		} else if e, ok := errors.AsType[*failure.Error](err); ok {
			t.Fatalf("Load(%q), rendered: %v", raw, e)
		}
		rendered(t, c)
	})
}

func ExampleRender() {
	c := Defaults()
	c.Capabilities = map[string]bool{"io.kubernetes.cri.pod-annotations": true, "portMappings": true}
	c.Kubeconfig = "/etc/cni/net.d/braid.d/braid.kubeconfig"
	c.ClusterNetwork = "/etc/cni/net.d/10-flannel.conflist"
	file, err := Render(c)
	fmt.Print(string(file), err)
	// Output:
	// {
	//   "cniVersion": "1.1.0",
	//   "name": "braid",
	//   "plugins": [
	//     {
	//       "type": "braid",
	//       "capabilities": {
	//         "io.kubernetes.cri.pod-annotations": true,
	//         "portMappings": true
	//       },
	//       "kubeconfig": "/etc/cni/net.d/braid.d/braid.kubeconfig",
	//       "clusterNetwork": "/etc/cni/net.d/10-flannel.conflist"
	//     }
	//   ]
	// }
	// <nil>
}
