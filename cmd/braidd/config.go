package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// podAnnotations is the capability by which a runtime passes on what it knows of a pod, which saves
// an API call for each.
const podAnnotations = "io.kubernetes.cri.pod-annotations"

// configuration makes Braid's configuration for a default network: the operator's keys, and what
// only the agent knows. The operator's file is read anew each time, as a ConfigMap changes.
func (a *daemon) configuration(network string) (*conf.Config, error) {
	capabilities, err := capabilitiesOf(network)
	if err != nil {
		return nil, err
	}
	return a.load(network, capabilities)
}

// stateDir returns the directory of the CNI plugin's state that the operator's file asks for; the
// default if the file is wrong, which is reported when it is to be rendered.
func (a *daemon) stateDir() string {
	c, err := a.load("/no/network", nil)
	if err != nil {
		return conf.DefaultStateDir
	}
	return c.StateDir
}

// load returns the configuration that the CNI plugin gets with that default network: the operator's
// keys, and the agent's where the operator has none.
func (a *daemon) load(network string, capabilities map[string]bool) (*conf.Config, error) {
	keys, err := a.operatorKeys()
	if err != nil {
		return nil, err
	}
	set := func(key string, value any) {
		if keys[key] == nil {
			keys[key] = strictjson.Marshal(value)
		}
	}
	for key, value := range map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "capabilities": capabilities,
		"clusterNetwork": network, "kubeconfig": a.kubeconfig(),
	} {
		set(key, value)
	}
	own := map[string]json.RawMessage{}
	if raw := keys["braid"]; raw != nil && json.Unmarshal(raw, &own) != nil {
		return nil, a.wrongKey("braid", "is no object", "make it one")
	}
	if own["nodeName"] == nil {
		own["nodeName"] = strictjson.Marshal(a.o.nodeName)
	}
	keys["braid"] = strictjson.Marshal(own)
	return conf.Load(strictjson.Marshal(keys))
}

// operatorKeys reads the operator's file.
func (a *daemon) operatorKeys() (map[string]json.RawMessage, error) {
	keys := map[string]json.RawMessage{}
	if a.o.config == "" {
		return keys, nil
	}
	raw, err := os.ReadFile(a.o.config)
	if err != nil {
		return nil, a.wrongKey("", err.Error(), "see that the ConfigMap is mounted there")
	}
	if err := strictjson.Decode(raw, &keys); err != nil {
		return nil, a.wrongKey("", err.Error(),
			"make it a JSON object with keys of Braid's configuration")
	}
	for key, fix := range map[string]string{
		"delegates":      "name the default network with --default-network",
		"clusterNetwork": "name the default network with --default-network",
		"kubeconfig":     "name the ServiceAccount with --service-account",
	} {
		if keys[key] != nil {
			return nil, a.wrongKey(key, "is set by the agent", "remove it, and "+fix)
		}
	}
	return keys, nil
}

// wrongKey is the error of a key of the operator's file.
func (a *daemon) wrongKey(key, what, fix string) error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: key, Err: fmt.Errorf("the agent's configuration: %s", what),
		Fix: fix,
	}
}

// capabilitiesOf are those that Braid declares for the default network's plugins to be given what
// they ask for.
func capabilitiesOf(network string) (map[string]bool, error) {
	raw, err := netconf.FromFile(network)
	if err != nil {
		return nil, err
	}
	list, err := netconf.Parse(raw)
	if err != nil {
		return nil, err
	}
	capabilities := list.Capabilities()
	capabilities[podAnnotations] = true
	return capabilities, nil
}
