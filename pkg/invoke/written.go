package invoke

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/libcni"
	cniinvoke "github.com/containernetworking/cni/pkg/invoke"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Written returns a list for libcni, and what runs its plugins: they receive their configurations
// as they were written, with the keys that libcni sets, and the list's own name. libcni knows the
// network by another one, as: it names files after networks.
//
// The list has stand-ins for the configurations, with no more than libcni acts on. It decodes what
// it gets into floating point numbers each time that it sets keys, so integers beyond 2^53 would
// reach a plugin as others. And by its stand-in a configuration is known again: Exec reads each
// once.
func Written(
	inner cniinvoke.Exec, list *libcni.NetworkConfigList, as string,
) (*libcni.NetworkConfigList, cniinvoke.Exec) {
	known := *list
	known.Name, known.Plugins = as, make([]*libcni.PluginConfig, len(list.Plugins))
	for i, p := range list.Plugins {
		stand := standIn{Type: p.Network.Type, Capabilities: p.Network.Capabilities, Index: i}
		known.Plugins[i] = &libcni.PluginConfig{Network: p.Network, Bytes: strictjson.Marshal(stand)}
	}
	return &known, &written{Exec: inner, name: strictjson.Marshal(list.Name), plugins: list.Plugins}
}

// standIn is what libcni has for a plugin's configuration.
type standIn struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	// Index is the index of the plugin in its list.
	Index int `json:"index"`
}

// written is an Exec that gets stand-ins, and runs plugins with their own configuration.
type written struct {
	cniinvoke.Exec
	name    json.RawMessage
	plugins []*libcni.PluginConfig
}

func (w *written) ExecPlugin(
	ctx context.Context, path string, stdin []byte, environ []string,
) ([]byte, error) {
	var set, config map[string]json.RawMessage
	var index int
	if err := json.Unmarshal(stdin, &set); err != nil {
		return nil, fmt.Errorf("decode a stand-in: %w", err)
	}
	if err := json.Unmarshal(set["index"], &index); err != nil {
		return nil, fmt.Errorf("decode a stand-in's index: %w", err)
	}
	own := w.plugins[index].Bytes
	if err := json.Unmarshal(own, &config); err != nil {
		return nil, fmt.Errorf("decode a configuration: %w", err)
	}
	for key, value := range set {
		if key != "type" && key != "capabilities" && key != "index" {
			config[key] = value
		}
	}
	config["name"] = w.name
	full := strictjson.Marshal(config)
	ctx = context.WithValue(ctx, sourceKey{}, source{own: own, stdin: full})
	return w.Exec.ExecPlugin(ctx, path, full, environ)
}

// source is a configuration as it was written, and what the plugin receives that is called with it.
type source struct{ own, stdin []byte }

// sourceKey is the context's key of a source: it has to reach the IPAM plugin, which the interface
// plugin calls.
type sourceKey struct{}

// sourceOf returns the configuration that stdin was made of; stdin where that is not known.
func sourceOf(ctx context.Context, stdin []byte) []byte {
	if s, ok := ctx.Value(sourceKey{}).(source); ok && bytes.Equal(s.stdin, stdin) {
		return s.own
	}
	return stdin
}
