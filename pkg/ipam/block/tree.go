package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	tempFile = "new"

	dirMode  = 0o700
	fileMode = 0o600
	maxFile  = 64 << 10 // bytes; a block with the longest names is a tenth of it
)

// tree is a directory with files of ours, by their paths in it, and perhaps with anything else: symbolic links are not followed, and what
// stands in the place of a file is removed. Directories that it was asked for stay open, so that a file in them is one step away.
type tree struct {
	root *os.Root
	dirs map[string]*os.Root
}

// openTree opens the directory, and makes it where there is none.
func openTree(dir string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, fmt.Errorf("make directory %s: %w", dir, err)
		}
		root, err = os.OpenRoot(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, err)
	}
	return &tree{root, map[string]*os.Root{".": root}}, nil
}

func (t *tree) close() {
	for _, dir := range t.dirs {
		dir.Close() //nolint:errcheck // a directory
	}
}

func (t *tree) dir(name string) (*os.Root, error) {
	if dir, ok := t.dirs[name]; ok {
		return dir, nil
	}
	dir, err := t.root.OpenRoot(name)
	if err == nil {
		t.dirs[name] = dir
	}
	return dir, err
}

// makeDir makes a directory anew that is not there any more, or never was.
func (t *tree) makeDir(name string) error {
	if dir, ok := t.dirs[name]; ok && dir != t.root {
		dir.Close() //nolint:errcheck // a directory
		delete(t.dirs, name)
	}
	if err := t.root.MkdirAll(name, dirMode); err != nil {
		return fmt.Errorf("make directory %s: %w", name, err)
	}
	return nil
}

// errUnusable is that a file is not as it was written. Any other error says nothing about the file.
var errUnusable = errors.New("not as it was written")

// transient are errors that have nothing to do with the file.
func transient(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	return ok && slices.Contains([]unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EIO, unix.EACCES, unix.EPERM, unix.EINTR}, errno)
}

// read gives what a file has.
func (t *tree) read(name string) ([]byte, error) {
	var f *os.File
	dir, err := t.dir(path.Dir(name))
	if err == nil {
		f, err = dir.OpenFile(path.Base(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	}
	if errors.Is(err, fs.ErrNotExist) || err != nil && transient(err) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	data, err := hostfile.ReadAll(f, maxFile)
	if _, ok := errors.AsType[*hostfile.NotRegularError](err); ok {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// write puts a file in place, whole or not at all.
func (t *tree) write(name string, data []byte) error {
	err := t.put(name, data)
	if err == nil || transient(err) {
		return err
	}
	if err := t.makeDir(path.Dir(name)); err != nil {
		return err
	}
	if err := t.clear(path.Join(path.Dir(name), tempFile), name); err != nil {
		return err
	}
	return t.put(name, data)
}

func (t *tree) put(name string, data []byte) error {
	var f *os.File
	dir, err := t.dir(path.Dir(name))
	if err == nil {
		f, err = dir.OpenFile(tempFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, fileMode)
	}
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = dir.Rename(tempFile, path.Base(name))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// clear removes what stands in the place of a file and is none.
func (t *tree) clear(names ...string) error {
	for _, name := range names {
		if info, err := t.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
			if err := t.root.RemoveAll(name); err != nil {
				return fmt.Errorf("remove %s, which is no file: %w", name, err)
			}
		}
	}
	return nil
}

// remove removes a file, if it is there.
func (t *tree) remove(name string) error {
	dir, err := t.dir(path.Dir(name))
	if err == nil {
		err = dir.Remove(path.Base(name))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && !transient(err) {
		err = t.root.RemoveAll(name)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// move gives a file another path.
func (t *tree) move(from, to string) error {
	err := t.root.Rename(from, to)
	if err == nil || transient(err) {
		return err
	}
	if err := t.makeDir(path.Dir(to)); err != nil {
		return err
	}
	if err := t.clear(to); err != nil {
		return err
	}
	return t.root.Rename(from, to)
}

// list gives the names of a directory; none if it is not there.
func (t *tree) list(name string) ([]string, error) {
	var f *os.File
	dir, err := t.dir(name)
	if err == nil {
		f, err = dir.OpenFile(".", os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", name, err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == tempFile }), nil
}
