package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/internal/checktest"
	"github.com/braid-cni/braid/pkg/policy"
)

const minimal = `"name":"node","cniVersion":"1.0.0","type":"braid"`

// load reads a valid configuration with the given further keys.
func load(t *testing.T, keys string) *Config {
	t.Helper()
	c, err := Load([]byte(`{` + minimal + `,"clusterNetwork":"main",` + keys + `}`))
	if err != nil {
		t.Fatalf("Load(%s): %v", keys, err)
	}
	return c
}

func badLoad(t *testing.T, keys, field string, texts ...string) {
	t.Helper()
	c, err := Load([]byte(`{` + minimal + `,"clusterNetwork":"main",` + keys + `}`))
	if err == nil {
		t.Fatalf("Load(%s) = %+v, want an error at %s", keys, c, field)
	}
	e := checktest.Refused(t, err, failure.InvalidConfig, field, texts...)
	if e.Fix == "" {
		t.Errorf("%s: no Fix in %v", keys, err)
	}
	checktest.Same(t, "code of "+keys, failure.Code(err), types.ErrInvalidNetworkConfig)
}

func TestLoadDefaults(t *testing.T) {
	want := &Config{
		Call: Call{CNIVersion: "1.0.0", Name: "node"},
		Node: Node{
			ClusterNetwork: "main", SystemNamespaces: []string{"kube-system"},
			MultusNamespace: "kube-system",
			ConfDir:         "/etc/cni/multus/net.d", CNIDir: "/run/braid/cni",
			BinDirs: []string{"/opt/cni/bin"},
			LogFile: "/var/log/braid.log", LogLevel: "info",
			LogOptions: LogOptions{MaxAge: 5, MaxSize: 100, MaxBackups: 5, Compress: true},
			StateDir:   "/run/braid", DeviceInfoDir: "/var/run/k8s.cni.cncf.io/devinfo",
			PodResources: "/var/lib/kubelet/pod-resources/kubelet.sock",
			Timeouts: Timeouts{
				Operation: 90 * time.Second, Rollback: 30 * time.Second, API: 20 * time.Second,
				Status: 2 * time.Second,
			},
		},
		Policy: Policy{
			NamespaceIsolation: true, GlobalNamespaces: []string{"default"}, SecondaryDefaultRoute: "keep",
			DataRoots: []string{"/var/lib/cni", "/run/cni"}, PolicyDefault: "audit",
		},
	}
	checktest.Same(t, "defaults", load(t, `"x":1`), want)
	checktest.Same(t, "null", load(t, `"confDir":null,"logLevel":null,"logOptions":null,"braid":null,"namespaceIsolation":null,"delegates":null,
		"globalNamespaces":null,"cni.dev/valid-attachments":null,"logFile":null,"runtimeConfig":null`), want)
	checktest.Same(t, "foreign keys",
		load(t, `"prevResult":{"cniVersion":"1.0.0"},"cni.dev/attachments":[],`+
			`"allowTryDeleteOnErr":"x","daemonSocketDir":7`), want)
}

func TestLoadEverything(t *testing.T) {
	everything := policy.Default()
	everything.Namespaces, everything.All = []string{"a"}, true
	c := load(t, `"confDir":"/a//b/","cniDir":"/c","binDir":"/d","kubeconfig":"/e","logFile":"/f","logLevel":"DEBUG","logToStderr":true,
		"logOptions":{"maxAge":1,"maxSize":2,"maxBackups":0,"compress":false,"other":1},"capabilities":{"portMappings":true},
		"runtimeConfig":{"portMappings":[{"hostPort":12345678901234567890}]},"readinessIndicatorFile":"/g","namespaceIsolation":false,
		"globalNamespaces":" default, ns-a ,","systemNamespaces":["a","b"],"multusNamespace":"m","retryDeleteOnError":true,
		"defaultNetworks":["x","/y/z"],
		"braid":{"manifests":"/h","stateDir":"/i","deviceInfoDir":"/k","podResources":"/l","exec":["bridge"],"aliases":{"cnv-bridge":"bridge"},"hotplug":true,"nodeName":"n.example","secondaryDefaultRoute":"take","dataRoots":["/m/","/n"],"policyDefault":"enforce","policy":[{"namespaces":["a"],"all":true}],"timeouts":{"operation":"1m","rollback":"500ms","api":"3s","status":"1s"}}`)
	checktest.Same(t, "config", c, &Config{
		Call: Call{
			CNIVersion: "1.0.0", Name: "node", RuntimeConfig: map[string]json.RawMessage{
				"portMappings": json.RawMessage(`[{"hostPort":12345678901234567890}]`),
			},
		},
		Node: Node{
			ClusterNetwork: "main", DefaultNetworks: []string{"x", "/y/z"},
			SystemNamespaces: []string{"a", "b"},
			MultusNamespace:  "m", ConfDir: "/a/b", CNIDir: "/c", BinDirs: []string{"/d"}, Kubeconfig: "/e",
			LogFile: "/f", LogLevel: "debug", LogToStderr: true,
			LogOptions: LogOptions{MaxAge: 1, MaxSize: 2}, ReadinessIndicatorFile: "/g",
			RetryDeleteOnError: true,
			Capabilities:       map[string]bool{"portMappings": true}, Manifests: "/h", StateDir: "/i",
			DeviceInfoDir: "/k", PodResources: "/l", Exec: []string{"bridge"}, NodeName: "n.example",
			Aliases: map[string]string{"cnv-bridge": "bridge"}, HotPlug: true,
			Timeouts: Timeouts{
				Operation: time.Minute, Rollback: 500 * time.Millisecond, API: 3 * time.Second,
				Status: time.Second,
			},
		},
		Policy: Policy{
			GlobalNamespaces: []string{"default", "ns-a"}, SecondaryDefaultRoute: "take",
			DataRoots: []string{"/m", "/n"}, Rules: []policy.Rule{everything}, PolicyDefault: "enforce",
		},
	})
	checktest.Same(t, "cniDir follows stateDir", load(t, `"braid":{"stateDir":"/s/"}`).CNIDir,
		"/s/cni")
	checktest.Same(t, "logFile off", load(t, `"logFile":""`).LogFile, "")
	for level, want := range map[string]string{
		"verbose": "info", "panic": "error", "Error": "error", "warning": "warn", "": "info",
	} {
		checktest.Same(t, level, load(t, `"logLevel":"`+level+`"`).LogLevel, want)
	}
}

func TestLoadRefuses(t *testing.T) {
	for keys, at := range map[string]struct{ field, says string }{
		`"confDir":"net.d"`:   {"confDir", `"net.d" is no absolute path`},
		`"confDir":7`:         {"confDir", "is a number, not a string"},
		`"confDir":"/a/../b"`: {"confDir", `"/a/../b"`}, `"binDir":"/a\u0000b"`: {"binDir", `"/a\x00b"`},
		`"binDir":["a"]`:                 {"binDir", "element 0"},
		`"binDir":"/a:b"`:                {"binDir", `"b" is no absolute path`},
		`"binDir":7`:                     {"binDir", "is a number, not a string"},
		`"cniDir":"/"`:                   {"cniDir", "not Braid's own"},
		`"logFile":"//"`:                 {"logFile", "not Braid's own"},
		`"kubeconfig":"~/.kube/config"`:  {"kubeconfig", "no absolute path"},
		`"logLevel":5`:                   {"logLevel", "is a number, not a string"},
		`"logToStderr":"yes"`:            {"logToStderr", "is a string, not a boolean"},
		`"logOptions":{"maxAge":1.5}`:    {"logOptions.maxAge", `"1.5" is no whole number`},
		`"logOptions":{"maxSize":"100"}`: {"logOptions.maxSize", "whole number"},
		`"logOptions":{"compress":1}`:    {"logOptions.compress", "is a number, not a boolean"},
		`"logOptions":[]`:                {"logOptions", "is a list, not an object"},
		`"namespaceIsolation":"true"`:    {"namespaceIsolation", "is a string, not a boolean"},
		`"globalNamespaces":7`:           {"globalNamespaces", "neither a string nor a list"},
		`"systemNamespaces":"a"`:         {"systemNamespaces", "is a string, not a list"},
		`"systemNamespaces":["a",1]`: {
			"systemNamespaces",
			"element 1: is a number, not a string",
		},
		`"multusNamespace":"A"`: {"multusNamespace", `"A"`},
		`"runtimeConfig":[]`:    {"runtimeConfig", "is a list, not an object"},
		`"capabilities":"x"`:    {"capabilities", "is a string, not an object"},
		`"defaultNetworks":["a","b/c"]`: {
			"defaultNetworks",
			`element 1: "b/c" is no absolute path`,
		},
		`"defaultNetworks":[""]`:        {"defaultNetworks", `""`},
		`"auxiliaryCNIChainName":"a/b"`: {"auxiliaryCNIChainName", `"a/b"`},
		`"auxiliaryCNIChainName":"a"`: {
			"auxiliaryCNIChainName",
			`which is "main"; set clusterNetwork`,
		},
	} {
		badLoad(t, keys, at.field, at.says)
	}
}

// The keys of the object braid are refused likewise.
func TestLoadRefusesOwnKeys(t *testing.T) {
	for keys, at := range map[string]struct{ field, says string }{
		`"braid":[]`:                         {"braid", "is a list, not an object"},
		`"braid":{"stateDir":"/"}`:           {"braid.stateDir", "not Braid's own"},
		`"braid":{"stateDir":"/run/../etc"}`: {"braid.stateDir", `"/run/../etc"`},
		`"braid":{"manifests":"x"}`:          {"braid.manifests", "no absolute path"},
		`"braid":{"deviceInfoDir":"/"}`:      {"braid.deviceInfoDir", "not Braid's own"},
		`"braid":{"podResources":"s"}`:       {"braid.podResources", "no absolute path"},
		`"braid":{"exec":["../x"]}`:          {"braid.exec", `element 0: "../x"`},
		`"braid":{"exec":"x"}`:               {"braid.exec", "is a string, not a list"},
		`"braid":{"hotplug":"yes"}`:          {"braid.hotplug", "is a string, not a boolean"},
		`"braid":{"aliases":["a"]}`:          {"braid.aliases", "is a list, not an object"},
		`"braid":{"aliases":{"a":"../b"}}`:   {"braid.aliases", `"../b" is no plain file name`},
		`"braid":{"aliases":{"a/b":"c"}}`:    {"braid.aliases", `"a/b" is no plain file name`},
		`"braid":{"aliases":{"a":"multus"}}`: {"braid.aliases", "is a meta plugin's"},
		`"braid":{"aliases":{"a":"b","b":"c"}}`: {
			"braid.aliases",
			`"a": is for "b", which is another name itself`,
		},
		`"braid":{"nodeName":"N"}`: {"braid.nodeName", `"N"`},
		`"braid":{"StateDir":"/a"}`: {
			"braid.StateDir",
			`unknown key "StateDir"; use manifests, stateDir, deviceInfoDir, podResources, exec, ` +
				`nodeName, unknownKeys, secondaryDefaultRoute, dataRoots, policy, policyDefault, aliases, ` +
				`hotplug, timeouts`,
		},
		`"braid":{"secondaryDefaultRoute":"hold"}`: {
			"braid.secondaryDefaultRoute",
			`"hold" is no policy; give "keep", "take" or "refuse"`,
		},
		`"braid":{"policyDefault":"off"}`: {
			"braid.policyDefault",
			`"off" is no way to treat it; give "audit" or "enforce"`,
		},
		`"braid":{"policy":[{"namespaces":[]}]}`: {
			"braid.policy[0].namespaces",
			"the rule names no namespace",
		},
		`"braid":{"timeouts":{"operation":90}}`: {"braid.timeouts.operation", `"90" is a number`},
		`"braid":{"timeouts":{"api":"0s"}}`:     {"braid.timeouts.api", `"0s" is not positive`},
		`"braid":{"timeouts":{"status":"soon"}}`: {
			"braid.timeouts.status",
			`"soon" is no duration; give a positive duration`,
		},
		`"braid":{"timeouts":{"add":"1s"}}`: {
			"braid.timeouts.add",
			"use operation, rollback, api, status",
		},
		`"braid":{"a\nb":1}`: {`braid."a\nb"`, `unknown key "a\nb"`},
	} {
		badLoad(t, keys, at.field, at.says)
	}
}

// A policy that cannot be read is the tenant's default, enforced, for an operation: its pods must
// not have more than before, and the operator's go on. Nobody installs such a configuration.
func TestPolicyThatCannotBeRead(t *testing.T) {
	for _, keys := range []string{
		`"policy":[{"namespaces":["a"],"all":true},{"namespaces":["b"],"master":["x"]}]`, `"policy":{}`,
		`"policyDefault":"off"`, `"policy":[{"namespaces":[]}]`,
	} {
		text := []byte(`{` + minimal + `,"clusterNetwork":"main","braid":{"unknownKeys":"refuse",` +
			keys + `}}`)
		if c, err := Load(text); err == nil {
			t.Errorf("%s is installed: %+v", keys, c.Policy)
		}
		for name, read := range map[string]func([]byte) (*Config, error){
			"call":    LoadForCall,
			"removal": LoadForRemoval,
		} {
			c, err := read(text)
			if err != nil {
				t.Fatalf("%s, %s: %v", keys, name, err)
			}
			checktest.Same(t, name+" of "+keys,
				fmt.Sprintln(c.Rules, c.PolicyDefault, c.RefuseUnknownKeys, c.ClusterNetwork),
				"[] enforce true main\n")
			checktest.Same(t, "warnings", len(c.Warnings()), 1)
			checktest.Refused(t, c.Warnings()[0], failure.OddConfig, c.Warnings()[0].Field,
				"the tenant's default is enforced")
		}
	}
	_, err := LoadForCall([]byte(
		`{` + minimal + `,"clusterNetwork":"main","braid":{"unknownKeys":"x","policy":{}}}`))
	if err == nil {
		t.Error("what else is wrong is passed over")
	}
}

// oddValues are keys that Multus makes something of. ok reports whether a configuration has what
// the key is taken for.
var oddValues = map[string]struct {
	says string
	ok   func(c *Config) bool
}{
	`"logFile":"multus.log"`: {`field logFile: "multus.log" is relative, ` +
		`and taken for "/var/log/multus.log"`, func(c *Config) bool {
		return c.LogFile == "/var/log/multus.log"
	}},
	`"LogFile":"../../etc/x"`: {"/var/log/etc/x", func(c *Config) bool {
		return c.LogFile == "/var/log/etc/x"
	}},
	`"binDir":["/a","/b/"]`: {"field binDir: it names 2 directories", func(c *Config) bool {
		return slices.Equal(c.BinDirs, []string{"/a", "/b"})
	}},
	`"binDir":"/a:/b"`: {"2 directories", func(c *Config) bool {
		return slices.Equal(c.BinDirs, []string{"/a", "/b"})
	}},
	`"binDir":[]`: {"binDir", func(c *Config) bool {
		return slices.Equal(c.BinDirs, []string{"/opt/cni/bin"})
	}},
	`"logLevel":"trace"`: {
		`field logLevel: "trace" is taken for debug; write debug`,
		func(c *Config) bool {
			return c.LogLevel == "debug"
		},
	},
	`"logLevel":"panic"`: {"taken for error", func(c *Config) bool {
		return c.LogLevel == "error"
	}},
	`"logLevel":"Verbose"`: {"taken for info", func(c *Config) bool {
		return c.LogLevel == "info"
	}},
	`"logLevel":"loud"`: {`"loud" is no level, and info is taken; give debug`, func(c *Config) bool {
		return c.LogLevel == "info"
	}},
	`"logOptions":{"maxAge":-1,"maxSize":7}`: {"field logOptions.maxAge: -1 is negative, and 5 " +
		"is taken", func(c *Config) bool {
		return c.LogOptions.MaxAge == 5 && c.LogOptions.MaxSize == 7
	}},
	`"globalNamespaces":"a, B"`: {`"B" is no DNS-1123 label, and is ignored`, func(c *Config) bool {
		return slices.Equal(c.GlobalNamespaces, []string{"a"})
	}},
	`"systemNamespaces":["a","../b"]`: {`"../b" is no DNS-1123 label`, func(c *Config) bool {
		return slices.Equal(c.SystemNamespaces, []string{"a"})
	}},
	`"cniVersion":null`: {
		"field cniVersion: it is missing, and taken for 1.0.0",
		func(c *Config) bool {
			return c.CNIVersion == "1.0.0"
		},
	},
	`"binDir":"","confDir":"","logLevel":"INFO","multusNamespace":"",` +
		`"globalNamespaces":""`: {"", func(c *Config) bool {
		return c.BinDirs[0] == "/opt/cni/bin" && c.ConfDir == "/etc/cni/multus/net.d" &&
			c.LogLevel == "info" && c.MultusNamespace == "kube-system" && c.GlobalNamespaces[0] == "default"
	}},
	`"perNodeCertificate":{"enabled":true},"daemonSocketDir":"/run","multusConfigFile":"auto",` +
		`"Note1":"x"`: {"", func(*Config) bool {
		return true
	}},
}

// What Multus makes something of keeps no pod from starting.
func TestR9OddValues(t *testing.T) {
	for keys, want := range oddValues {
		version := `"cniVersion":"1.0.0",`
		if strings.Contains(keys, "cniVersion") {
			version = ""
		}
		c, err := Load([]byte(`{"name":"node","type":"multus","clusterNetwork":"main",` +
			version + keys + `}`))
		if err != nil {
			t.Errorf("%s: %v", keys, err)
			continue
		}
		if !want.ok(c) {
			t.Errorf("%s: %+v", keys, c)
		}
		if (len(c.Warnings()) == 1) != (want.says != "") || len(c.Warnings()) > 1 {
			t.Errorf("%s: warnings %v, want %q", keys, c.Warnings(), want.says)
			continue
		}
		for _, w := range c.Warnings() {
			if w.Reason != failure.OddConfig || w.Fix == "" || !strings.Contains(w.Error(), want.says) {
				t.Errorf("%s: %v, want %q", keys, w, want.says)
			}
		}
	}
}

func TestLoadNetworks(t *testing.T) {
	const inline = `"delegates":[{"type":"main"},{"name":"two","plugins":[{"type":"b",` +
		`"n":12345678901234567890}]}]`
	c, err := Load([]byte(`{` + minimal + `,` + inline + `,"defaultNetworks":["ignored"]}`))
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	checktest.Same(t, "delegates", fmt.Sprintf("%s", c.Delegates),
		`[{"type":"main"} {"name":"two","plugins":[{"type":"b","n":12345678901234567890}]}]`)
	checktest.Same(t, "defaultNetworks without clusterNetwork", len(c.DefaultNetworks), 0)

	checktest.Same(t, "delegates beside clusterNetwork",
		len(load(t, `"delegates":["ignored as in Multus"]`).Delegates), 0)
	for _, path := range []string{"/etc/cni/net.d/10-a.conflist", "/etc/cni/net.d/"} {
		c, err := Load([]byte(`{` + minimal + `,"clusterNetwork":"` + path +
			`","auxiliaryCNIChainName":"aux"}`))
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		checktest.Same(t, "clusterNetwork", c.ClusterNetwork, strings.TrimSuffix(path, "/"))
		checktest.Same(t, "auxiliaryCNIChainName", c.AuxiliaryCNIChainName, "aux")
	}
	for keys, at := range map[string]struct{ field, says string }{
		`"x":1`: {
			"clusterNetwork",
			"neither clusterNetwork nor delegates is set; set one",
		},
		`"clusterNetwork":"","delegates":[]`: {"clusterNetwork", "neither"},
		`"delegates":{}`:                     {"delegates", "is an object, not a list"},
		`"delegates":[{}]`:                   {"delegates[0].plugins", "neither type nor plugins"},
		`"delegates":[{"type":"a"},7]`:       {"delegates[1]", "is a number, not an object"},
		`"delegates":[{"type":"/a"}]`: {
			"delegates[0].plugins[0].type",
			`"/a" is no plain file name`,
		},

		`"delegates":[{"type":"a",` +
			`"ipam":{"type":"../a"}}]`: {"delegates[0].plugins[0].ipam.type", "plugin a: "},
		`"clusterNetwork":"a/b"`: {
			"clusterNetwork",
			`"a/b" is no absolute path`,
		},
		`"clusterNetwork":"../a"`: {"clusterNetwork", `"../a"`},
		`"clusterNetwork":["a"]`: {
			"clusterNetwork",
			"is a list, not a string",
		},
	} {
		_, err := Load([]byte(`{` + minimal + `,` + keys + `}`))
		checktest.Refused(t, err, failure.InvalidConfig, at.field, at.says)
	}
}

func TestLoadBadInput(t *testing.T) {
	for raw, at := range map[string]struct {
		code       uint
		field, say string
	}{
		"": {
			types.ErrDecodingFailure, "",
			"line 1 column 1: unexpected end of JSON input",
		},
		"{\n# no\n}": {
			types.ErrDecodingFailure, "",
			"line 2 column 1: a \"#\" comment, and JSON has no comments",
		},
		`{"name":"a"`:           {types.ErrDecodingFailure, "", "unexpected end"},
		`{"name":"a","name":1}`: {types.ErrDecodingFailure, "name", "twice"},
		"{\"name\":\"\xff\"}":   {types.ErrDecodingFailure, "", "not UTF-8"},
		"[]": {
			types.ErrInvalidNetworkConfig, "",
			"is a list, not an object",
		},
		`{"cniVersion":"1.0.0"}`: {
			types.ErrInvalidNetworkConfig, "name",
			"the name is missing",
		},
		`{"name":"a b","cniVersion":"1.0.0"}`: {
			types.ErrInvalidNetworkConfig, "name",
			`"a b" is no CNI network name`,
		},
		`{"name":"a","cniVersion":"0.2.0"}`: {
			types.ErrIncompatibleCNIVersion, "cniVersion",
			`"0.2.0" is not supported`,
		},
		`{"name":"a","cniVersion":"9.0.0"}`: {
			types.ErrIncompatibleCNIVersion, "cniVersion",
			`"9.0.0" is not supported`,
		},
		`{"name":"a","cniVersion":1}`: {
			types.ErrInvalidNetworkConfig, "cniVersion",
			"is a number, not a string",
		},
		strings.Repeat(" ", 10<<20): {
			types.ErrInvalidNetworkConfig, "",
			"has 10485760 bytes; keep it below 4194304",
		},
	} {
		_, err := Load([]byte(raw))
		checktest.Refused(t, err, failure.InvalidConfig, at.field, at.say)
		checktest.Same(t, fmt.Sprintf("code of %.40q", raw), failure.Code(err), at.code)
	}
}

// U13, "namespace isolation".
func TestU13IsolationIsOn(t *testing.T) {
	c := load(t, `"x":1`)
	checktest.Same(t, "isolation", c.NamespaceIsolation, true)
	checktest.Same(t, "global", c.GlobalNamespaces, []string{"default"})
	for value, want := range map[string][]string{
		`"a,b"`: {"a", "b"}, `["a","b"]`: {"a", "b"}, `""`: {"default"}, `" , "`: {"default"}, `[]`: {},
	} {
		checktest.Same(t, value, load(t, `"globalNamespaces":`+value).GlobalNamespaces, want)
	}
}

// C7, "GC by the runtime's list, for every network; disableGC".
func TestC7ValidAttachments(t *testing.T) {
	if got := load(t, `"x":1`).ValidAttachments; got != nil {
		t.Errorf("none sent: %#v, want nil", got)
	}
	if got := load(t, `"cni.dev/valid-attachments":[]`).ValidAttachments; got == nil || len(got) != 0 {
		t.Errorf("an empty list: %#v, want it", got)
	}
	checktest.Same(t, "two", load(t,
		`"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerID":"b",`+
			`"ifname":"eth0","more":1}]`).ValidAttachments,
		[]types.GCAttachment{{ContainerID: "a", IfName: "eth0"}, {ContainerID: "b", IfName: "eth0"}})
	many := strings.Repeat(`{"containerID":"`+strings.Repeat("c", 64)+`","ifname":"eth0"},`, 12000)
	checktest.Same(t, "many",
		len(load(t, `"cni.dev/valid-attachments":[`+strings.TrimSuffix(many, ",")+`]`).ValidAttachments),
		12000)
	for _, value := range []string{
		`{}`, `[null]`, `["a"]`, `[{"ifname":"eth0"}]`, `[{"containerID":"a"}]`,
		`[{"containerID":"../a","ifname":"eth0"}]`,
		`[{"containerID":"a","ifname":"a/b"}]`, `[{"containerID":1,"ifname":"eth0"}]`,
	} {
		badLoad(t, `"cni.dev/valid-attachments":`+value, "cni.dev/valid-attachments", "containerID")
	}
}

// An agent has read the node's keys before: what a call says of them is not looked at.
func TestLoadCall(t *testing.T) {
	const node = `"confDir":7,"binDir":["a"],"braid":{"x":1},"namespaceIsolation":"x","delegates":7,` +
		`"capabilities":"x","logLevel":"loud"`
	call, err := LoadCall([]byte(
		`{` + minimal + `,` + node + `,"runtimeConfig":{"mac":"m"},"cni.dev/valid-attachments":[]}`))
	if err != nil {
		t.Fatalf("LoadCall: %v", err)
	}
	checktest.Same(t, "call", call, &Call{
		CNIVersion: "1.0.0", Name: "node", RuntimeConfig: map[string]json.RawMessage{
			"mac": json.RawMessage(`"m"`),
		}, ValidAttachments: []types.GCAttachment{},
	})
	call, err = LoadCall([]byte(`{"name":"node"}`))
	if err != nil || len(call.Warnings) != 1 || call.CNIVersion != "1.0.0" {
		t.Errorf("without a version: %+v, %v", call, err)
	}
	for raw, field := range map[string]string{
		`{`: "", `{"cniVersion":"1.0.0"}`: "name", `{` + minimal + `,"runtimeConfig":7}`: "runtimeConfig",
	} {
		if call, err = LoadCall([]byte(raw)); call != nil {
			t.Errorf("%s: %+v", raw, call)
		}
		checktest.Refused(t, err, failure.InvalidConfig, field)
	}
}

func loadSeeds() []string {
	return []string{
		`"clusterNetwork":"a"`, `"delegates":[{"type":"a"}]`,
		`"clusterNetwork":"/a","auxiliaryCNIChainName":"b","defaultNetworks":["c"]`,
		`"clusterNetwork":"a","globalNamespaces":"a,b","braid":{"stateDir":"/x",` +
			`"timeouts":{"api":"1s"}},"cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}]`,
		`"clusterNetwork":"a","logOptions":{"maxAge":1},"logLevel":"panic","CONFDIR":"/a/b/"`,
	}
}

func FuzzLoad(f *testing.F) {
	for _, keys := range loadSeeds() {
		f.Add([]byte(`{` + minimal + `,` + keys + `}`))
	}
	f.Add([]byte("{\n#\n}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Load(raw)
		if err != nil {
			e, ok := errors.AsType[*failure.Error](err)
			if !ok || e.Reason != failure.InvalidConfig || failure.Code(err) == types.ErrInternal {
				t.Fatalf("Load(%q): %#v", raw, err)
			}
			return
		}
		//nolint:govet // warnings are equal if their causes are
		if call, err := LoadCall(raw); err != nil || !reflect.DeepEqual(*call, c.Call) {
			t.Fatalf("Load(%q): call %+v, alone %+v, %v", raw, c.Call, call, err)
		}
		if (c.ClusterNetwork == "") == (len(c.Delegates) == 0) {
			t.Fatalf("Load(%q): clusterNetwork %q with %d delegates",
				raw, c.ClusterNetwork, len(c.Delegates))
		}
		for _, path := range append(c.BinDirs, c.ConfDir, c.CNIDir, c.StateDir) {
			if !strings.HasPrefix(path, "/") || strings.Contains(path, "/../") ||
				strings.HasSuffix(path, "/..") || strings.ContainsRune(path, 0) {
				t.Fatalf("Load(%q): path %q", raw, path)
			}
		}
		if tm := c.Timeouts; min(tm.Operation, tm.Rollback, tm.API, tm.Status) <= 0 {
			t.Fatalf("Load(%q): timeouts %v", raw, tm)
		}
	})
}
