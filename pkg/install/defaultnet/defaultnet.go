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
	s := search{Finder: f, current: current}
	for _, dir := range f.Dirs {
		if c, err := s.in(dir); c != nil || err != nil {
			return c, err
		}
	}
	if s.own != nil && s.own.Meta {
		return f.judge(s.own)
	}
	return nil, f.none(s.passed)
}

// search is one Find.
type search struct {
	*Finder

	current string
	// own is Braid's own file, if it is the one that is named.
	own *Candidate
	// passed are files that are no default network, each with the reason.
	passed []string
}

// in returns the default network if it is in dir, else nil.
func (s *search) in(dir string) (*Candidate, error) {
	all, err := List(dir)
	if err != nil {
		return nil, err
	}
	for i := range all {
		c := &all[i]
		switch {
		case slices.Contains(s.Own, c.Path):
			if s.named(c) {
				s.own = c
			}
		case s.named(c):
			return s.judge(c)
		case s.mayBecome(c):
			return nil, notReady(c.Path,
				fmt.Errorf("the default network's configuration may be incomplete: %s", c.Not))
		case s.Named == "" && c.Not == "":
			return c, nil
		case c.Not != "":
			s.passed = append(s.passed, filepath.Base(c.Path)+" "+c.Not)
		}
	}
	return nil, nil
}

// mayBecome reports whether a file that is not valid is waited for: it is in use, or being written.
func (s *search) mayBecome(c *Candidate) bool {
	return c.Invalid && (c.Path == s.current || s.fresh(c))
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

// none is the error of a node without a default network; passed are the files that were looked at.
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

// notReady is the error of what may be over soon: the default network has an agent of its own.
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

// changed returns when a file was last written; zero if that is not known.
func changed(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// IsConfiguration reports whether container runtimes take a file of that name for a configuration.
func IsConfiguration(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// read judges one file.
func read(path string) *Candidate {
	c := &Candidate{Path: path, changed: changed(path)}
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

// bare takes the path off an error, whose text has it already.
func bare(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}
