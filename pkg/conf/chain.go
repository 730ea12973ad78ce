package conf

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// PassthruType is the plugin that leads the auxiliary chain: its ADD returns an empty result, which chained plugins such as
// tuning need as their prevResult; its other verbs do nothing.
const PassthruType = "passthru"

// AuxiliaryChain is the network that auxiliaryCNIChainName adds to every pod, after all others: a conflist of that name, of
// the passthru plugin and those in <directory of clusterNetwork>/<name>/*.conf. It is nil where the key is not set or the
// directory has no such file. A broken file there is an error of reason InvalidConfig.
func AuxiliaryChain(c *Config) (json.RawMessage, error) {
	if c.AuxiliaryCNIChainName == "" {
		return nil, nil
	}
	dir := c.ClusterNetwork
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	list := &List{
		top: map[string]json.RawMessage{
			"name": marshal(c.AuxiliaryCNIChainName), "cniVersion": marshal(c.CNIVersion),
			// The chain has no interface of its own. Plugins that need none for ADD, as tuning, look for it in CHECK.
			"disableCheck": marshal(true),
		},
		plugins: []map[string]json.RawMessage{
			{"type": marshal(PassthruType), "name": marshal("passthru-cni")},
		},
	}
	if err := list.chain(dir); err != nil {
		return nil, inFile(err, filepath.Join(dir, c.AuxiliaryCNIChainName))
	}
	if list.Len() == 1 {
		return nil, nil
	}
	return list.Bytes(), nil
}
