package netconf

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// PassthruType is the plugin that leads the auxiliary chain: its ADD returns an empty result, which
// chained plugins such as tuning need as their prevResult; its other verbs do nothing.
const PassthruType = "passthru"

// AuxiliaryChain returns the network that auxiliaryCNIChainName adds to every pod after all others:
// a conflist of that name and version, of the passthru plugin and those in DIR/NAME/*.conf. DIR is
// the directory beside, or that of the file beside. The network is nil where there is no such file
// or the name is empty. A broken file there is an error of reason InvalidConfig.
func AuxiliaryChain(beside, name, cniVersion string) (json.RawMessage, error) {
	if name == "" {
		return nil, nil
	}
	dir := beside
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	list := &List{
		top: map[string]json.RawMessage{
			"name": strictjson.Marshal(name), "cniVersion": strictjson.Marshal(cniVersion),
			// The chain has no interface of its own. Plugins that need none for ADD, as tuning, look for it
			// in CHECK.
			"disableCheck": strictjson.Marshal(true),
		},
		plugins: []map[string]json.RawMessage{
			{"type": strictjson.Marshal(PassthruType), "name": strictjson.Marshal("passthru-cni")},
		},
	}
	if err := list.chain(dir); err != nil {
		return nil, inFile(err, filepath.Join(dir, name))
	}
	if list.Len() == 1 {
		return nil, nil
	}
	return list.Bytes(), nil
}
