package netconf

import (
	"encoding/json"
	"testing"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// FuzzHoldPaths: whatever a configuration is, what is left of it names no file elsewhere as
// encoding/json reads it, with which plugins are written.
func FuzzHoldPaths(f *testing.F) {
	for _, seed := range []string{
		`{"type":"macvlan","ipam":{"type":"host-local","dataDir":"/etc"}}`,
		`{"type":"ptp","IPAM":{"TYPE":"host-local","datadir":"/data/../etc"}}`,
		`{"type":"x","delegates":[{"plugins":[{"type":"tuning","dataDir":"/etc"}]}],` +
			`"delegate":{"ipam":{"type":"whereabouts","log_file":"/x","LOG_FILE":"/y"}}}`,
		`{"type":"x","logFile":"/x","ipam":{"type":"host-local","resolvConf":"/root/x",` +
			`"Kubernetes":{"KUBECONFIG":"/x"}}}`, `{"type":"x","log_\u0066ile":"/x"}`,
		`{"type":"x","ipam":{"type":"whereabouts","configuration_path":"/data/x",` +
			`"kubernetes":{"kubeconfig":"/data/../x"}}}`, `{"type":"x","ipam":{"type":"hoſt-local"}}`,
		`{"type":"x","ipam":{"type":"dhcp","DaemonSocketPath":"/run/x"}}`,
		`{"type":"flannel","subnetFile":"/data/../x","dataDir":"/data/x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := Parse(raw)
		if err != nil {
			return
		}
		_, err = list.HoldPaths(Places{Data: hostfile.Roots{"/data"}, Operator: hostfile.Roots{"/data"}})
		if err != nil {
			return
		}
		for i := range list.Len() {
			plugin, err := json.Marshal(list.Plugin(i))
			if err != nil {
				t.Fatal(err)
			}
			namesPaths(t, raw, plugin)
		}
	})
}

// called is a plugin's configuration as a plugin decodes it.
type called struct {
	Type, DataDir, ResolvConf, LogFile string
	DaemonSocketPath, SubnetFile       string
	Log                                string                      `json:"log_file"`
	LogPath                            string                      `json:"log_file_path"`
	Config                             string                      `json:"configuration_path"`
	Kubernetes                         struct{ Kubeconfig string } `json:"kubernetes"`
	IPAM, Delegate                     json.RawMessage
	Delegates, Plugins                 json.RawMessage
}

// namesPaths fails the test if a plugin that is called with this names a file elsewhere.
func namesPaths(t *testing.T, raw, config []byte) {
	t.Helper()
	var c called
	if json.Unmarshal(config, &c) != nil {
		return
	}
	paths := map[string]hostfile.Roots{
		c.LogFile: {"/var/log"}, c.Log: {"/var/log"}, c.LogPath: {"/var/log"}, c.Config: {"/data"},
		c.Kubernetes.Kubeconfig: {"/data"},
	}
	switch c.Type {
	case "host-local":
		paths[c.DataDir], paths[c.ResolvConf] = hostfile.Roots{
			"/data", "/var/lib/cni/networks",
		}, hostfile.Roots{"/etc", "/run/systemd/resolve"}
	case "dhcp":
		paths[c.DaemonSocketPath] = hostfile.Roots{"/data", "/run/cni/dhcp.sock"}
	case "flannel":
		paths[c.DataDir], paths[c.SubnetFile] = hostfile.Roots{
			"/data", "/var/lib/cni/flannel",
		}, hostfile.Roots{"/data", "/run/flannel"}
	case "tuning":
		paths[c.DataDir] = hostfile.Roots{"/data", "/run/cni/tuning"}
	}
	for value, roots := range paths {
		if _, ok := roots.Place(value); value != "" && !ok {
			t.Fatalf("of %q a plugin gets %s, which names %q", raw, config, value)
		}
	}
	for _, inner := range []json.RawMessage{c.IPAM, c.Delegate} {
		namesPaths(t, raw, inner)
	}
	for _, list := range []json.RawMessage{c.Delegates, c.Plugins} {
		var elements []json.RawMessage
		if json.Unmarshal(list, &elements) == nil {
			for _, e := range elements {
				namesPaths(t, raw, e)
			}
		}
	}
}
