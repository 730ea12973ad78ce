// Package tally counts in a file what processes do that live for one call, for one that lives long
// and shows the counts.
//
// Contract: the file is bounded, and on a tmpfs: counts begin anew with the node. A count that
// cannot be kept is lost; what is no tally is begun anew. Names are short and few: what would be
// more than MaxNames is not counted.
package tally

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	// MaxNames is how many names are counted in one file.
	MaxNames = 64
	// maxName bounds a name, in bytes, and maxSize a file.
	maxName = 64
	maxSize = 16 << 10
)

// File is where things are counted.
type File struct {
	// Path is the path of a regular file; with its directory it is made when it is needed.
	Path string
}

// Add counts one of each name; a name may be there several times.
func (f File) Add(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	dir, name := filepath.Split(f.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory of the tally: %w", err)
	}
	opened, err := hostfile.OpenDir(filepath.Clean(dir))
	if err != nil {
		return fmt.Errorf("open directory of the tally: %w", err)
	}
	defer opened.Close()
	lock, err := opened.Open(name+".lock", unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return fmt.Errorf("open the tally's lock: %w", err)
	}
	defer unix.Close(lock) //nolint:errcheck // nothing is written to it
	if err := hostfile.Lock(ctx, lock); err != nil {
		return fmt.Errorf("lock the tally: %w", err)
	}
	counts := map[string]uint64{}
	data, _, err := opened.Read(name, maxSize)
	if err == nil && json.Unmarshal(data, &counts) != nil || counts == nil {
		counts = map[string]uint64{}
	}
	for _, n := range names {
		if _, known := counts[n]; known || len(counts) < MaxNames && len(n) <= maxName {
			counts[n]++
		}
	}
	return f.replace(opened, name, counts)
}

// replace writes the counts beside those that are there, and then in their place.
func (f File) replace(dir hostfile.Dir, name string, counts map[string]uint64) error {
	data, err := json.Marshal(counts)
	if err != nil {
		return fmt.Errorf("encode the tally: %w", err)
	}
	next := name + ".new"
	err = errors.Join(dir.RemoveAny(next), dir.Write(next, unix.O_CREAT|unix.O_EXCL, 0o600, data))
	if err != nil {
		return fmt.Errorf("write the tally: %w", err)
	}
	if err := dir.Rename(next, dir, name); err != nil {
		return fmt.Errorf("replace the tally: %w", err)
	}
	return nil
}

// Read returns what was counted; nothing if there is no tally.
func (f File) Read() map[string]uint64 {
	data, err := hostfile.Read(f.Path, maxSize)
	if err != nil {
		return nil
	}
	var counts map[string]uint64
	if json.Unmarshal(data, &counts) != nil {
		return nil
	}
	return counts
}
