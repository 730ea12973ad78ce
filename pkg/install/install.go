// Package install puts Braid on a node and keeps it there: binaries, kubeconfig and configuration,
// in that order, beside the files of a default network that somebody else installs.
//
// Contract: an Apply that is interrupted anywhere leaves a node that works as before or as after,
// and the next one finishes. The configuration comes last, and only if there is a default network
// to put it in front of. While that is in doubt, nothing changes. Only Uninstall removes anything.
// Files of others are left alone, but for those of the default network if the operator wants them
// in a directory of their own.
package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/install/platform"
)

// The kinds of files that an Installer has in its Store.
const (
	KindBinary        = "binary"
	KindKubeconfig    = "kubeconfig"
	KindConfiguration = "configuration" // its note is the path of the default network
	KindNetwork       = "network"       // its note is the path that it was moved from
)

// FileName is the name of Braid's configuration: before all that others write by custom.
const FileName = "00-braid.conflist"

const maxNetwork = 1 << 20 // bytes

// Installer is for one goroutine.
type Installer struct {
	Store *own.Store
	Place platform.Place
	// Binaries go to Place.Bin, or wherever their paths are.
	Binaries []*own.File
	// Kubeconfig is the path of a file. Apply writes no configuration before it exists. Empty for
	// none.
	Kubeconfig string
	// Named is the default network, as for a [defaultnet.Finder].
	Named string
	// Render makes Braid's configuration for a default network, to which it refers by its path.
	Render func(network *defaultnet.Candidate) ([]byte, error)
	// Move moves the default network's files to Place.Private. Files are looked for there in any case.
	Move bool
	// Step is called for each change that the Store does not make, before it is made. For tests.
	Step func(change string) error
}

// Outcome is what an Apply has found and done.
type Outcome struct {
	// Network is the default network; nil if there is none.
	Network *defaultnet.Candidate
	// Configuration is the path of Braid's own configuration.
	Configuration string
	// Changed are the paths that were written or removed.
	Changed []string
}

// step announces a change that the Store does not make.
func (i *Installer) step(format string, args ...any) error {
	if i.Step == nil {
		return nil
	}
	return i.Step(fmt.Sprintf(format, args...))
}

// Apply brings the node to the wanted state. An error of reason NotReady means that something is
// missing yet, and that Apply is to be called again. The Outcome is what was reached, also with an
// error.
func (i *Installer) Apply(ctx context.Context) (*Outcome, error) {
	out := &Outcome{}
	for _, f := range i.Binaries {
		if err := i.put(ctx, out, f); err != nil {
			return out, err
		}
	}
	if err := i.awaitKubeconfig(); err != nil {
		return out, err
	}
	moved, err := i.copyNetworks(ctx, out)
	if err != nil {
		return out, err
	}
	if err := i.configure(ctx, out); err != nil {
		return out, err
	}
	return out, i.takeNetworks(ctx, out, moved)
}

// put is Store.Put with the outcome.
func (i *Installer) put(ctx context.Context, out *Outcome, f *own.File) error {
	changed, err := i.Store.Put(ctx, f)
	if changed {
		out.Changed = append(out.Changed, f.Path)
	}
	return err
}

// awaitKubeconfig returns an error of reason NotReady until the kubeconfig is there: pods would
// fail without it.
func (i *Installer) awaitKubeconfig() error {
	if i.Kubeconfig == "" {
		return nil
	}
	_, err := os.Stat(i.Kubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		return &failure.Error{
			Reason: failure.NotReady, NAD: i.Kubeconfig, Err: errors.New("the kubeconfig is not there yet"),
			Fix: "see whether the agent reaches the API server",
		}
	}
	return err
}

// configure writes Braid's configuration before all others.
func (i *Installer) configure(ctx context.Context, out *Outcome) error {
	entries, err := i.Store.Entries(ctx)
	if err != nil {
		return err
	}
	finder := &defaultnet.Finder{
		Dirs: []string{i.Place.Private, i.Place.Conf}, Named: i.Named, Own: configurations(entries),
	}
	if out.Network, err = finder.Find(current(entries)); err != nil {
		return err
	}
	content, err := i.Render(out.Network)
	if err != nil {
		return fmt.Errorf("render configuration: %w", err)
	}
	all, err := defaultnet.List(i.Place.Conf)
	if err != nil {
		return err
	}
	name := i.firstName(all, entries)
	out.Configuration = filepath.Join(i.Place.Conf, name)
	f := own.Bytes(out.Configuration, 0o600, KindConfiguration, content)
	f.Note = out.Network.Path
	if err := i.put(ctx, out, f); err != nil {
		return err
	}
	return i.removeKind(ctx, out, KindConfiguration, out.Configuration)
}

// configurations returns the paths of Braid's own configuration.
func configurations(entries []own.Entry) (paths []string) {
	for _, e := range entries {
		if e.Kind == KindConfiguration {
			paths = append(paths, e.Path)
		}
	}
	return paths
}

// current returns the path of the default network of the configuration that was last written.
func current(entries []own.Entry) string {
	for _, e := range entries {
		if e.Kind == KindConfiguration && e.Note != "" {
			return e.Note
		}
	}
	return ""
}

// removeKind removes the files of a kind but one.
func (i *Installer) removeKind(ctx context.Context, out *Outcome, kind, but string) error {
	entries, err := i.Store.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Kind != kind || e.Path == but {
			continue
		}
		if err := i.Store.Remove(ctx, e.Path); err != nil {
			return err
		}
		out.Changed = append(out.Changed, e.Path)
	}
	return nil
}

// firstName returns a name for the configuration that comes before those of others. It does not go
// before another meta plugin: the operator wants that one.
func (i *Installer) firstName(all []defaultnet.Candidate, entries []own.Entry) string {
	name := FileName
	for _, c := range i.others(all, entries) {
		base := filepath.Base(c.Path)
		if base < name && !c.Meta {
			name = nameBefore(base, name)
		}
	}
	return name
}

// others returns the configurations that neither are Braid's nor will be moved.
func (i *Installer) others(
	all []defaultnet.Candidate, entries []own.Entry,
) (others []defaultnet.Candidate) {
	ours := configurations(entries)
	for _, c := range all {
		if !slices.Contains(ours, c.Path) && !i.moves(&c) {
			others = append(others, c)
		}
	}
	return others
}

// nameBefore returns a name that sorts before another, or name itself if there is no sensible one.
// '-' comes before digits and letters.
func nameBefore(other, name string) string {
	for at := 1; at < len(other); at++ {
		if other[at] > '-' {
			return other[:at] + "-" + strings.TrimLeft(name, "0-")
		}
	}
	return name
}
