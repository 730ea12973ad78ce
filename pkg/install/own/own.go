// Package own puts files on the node and remembers which of them it put there.
//
// Contract: a file is replaced by a rename in its own directory, after its content has reached the
// disk. Whatever dies at whatever moment, the path has the old content or the new, and the next Put
// finishes the work. Nothing is written where content and mode are right already. A file that the
// Store did not put there is never replaced or removed, nor is anything that is no regular file. A
// file that has the very content that the Store would give it counts as its own from then on,
// unless its directory is read-only; so does all that is in the Store's own directory.
//
// Whose a file is stands in a ledger in the Store's directory, which is on persistent disk: a path
// with the digests of what may lie there. It names a new content before that content has the path.
package own

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// Store is for any number of goroutines and processes.
type Store struct {
	// Dir is an absolute path on a file system that survives a reboot. It is made by the first Claim.
	Dir string
	// Self distinguishes this installer from others on the node, for instance the agent's former pod.
	Self string
	// Installation is what all agents of one installation have in common, as the uid of their
	// DaemonSet. One that was retired cannot claim the node again.
	Installation string
	// Step is called for each change before it is made, and an error that it returns is that of the
	// change. For tests; nil otherwise.
	Step func(change string) error

	mu   sync.Mutex
	seen map[string]glance
	// files are what was last at a path.
	files map[string]inode
}

// inode is a file, whatever its name.
type inode struct{ dev, ino uint64 }

// glance is a file's digest, as long as its metadata is the same.
type glance struct {
	stat   unix.Stat_t
	digest string
}

// File is what a path is to have.
type File struct {
	// Path is absolute. Its directory may be a symbolic link; the file may not.
	Path string
	Mode fs.FileMode
	// Kind and Note are for the caller, who finds them again in Entries.
	Kind, Note string
	// Digest is the digest of the content, as DigestOf returns it.
	Digest string
	Open   func() (io.ReadCloser, error)
	// Check is asked about the complete content before it gets the path; nil for no question. It
	// gets the path of the temporary file.
	Check func(ctx context.Context, temporary string) error
}

// Entry is a file that the Store has put somewhere, or was about to.
type Entry struct {
	Path string `json:"path"`
	Kind string `json:"kind,omitempty"`
	Note string `json:"note,omitempty"`
	// Digests are the digests of contents that the Store gave the file: the last one, and while it is
	// being replaced the next.
	Digests []string `json:"digests"`
	// Installed is true if the path has had one of them.
	Installed bool `json:"installed,omitempty"`
}

// State is what there is at a path.
type State int

// The states of a path.
const (
	// Missing means that there is nothing.
	Missing State = iota
	// Right means that content and mode are as wanted.
	Right
	// Old means that the Store's own last content is there, and another is wanted now.
	Old
	// Changed means that somebody else changed what the Store had put there.
	Changed
	// Foreign means that the Store has never put anything there, and it is not as wanted.
	Foreign
)

// SupersededError means that another installer has claimed the node since.
type SupersededError struct{ By string }

// Error names the other installer, if there is one.
func (e *SupersededError) Error() string {
	if e.By == "" {
		return "no installer has claimed this node"
	}
	return fmt.Sprintf("another installer, %s, has taken over this node", e.By)
}

// DigestOf reads a content to its end and returns its digest.
func DigestOf(r io.Reader) (string, error) {
	hash := sha256.New()
	if _, err := io.Copy(hash, r); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}

// RetiredError means that what this installation put on the node is being removed.
type RetiredError struct{ Installation string }

// Error names the installation.
func (e *RetiredError) Error() string {
	return fmt.Sprintf("installation %q was uninstalled from this node", e.Installation)
}

// step announces a change.
func (s *Store) step(format string, args ...any) error {
	if s.Step == nil {
		return nil
	}
	return s.Step(fmt.Sprintf(format, args...))
}

// Claim makes this installer the only one: the Puts and Removes of others fail with a
// SupersededError from now on, so that two agents do not undo each other's work. It fails with a
// RetiredError after a Retire of this installation.
func (s *Store) Claim(ctx context.Context) error { return s.claim(ctx, false) }

// Retire claims the node and keeps other agents of its installation from doing so again. It is for
// who removes what they installed.
func (s *Store) Retire(ctx context.Context) error { return s.claim(ctx, true) }

// claim writes into the ledger who the node's installer is, unless that stands there already.
func (s *Store) claim(ctx context.Context, retire bool) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return refused(s.Dir, "make directory", err)
	}
	return s.locked(ctx, func(dir hostfile.Dir, l *ledger) error {
		if !retire && l.bars(s.Installation) {
			return &RetiredError{l.Installation}
		}
		installation := s.Installation
		if retire && l.Holder != "" {
			installation = l.Installation // it is that which must not come back
		}
		wanted := claim{Holder: s.Self, Retired: retire, Installation: installation}
		if l.claim == wanted {
			return nil
		}
		l.claim = wanted
		return s.writeLedger(ctx, dir, l)
	})
}

// Entries lists what the Store has put on the node.
func (s *Store) Entries(ctx context.Context) (all []Entry, err error) {
	err = s.locked(ctx, func(_ hostfile.Dir, l *ledger) error {
		all = l.Files
		return nil
	})
	return all, err
}

// Look returns the state of a file. An error is one that a Put would fail with, too.
func (s *Store) Look(ctx context.Context, f *File) (state State, err error) {
	err = s.held(ctx, func(_ hostfile.Dir, l *ledger) error {
		at, err := open(filepath.Dir(f.Path))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer at.Close()
		state, err = s.look(at, f, l.entry(f.Path))
		return err
	})
	return state, err
}

// Sum returns the digest of a regular file, which need not be the Store's. It is read only if its
// metadata are not those of the last time.
func (s *Store) Sum(path string) (string, error) {
	at, err := open(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	defer at.Close()
	digest, _, err := s.digest(at, filepath.Base(path))
	return digest, err
}

// WasAt reports whether a file is the one that was last at a path of the Store's, which it has lost
// since. It is if that is not known.
func (s *Store) WasAt(file, path string) bool {
	at, err := open(filepath.Dir(file))
	if err != nil {
		return false
	}
	defer at.Close()
	st, err := at.Stat(filepath.Base(file))
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.files[path]
	return !known || last == inodeOf(st)
}

// inodeOf returns which file stat(2) was asked about.
func inodeOf(st unix.Stat_t) inode {
	return inode{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev has another type elsewhere
}

// note remembers what is at a path.
func (s *Store) note(path string, st unix.Stat_t) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[string]inode{}
	}
	s.files[path] = inodeOf(st)
}

// Put makes the path have the content and the mode, and reports whether they were others.
func (s *Store) Put(ctx context.Context, f *File) (changed bool, err error) {
	err = s.held(ctx, func(dir hostfile.Dir, l *ledger) error {
		at, err := s.makeDir(filepath.Dir(f.Path))
		if err != nil {
			return err
		}
		defer at.Close()
		state, err := s.look(at, f, l.entry(f.Path))
		if err != nil {
			return err
		}
		switch state {
		case Right:
			return s.settle(ctx, dir, at, l, f)
		case Foreign:
			return foreign(f.Path)
		}
		changed = true
		return s.replace(ctx, dir, at, l, f)
	})
	return changed, err
}

// Give puts a file in place that is not the Store's from then on, as one that it kept for somebody
// else. It replaces nothing.
func (s *Store) Give(ctx context.Context, f *File) error {
	return s.held(ctx, func(dir hostfile.Dir, l *ledger) error {
		at, err := s.makeDir(filepath.Dir(f.Path))
		if err != nil {
			return err
		}
		defer at.Close()
		state, err := s.look(at, f, nil)
		if err != nil || state == Right {
			return err
		}
		if state != Missing {
			return foreign(f.Path)
		}
		return s.write(ctx, at, f)
	})
}

// replace puts the file in place, and the ledger before and after.
func (s *Store) replace(ctx context.Context, dir, at hostfile.Dir, l *ledger, f *File) error {
	l.intend(f)
	if err := s.writeLedger(ctx, dir, l); err != nil {
		return err
	}
	if err := s.write(ctx, at, f); err != nil {
		return err
	}
	l.done(f)
	return s.writeLedger(ctx, dir, l)
}

// settle ends what was interrupted after the file had its path, and adopts a file that is as the
// Store would have made it: the ledger may have been lost. One that cannot be replaced stays its
// owner's, as on a node whose image is read-only.
func (s *Store) settle(ctx context.Context, dir, at hostfile.Dir, l *ledger, f *File) error {
	e := l.entry(f.Path)
	switch {
	case e != nil && e.isOf(f), e == nil && !writable(at):
		return nil
	case e == nil:
		l.intend(f)
	}
	l.done(f)
	return s.writeLedger(ctx, dir, l)
}

// isOf reports whether an entry is what a Put of the file leaves in the ledger.
func (e *Entry) isOf(f *File) bool {
	return e.Installed && len(e.Digests) == 1 && e.Kind == f.Kind && e.Note == f.Note
}

// writable reports whether files can be made and removed in a directory.
func writable(at hostfile.Dir) bool { return unix.Faccessat(at.FD(), ".", unix.W_OK, 0) == nil }

// Remove removes a file that the Store put there and nobody has changed, and forgets it. What is
// not the Store's stays: it is no error if the ledger does not know the path, or if nothing is
// there.
func (s *Store) Remove(ctx context.Context, path string) error {
	return s.locked(ctx, func(dir hostfile.Dir, l *ledger) error {
		e := l.entry(path)
		if e == nil {
			return nil
		}
		if err := l.heldBy(s.Self); err != nil {
			return err
		}
		if err := s.unlink(path, e); err != nil {
			return err
		}
		l.forget(path)
		return s.writeLedger(ctx, dir, l)
	})
}

// unlink removes the file of an entry, and what a Put that was killed left beside it.
func (s *Store) unlink(path string, e *Entry) error {
	at, err := open(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer at.Close()
	name := filepath.Base(path)
	if err := at.Remove(temporary(name)); err != nil {
		return refused(path, "remove", err)
	}
	digest, _, err := s.digest(at, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !e.Has(digest):
		return changedSince(path)
	}
	if err := s.step("remove %s", path); err != nil {
		return err
	}
	if err := at.Remove(name); err != nil {
		return refused(path, "remove", err)
	}
	return syncDir(at)
}

// changedSince is the error of a file that somebody else has changed.
func changedSince(path string) error {
	return &failure.Error{
		Reason: failure.FileInTheWay, NAD: path,
		Err: errors.New("was changed since it was installed, and is not removed"),
		Fix: "remove it, if it is not wanted",
	}
}
