// Package cnicache reads the cache of libcni: the configuration and the result of each attachment
// that a runtime, or a meta plugin, made and did not remove.
//
// Contract: it changes nothing. What cannot be read or is no entry is passed over: libcni writes its
// entries in place, so one of a killed process may be cut short.
package cnicache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// Runtime is the directory of the cache of container runtimes, which is the default of libcni.
const Runtime = "/var/lib/cni"

// MaxEntry bounds what is read of an entry, in bytes: it holds a conflist and a result.
const MaxEntry = 4 << 20

// Entry is a file of the cache, as libcni writes it.
type Entry struct {
	Kind        string `json:"kind"`
	ContainerID string `json:"containerId"`
	// Config is the network's configuration, a conflist or a conf.
	Config         []byte          `json:"config"`
	IfName         string          `json:"ifName"`
	NetworkName    string          `json:"networkName"`
	NetNS          string          `json:"netns,omitempty"`
	CNIArgs        [][2]string     `json:"cniArgs,omitempty"`
	CapabilityArgs json.RawMessage `json:"capabilityArgs,omitempty"`
	Result         json.RawMessage `json:"result,omitempty"`
}

// Results returns the directory of the entries of a cache.
func Results(cacheDir string) string { return filepath.Join(cacheDir, "results") }

// Read returns the entries of a cache that have a wanted file name; all if wanted is nil. A name is
// NETWORK-CONTAINER-INTERFACE. A cache that is not there is empty.
func Read(cacheDir string, wanted func(name string) bool) (entries []Entry, err error) {
	files, err := os.ReadDir(Results(cacheDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, file := range files {
		if wanted != nil && !wanted(file.Name()) {
			continue
		}
		var entry Entry
		data, err := hostfile.Read(filepath.Join(Results(cacheDir), file.Name()), MaxEntry)
		if err == nil && json.Unmarshal(data, &entry) == nil && entry.Kind == libcni.CNICacheV1 {
			entries = append(entries, entry)
		}
	}
	return entries, nil
}
