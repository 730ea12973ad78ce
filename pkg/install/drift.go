package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
)

// Cause is what became of a file.
type Cause string

// The causes.
const (
	Renamed   Cause = "renamed"   // By is the name that it has now
	Deleted   Cause = "deleted"   // nobody knows by whom
	Changed   Cause = "changed"   // By says what was added, where that is known
	Preempted Cause = "preempted" // By is the file that container runtimes read first now
	Returned  Cause = "returned"  // a default network's file is back where it was moved from
)

// Drift is a file that is not as it was installed.
type Drift struct {
	Path  string
	Cause Cause
	// By is whatever points to who did it; empty if nothing does.
	By string
}

// String is for events and logs: "/etc/cni/net.d/00-braid.conflist was renamed (cilium,
// cni.exclusive)".
func (d Drift) String() string {
	text := d.Path + " was " + string(d.Cause)
	if d.Cause == Returned {
		text = d.Path + " has " + string(d.Cause)
	}
	if d.By != "" {
		text += " (" + d.By + ")"
	}
	return text
}

// Inspect compares the node with what was installed. It changes nothing.
func (i *Installer) Inspect(ctx context.Context) (drifts []Drift, err error) {
	entries, err := i.Store.Entries(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		drift, err := i.inspect(ctx, e)
		if err != nil {
			return drifts, err
		}
		if drift != nil {
			drifts = append(drifts, *drift)
		}
	}
	around, err := i.inspectAround(entries)
	return append(drifts, around...), err
}

// inspect looks at a file again if it was put in place meanwhile, as the credential's keeper does.
func (i *Installer) inspect(ctx context.Context, e own.Entry) (*Drift, error) {
	for {
		if !e.Installed {
			return nil, nil //nolint:nilnil // it was never there
		}
		drift, err := i.compare(e)
		if drift == nil || err != nil {
			return drift, err
		}
		entries, err := i.Store.Entries(ctx)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(entries, func(now own.Entry) bool { return now.Path == e.Path })
		switch {
		case at < 0:
			return nil, nil //nolint:nilnil // it was removed by us
		case slices.Equal(entries[at].Digests, e.Digests):
			return drift, nil
		}
		e = entries[at]
	}
}

// compare compares a file with what the Store gave it.
func (i *Installer) compare(e own.Entry) (*Drift, error) {
	digest, err := i.Store.Sum(e.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if by := i.renamedTo(e); by != "" {
			return &Drift{e.Path, Renamed, by}, nil
		}
		return &Drift{Path: e.Path, Cause: Deleted}, nil
	case err != nil:
		return nil, err
	case e.Has(digest):
		return nil, nil //nolint:nilnil // it is as it was
	case e.Kind == KindConfiguration:
		return &Drift{e.Path, Changed, pluginsAdded(e.Path)}, nil
	}
	return &Drift{Path: e.Path, Cause: Changed}, nil
}

// renamedTo names a file beside it that has the content, and who is known to name files so.
func (i *Installer) renamedTo(e own.Entry) string {
	copies := i.copies(e)
	// others are of former renames
	at := slices.IndexFunc(copies, func(path string) bool { return i.Store.WasAt(path, e.Path) })
	if at < 0 {
		return ""
	}
	name := filepath.Base(copies[at])
	if strings.HasSuffix(name, ".cilium_bak") {
		name += ", by cilium with cni.exclusive"
	}
	return name
}

// copies are files beside an installed one whose names begin with its name and that have its
// content.
func (i *Installer) copies(e own.Entry) (paths []string) {
	dir := filepath.Dir(e.Path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, file := range entries {
		path := filepath.Join(dir, file.Name())
		if path == e.Path || !strings.HasPrefix(file.Name(), filepath.Base(e.Path)) {
			continue
		}
		if digest, err := i.Store.Sum(path); err == nil && e.Has(digest) {
			paths = append(paths, path)
		}
	}
	return paths
}

// pluginsAdded names plugins that somebody appended to Braid's chain, as istio-cni does.
func pluginsAdded(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var list struct {
		Plugins []struct{ Type string }
	}
	if json.Unmarshal(raw, &list) != nil || len(list.Plugins) < 2 {
		return ""
	}
	var types []string
	for _, p := range list.Plugins[1:] {
		types = append(types, p.Type)
	}
	return "has the plugin " + strings.Join(types, ", ")
}

// inspectAround finds files of others that are in the way of what was installed.
func (i *Installer) inspectAround(entries []own.Entry) (drifts []Drift, err error) {
	all, err := defaultnet.List(i.Place.Conf)
	if err != nil {
		return nil, err
	}
	return append(i.preempted(all, entries), i.returned(all, entries)...), nil
}

// preempted finds files that container runtimes read before Braid's configuration.
func (i *Installer) preempted(
	all []defaultnet.Candidate, entries []own.Entry,
) (drifts []Drift) {
	at := slices.IndexFunc(entries, func(e own.Entry) bool {
		return e.Kind == KindConfiguration && e.Installed
	})
	if at < 0 {
		return nil
	}
	ours := entries[at].Path
	for _, c := range i.others(all, entries) {
		if filepath.Base(c.Path) < filepath.Base(ours) {
			drifts = append(drifts, Drift{ours, Preempted, describe(&c)})
		}
	}
	return drifts
}

// returned finds the default network's files that are back where they were moved from.
func (i *Installer) returned(
	all []defaultnet.Candidate, entries []own.Entry,
) (drifts []Drift) {
	for _, c := range all {
		moved := slices.ContainsFunc(entries, func(e own.Entry) bool {
			return e.Kind == KindNetwork && e.Note == c.Path
		})
		if moved && i.moves(&c) {
			drifts = append(drifts, Drift{Path: c.Path, Cause: Returned})
		}
	}
	return drifts
}

// describe names a file as By does: "10-flannel.conflist of network "cbr0"".
func describe(c *defaultnet.Candidate) string {
	text := filepath.Base(c.Path)
	if c.Name != "" {
		text = fmt.Sprintf("%s of network %q", text, c.Name)
	}
	if c.Not != "" {
		text += ", which " + c.Not
	}
	return text
}
