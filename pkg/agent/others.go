package agent

import (
	"encoding/json"
	"slices"

	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/netconf"
)

// Others counts the sandboxes that another meta plugin made and has to remove, by the name of its
// configuration. entries are those of the runtime's cache; lives reports whether there is a network
// namespace at a path.
func Others(entries []cnicache.Entry, lives func(netns string) bool) map[string]int {
	var others map[string]int
	for _, e := range entries {
		if !lives(e.NetNS) || !isOther(e.Config) {
			continue
		}
		if others == nil {
			others = map[string]int{}
		}
		others[e.NetworkName]++
	}
	return others
}

// isOther reports whether a configuration has a meta plugin that is not Braid.
func isOther(config []byte) bool {
	var list struct {
		Plugins []struct{ Type string }
	}
	if json.Unmarshal(config, &list) != nil {
		return false
	}
	return slices.ContainsFunc(list.Plugins, func(p struct{ Type string }) bool {
		return netconf.IsMeta(p.Type) && !netconf.IsBraid(p.Type)
	})
}
