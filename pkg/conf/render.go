package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Defaults returns the configuration in which all keys have their defaults, of the newest version
// of CNI. It lacks the default network, which has none: set ClusterNetwork or Delegates.
func Defaults() *Config {
	c := &Config{Call: Call{Name: "braid", CNIVersion: "1.1.0"}}
	c.Node.readWith(&object{}, func(*Node, *object) {})
	c.Policy.read(&object{})
	return c
}

// Render returns a file, a conflist, from which LoadFile reads the configuration. Keys that have
// their defaults are left out, and so is what only a runtime passes: RuntimeConfig and
// ValidAttachments. Delegates may differ in white space. What LoadFile would refuse is the error
// that it would be.
func Render(c *Config) ([]byte, error) {
	raw := strictjson.Marshal(members{
		{"cniVersion", c.CNIVersion}, {"name", c.Name}, {"plugins", []members{c.members(Defaults())}},
	})
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("render configuration: %w", err) // a delegate is no JSON
	}
	out.WriteByte('\n')
	if _, err := parseFile(out.Bytes()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// members are keys and values of a JSON object, in the order in which they are written.
type members []member

type member struct {
	key   string
	value any
}

// MarshalJSON implements json.Marshaler.
func (m members) MarshalJSON() ([]byte, error) {
	var parts []string
	for _, one := range m {
		value := strictjson.Marshal(one.value)
		if value == nil {
			return nil, fmt.Errorf("field %s: it is no JSON", one.key)
		}
		parts = append(parts, fmt.Sprintf("%q:%s", one.key, value))
	}
	return []byte("{" + strings.Join(parts, ",") + "}"), nil
}

// add adds a member, unless the value is the default. No list and an empty one are different
// values.
func (m *members) add(key string, value, def any) {
	if !reflect.DeepEqual(value, def) {
		*m = append(*m, member{key, value})
	}
}

// some adds a list or an object that has something in it.
func (m *members) some(key string, value any) {
	if reflect.ValueOf(value).Len() > 0 {
		*m = append(*m, member{key, value})
	}
}

// members returns those of Braid's plugin, where they differ from the defaults.
func (c *Config) members(def *Config) members {
	m := members{{"type", "braid"}}
	m.some("capabilities", c.Capabilities)
	m.add("kubeconfig", c.Kubeconfig, def.Kubeconfig)
	m.some("clusterNetwork", c.ClusterNetwork)
	m.some("defaultNetworks", c.DefaultNetworks)
	m.some("delegates", c.Delegates)
	m.add("systemNamespaces", c.SystemNamespaces, def.SystemNamespaces)
	m.add("multusNamespace", c.MultusNamespace, def.MultusNamespace)
	m.some("auxiliaryCNIChainName", c.AuxiliaryCNIChainName)
	m.add("confDir", c.ConfDir, def.ConfDir)
	m.add("cniDir", c.CNIDir, c.StateDir+"/cni")
	m.add("binDir", oneOrMore(c.BinDirs), oneOrMore(def.BinDirs))
	m.add("readinessindicatorfile", c.ReadinessIndicatorFile, def.ReadinessIndicatorFile)
	m.add("retryDeleteOnError", c.RetryDeleteOnError, def.RetryDeleteOnError)
	m.add("namespaceIsolation", c.NamespaceIsolation, def.NamespaceIsolation)
	m.add("globalNamespaces", c.GlobalNamespaces, def.GlobalNamespaces)
	m.add("logFile", c.LogFile, def.LogFile)
	m.add("logLevel", c.LogLevel, def.LogLevel)
	m.add("logToStderr", c.LogToStderr, def.LogToStderr)
	m.some("logOptions", c.LogOptions.members(&def.LogOptions))
	m.some("braid", c.braidMembers(def))
	return m
}

// oneOrMore returns one directory as a string, as Multus has it, else a list. A colon would part
// it.
func oneOrMore(dirs []string) any {
	if len(dirs) == 1 && !strings.Contains(dirs[0], ":") {
		return dirs[0]
	}
	return dirs
}

func (l *LogOptions) members(def *LogOptions) members {
	var m members
	m.add("maxAge", l.MaxAge, def.MaxAge)
	m.add("maxSize", l.MaxSize, def.MaxSize)
	m.add("maxBackups", l.MaxBackups, def.MaxBackups)
	m.add("compress", l.Compress, def.Compress)
	return m
}

// braidMembers returns those of the object "braid".
func (c *Config) braidMembers(def *Config) members {
	var m members
	m.add("manifests", c.Manifests, def.Manifests)
	m.add("stateDir", c.StateDir, def.StateDir)
	m.add("deviceInfoDir", c.DeviceInfoDir, def.DeviceInfoDir)
	m.add("podResources", c.PodResources, def.PodResources)
	m.some("exec", c.Exec)
	m.some("aliases", c.Aliases)
	m.add("hotplug", c.HotPlug, def.HotPlug)
	m.add("nodeName", c.NodeName, def.NodeName)
	m.add("unknownKeys", onUnknown(c.RefuseUnknownKeys), onUnknown(def.RefuseUnknownKeys))
	m.add("secondaryDefaultRoute", c.SecondaryDefaultRoute, def.SecondaryDefaultRoute)
	m.add("dataRoots", c.DataRoots, def.DataRoots)
	m.some("policy", c.Rules)
	m.add("policyDefault", c.PolicyDefault, def.PolicyDefault)
	m.some("timeouts", c.Timeouts.members(&def.Timeouts))
	return m
}

func (t *Timeouts) members(def *Timeouts) members {
	var m members
	for _, one := range []struct {
		key        string
		value, def time.Duration
	}{
		{"operation", t.Operation, def.Operation},
		{"rollback", t.Rollback, def.Rollback},
		{"api", t.API, def.API},
		{"status", t.Status, def.Status},
	} {
		m.add(one.key, one.value.String(), one.def.String())
	}
	return m
}

// onUnknown returns the value of "unknownKeys".
func onUnknown(refuse bool) string {
	if refuse {
		return "refuse"
	}
	return "warn"
}
