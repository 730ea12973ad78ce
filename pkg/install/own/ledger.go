package own

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	ledgerName    = "installed.json"
	lockName      = "lock"
	ledgerVersion = 1
	maxLedger     = 1 << 20 // bytes
)

// ledger is what the Store remembers. One of a later version is not touched.
type ledger struct {
	Version int `json:"version"`
	claim
	Files []Entry `json:"files,omitempty"`
}

// claim is whose the node is.
type claim struct {
	// Holder is the installer that has claimed the node, Installation what it belongs to.
	Holder       string `json:"holder,omitempty"`
	Installation string `json:"installation,omitempty"`
	// Retired is true if the installation's files are being removed.
	Retired bool `json:"retired,omitempty"`
}

// bars reports whether an installation was retired, and must not claim the node again.
func (c *claim) bars(installation string) bool {
	return c.Retired && c.Installation == installation
}

// Has reports whether a content is one that the Store gave the file.
func (e *Entry) Has(digest string) bool { return slices.Contains(e.Digests, digest) }

// entry returns the path's entry; nil if there is none.
func (l *ledger) entry(path string) *Entry {
	i := slices.IndexFunc(l.Files, func(e Entry) bool { return e.Path == path })
	if i < 0 {
		return nil
	}
	return &l.Files[i]
}

// heldBy returns a [SupersededError] if another installer has claimed the node.
func (l *ledger) heldBy(self string) error {
	if l.Holder != self {
		return &SupersededError{l.Holder}
	}
	return nil
}

// intend notes what the file is about to have.
func (l *ledger) intend(f *File) {
	e := l.entry(f.Path)
	if e == nil {
		l.Files = append(l.Files, Entry{Path: f.Path})
		e = l.entry(f.Path)
	}
	e.Kind, e.Note = f.Kind, f.Note
	if !e.Has(f.Digest) {
		e.Digests = append(e.Digests, f.Digest)
	}
}

// done notes what the file has.
func (l *ledger) done(f *File) {
	e := l.entry(f.Path)
	e.Kind, e.Note, e.Digests, e.Installed = f.Kind, f.Note, []string{f.Digest}, true
}

// forget is for a path that has no file of the Store's any more.
func (l *ledger) forget(path string) {
	l.Files = slices.DeleteFunc(l.Files, func(e Entry) bool { return e.Path == path })
}

// held is locked for an installer that has claimed the node, and is a [SupersededError] for others.
func (s *Store) held(ctx context.Context, do func(hostfile.Dir, *ledger) error) error {
	return s.locked(ctx, func(dir hostfile.Dir, l *ledger) error {
		if err := l.heldBy(s.Self); err != nil {
			return err
		}
		return do(dir, l)
	})
}

// locked runs do, with the ledger, while no other process or goroutine is in the Store's directory.
func (s *Store) locked(ctx context.Context, do func(hostfile.Dir, *ledger) error) error {
	dir, err := open(s.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, err := dir.Open(lockName, unix.O_RDWR|unix.O_CREAT, 0o600)
	if err != nil {
		return refused(filepath.Join(s.Dir, lockName), "open", err)
	}
	defer unix.Close(fd)
	if err := hostfile.Lock(ctx, fd); err != nil {
		return &failure.Error{
			Reason: failure.Busy, NAD: s.Dir, Err: fmt.Errorf("wait for another installer: %w", err),
		}
	}
	l, err := s.readLedger(dir)
	if err != nil {
		return err
	}
	return do(dir, l)
}

// readLedger reads the ledger; one that is not there is empty.
func (s *Store) readLedger(dir hostfile.Dir) (*ledger, error) {
	l := &ledger{Version: ledgerVersion}
	raw, _, err := dir.Read(ledgerName, maxLedger)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	path := filepath.Join(s.Dir, ledgerName)
	if err != nil {
		return nil, refused(path, "read", err)
	}
	if err := json.Unmarshal(raw, l); err != nil {
		return nil, &failure.Error{
			Reason: failure.StateCorrupt, NAD: path, Err: fmt.Errorf("decode what was installed: %w", err),
			Fix: "remove the file, and those that it named and that are of another version",
		}
	}
	if l.Version != ledgerVersion {
		return nil, &failure.Error{
			Reason: failure.StateCorrupt, NAD: path,
			Err: fmt.Errorf("is of version %d, and this installer knows %d", l.Version, ledgerVersion),
			Fix: "use the version of Braid that wrote it, or a later one",
		}
	}
	return l, nil
}

// writeLedger replaces the ledger as any other file, so it is whole whatever dies.
func (s *Store) writeLedger(ctx context.Context, dir hostfile.Dir, l *ledger) error {
	raw, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return fmt.Errorf("encode what was installed: %w", err)
	}
	return s.write(ctx, dir, Bytes(filepath.Join(s.Dir, ledgerName), 0o600, "", append(raw, '\n')))
}
