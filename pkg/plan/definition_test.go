package plan_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
)

// S3, "spec.config is a conf or a conflist and may omit name".
func TestS3ConfOrConflistWithoutName(t *testing.T) {
	for _, config := range []string{
		`{"cniVersion": "0.3.0", "type": "awesome-plugin"}`,
		`{"cniVersion": "0.3.0", "plugins": [{"type": "awesome-plugin"}]}`,
	} {
		s := newScenario("a")
		s.nad("web/a", config)
		sameJSON(t, config, string(s.must(t)[1].Conf),
			`{"cniVersion": "0.3.0", "name": "a", "plugins": [{"type": "awesome-plugin"}]}`)
	}
}

// S4, "without spec: the network of the object's name on disk".
func TestS4NoSpecTakesTheNetworkOnDisk(t *testing.T) {
	for _, empty := range []string{"", " \n"} {
		s := newScenario("a")
		s.nad("web/a", empty)
		s.disk["a"] = `{"name": "a", "type": "macvlan"}`
		s.nads["web/a"].Spec.Config = ""
		got := s.must(t)[1]
		want(t, "name", got.Name, "web/a")
		want(t, "type", string(decode(t, got).Plugins[0]["type"]), `"macvlan"`)
	}
	s := newScenario("a")
	s.nad("web/a", "")
	s.refused(t, failure.NADInvalid, "NAD web/a", "spec.config", "/etc/cni/multus/net.d")
}

func TestS4Missing(t *testing.T) {
	newScenario("gone").refused(t, failure.NADNotFound, "NAD web/gone", "create it")

	s := newScenario("")
	s.cfg.ClusterNetwork = "gone"
	s.refused(t, failure.NetworkNotFound, "gone", "kube-system", "/etc/cni/multus/net.d")

	s.disk["gone"] = `{"name": "gone", "type": "bridge"}`
	want(t, "on disk", displayNames(s.must(t)), []string{"gone"})
	s.nad("kube-system/gone", `{"name": "other", "type": "bridge"}`)
	want(t, "the NAD first", displayNames(s.must(t)), []string{"kube-system/gone"})
}

// S7, "an omitted name becomes the NAD's".
func TestS7InjectsName(t *testing.T) {
	for _, config := range []string{
		`{"type": "macvlan"}`, `{"name": "", "type": "macvlan"}`,
		`{"name": null, "plugins": [{"type": "macvlan"}]}`,
	} {
		s := newScenario("a")
		s.nad("web/a", config)
		got := s.must(t)[1]
		want(t, config, []string{got.Network, decode(t, got).Name}, []string{"a", "a"})
	}
	s := newScenario("")
	s.cfg.Delegates = []json.RawMessage{json.RawMessage(`{"type": "weave-net"}`)}
	want(t, "delegate without a name", s.must(t)[0].Network, "braid")
}

// S8, "a name that differs from the object's is allowed".
func TestS8DifferingNameStays(t *testing.T) {
	s := newScenario("a")
	s.nad("web/a", `{"name": "Other_1.x", "type": "macvlan"}`)
	got := s.must(t)[1]
	want(t, "network, name", []string{got.Network, got.Name}, []string{"Other_1.x", "web/a"})
}

// S18, "cni-args become args.cni; the pod's win".
func TestS18PodArgsOverrideNAD(t *testing.T) {
	s := newScenario(`[{"name": "a", "cni-args": {"spoofchk": "on", "big": 12345678901234567890}}]`)
	s.nad("web/a", `{"plugins": [{"type": "x", "args": {"cni": {"spoofchk": "off", "vlan": 7}, `+
		`"other": 1}}, {"type": "y"}]}`)
	l := decode(t, s.must(t)[1])
	sameJSON(t, "first", string(l.Plugins[0]["args"]),
		`{"cni": {"spoofchk": "on", "vlan": 7, "big": 12345678901234567890}, "other": 1}`)
	sameJSON(t, "second", string(l.Plugins[1]["args"]),
		`{"cni": {"spoofchk": "on", "big": 12345678901234567890}}`)

	s.nad("web/a", `{"type": "x", "args": {"cni": ["no object"]}}`)
	s.refused(t, failure.NADInvalid, "NAD web/a", "args")
}

// S23, "ipam-claim-reference is a string, not with ips (its effect: S46)".
func TestS23IPAMClaimReachesTheDelegate(t *testing.T) {
	s := newScenario(`[{"name": "a", "ipam-claim-reference": "vm-a.tenantred", "cni-args": {"k": 1}}]`)
	l := decode(t, s.must(t)[1])
	sameJSON(t, "args", string(l.Plugins[0]["args"]),
		`{"cni": {"ipam-claim-reference": "vm-a.tenantred", "k": 1}}`)

	newScenario(`[{"name": "a", "ipam-claim-reference": "c", "ips": ["10.0.0.1"]}]`).
		refused(t, failure.InvalidAnnotation, "ips")
}

// S24, "the same network more than once".
func TestS24SameNetworkTwice(t *testing.T) {
	got := newScenario("a,a").must(t)
	want(t, "names", displayNames(got), []string{"cluster", "web/a", "web/a"})
	want(t, "interfaces", ifNames(got), []string{"eth0", "net1", "net2"})
	want(t, "same network", got[1].Network, got[2].Network)
}

// recorder is libcni's Exec: it records what each plugin would read.
type recorder struct{ stdin [][]byte }

func (r *recorder) ExecPlugin(
	_ context.Context, _ string, stdin []byte, _ []string,
) ([]byte, error) {
	r.stdin = append(r.stdin, stdin)
	return []byte(`{"cniVersion": "0.4.0"}`), nil
}

func (r *recorder) FindInPath(plugin string, _ []string) (string, error) { return plugin, nil }

func (r *recorder) Decode(raw []byte) (version.PluginInfo, error) {
	return (&version.PluginDecoder{}).Decode(raw)
}

// S40, "cniVersion and name in each plugin of a chain".
func TestS40NameAndVersionInEveryPlugin(t *testing.T) {
	s := newScenario("a")
	s.nad("web/a", `{"cniVersion": "0.4.0", "plugins": [{"type": "x", "name": "mine", `+
		`"cniVersion": "0.3.0"}, {"type": "y"}]}`)
	a := s.must(t)[1]
	l, err := libcni.NetworkConfFromBytes(a.Conf)
	if err != nil {
		t.Fatal(err)
	}
	exec := &recorder{}
	cni := libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, t.TempDir(), exec)
	_, err = cni.AddNetworkList(t.Context(), l,
		&libcni.RuntimeConf{ContainerID: "c0ffee", NetNS: "/n", IfName: a.IfName})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "plugins called", len(exec.stdin), 2)
	for _, stdin := range exec.stdin {
		var got list
		if err := json.Unmarshal(stdin, &got); err != nil {
			t.Fatal(err)
		}
		want(t, "name and version", []string{got.Name, got.CNIVersion}, []string{"a", "0.4.0"})
	}
}

// C2, "versions 0.3.0 to 1.1.0".
func TestC2VersionWhereTheNetworkHasNone(t *testing.T) {
	s := newScenario("a")
	s.nad("web/a", `{"type": "macvlan"}`)
	want(t, "Braid's", decode(t, s.must(t)[1]).CNIVersion, "1.0.0")
	s.cfg.CNIVersion = ""
	want(t, "built in", decode(t, s.must(t)[1]).CNIVersion, "1.0.0")
	s.cfg.CNIVersion = "0.3.1"
	want(t, "Braid's own is older", decode(t, s.must(t)[1]).CNIVersion, "0.3.1")

	s.nad("web/a", `{"cniVersions": ["0.4.0", "1.1.0"], "type": "macvlan"}`)
	sameJSON(t, "choice", string(s.must(t)[1].Conf),
		`{"name": "a", "cniVersions": ["0.4.0", "1.1.0"], "plugins": [{"type": "macvlan"}]}`)
}

// What Braid does not know goes to the delegate as it was written.
func TestC10UnknownFieldsSurvive(t *testing.T) {
	const plugin = `"type": "macvlan", "future": {"n": 123456789012345678901234567890, "f": 1.0e-400, "z": 1.50, "s": "<&>\u00e9", "l": [null, true, {}]},
		"ipam": {"type": "static", "addresses": [{"address": "10.0.0.1/24", "x": 9007199254740993}]}`
	s := newScenario(`[{"name": "a", "cni-args": {"k": "v"}}]`)
	nad := s.nad("web/a", `{"cniVersion": "0.4.0", "name": "a", "unknown": [1e2], `+
		`"disableCheck": true, "plugins": [{`+plugin+`}, {"type": "tuning"}]}`)
	nad.Annotations["k8s.v1.cni.cncf.io/resourceName"] = "r"
	s.devices = map[string][]string{"r": {"0000:01:02.3"}}
	const injected = `"args": {"cni": {"k": "v"}}, "deviceID": "0000:01:02.3", ` +
		`"pciBusID": "0000:01:02.3"`
	sameJSON(t, "conf", string(s.must(t)[1].Conf), `{"cniVersion": "0.4.0", "name": "a", "unknown": [1e2], "disableCheck": true,
		"plugins": [{`+plugin+`, `+injected+`}, {"type": "tuning", `+injected+`}]}`)
}

// U8, "NADs: versions, name, comments".
func TestU8NADConfig(t *testing.T) {
	for name, tc := range map[string]struct {
		config string
		words  []string
	}{
		"comment": {"{\n  \"type\": \"macvlan\", # the plugin\n}", []string{"comment", "line 2"}},
		"no type": {`{"name": "x"}`, []string{"type", "plugins"}},
		"old cniVersion": {
			`{"cniVersion": "0.2.0", "type": "macvlan"}`,
			[]string{"cniVersion", "0.3.0"},
		},
		"no JSON":       {`type: macvlan`, []string{"line 1"}},
		"no object":     {`[]`, []string{"object"}},
		"bad name":      {`{"name": "../x", "type": "macvlan"}`, []string{"name"}},
		"empty plugins": {`{"plugins": []}`, []string{"plugins"}},
		"M21 type":      {`{"type": "../../bin/sh"}`, []string{"type"}},
		"M21 IPAM type": {`{"type": "macvlan", "ipam": {"type": "/bin/sh"}}`, []string{"ipam.type"}},
		"ten megabytes": {
			`{"type": "macvlan", "x": "` + strings.Repeat("x", 10<<20) + `"}`,
			[]string{"bytes"},
		},
		"nested too deep": {`{"type": "macvlan", "x": ` +
			strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario("a")
			s.nad("web/a", tc.config)
			s.refused(t, failure.NADInvalid, append(tc.words, "NAD web/a: ")...)
			if _, err := s.plan(); strings.Count(err.Error(), "web/a") != 1 || len(err.Error()) > 1000 {
				t.Errorf("the error repeats itself: %.1000s", err)
			}

			s = newScenario("")
			s.cfg.Delegates = []json.RawMessage{json.RawMessage(tc.config)}
			s.refused(t, failure.InvalidConfig, "delegates[0]")
		})
	}
	for _, v := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		s := newScenario("a")
		s.nad("web/a", `{"cniVersion": "`+v+`", "type": "macvlan"}`)
		want(t, v, decode(t, s.must(t)[1]).CNIVersion, v)
	}
}

// U15, "only connected routes".
func TestU15NoRouteIsAdded(t *testing.T) {
	s := newScenario("a")
	s.nad("web/a", `{"cniVersion": "0.3.1", "type": "ipvlan", "ipam": {"type": "static", `+
		`"addresses": [{"address": "21.0.111.1/21", "gateway": "21.0.111.254"}]}}`)
	got := s.must(t)[1]
	if strings.Contains(string(got.Conf), "routes") || got.WantsDefaultRoute || got.Gateways != nil {
		t.Errorf("the plan adds routes: %+v", got)
	}
}
