package netconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// AllowedName describes valid names of networks, for messages.
const AllowedName = "use letters, digits, '_', '.' and '-', beginning with a letter or digit"

// check validates the list's own keys and every plugin.
func (l *List) check() error {
	for _, one := range []func() error{l.checkName, l.checkVersion, l.checkSwitches} {
		if err := one(); err != nil {
			return err
		}
	}
	for i, plugin := range l.plugins {
		warnings, err := checkPlugin(fmt.Sprintf("plugins[%d].", i), plugin)
		if err != nil {
			return err
		}
		l.warnings = append(l.warnings, warnings...)
	}
	return nil
}

func (l *List) checkName() error {
	name, err := optionalText(l.top["name"])
	if err != nil {
		return invalid("name", AllowedName, "%w", err)
	}
	if name == "" {
		return nil
	}
	if utils.ValidateNetworkName(name) != nil {
		return invalid("name", AllowedName, "%s is no CNI network name", strictjson.Quote(name))
	}
	return nil
}

// checkVersion checks the version that the list has, and those that it offers (CNI 1.1
// "cniVersions").
func (l *List) checkVersion() error {
	supported := AllowedVersions()
	if _, err := optionalText(l.top["cniVersion"]); err != nil {
		return invalid("cniVersion", supported, "%w", err)
	}
	if raw := l.top["cniVersions"]; !strictjson.Null(raw) {
		elements, err := strictjson.List(raw)
		if err != nil {
			return invalid("cniVersions", supported, "%w", err)
		}
		for i, element := range elements {
			if _, err := strictjson.String(element); err != nil {
				return invalid(fmt.Sprintf("cniVersions[%d]", i), supported, "%w", err)
			}
		}
	}
	if offered := l.offered(); len(offered) > 0 && l.CNIVersion() == "" {
		return invalid("cniVersion", supported, "%s is not supported",
			strictjson.Quote(strings.Join(offered, ", ")))
	}
	return nil
}

// checkSwitches checks booleans, which libcni also takes as strings.
func (l *List) checkSwitches() error {
	for _, key := range []string{"disableCheck", "disableGC", "loadOnlyInlinedPlugins"} {
		if _, err := boolean(l.top[key]); err != nil {
			return invalid(key, "give true or false", "%w", err)
		}
	}
	return nil
}

// boolean decodes a boolean. It is false if the value is absent or null.
func boolean(raw json.RawMessage) (bool, error) {
	switch strings.ToLower(strings.Trim(string(raw), `"`)) {
	case "", "null", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, fmt.Errorf("%s is no boolean", strictjson.Quote(string(raw)))
}

// checkPlugin validates a plugin's configuration, and corrects the spelling of keys that
// Braid or libcni act on. The path is empty or ends in a period.
func checkPlugin(
	path string, plugin map[string]json.RawMessage,
) (warnings []*failure.Error, err error) {
	keys := append(listKeys(), "type", "capabilities", "ipam", "dns", "args", "runtimeConfig",
		"prevResult")
	if warnings, err = respell(path, plugin, keys); err != nil {
		return nil, err
	}
	return warnings, checkSpelled(path, plugin)
}

// checkSpelled checks a plugin's configuration, in which no key is there twice.
func checkSpelled(path string, plugin map[string]json.RawMessage) error {
	if strictjson.Null(plugin["type"]) {
		return invalid(path+"type", "name the plugin", "the type is missing")
	}
	pluginType, err := pluginName(plugin["type"])
	if err != nil {
		return invalid(path+"type", allowedPlugin, "%w", err)
	}
	if err := checkMeta(path+"type", pluginType); err != nil {
		return inPlugin(err, pluginType)
	}
	for _, one := range []func(string, map[string]json.RawMessage) error{
		checkCapabilities, checkNested, checkShape,
	} {
		if err := one(path, plugin); err != nil {
			return inPlugin(err, pluginType)
		}
	}
	return nil
}

// inPlugin names the plugin in an error of this package.
func inPlugin(err error, pluginType string) error {
	if fe, ok := errors.AsType[*failure.Error](err); ok && fe.Plugin == "" {
		fe.Plugin = pluginType
	}
	return err
}

func checkCapabilities(path string, plugin map[string]json.RawMessage) error {
	raw := plugin["capabilities"]
	if strictjson.Null(raw) {
		return nil
	}
	capabilities, err := strictjson.Object(raw)
	if err != nil {
		return invalid(path+"capabilities", `give an object as in {"ips": true}`, "%w", err)
	}
	for _, key := range slices.Sorted(maps.Keys(capabilities)) {
		if _, err := strictjson.Bool(capabilities[key]); err != nil {
			return invalid(path+"capabilities."+strictjson.Label(key), "give true or false", "%w", err)
		}
	}
	return nil
}

// checkShape makes sure that libcni can decode the keys that it knows.
func checkShape(path string, plugin map[string]json.RawMessage) error {
	err := json.Unmarshal(strictjson.Marshal(plugin), &types.PluginConf{})
	if err == nil {
		return nil
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid(path+strictjson.Label(wrong.Field), "", "is a %s, CNI has a %s there", wrong.Value,
			wrong.Type)
	}
	return invalid(strings.TrimSuffix(path, "."), "", "decode as CNI plugin configuration: %w", err)
}

// optionalText returns a string, empty where it is absent or null.
func optionalText(raw json.RawMessage) (string, error) {
	if strictjson.Null(raw) {
		return "", nil
	}
	return strictjson.String(raw)
}
