package netconf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// confFiles returns the paths of a directory's files with one of the extensions, in alphabetical
// order. There are none if the directory does not exist.
func confFiles(dir string, extensions ...string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	var paths []string
	for _, entry := range entries {
		if !entry.IsDir() && slices.Contains(extensions, filepath.Ext(entry.Name())) {
			paths = append(paths, filepath.Join(dir, entry.Name()))
		}
	}
	return paths, err
}

// ReadFile reads a file of CNI configuration as this package does: a regular one of at most MaxSize
// bytes; what is longer is cut. Errors have reason InvalidConfig and name the path.
func ReadFile(path string) ([]byte, error) {
	raw, err := readFile(path)
	return raw, inFile(err, path)
}

// readFile reads a regular file of at most MaxSize bytes. It does not block on a FIFO.
func readFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, unreadable(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, unreadable(err)
	}
	if !info.Mode().IsRegular() {
		return nil, unreadable(errors.New("it is no regular file"))
	}
	raw, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return nil, unreadable(err)
	}
	return raw, nil
}

// unreadable returns the error of a file, which the caller names: the path is left out of the
// cause.
func unreadable(err error) error {
	return invalid("", "see that it is a file that root can read", "%w", withoutPath(err))
}

// withoutPath takes the path off an error: messages name the file already.
func withoutPath(err error) error {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", pathError.Op, pathError.Err)
	}
	return err
}
