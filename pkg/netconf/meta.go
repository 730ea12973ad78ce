package netconf

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/braid-cni/braid/pkg/strictjson"
	"github.com/braid-cni/braid/pkg/weaken"
)

// metaTypes returns the plugins that attach pods to networks themselves, by the names of their
// binaries.
func metaTypes() []string {
	return append(braidTypes(), "multus", "multus-shim", "multus-daemon", "genie", "danm", "knitter")
}

// braidTypes are the names of this program's binaries.
func braidTypes() []string {
	return []string{
		"braid", "braidd", "braid-agent", "braid-client", "braid-controller", "braid-full", "braidctl",
	}
}

// IsBraid reports whether a plugin type is Braid.
func IsBraid(pluginType string) bool {
	return slices.Contains(braidTypes(), filepath.Base(pluginType))
}

// IsMeta reports whether a plugin type is Braid, Multus or another meta plugin. As a delegate it
// would call itself until the time is up, or plugins of the network's choice.
func IsMeta(pluginType string) bool {
	return slices.Contains(metaTypes(), filepath.Base(pluginType))
}

// checkMeta returns an error if the type at that field IsMeta.
func checkMeta(field, pluginType string) error {
	if !IsMeta(pluginType) || weaken.Off(weaken.Meta) {
		return nil
	}
	return invalid(field, "name the plugin that makes the interface, as bridge or macvlan; the "+
		"pod's annotation asks for further networks",
		"%w", metaError(pluginType))
}

func metaError(pluginType string) error {
	return fmt.Errorf("%s would call itself: it cannot be a network of its own",
		strictjson.Quote(pluginType))
}
