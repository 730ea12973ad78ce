package install

import (
	"cmp"
	"context"
	"encoding/json"
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

// Removal is what an Uninstall does.
type Removal struct {
	// Restore is a file with the configuration that was the node's before, for instance that of
	// another meta plugin; empty for none. RestoreAs is its name in the runtime's directory; empty
	// for its own, without a suffix that only kept it from being read.
	Restore, RestoreAs string
	// Files are to be removed, too, not the configuration alone.
	Files bool
	// Records counts the sandboxes that still need the binaries for their DEL. It is asked only for
	// Files.
	Records func(ctx context.Context) (int, error)
}

// Uninstall takes the node back: the runtime gets its former configuration, then loses Braid's,
// and when no sandbox of Braid's is left, and it is asked for, binaries and kubeconfig go, too.
// Agents of this installation leave the node alone from its beginning. It may be repeated until it
// succeeds; an error of reason Busy is that there are sandboxes yet.
func (i *Installer) Uninstall(ctx context.Context, what Removal) (*Outcome, error) {
	out := &Outcome{}
	if err := i.Store.Retire(ctx); err != nil {
		return out, err
	}
	if err := i.restore(ctx, what); err != nil {
		return out, err
	}
	if err := i.giveBack(ctx, out); err != nil {
		return out, err
	}
	if err := i.removeConfiguration(ctx, out); err != nil {
		return out, err
	}
	if !what.Files {
		return out, nil
	}
	return out, i.removeFiles(ctx, out, what.Records)
}

// removeFiles removes what is left, if no sandbox needs it any more.
func (i *Installer) removeFiles(
	ctx context.Context, out *Outcome, records func(context.Context) (int, error),
) error {
	if err := drained(ctx, records); err != nil {
		return err
	}
	for _, kind := range []string{KindKubeconfig, KindNetwork, KindBinary} {
		if err := i.removeKind(ctx, out, kind, ""); err != nil {
			return err
		}
	}
	return nil
}

// drained returns an error of reason Busy while there are sandboxes.
func drained(ctx context.Context, records func(context.Context) (int, error)) error {
	if records == nil {
		return nil
	}
	n, err := records(ctx)
	if err != nil {
		return fmt.Errorf("count sandboxes: %w", err)
	}
	if n > 0 {
		return &failure.Error{
			Reason: failure.Busy, Err: fmt.Errorf("the binaries are still needed by %s",
				failure.Count(n, "sandbox")),
			Fix: "delete their pods, or wait for their end, and repeat",
		}
	}
	return nil
}

// restore puts the former configuration into the runtime's directory.
func (i *Installer) restore(ctx context.Context, what Removal) error {
	if what.Restore == "" {
		return nil
	}
	content, err := hostfile.ReadLinked(what.Restore, maxNetwork)
	if err != nil {
		return &failure.Error{
			Reason: failure.InvalidConfig, NAD: what.Restore,
			Err: fmt.Errorf("read what is to be restored: %w", err),
			Fix: "give the file of a CNI configuration",
		}
	}
	name := cmp.Or(what.RestoreAs, formerName(filepath.Base(what.Restore)))
	if !defaultnet.IsConfiguration(name) || filepath.Base(name) != name {
		return &failure.Error{
			Reason: failure.InvalidConfig, NAD: what.Restore,
			Err: fmt.Errorf("would be restored as %q, which no runtime reads", name),
			Fix: "say by which file name it is to be restored, for instance 00-multus.conf",
		}
	}
	if !hasPlugins(content) {
		return &failure.Error{
			Reason: failure.InvalidConfig, NAD: what.Restore,
			Err: errors.New("is no CNI configuration, and is not restored"),
			Fix: "give the file of one",
		}
	}
	return i.Store.Give(ctx, own.Bytes(filepath.Join(i.Place.Conf, name), 0o600, "", content))
}

// hasPlugins reports whether a content is a CNI configuration, of one plugin or of a list.
func hasPlugins(content []byte) bool {
	var list struct {
		Type    string
		Plugins []struct{ Type string }
	}
	err := json.Unmarshal(content, &list)
	return err == nil && (list.Type != "" || len(list.Plugins) > 0)
}

// formerName takes off what keeps runtimes from reading a file: "00-multus.conf.bak" was
// "00-multus.conf".
func formerName(name string) string {
	for _, suffix := range []string{".conflist", ".conf", ".json"} {
		if at := strings.LastIndex(name, suffix+"."); at > 0 {
			return name[:at+len(suffix)]
		}
	}
	return name
}

// giveBack puts the default network's files where they were moved from.
func (i *Installer) giveBack(ctx context.Context, out *Outcome) error {
	if err := i.untake(ctx, out); err != nil {
		return err
	}
	entries, err := i.Store.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Kind != KindNetwork || exists(e.Note) {
			continue // its owner has written it again
		}
		if err := i.giveBackOne(ctx, out, e); err != nil {
			return err
		}
	}
	return nil
}

// giveBackOne puts one file where it was moved from, which is its entry's Note.
func (i *Installer) giveBackOne(ctx context.Context, out *Outcome, e own.Entry) error {
	content, err := hostfile.Read(e.Path, maxNetwork)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the default network: %w", err)
	}
	if err := i.Store.Give(ctx, own.Bytes(e.Note, 0o600, "", content)); err != nil {
		return err
	}
	out.Changed = append(out.Changed, e.Note)
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeConfiguration removes Braid's configuration, and what others made of it by renaming it.
func (i *Installer) removeConfiguration(ctx context.Context, out *Outcome) error {
	entries, err := i.Store.Entries(ctx)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Kind != KindConfiguration {
			continue
		}
		for _, path := range i.copies(e) {
			if err := i.step("remove %s", path); err != nil {
				return err
			}
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove what was Braid's configuration: %w", err)
			}
		}
	}
	return i.removeKind(ctx, out, KindConfiguration, "")
}
