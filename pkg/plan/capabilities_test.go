package plan_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// wishes are the keys of the annotation that need a capability, with what the plugin then gets.
var wishes = []struct{ key, value, capability, runtimeConfig string }{
	{"ips", `["10.2.2.42/24", "2001:db8::5"]`, "ips", `["10.2.2.42/24","2001:db8::5"]`},
	{"mac", `"02:23:45:67:89:01"`, "mac", `"02:23:45:67:89:01"`},
	{"infiniband-guid", `"24:8a:07:03:00:8d:ae:2f"`, "infinibandGUID", `"24:8a:07:03:00:8d:ae:2f"`},
	{
		"portMappings", `[{"hostPort": 8080, "containerPort": 80}]`, "portMappings",
		`[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`,
	},
	{
		"bandwidth", `{"ingressRate": 2048, "ingressBurst": 300}`, "bandwidth",
		`{"ingressRate":2048,"ingressBurst":300}`,
	},
}

// S16, "requests go to runtimeConfig, or fail where no plugin declares the capability".
func TestS16RequestsReachRuntimeConfig(t *testing.T) {
	for _, w := range wishes {
		for _, config := range []string{
			`{"type": "x", "capabilities": {"%s": true}}`,
			`{"plugins": [{"type": "x"}, {"type": "y", "capabilities": {"%s": true, "dns": true}}]}`,
		} {
			s := newScenario(fmt.Sprintf(`[{"name": "a", %q: %s}]`, w.key, w.value))
			s.nad("web/a", fmt.Sprintf(config, w.capability))
			got := s.must(t)
			want(t, w.key, runtimeConfig(got[1]), map[string]string{w.capability: w.runtimeConfig})
			want(t, w.key+" elsewhere", runtimeConfig(got[0]), map[string]string{})
		}
	}
}

func TestS16CapabilityMissing(t *testing.T) {
	for _, w := range append([]struct{ key, value, capability, runtimeConfig string }{wishes[0]},
		wishes[2:]...) {
		for name, capabilities := range map[string]string{
			"none": "", "false": `, "capabilities": {"` + w.capability + `": false}`,
		} {
			s := newScenario(fmt.Sprintf(`[{"name": "a", %q: %s}]`, w.key, w.value))
			s.nad("web/a", `{"plugins": [{"type": "macvlan"}, {"type": "tuning"`+capabilities+`}]}`)
			t.Run(w.key+" "+name, func(t *testing.T) {
				s.refused(t, failure.MissingCapability, "NAD web/a", "field "+w.key, "macvlan, tuning",
					fmt.Sprintf(`"capabilities": {"%s": true}`, w.capability), "remove "+w.key)
			})
		}
	}
}

// TestR2ArgsWithoutCapability: addresses and MACs reach plugins that declare nothing in CNI_ARGS.
func TestR2ArgsWithoutCapability(t *testing.T) {
	const ips, mac = "10.2.2.42/24,2001:db8::5", "02:23:45:67:89:01"
	for config, wanted := range map[string]map[string]string{
		`{"type": "x"}`: {"IP": ips, "MAC": mac},
		`{"type": "x", "capabilities": {"ips": true, "mac": true}}`:                {},
		`{"type": "x", "capabilities": {"ips": false, "mac": true}}`:               {"IP": ips},
		`{"type": "x", "ipam": {"type": "static"}, "capabilities": {"ips": true}}`: {"MAC": mac},
		`{"plugins": [{"type": "x", "ipam": {}}, {"type": "y", "capabilities": {"ips": true, ` +
			`"mac": true}}]}`: {"IP": ips},
		`{"plugins": [{"type": "x"}, {"type": "y", "capabilities": {"ips": true, "mac": true}}]}`: {},
		`{"capabilities": {"ips": true}, "plugins": [{"type": "x", "ipam": {}}, ` +
			`{"type": "y"}]}`: {"MAC": mac},
		`{"capabilities": {"ips": true}, "plugins": [{"type": "x", "ipam": {}, ` +
			`"capabilities": {"ips":false}}]}`: {"IP": ips, "MAC": mac},
	} {
		s := newScenario(`[{"name": "a", "ips": ["10.2.2.42/24", "2001:db8::5"], ` +
			`"mac": "02:23:45:67:89:01"}]`)
		s.nad("web/a", config)
		got := map[string]string{}
		for _, pair := range s.must(t)[1].Args[1:] {
			got[pair[0]] = pair[1]
		}
		want(t, config, got, wanted)
	}
}

// S45, "the runtime's runtimeConfig reaches the default network only".
func TestS45RuntimeConfigOnlyDefault(t *testing.T) {
	s := newScenario("a")
	s.cfg.Delegates = []json.RawMessage{
		json.RawMessage(`{"name": "cluster", "type": "portmap", "capabilities": {"portMappings": true}}`),
		json.RawMessage(`{"name": "extra", "type": "portmap", "capabilities": {"portMappings": true}}`),
	}
	s.cfg.RuntimeConfig = map[string]json.RawMessage{
		"portMappings": json.RawMessage(`[{"hostPort": 80}]`),
	}
	s.nad("web/a", `{"type": "portmap", "capabilities": {"portMappings": true}}`)
	got := s.must(t)
	want(t, "default", runtimeConfig(got[0]), map[string]string{"portMappings": `[{"hostPort": 80}]`})
	want(t, "cluster-wide", runtimeConfig(got[1]), map[string]string{})
	want(t, "selected", runtimeConfig(got[2]), map[string]string{})
}

func TestS45PodsDefaultNetworkOverrides(t *testing.T) {
	s := newScenario("")
	s.cfg.RuntimeConfig = map[string]json.RawMessage{
		"mac": json.RawMessage(`"02:00:00:00:00:01"`), "dns": json.RawMessage(`{}`),
	}
	s.nad("kube-system/d", `{"type": "bridge", "capabilities": {"mac": true, "dns": true}}`)
	s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = `[{"name": "d", "mac": "02:00:00:00:00:02"}]`
	want(t, "runtimeConfig", runtimeConfig(s.must(t)[0]),
		map[string]string{"mac": `"02:00:00:00:00:02"`, "dns": `{}`})
	want(t, "the configuration's own", string(s.cfg.RuntimeConfig["mac"]), `"02:00:00:00:00:01"`)

	s.nad("kube-system/d", `{"type": "bridge"}`)
	s.args = append(s.args, [2]string{"MAC", "02:00:00:00:00:01"})
	want(t, "args", s.must(t)[0].Args,
		[][2]string{{"K8S_POD_NAME", "pod"}, {"MAC", "02:00:00:00:00:02"}})
}

// C11, "capabilities".
func TestC11CapabilitiesOfTheRuntimePass(t *testing.T) {
	s := newScenario("")
	s.cfg.RuntimeConfig = map[string]json.RawMessage{}
	declared := map[string]bool{"unasked": true, "off": false}
	for _, c := range []string{
		"portMappings", "ipRanges", "bandwidth", "dns", "ips", "mac", "infinibandGUID", "deviceID",
		"aliases", "cgroupPath", "io.x.new",
	} {
		s.cfg.RuntimeConfig[c] = json.RawMessage(`"` + c + `"`)
		declared[c] = true
	}
	config, err := json.Marshal(map[string]any{
		"name": "cluster", "type": "x", "capabilities": declared,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Delegates[0] = config
	all := maps.Clone(s.cfg.RuntimeConfig)
	s.cfg.RuntimeConfig["off"] = json.RawMessage(`1`)
	s.cfg.RuntimeConfig["undeclared"] = json.RawMessage(`1`)
	want(t, "runtimeConfig", s.must(t)[0].RuntimeConfig, all)
}

// C16, "trace context and arguments reach the plugins".
func TestC16ArgsOfTheRuntimePass(t *testing.T) {
	s := newScenario("a,b")
	s.args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "pod"}, {"IP", "192.0.2.1"}}
	got := s.must(t)
	want(t, "default network", got[0].Args,
		[][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "pod"}, {"IP", "192.0.2.1"}})
	// An address asked for by the runtime is for the interface that it knows of.
	wanted := [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAME", "pod"}}
	want(t, got[1].Name, got[1].Args, wanted)
	got[1].Args[0][1] = "changed"
	want(t, "shared between attachments", got[2].Args, wanted)
}

// D5, "CNIDeviceInfoFile where declared".
func TestD5CNIDeviceInfoFile(t *testing.T) {
	for config, declared := range map[string]bool{
		`{"type": "x"}`: false,
		`{"type": "x", "capabilities": {"CNIDeviceInfoFile": false}}`:                              false,
		`{"type": "x", "capabilities": {"CNIDeviceInfoFile": true}}`:                               true,
		`{"plugins": [{"type": "x"}, {"type": "y", "capabilities": {"CNIDeviceInfoFile": true}}]}`: true,
	} {
		s := newScenario("a")
		s.nad("web/a", config)
		want(t, config, s.must(t)[1].DeviceInfo, declared)
	}
}
