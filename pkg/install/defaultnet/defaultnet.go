// Package defaultnet finds the network that every pod has: the one that Braid is put in front of.
//
// Contract: it reads and writes nothing but what it is asked to read. A configuration counts by
// what is in it, never by its file's name. None is chosen in doubt: an error says what was passed
// over and why, and the caller waits.
package defaultnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
)

// settling is how long a file that is not valid may be one that is still being written.
const settling = 5 * time.Second

// Finder looks for the default network in directories of CNI configurations.
type Finder struct {
	// Dirs are searched in this order; one that is not there is empty.
	Dirs []string
	// Named is the default network by its name or by its file, which is a path or a name in one of
	// Dirs; empty for the first that can be one.
	Named string
	// Own are the paths of Braid's own configuration, which is no default network even where somebody
	// has spoilt it.
	Own []string
	// Now is the time; nil: time.Now.
	Now func() time.Time
}

// Candidate is a configuration file that a container runtime would read.
type Candidate struct {
	Path string
	// Name is the network's; empty if the file is not valid.
	Name string
	// Not says why it is no default network; empty if it is one.
	Not string
	// Meta is true if a plugin of it is Braid or another meta plugin.
	Meta bool
	// Invalid is true if the file cannot be read or parsed.
	Invalid bool

	changed time.Time
}

// Find returns the default network. current is the path of the one that is in use, or empty: as
// long as that file is there and not valid, no other takes its place. Errors have reason NotReady,
// and InvalidConfig where Named can never be a default network.
func (f *Finder) Find(current string) (*Candidate, error) {
	if filepath.IsAbs(f.Named) {
		return f.judge(read(f.Named))
	}
	var passed []string
	var own *Candidate // Braid's own, if it is the one that is named
	for _, dir := range f.Dirs {
		all, err := List(dir)
		if err != nil {
			return nil, err
		}
		for i := range all {
			c := &all[i]
			switch {
			case slices.Contains(f.Own, c.Path):
				if f.named(c) {
					own = c
				}
				continue
			case f.named(c):
				return f.judge(c)
			case c.Invalid && (c.Path == current || f.fresh(c)):
				return nil, notReady(c.Path,
					fmt.Errorf("the default network's configuration may be incomplete: %s", c.Not))
			case f.Named == "" && c.Not == "":
				return c, nil
			}
			if c.Not != "" {
				passed = append(passed, filepath.Base(c.Path)+" "+c.Not)
			}
		}
	}
	if own != nil && own.Meta {
		return f.judge(own)
	}
	return nil, f.none(passed)
}

// named reports whether the operator means this one.
func (f *Finder) named(c *Candidate) bool {
	return f.Named != "" && (c.Name == f.Named || filepath.Base(c.Path) == f.Named)
}

// judge accepts a network that the operator named. What is a stop-gap is meant then.
func (f *Finder) judge(c *Candidate) (*Candidate, error) {
	switch {
	case c.Meta:
		return nil, &failure.Error{
			Reason: failure.InvalidConfig, NAD: c.Path, Err: errors.New(c.Not),
			Fix: "name the network that makes eth0 as the default network",
		}
	case c.Invalid:
		return nil, notReady(c.Path, errors.New(c.Not))
	}
	return c, nil
}

// fresh reports whether the file may still be being written.
func (f *Finder) fresh(c *Candidate) bool {
	now := f.Now
	if now == nil {
		now = time.Now
	}
	age := now().Sub(c.changed)
	return age >= 0 && age < settling
}

func (f *Finder) none(passed []string) error {
	err := errors.New("there is no default network")
	if f.Named != "" {
		err = fmt.Errorf("there is no network %q", f.Named)
	}
	if len(passed) > 0 {
		err = fmt.Errorf("%w (%s)", err, strings.Join(passed, "; "))
	}
	return notReady(strings.Join(f.Dirs, ":"), err)
}

func notReady(path string, err error) error {
	return &failure.Error{
		Reason: failure.NotReady, NAD: path, Err: err,
		Fix: "see that the agent of the default network runs, or name the network",
	}
}

// List returns the files of a directory that container runtimes take for configurations, in their
// order.
func List(dir string) ([]Candidate, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.NotReady, NAD: dir, Err: fmt.Errorf("list configurations: %w", bare(err)),
			Fix: "see that it is a directory of CNI configurations",
		}
	}
	var all []Candidate
	for _, e := range entries {
		if !e.IsDir() && IsConfiguration(e.Name()) {
			all = append(all, *read(filepath.Join(dir, e.Name())))
		}
	}
	return all, nil
}

// IsConfiguration reports whether container runtimes take a file of that name for a configuration.
func IsConfiguration(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// read judges one file.
func read(path string) *Candidate {
	c := &Candidate{Path: path}
	if info, err := os.Stat(path); err == nil {
		c.changed = info.ModTime()
	}
	raw, err := netconf.ReadFile(path)
	if err != nil {
		c.Invalid, c.Not = true, "is not readable: "+err.Error()
		return c
	}
	var loose shape
	if json.Unmarshal(raw, &loose) == nil { // a meta plugin is none also where its file is odd
		if meta := loose.meta(); meta != "" {
			c.Name, c.Meta, c.Not = loose.Name, true, "is of the meta plugin "+meta
			return c
		}
	}
	list, err := netconf.FromFile(path)
	if err == nil {
		err = json.Unmarshal(list, &loose)
	}
	if err != nil {
		c.Invalid, c.Not = true, "is not valid: "+err.Error()
		return c
	}
	c.Name, c.Not = loose.Name, loose.stopGap()
	if c.Name == "" && c.Not == "" {
		c.Invalid, c.Not = true, "is not valid: it has no name"
	}
	return c
}

func bare(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}
