// Package cnicache reads the cache of libcni: the configuration and the result of each attachment
// that a runtime, or a meta plugin, made and did not remove.
//
// Contract: it changes nothing. What cannot be read or is no entry is passed over: libcni writes
// its entries in place, so one of a killed process may be cut short. So is what another user has
// put there, or could have: what an entry says is done as this user.
package cnicache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/weaken"
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
		data, err := ReadFile(filepath.Join(Results(cacheDir), file.Name()))
		if err == nil && json.Unmarshal(data, &entry) == nil && entry.Kind == libcni.CNICacheV1 {
			entries = append(entries, entry)
		}
	}
	return entries, nil
}

// ErrPlanted means that a file is another user's, or one that others may write: it is no entry of
// libcni's.
var ErrPlanted = errors.New("it is another user's, or one that others may write")

// ReadFile returns what a file of a cache has, which is ErrPlanted if it is not this user's alone.
func ReadFile(path string) ([]byte, error) {
	dir, err := hostfile.OpenDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	data, st, err := dir.Read(filepath.Base(path), MaxEntry)
	if err == nil && !weaken.Off(weaken.Planted) &&
		(int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0) {
		return nil, dir.Fail("read", filepath.Base(path), ErrPlanted)
	}
	return data, err
}
