package block

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// session is the exclusive right to the local state.
type session struct {
	m    *Manager
	tree *tree
	// loaded are the blocks that were read, as they are to be.
	loaded map[blockKey]*local
	// last is what tended says, nil until it is read.
	last *tended
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
func (s *session) read(name string, into any) error {
	data, err := s.tree.read(name)
	if err != nil {
		return err
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("%s is %w: %w", name, errUnusable, err)
	}
	return nil
}

func decode(data []byte, into any) error {
	if lines, ok := into.(encoding.TextUnmarshaler); ok {
		return lines.UnmarshalText(data)
	}
	return strictjson.Decode(data, into)
}

func encode(value any) ([]byte, error) {
	if lines, ok := value.(encoding.TextMarshaler); ok {
		return lines.MarshalText()
	}
	return json.Marshal(value)
}

// write puts a file in place, whole or not at all.
func (s *session) write(name string, value any) error {
	if err := s.m.step("write " + what(name)); err != nil {
		return err
	}
	data, err := encode(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if name == tendedFile {
		s.last = nil
	}
	return s.tree.write(name, data)
}

func (s *session) remove(name string) error {
	if err := s.m.step("remove " + what(name)); err != nil {
		return err
	}
	return s.tree.remove(name)
}

// what returns the kind of a file, for tests that stop at each change.
func what(name string) string { return strings.SplitN(name, "/", 2)[0] }
