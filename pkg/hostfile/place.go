package hostfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/weaken"
)

// Roots are directories that the node's administrator lets others put data into, absolute and
// clean. Nil is for who is trusted with any path.
type Roots []string

// Place is a directory whose path was chosen by somebody who is trusted with what is beneath a
// root, and with nothing else.
type Place struct {
	root string
	// beneath is the path from the root, "." for the root itself.
	beneath string
}

// Place returns the place of an absolute path; ok is false if no root has it. Nothing is opened.
func (r Roots) Place(path string) (place Place, ok bool) {
	path = filepath.Clean(path)
	if r == nil || weaken.Off(weaken.Roots) {
		return Place{path, "."}, filepath.IsAbs(path)
	}
	for _, root := range r {
		beneath, err := filepath.Rel(root, path)
		if err == nil && filepath.IsLocal(beneath) {
			return Place{root, beneath}, true
		}
	}
	return Place{}, false
}

// Join returns a place beneath, by a path without "..".
func (p Place) Join(path string) Place { return Place{p.root, filepath.Join(p.beneath, path)} }

// Roots returns the place's own root alone.
func (p Place) Roots() Roots { return Roots{p.root} }

// String returns the path.
func (p Place) String() string { return filepath.Join(p.root, p.beneath) }

// Open opens the directory. The root's own path is followed, as the administrator has it; beneath
// it no symbolic link is, and nothing leads out.
func (p Place) Open() (Dir, error) {
	root, err := p.openRoot()
	if err != nil || p.beneath == "." {
		return root, err
	}
	defer root.Close()
	return root.Dir(p.beneath)
}

func (p Place) openRoot() (Dir, error) {
	fd, err := working().open(p.root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return Dir{fd, p.root}, err
}

// Make opens the directory and makes what is missing of its path, with a mode.
func (p Place) Make(mode fs.FileMode) (Dir, error) {
	if err := os.MkdirAll(p.root, mode); err != nil {
		return NoDir(), err
	}
	at, err := p.openRoot()
	if err != nil || p.beneath == "." {
		return at, err
	}
	for name := range strings.SplitSeq(p.beneath, "/") {
		next, err := at.Dir(name)
		if errors.Is(err, fs.ErrNotExist) {
			if err = at.Make(name, uint32(mode.Perm())); err == nil || errors.Is(err, fs.ErrExist) {
				next, err = at.Dir(name)
			}
		}
		at.Close()
		if err != nil {
			return NoDir(), err
		}
		at = next
	}
	return at, nil
}

// Read returns the content of a regular file of at most limit bytes beneath one of the roots.
// Symbolic links are followed as long as what they lead to is beneath one, too.
func (r Roots) Read(path string, limit int64) ([]byte, error) {
	fd, err := working().open(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	target, err := os.Readlink(self)
	if err != nil {
		return nil, err
	}
	if _, ok := r.Place(target); !ok {
		return nil, &fs.PathError{
			Op: "open", Path: path, Err: fmt.Errorf("it leads to %s, which is beneath none of %s",
				target, strings.Join(r, " and ")),
		}
	}
	data, _, err := working().read(self, 0, limit)
	return data, err
}
