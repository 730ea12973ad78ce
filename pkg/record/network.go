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
	"slices"
	"strings"
	"time"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plan"
)

// Network is a network that pods of this node were attached to since the node came up. It outlives
// their records, so that GC can still ask the network's plugins to release what nobody uses (CNI
// 1.1 "GC").
type Network struct {
	Version int `json:"version,omitempty"`
	// Name as in plan.Attachment: two NADs with the same CNI network name are two networks here.
	Name string `json:"name"`
	// Network is the CNI network name.
	Network string          `json:"network"`
	Conf    json.RawMessage `json:"conf"`
	// Namespace is the namespace of who wrote the configuration; empty for the operator.
	Namespace string `json:"namespace,omitempty"`
	// InProcess as in plan.Attachment.
	InProcess map[string]bool `json:"inProcess,omitempty"`
	// Path and DataRoots are those of Places.
	Path      []string `json:"path,omitempty"`
	DataRoots []string `json:"dataRoots,omitzero"`
}

func (s *Store) networks() string { return filepath.Join(s.dir, "networks") }

// unusedFor is how long a network is remembered that nobody uses, on a node whose runtime has no
// GC.
const unusedFor = 7 * 24 * time.Hour

// networkFile returns where a network is remembered.
func (s *Store) networkFile(name, network string) string {
	sum := sha256.Sum256([]byte(name + "\x00" + network))
	return filepath.Join(s.networks(), hex.EncodeToString(sum[:12])+".json")
}

// Remember notes the network of an attachment, with the places of its ADD, and that it is used now.
// It writes only one that is new or has changed. Several sandboxes may write the same network at
// once; any of them may win. What a later Braid wrote of a network stays.
func (b *Sandbox) Remember(a plan.Attachment, places Places) error {
	if err := b.store.ensure(b.store.networks()); err != nil {
		return err
	}
	n := Network{
		Version: networkVersion, Name: a.Name, Network: a.Network, Conf: a.Conf, InProcess: a.InProcess,
		Path: places.Path, DataRoots: places.DataRoots,
	}
	if a.Limits != nil {
		n.Namespace = a.Limits.Namespace
	}
	data, err := json.Marshal(n)
	if err != nil {
		return stateFailed(fmt.Errorf("encode network: %w", err))
	}
	file := b.store.networkFile(a.Name, a.Network)
	old, err := hostfile.Read(file, maxSize)
	known := err == nil && stands(old, data)
	if now := b.store.now(); known && os.Chtimes(file, now, now) == nil {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		b.store.forgetUnused()
	}
	return b.write(file, data)
}

// stands reports whether what is remembered of a network is left in place of data.
func stands(old, data []byte) bool {
	if bytes.Equal(old, data) {
		return true
	}
	_, err := decodeNetwork(old)
	return errors.Is(err, ErrLater)
}

// RememberAgain is Remember for the attachments of a record, whose networks may have been
// forgotten.
func (b *Sandbox) RememberAgain(rec *Record) error {
	var errs []error
	for i := range rec.Attachments {
		a := &rec.Attachments[i].Attachment
		if _, err := os.Lstat(b.store.networkFile(a.Name, a.Network)); errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, b.Remember(*a, rec.Places))
		}
	}
	return errors.Join(errs...)
}

// Forget forgets a network that no sandbox uses and that holds nothing any more. One that was
// remembered after that time stays.
func (s *Store) Forget(n Network, remembered time.Time) error {
	path := s.networkFile(n.Name, n.Network)
	info, err := os.Lstat(path)
	if err != nil || info.ModTime().After(remembered) {
		return nil //nolint:nilerr // there is none
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return stateFailed(fmt.Errorf("forget network: %w", err))
	}
	return nil
}

// InUse returns the networks that sandboxes have, by name and CNI name. It is an error if some
// record cannot be read.
func (s *Store) InUse() (map[[2]string]bool, error) {
	records, err := s.Read()
	used := map[[2]string]bool{}
	for _, rec := range records {
		for _, a := range rec.Attachments {
			used[[2]string{a.Name, a.Network}] = true
		}
	}
	return used, err
}

// forgetUnused forgets networks that nobody has used for long. What cannot be forgotten now is
// forgotten another time.
func (s *Store) forgetUnused() {
	entries, err := os.ReadDir(s.networks())
	if err != nil {
		return
	}
	old := s.now().Add(-unusedFor)
	if !slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		info, err := e.Info()
		return err == nil && info.ModTime().Before(old)
	}) {
		return
	}
	used, err := s.InUse()
	if err != nil {
		return
	}
	networks, _ := s.Networks() //nolint:errcheck // those that cannot be read stay
	for _, n := range networks {
		if !used[[2]string{n.Name, n.Network}] {
			s.Forget(n, old) //nolint:errcheck // another time
		}
	}
}

// Networks returns all remembered networks, and joined errors for the files that cannot be read.
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
			n, err = decodeNetwork(data)
		}
		if errors.Is(err, fs.ErrNotExist) { // it was forgotten meanwhile
			continue
		}
		if err != nil {
			errs = append(errs, stateFailed(fmt.Errorf("read network %s: %w", e.Name(), err)))
			continue
		}
		networks = append(networks, n)
	}
	return networks, errors.Join(errs...)
}
