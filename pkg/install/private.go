package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
)

// taken returns the name of a network's file from when it is out of the runtime's sight until it is
// gone.
func taken(name string) string { return "." + name + takenSuffix }

const takenSuffix = ".braid-taken"

// moves reports whether the file belongs into the private directory.
func (i *Installer) moves(c *defaultnet.Candidate) bool {
	return i.Move && c.Not == "" &&
		(i.Named == "" || i.Named == c.Name || i.Named == filepath.Base(c.Path))
}

// copyNetworks copies the default network's files to the private directory, and returns the paths
// that they have in the runtime's.
func (i *Installer) copyNetworks(ctx context.Context, out *Outcome) (paths []string, err error) {
	if err := i.forgetNetworks(ctx); err != nil {
		return nil, err
	}
	if !i.Move {
		return nil, nil
	}
	if err := i.untake(ctx, out); err != nil {
		return nil, err
	}
	all, err := defaultnet.List(i.Place.Conf)
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if !i.moves(&c) {
			continue
		}
		if err := i.copyNetwork(ctx, out, &c); err != nil {
			return nil, err
		}
		paths = append(paths, c.Path)
	}
	return paths, nil
}

// copyNetwork copies one file. A configuration whose plugins are in a directory beside it (CNI 1.1
// "loadOnlyInlinedPlugins") is refused: the runtime finds that by the network's name only.
func (i *Installer) copyNetwork(
	ctx context.Context, out *Outcome, c *defaultnet.Candidate,
) error {
	if chain := filepath.Join(i.Place.Conf, c.Name); isDir(chain) {
		return &failure.Error{
			Reason: failure.InvalidConfig, NAD: c.Path,
			Err: fmt.Errorf("has further plugins in %s, and is not moved", chain),
			Fix: "move both to " + i.Place.Private + ", or have it left where it is",
		}
	}
	return i.keep(ctx, out, c.Path, c.Path)
}

// forgetNetworks forgets files that somebody removed from the private directory, as operators do
// with a network that is no more.
func (i *Installer) forgetNetworks(ctx context.Context) error {
	entries, err := i.Store.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Kind != KindNetwork || exists(e.Path) {
			continue
		}
		if err := i.Store.Remove(ctx, e.Path); err != nil {
			return err
		}
	}
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// keep copies a network's file, which may have another name for the moment, to the private
// directory.
func (i *Installer) keep(ctx context.Context, out *Outcome, file, path string) error {
	content, err := hostfile.Read(file, maxNetwork)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is being replaced: there will be another Apply
	}
	if err != nil {
		return fmt.Errorf("read the default network: %w", err)
	}
	f := own.Bytes(filepath.Join(i.Place.Private, filepath.Base(path)), 0o600, KindNetwork, content)
	f.Note = path
	return i.put(ctx, out, f)
}

// takeNetworks takes the files away from the runtime, which has Braid's configuration now. Each
// gets another name first: what its owner writes in that moment is not lost.
func (i *Installer) takeNetworks(ctx context.Context, out *Outcome, paths []string) error {
	for _, path := range paths {
		if err := i.step("take %s", path); err != nil {
			return err
		}
		err := os.Rename(path, filepath.Join(i.Place.Conf, taken(filepath.Base(path))))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("move the default network: %w", err)
		}
		out.Changed = append(out.Changed, path)
	}
	return i.untake(ctx, out)
}

// untake finishes what takeNetworks began.
func (i *Installer) untake(ctx context.Context, out *Outcome) error {
	entries, err := os.ReadDir(i.Place.Conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list what was moved: %w", err)
	}
	for _, e := range entries {
		name, isTaken := strings.CutSuffix(strings.TrimPrefix(e.Name(), "."), takenSuffix)
		if !isTaken {
			continue
		}
		file := filepath.Join(i.Place.Conf, e.Name())
		if err := i.moveTaken(ctx, out, file, filepath.Join(i.Place.Conf, name)); err != nil {
			return err
		}
	}
	return nil
}

// moveTaken moves a file that was at path before it was taken to the private directory.
func (i *Installer) moveTaken(ctx context.Context, out *Outcome, file, path string) error {
	if err := i.keep(ctx, out, file, path); err != nil {
		return err
	}
	if err := i.step("remove %s", file); err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("move the default network: %w", err)
	}
	return nil
}
