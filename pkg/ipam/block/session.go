package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// session is the exclusive right to the local state.
type session struct {
	m    *Manager
	tree *tree
	// loaded are the blocks that were read, as they are to be.
	loaded map[blockKey]*local
	// noted is what is noted of the node, nil until it is read.
	noted *nodeState
}

// open opens the local state to lock a directory of it.
func (m *Manager) open(dir string) (*tree, error) {
	if m.Locking != nil {
		m.Locking(path.Join(m.Dir, dir))
	}
	return openTree(m.Dir)
}

// locked runs fn with the local state. It never waits for the API.
func (m *Manager) locked(ctx context.Context, fn func(*session) error) error {
	t, err := m.open("")
	if err != nil {
		return err
	}
	defer t.close()
	if err := flock(ctx, t.root); err != nil {
		return err
	}
	return fn(&session{m: m, tree: t, loaded: map[blockKey]*local{}})
}

// inside is locked for what has a result.
func inside[T any](
	ctx context.Context, m *Manager, fn func(*session) (T, error),
) (result T, err error) {
	err = m.locked(ctx, func(s *session) (err error) {
		result, err = fn(s)
		return err
	})
	return result, err
}

// lockSpace takes the exclusive right to ask the API for blocks of a space.
func (m *Manager) lockSpace(ctx context.Context, name string) (unlock func(), err error) {
	if !isSpace(name) {
		return nil, fmt.Errorf("%.80q is no space", name)
	}
	return m.lockDir(ctx, path.Join(blocksDir, name))
}

// lockDir takes the lock of a directory, which it makes if need be.
func (m *Manager) lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	t, err := m.open(dir)
	if err != nil {
		return nil, err
	}
	defer t.close()
	d, err := t.own(dir)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, d); err != nil {
		d.Close()
		return nil, err
	}
	return d.Close, nil
}

// flock waits for the lock of a directory, which has it until it is closed.
func flock(ctx context.Context, d hostfile.Dir) error {
	return wrap(hostfile.Lock(ctx, d.FD()), "lock %s", d.Path())
}

// read decodes a file of ours.
func (s *session) read(name string, into file) error {
	data, err := s.tree.read(name)
	if err != nil {
		return err
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("%s is %w: %w", name, errUnusable, err)
	}
	return nil
}

// write puts a file in place, whole or not at all.
func (s *session) write(name string, value file) error {
	if err := s.m.step("write " + what(name)); err != nil {
		return err
	}
	data, err := encode(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return s.tree.write(name, data)
}

// remove removes a file, if it is there.
func (s *session) remove(name string) error {
	if err := s.m.step("remove " + what(name)); err != nil {
		return err
	}
	return s.tree.remove(name)
}

// node returns what is noted of the node: nothing where there is no file of it, or none that can be
// read.
func (s *session) node() (*nodeState, error) {
	if s.noted != nil {
		return s.noted, nil
	}
	n := new(nodeState)
	err := s.read(nodeFile, n)
	if errors.Is(err, errUnusable) {
		s.m.Log.Error("who this node is will be asked again", "error", err)
		n = new(nodeState)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	s.noted = n
	return n, nil
}

// note changes what is noted of the node.
func (s *session) note(change func(*nodeState)) error {
	n, err := s.node()
	if err != nil {
		return err
	}
	changed := *n
	change(&changed)
	s.noted = nil
	return s.write(nodeFile, &changed)
}

// note is that of a session.
func (m *Manager) note(ctx context.Context, change func(*nodeState)) error {
	return m.locked(ctx, func(s *session) error { return s.note(change) })
}

// what returns the kind of a file, for tests that stop at each change.
func what(name string) string { return strings.SplitN(name, "/", 2)[0] }
