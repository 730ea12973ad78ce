package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const allowedDuration = `give a positive duration: "90s"`

func (c *Config) loadBraid(o *object) {
	b := o.inner("braid")
	b.only("manifests", "stateDir", "deviceInfoDir", "podResources", "exec", "nodeName",
		"unknownKeys", "secondaryDefaultRoute", "dataRoots",
		"timeouts")
	c.Braid = Braid{
		Manifests:     field(b, "manifests", "", allowedPath, optionalPath),
		StateDir:      field(b, "stateDir", DefaultStateDir, allowedStateDir, ownDir),
		DeviceInfoDir: field(b, "deviceInfoDir", DefaultDeviceInfoDir, allowedStateDir, ownDir),
		PodResources:  field(b, "podResources", DefaultPodResources, allowedPath, absPath),
		Exec:          field(b, "exec", nil, "give a list of plugin types", listOf(pluginType)),
		NodeName:      field(b, "nodeName", "", "give the name of the Node object", optional(nodeName)),

		DataRoots:         field(b, "dataRoots", defaultDataRoots(), "give a list of absolute paths", listOf(ownDir)),
		RefuseUnknownKeys: field(b, "unknownKeys", false, `give "warn" or "refuse"`, refusesUnknown),

		SecondaryDefaultRoute: field(b, "secondaryDefaultRoute", KeepDefaultRoute, `give "keep", "take" or "refuse"`, secondaryDefaultRoute),
	}
	t := b.inner("timeouts")
	t.only("operation", "rollback", "api", "status")
	c.Braid.Timeouts = Timeouts{
		Operation: field(t, "operation", DefaultOperationTimeout, allowedDuration, duration),
		Rollback:  field(t, "rollback", DefaultRollbackTimeout, allowedDuration, duration),
		API:       field(t, "api", DefaultAPITimeout, allowedDuration, duration),
		Status:    field(t, "status", DefaultStatusTimeout, allowedDuration, duration),
	}
	o.err = t.err
}

// secondaryDefaultRoute decodes the value of "secondaryDefaultRoute".
func secondaryDefaultRoute(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	if text != KeepDefaultRoute && text != TakeDefaultRoute && text != RefuseDefaultRoute {
		return "", fmt.Errorf("%s is no policy", strictjson.Quote(text))
	}
	return text, nil
}

// pluginType decodes the type of a plugin.
func pluginType(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	return text, netconf.CheckType(text)
}

// defaultDataRoots are the directories that CNI plugins have for their data by custom.
func defaultDataRoots() []string { return []string{"/var/lib/cni", "/run/cni"} }

// refusesUnknown decodes the value of "unknownKeys".
func refusesUnknown(raw json.RawMessage) (bool, error) {
	text, err := strictjson.String(raw)
	if err == nil && text != "warn" && text != "refuse" {
		err = fmt.Errorf("%s is no way to treat them", strictjson.Quote(text))
	}
	return text == "refuse", err
}

func duration(raw json.RawMessage) (time.Duration, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return 0, fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s is no duration", strictjson.Quote(text))
	}
	if d <= 0 {
		return 0, errors.New(strictjson.Quote(text) + " is not positive")
	}
	return d, nil
}
