package block

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"time"
)

// fullFor is for how long a node remembers that an Add found no free address anywhere: what other
// nodes give back meanwhile it is not told.
const fullFor = time.Minute

// fullDir has a file for each range that is remembered as full.
const fullDir = "full"

// fullRange is the file. Its name is the range's.
type fullRange struct{ At time.Time }

// key distinguishes the wish from those of other ranges and spaces.
func (w Wish) key() string { return w.Space + " " + w.String() + " " + w.Window.Prefix().String() }

func (w Wish) fullName() string {
	sum := sha256.Sum256([]byte(w.key()))
	return path.Join(fullDir, hex.EncodeToString(sum[:16]))
}

// Status is ErrFull if an Add has just found that no address is free for one of the wishes, and
// none has been given back on this node since. It asks the API nothing.
func (m *Manager) Status(ctx context.Context, wishes []Wish) error {
	return m.locked(ctx, func(s *session) error {
		for _, w := range wishes {
			if !s.isFull(w) {
				continue
			}
			if b, _, err := s.pick(w, nil); err != nil {
				return err
			} else if b == nil {
				return fmt.Errorf("%w in %v", ErrFull, w)
			}
		}
		return nil
	})
}

// isFull reports whether the node remembers that a range is full; what cannot be read is tried.
func (s *session) isFull(w Wish) bool {
	var f fullRange
	return s.read(w.fullName(), &f) == nil && !s.m.due(f.At, fullFor)
}

// noteFull remembers that no address is free for the wish. That it cannot is no error of the Add,
// which has one.
func (m *Manager) noteFull(ctx context.Context, w Wish) {
	err := m.locked(ctx, func(s *session) error {
		return s.write(w.fullName(), &fullRange{m.now()})
	})
	if err != nil {
		m.Log.WarnContext(ctx, "STATUS will not tell that a range is full", "range", w, "error", err)
	}
}

// forgetFull forgets it: something may be free.
func (s *session) forgetFull() error {
	names, err := s.tree.list(fullDir)
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, s.remove(path.Join(fullDir, name)))
	}
	return errors.Join(errs...)
}
