package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/nodenet"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// maxMemory is the size of a file of some thousand networks.
const maxMemory = 1 << 20

// memory is the form of the file.
type memory struct {
	// Boot is the one in which the addresses were set.
	Boot     string         `json:"boot"`
	Networks nodenet.Memory `json:"networks"`
}

// load reads what is remembered. Addresses that were set in another boot are gone with it; leases
// are good beyond it.
func load(path, boot string) (nodenet.Memory, error) {
	raw, err := hostfile.Read(path, maxMemory)
	if errors.Is(err, fs.ErrNotExist) {
		return nodenet.Memory{}, nil
	}
	var m memory
	if err == nil {
		err = strictjson.Decode(raw, &m)
	}
	if err != nil {
		return nodenet.Memory{}, fmt.Errorf("read what was set on the node's interfaces: %w", err)
	}
	for network, kept := range m.Networks {
		if kept == nil {
			delete(m.Networks, network)
			continue
		}
		if m.Boot != boot {
			kept.Addrs, kept.Link = nil, 0
		}
	}
	if m.Networks == nil {
		m.Networks = nodenet.Memory{}
	}
	return m.Networks, nil
}

// save writes it, so that it outlives a loss of power.
func save(path, boot string, networks nodenet.Memory) error {
	if len(networks) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget what was set on the node's interfaces: %w", err)
		}
		return nil
	}
	if err := replace(path, strictjson.Marshal(memory{boot, networks})); err != nil {
		return fmt.Errorf("remember what is set on the node's interfaces: %w", err)
	}
	return nil
}

// replace writes a file so that it is there whole or not at all, also after a loss of power.
func replace(path string, content []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".node-interfaces-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name()) //nolint:errcheck // the error is told already
	}
	return err
}
