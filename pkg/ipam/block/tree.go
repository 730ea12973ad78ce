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

// tree is a directory with files of ours, by their paths in it, and perhaps with anything else:
// symbolic links are not followed, and what stands in the place of a file is removed. Directories
// that it was asked for stay open, so that a file in them is one step away.
type tree struct {
	root hostfile.Dir
	dirs map[string]hostfile.Dir
}

// openTree opens the directory, and makes it where there is none.
func openTree(dir string) (*tree, error) {
	root, err := hostfile.OpenDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, fmt.Errorf("make directory %s: %w", dir, err)
		}
		root, err = hostfile.OpenDir(dir)
	}
	return &tree{root, map[string]hostfile.Dir{}}, err
}

func (t *tree) close() {
	t.forget()
	t.root.Close()
}

// forget closes all directories but the root: they may not be where they were.
func (t *tree) forget() {
	for _, dir := range t.dirs {
		dir.Close()
	}
	clear(t.dirs)
}

// dir opens a directory, or returns it as it was opened before. It stays the tree's.
func (t *tree) dir(name string) (hostfile.Dir, error) {
	if name == "." {
		return t.root, nil
	}
	if dir, ok := t.dirs[name]; ok {
		return dir, nil
	}
	dir, err := t.root.Dir(name)
	if err == nil {
		t.dirs[name] = dir
	}
	return dir, err
}

// makeDir makes a directory anew that is not there any more, or never was.
func (t *tree) makeDir(name string) error {
	t.forget()
	for i, c := range name + "/" {
		if c != '/' || name == "." {
			continue
		}
		in, err := t.dir(path.Dir(name[:i]))
		if err == nil {
			err = in.Make(path.Base(name[:i]), dirMode)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// own returns a directory, made if it is not there, that the caller closes.
func (t *tree) own(name string) (hostfile.Dir, error) {
	if err := t.makeDir(name); err != nil {
		return hostfile.NoDir(), err
	}
	dir, err := t.dir(name)
	delete(t.dirs, name)
	return dir, err
}

// errUnusable means that a file is not as it was written. Any other error says nothing about the
// file.
var errUnusable = errors.New("not as it was written")

// transient are errors that have nothing to do with the file.
func transient(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	return ok && slices.Contains([]unix.Errno{
		unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EIO, unix.EACCES, unix.EPERM, unix.EINTR,
	}, errno)
}

// read returns what a file has.
func (t *tree) read(name string) ([]byte, error) {
	var data []byte
	dir, err := t.dir(path.Dir(name))
	if err == nil {
		data, _, err = dir.Read(path.Base(name), maxFile)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) || transient(err) {
		return data, err
	}
	return nil, fmt.Errorf("%w: %w", errUnusable, err)
}

// write puts a file in place, whole or not at all. Where there is no room for another file, what is
// there is overwritten, if it has room: a file that was killed in between is not as it was written.
func (t *tree) write(name string, data []byte) error {
	err := t.put(name, data)
	if err == nil || transient(err) {
		return err
	}
	if noRoom(err) {
		if rerr := t.remove(path.Join(path.Dir(name), tempFile)); rerr != nil {
			return errors.Join(err, rerr)
		}
		if t.overwrite(name, data) == nil {
			return nil
		}
		return err
	}
	if err := t.clear(name, path.Join(path.Dir(name), tempFile)); err != nil {
		return err
	}
	return t.put(name, data)
}

// noRoom reports whether a file system has no room for more.
func noRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// overwrite changes a file within the room that it has.
func (t *tree) overwrite(name string, data []byte) error {
	dir, err := t.dir(path.Dir(name))
	if err != nil {
		return err
	}
	st, err := dir.Stat(path.Base(name))
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int64(len(data)) > st.Blocks*statBlock {
		return unix.ENOSPC
	}
	fd, err := dir.Open(path.Base(name), unix.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	return errors.Join(hostfile.WriteAll(fd, data), unix.Ftruncate(fd, int64(len(data))),
		unix.Close(fd))
}

// statBlock is the unit of stat(2)'s number of blocks, in bytes.
const statBlock = 512

// put writes another file and puts it in the place of this one.
func (t *tree) put(name string, data []byte) error {
	dir, err := t.dir(path.Dir(name))
	if err == nil {
		err = dir.Write(tempFile, unix.O_CREAT|unix.O_TRUNC, fileMode, data)
	}
	if err == nil {
		err = dir.Rename(tempFile, dir, path.Base(name))
	}
	return err
}

// clear makes the directory of files, and removes what stands in their place and is none.
func (t *tree) clear(names ...string) error {
	if err := t.makeDir(path.Dir(names[0])); err != nil {
		return err
	}
	for _, name := range names {
		dir, err := t.dir(path.Dir(name))
		if err != nil {
			return err
		}
		if st, err := dir.Stat(path.Base(name)); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
			if err := t.removeAll(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeAll removes whatever is there, with all that is in it.
func (t *tree) removeAll(name string) error {
	root, err := os.OpenRoot(t.root.Path())
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a directory
	return root.RemoveAll(name)
}

// remove removes a file, if it is there.
func (t *tree) remove(name string) error {
	dir, err := t.dir(path.Dir(name))
	if err == nil {
		err = dir.Remove(path.Base(name))
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if transient(err) {
		return err
	}
	return t.removeAll(name)
}

// move moves a file to another path.
func (t *tree) move(from, to string) error {
	err := t.rename(from, to)
	if err == nil || transient(err) {
		return err
	}
	if err := t.clear(to); err != nil {
		return err
	}
	return t.rename(from, to)
}

func (t *tree) rename(from, to string) error {
	in, err := t.dir(path.Dir(from))
	if err != nil {
		return err
	}
	into, err := t.dir(path.Dir(to))
	if err != nil {
		return err
	}
	return in.Rename(path.Base(from), into, path.Base(to))
}

// list returns the names of a directory; none if it is not there.
func (t *tree) list(name string) ([]string, error) {
	var names []string
	dir, err := t.dir(name)
	if err == nil {
		names, err = dir.Names()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == tempFile }), err
}
