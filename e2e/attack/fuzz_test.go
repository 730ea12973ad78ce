package attack_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/e2e/corpus"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/weaken"
)

// seed is an attack.
type seed struct {
	attempt

	// finds are the mechanisms without which the watcher sees it; none where another one stops it.
	finds []weaken.Mechanism
}

// hostile are attacks; DIR is the node's directory, LOG that of logs.
func hostile() []seed {
	x := func(namespace, config string, finds ...weaken.Mechanism) seed {
		return seed{attempt{namespace, config, "x"}, finds}
	}
	whereabouts := func(more string) string {
		return `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"whereabouts",` +
			`"range":"10.25.0.0/24"` + more + `}}`
	}
	bridge := strings.NewReplacer("NAME", "br-team").Replace(harmless)
	return []seed{
		x(labelled, bridge),
		x(loose, `{"cniVersion":"1.0.0","name":"x","type":"braid","binDir":"DIR/outside","delegates":[{"cniVersion":"1.0.0","name":"y","type":"mine"}],
			"braid":{"manifests":"DIR/manifests","stateDir":"DIR/other"}}`, weaken.Meta, weaken.Self, weaken.Caller),
		x(labelled, `{"cniVersion":"1.0.0","type":"tool"}`, weaken.Policy),
		x(labelled, `{"cniVersion":"1.0.0","plugins":[`+bridge+`,{"type":"fake"}]}`, weaken.Policy),
		x(ruled, `{"cniVersion":"1.0.0","plugins":[{"type":"fake"},{"type":"tool"}]}`, weaken.Policy),
		x(ruled, `{"cniVersion":"1.0.0","type":"fake","delegate":{"type":"tool"},`+
			`"ipam":{"type":"../../outside/mine"}}`),
		x(ruled, leased("DIR/outside", ""), weaken.Roots),
		x(loose, leased("DIR/data/../outside", ""), weaken.Roots),
		x(loose, leased("DIR/data/link", ""), weaken.Symlinks),
		x(loose, leased("DIR/data/link/deep", ""), weaken.Symlinks),
		x(ruled, leased("DIR/data", `,"resolvConf":"DIR/outside/secret"`), weaken.Roots),
		x(loose, leased("DIR/data", `,"re\u017folvConf":"/proc/1/environ"`)),
		x(loose, leased("/dev/null", "")),
		x(loose, whereabouts(`,"log_file":"DIR/outside/log"`), weaken.Roots),
		x(loose, whereabouts(`,"log_file":"LOG/link/log","log_level":"debug"`), weaken.Symlinks),
		x(loose, whereabouts(`,"log_file":"LOG/file","LOG_FILE":"DIR/outside/log"`)),
		x(loose, whereabouts(`,"configuration_path":"DIR/outside/secret",`+
			`"kubernetes":{"kubeconfig":"DIR/outside/secret"}`)),
		x(loose, `{"cniVersion":"1.0.0","plugins":[`+bridge+
			`,{"type":"tuning","dataDir":"DIR/outside","mtu":1400}]}`, weaken.Roots),
		x(ruled, `{"cniVersion":"1.0.0","type":"fake",`+
			`"runtimeConfig":{"CNIDeviceInfoFile":"DIR/outside/secret"},`+
			`"capabilities":{"CNIDeviceInfoFile":true}}`),
		x(labelled, `{"cniVersion":"1.0.0","plugins":[`+bridge+`,{"type":"tuning",`+
			`"sysctl":{"net/ipv4/../../kernel/core_pattern":"x","net.ipv4.conf.IFNAME.arp_filter":"1"}}]}`),
		x(loose, strings.Replace(bridge, "br-team", "../../../escape", 1)),
		x(labelled, ""),
		{attempt{
			labelled, ported(), `[{"name":"x","portMappings":[{"hostPort":10250,"containerPort":80}]},` +
				`{"name":"x","cni-args":{"sysctl":{"kernel.core_pattern":"|/mine"}}}]`,
		}, nil},
		{attempt{
			labelled, bridge, `[{"name":"x","interface":"../x"},{"name":"x",` +
				`"cni-args":{"ips":["10.77.0.9/24"],"mac":"02:00:00:00:00:01"}}]`,
		}, nil},
		{attempt{labelled, bridge, "kube-system/x,../x,x@all"}, nil},
	}
}

// fill puts the world's directories into a text.
func (w *world) fill(text string) string {
	return strings.NewReplacer("DIR", w.dir, "LOG", w.lies).Replace(text)
}

// TestWatcherSees: without the mechanisms the watcher sees what the attacks do, and with them there
// is nothing to be seen.
func TestWatcherSees(t *testing.T) {
	t.Parallel()
	nettest.NeedsRoot(t)
	strong := newWorld(t, released(t))
	for i, seed := range hostile() {
		seed.config = strong.fill(seed.config)
		if found := strong.try(seed.attempt); len(found) > 0 {
			t.Errorf("%d: %s", i, strings.Join(found, "\n"))
		}
	}
	for i, seed := range hostile() {
		if len(seed.finds) == 0 {
			continue
		}
		t.Run(fmt.Sprint(i, " without ", seed.finds), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, weak(t, seed.finds...))
			seed.config = w.fill(seed.config)
			if found := w.try(seed.attempt); len(found) == 0 {
				t.Error("nothing is seen of it")
			} else {
				t.Log(strings.Join(found, "\n"))
			}
		})
	}
}

// FuzzConfiguration: whatever a tenant writes, in whatever namespace, Braid and what it runs open
// no path outside the places that are for it, and run no plugin that the namespace may not have;
// and the pod's DEL ends.
func FuzzConfiguration(f *testing.F) {
	nettest.NeedsRoot(f)
	for i, seed := range hostile() {
		f.Add(seed.config, seed.networks, []byte{byte(i)},
			uint8(slices.Index([]string{labelled, ruled, loose}, seed.namespace))) //nolint:gosec // small
	}
	files, err := corpus.All()
	if err != nil {
		f.Fatal(err)
	}
	for i, file := range files {
		networks := "x"
		if len(file.Pods) > 0 {
			networks = strings.ReplaceAll(file.Pods[0].Annotations[nadv1.NetworksAnnotation],
				file.NAD.Name, "x")
		}
		f.Add(file.NAD.Spec.Config, networks, []byte{byte(i), 1, 2}, uint8(i%3))
	}
	w := newWorld(f, released(f))
	f.Fuzz(func(t *testing.T, config, networks string, script []byte, namespace uint8) {
		a := attempt{
			[]string{labelled, ruled, loose}[namespace%3], w.fill(mutated(config, script)), networks,
		}
		if found := w.of(t).try(a); len(found) > 0 {
			t.Fatalf("namespace %s, networks %q, configuration %s:\n%s",
				a.namespace, networks, a.config, strings.Join(found, "\n"))
		}
	})
}

// words are values that attackers would write, and keys whose values become paths, names and
// plugins.
func words() (values, keys []string) {
	values = []string{
		"DIR/outside", "DIR/outside/secret", "DIR/outside/new", "DIR/data", "DIR/data/link",
		"DIR/data/link/x", "DIR/data/../outside", "DIR/data/new", "LOG/link/x", "LOG/file",
		"LOG/new", "/var/log/../..DIR/outside/x", "/proc/1/environ", "/proc/self/root/DIR/outside",
		"/dev/null", "/etc/shadow", "/etc/cni/net.d/x", "../outside", "..", ".", "/", "",
		"fake", "tool", "mine", "braid", "multus", "../../outside/mine", "bridge", "macvlan",
		"host-local", "whereabouts", "static", "tuning", "portmap", "sbr", "ipvlan", "passthru",
		"nic0", "cni0", "br-admin", "br-team", "lo", "all", "../../x", "10.96.0.0/24", "10.77.0.0/24",
		"8.8.8.0/24", "fd00:77::/64", "10.77.0.9", "1.0.0", "0.3.1", "1.1.0",
		"net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/all/forwarding", "kernel.core_pattern",
		"passthru", "a\x00b", "\x1b[2J", "x",
	}
	keys = []string{
		"type", "name", "ipam", "delegate", "delegates", "plugins", "dataDir", "DATADIR", "resolvConf",
		"re\u017folvConf", "log_file", "logFile", "log_file_path", "LOG_FILE",
		"configuration_path", "kubernetes", "kubeconfig", "\u212aubeconfig", "binDir", "confDir",
		"cniDir", "stateDir", "braid", "manifests", "bridge", "master", "device", "mode",
		"sysctl", "args", "cni", "ips", "mac", "runtimeConfig", "CNIDeviceInfoFile", "portMappings",
		"capabilities", "prevResult", "network_name", "subnet", "range", "ranges",
		"ipRanges", "gateway", "routes", "dns", "backend", "ipMasq", "ipMasqBackend", "isGateway",
		"forceAddress", "vlan", "mtu", "cniVersion", "chainName", "x",
	}
	return values, keys
}

// mutated is a configuration in which some of the values and keys are others, as the script says,
// three bytes for each change. What is no JSON stays as it is.
func mutated(config string, script []byte) string {
	decoder := json.NewDecoder(strings.NewReader(config))
	decoder.UseNumber()
	var tree any
	if decoder.Decode(&tree) != nil || len(script) < 3 {
		return config
	}
	values, keys := words()
	const most = 6
	for n, change := range slices.Collect(slices.Chunk(script, 3)) {
		objects := objectsOf(tree, nil)
		if len(change) < 3 || len(objects) == 0 || n == most {
			break
		}
		o := objects[int(change[0])%len(objects)]
		has := slices.Sorted(maps.Keys(o))
		key, value, with := keys[int(change[1])%len(keys)], values[int(change[2])%len(values)], ""
		if len(has) > 0 {
			with = has[int(change[1])%len(has)]
		}
		switch change[0] / 64 {
		case 0:
			o[with] = value
		case 1:
			o[key] = value
		case 2:
			o[key] = o[with]
		default:
			o[key] = []any{map[string]any{"type": value, with: o[with]}}
		}
	}
	var text bytes.Buffer
	if json.NewEncoder(&text).Encode(tree) != nil {
		return config
	}
	return text.String()
}

// objectsOf are all objects of a value, in an order that is always the same.
func objectsOf(value any, all []map[string]any) []map[string]any {
	switch v := value.(type) {
	case map[string]any:
		all = append(all, v)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = objectsOf(v[key], all)
		}
	case []any:
		for _, element := range v {
			all = objectsOf(element, all)
		}
	}
	return all
}
