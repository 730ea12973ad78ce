package netconf

import (
	"encoding/json"
	"errors"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Libcni returns libcni's form of a conflist that this package wrote. The bytes of the plugins are
// as written: libcni's own parser would make floating point numbers of theirs, so it is not used
// for the list. It would still do so when it calls a plugin, see invoke.Written.
func Libcni(raw json.RawMessage) (*libcni.NetworkConfigList, error) {
	l, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	if l.Name() == "" || l.CNIVersion() == "" {
		return nil, invalid("name", "", "%w", errors.New("the network has no name or no cniVersion"))
	}
	list := &libcni.NetworkConfigList{
		Name: l.Name(), CNIVersion: l.CNIVersion(), LoadOnlyInlinedPlugins: true, Bytes: raw,
	}
	list.DisableCheck, _ = boolean(l.top["disableCheck"])
	list.DisableGC, _ = boolean(l.top["disableGC"])
	for i, plugin := range l.plugins {
		one, err := libcni.NetworkPluginConfFromBytes(strictjson.Marshal(plugin))
		if err != nil {
			return nil, inPlugin(invalid("plugins", "", "%w", err), l.Types()[i])
		}
		list.Plugins = append(list.Plugins, one)
	}
	return list, nil
}
