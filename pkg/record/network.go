package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plan"
)

// Network is a network that pods of this node were attached to since the node came up. It outlives their records, so that GC
// can still ask the network's plugins to release what nobody uses (CNI 1.1 "GC").
type Network struct {
	// Name as in plan.Attachment: two NADs with the same CNI network name are two networks here.
	Name string `json:"name"`
	// Network is the CNI network name.
	Network string          `json:"network"`
	Conf    json.RawMessage `json:"conf"`
	// InProcess as in plan.Attachment.
	InProcess map[string]bool `json:"inProcess,omitempty"`
}

func (s *Store) networks() string { return filepath.Join(s.dir, "networks") }

// Remember notes the network of an attachment. It writes only one that is new or has changed. Several sandboxes may write
// the same network at once; any of them may win.
func (b *Sandbox) Remember(a plan.Attachment) error {
	if err := b.store.ensure(b.store.networks()); err != nil {
		return err
	}
	data, err := json.Marshal(Network{Name: a.Name, Network: a.Network, Conf: a.Conf, InProcess: a.InProcess})
	if err != nil {
		return stateFailed(fmt.Errorf("encode network: %w", err))
	}
	sum := sha256.Sum256([]byte(a.Name + "\x00" + a.Network))
	path := filepath.Join(b.store.networks(), hex.EncodeToString(sum[:12])+".json")
	if old, err := hostfile.Read(path, maxSize); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return b.write(path, data)
}

// Networks gives all remembered networks, and joined errors for the files that cannot be read.
func (s *Store) Networks() ([]Network, error) {
	entries, err := os.ReadDir(s.networks())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, stateFailed(fmt.Errorf("list networks: %w", err))
	}
	var networks []Network
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var n Network
		data, err := hostfile.Read(filepath.Join(s.networks(), e.Name()), maxSize)
		if err == nil {
			err = json.Unmarshal(data, &n)
		}
		if err != nil {
			errs = append(errs, stateFailed(fmt.Errorf("read network %s: %w", e.Name(), err)))
			continue
		}
		networks = append(networks, n)
	}
	return networks, errors.Join(errs...)
}
