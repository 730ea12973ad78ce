package netconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Places are the directories of a node that the paths in a network's configuration may lead to.
type Places struct {
	// Data is for what plugins keep, by the keys dataDir, and for the sockets and files of their
	// daemons.
	Data hostfile.Roots
	// Operator has what only an operator puts there: kubeconfigs and configuration of plugins.
	Operator hostfile.Roots
}

// HoldPaths checks the paths that plugins use as root, in the configuration of every plugin and of
// those that it calls, built in or not. A directory or file of data outside of its place is an
// error. Logs, and files of an operator, outside of theirs are left out with a warning, as plugins
// can do without. It does not look at the node. Plugins that are built in follow no symbolic link
// out of a place: they open paths by plugin.DataDir and hostfile.Place.
func (l *List) HoldPaths(places Places) (warnings []*failure.Error, err error) {
	h := holder{keys: heldKeys(places)}
	for _, plugin := range l.plugins {
		if err := h.plugin("", plugin); err != nil {
			return nil, err
		}
	}
	return h.warnings, nil
}

// holder holds the plugins of one configuration to the keys, and collects what it dropped.
type holder struct {
	keys     []held
	warnings []*failure.Error
}

// held is a key that names a path.
type held struct {
	// kind is the only type of plugin that has the key; empty for all.
	kind string
	// key is its path of keys in the plugin's configuration.
	key   []string
	roots hostfile.Roots
	// fallback is the value that a plugin takes without the key, which is always allowed.
	fallback string
	// optional is true if the key is left out where it leads elsewhere.
	optional bool
	fix      string
}

// heldKeys returns all of them.
func heldKeys(places Places) []held {
	const log = "choose a file there, or leave the key out"
	const data = `leave the key out, choose a directory beneath these, or add one to ` +
		`"braid": {"dataRoots": [...]} in the node's configuration`
	logs := hostfile.Roots{"/var/log"}
	return []held{
		{
			kind: "host-local", key: []string{"dataDir"}, roots: places.Data,
			fallback: "/var/lib/cni/networks", fix: data,
		},
		{
			kind: "tuning", key: []string{"dataDir"}, roots: places.Data, fallback: "/run/cni/tuning",
			fix: data,
		},
		{
			kind: "host-local", key: []string{"resolvConf"},
			roots: hostfile.Roots{"/etc", "/run/systemd/resolve"}, fix: log,
		},
		{
			kind: "dhcp", key: []string{"daemonSocketPath"}, roots: places.Data,
			fallback: "/run/cni/dhcp.sock", fix: data,
		},
		{
			kind: "flannel", key: []string{"dataDir"}, roots: places.Data, fallback: "/var/lib/cni/flannel",
			fix: data,
		},
		{
			kind: "flannel", key: []string{"subnetFile"},
			roots: append(hostfile.Roots{"/run/flannel"}, places.Data...), fix: data,
		},
		{key: []string{"log_file"}, roots: logs, optional: true, fix: log},
		{key: []string{"logFile"}, roots: logs, optional: true, fix: log},
		{key: []string{"log_file_path"}, roots: logs, optional: true, fix: log},
		{
			key: []string{"configuration_path"}, roots: places.Operator, optional: true,
			fix: "leave the key out",
		},
		{
			key: []string{"kubernetes", "kubeconfig"}, roots: places.Operator, optional: true,
			fix: "leave the key out",
		},
		{
			key: []string{"runtimeConfig", "CNIDeviceInfoFile"}, roots: hostfile.Roots{}, optional: true,
			fix: "leave the key out: Braid names the file",
		},
	}
}

// plugin holds an object that configures a plugin, and those in it.
func (h *holder) plugin(at string, object map[string]json.RawMessage) error {
	kind := strictjson.Text(strictjson.Lookup(object, "type"))
	for _, k := range h.keys {
		if k.kind != "" && k.kind != kind {
			continue
		}
		if err := h.hold(at, kind, object, k, k.key); err != nil {
			return err
		}
	}
	return h.called(at, object)
}

// called holds the plugins that a plugin calls.
func (h *holder) called(at string, object map[string]json.RawMessage) error {
	for key, raw := range object {
		switch {
		case strings.EqualFold(key, "ipam"), strings.EqualFold(key, "delegate"):
			if err := h.inner(at+key, object, key, raw); err != nil {
				return err
			}
		case strings.EqualFold(key, "delegates"), strings.EqualFold(key, "plugins"):
			if err := h.list(at+key, object, key, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

// inner holds the plugin's configuration that is a key's value.
func (h *holder) inner(
	at string, object map[string]json.RawMessage, key string, raw json.RawMessage,
) error {
	inside, err := strictjson.Object(raw)
	if err != nil {
		return nil //nolint:nilerr // it configures no plugin
	}
	left := len(h.warnings)
	if err := h.plugin(at+".", inside); err != nil {
		return err
	}
	if len(h.warnings) > left {
		object[key] = strictjson.Marshal(inside)
	}
	return nil
}

// list holds the plugins' configurations that are a key's value.
func (h *holder) list(
	at string, object map[string]json.RawMessage, key string, raw json.RawMessage,
) error {
	elements, err := strictjson.List(raw)
	if err != nil {
		return nil //nolint:nilerr // it configures no plugins
	}
	left := len(h.warnings)
	for i, element := range elements {
		holds := map[string]json.RawMessage{"": element}
		if err := h.inner(fmt.Sprintf("%s[%d]", at, i), holds, "", element); err != nil {
			return err
		}
		elements[i] = holds[""]
	}
	if len(h.warnings) > left {
		object[key] = strictjson.Marshal(elements)
	}
	return nil
}

// hold holds one key, however it is spelt: plugins do not look at the case.
func (h *holder) hold(
	at, kind string, object map[string]json.RawMessage, k held, rest []string,
) error {
	for key, raw := range object {
		if !strings.EqualFold(key, rest[0]) {
			continue
		}
		if len(rest) > 1 {
			if err := h.holdInside(at+key+".", kind, object, key, k, rest[1:]); err != nil {
				return err
			}
			continue
		}
		value, err := strictjson.String(raw)
		if err != nil || k.allows(value) {
			continue
		}
		wrong := k.wrong(value)
		wrong.Plugin, wrong.Field = kind, at+key
		if !k.optional {
			return wrong
		}
		wrong.Reason, wrong.Err = failure.IgnoredKey, fmt.Errorf("the key is ignored: %w", wrong.Err)
		h.warnings = append(h.warnings, wrong)
		delete(object, key)
	}
	return nil
}

// holdInside is hold for a key in the object that another key has as its value.
func (h *holder) holdInside(
	at, kind string, object map[string]json.RawMessage, key string, k held, rest []string,
) error {
	inside, err := strictjson.Object(object[key])
	if err != nil {
		return nil //nolint:nilerr // the plugin cannot read it either
	}
	left := len(h.warnings)
	if err := h.hold(at, kind, inside, k, rest); err != nil {
		return err
	}
	if len(h.warnings) > left {
		object[key] = strictjson.Marshal(inside)
	}
	return nil
}

// wrong is the error of a path that may not be.
func (k *held) wrong(value string) *failure.Error {
	err := errors.New("no network names this file")
	if len(k.roots) > 0 {
		err = fmt.Errorf("%s is beneath none of the directories that this node has for it, %s",
			strictjson.Quote(value), strings.Join(k.roots, " and "))
	}
	return &failure.Error{Reason: failure.NADInvalid, Err: err, Fix: k.fix}
}

// allows reports whether a path may be. An empty one is none.
func (k *held) allows(value string) bool {
	if value == "" || path.Clean(value) == k.fallback {
		return true
	}
	_, ok := k.roots.Place(value)
	return ok && !slices.Contains([]byte(value), 0)
}
