// Package hostfile reads files of the node, in whose place there may be anything, keeps state in them, and waits for locks on them.
//
// Contract: nothing here waits for a peer, such as the writer of a FIFO, nor reads more than it was told. Errors name the
// path; where a function is given an open file, that is left to its caller.
package hostfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Read gives the content of a regular file of at most limit bytes. A path that is a symbolic link is an error.
func Read(path string, limit int64) ([]byte, error) { return read(path, unix.O_NOFOLLOW, limit) }

// ReadLinked is Read for a path that an administrator chose: symbolic links are followed.
func ReadLinked(path string, limit int64) ([]byte, error) { return read(path, 0, limit) }

func read(path string, flags int, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if flags == unix.O_NOFOLLOW && errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link, a socket
		return nil, notRegular(path, limit)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, notRegular(path, limit)
	}
	data := bytes.NewBuffer(make([]byte, 0, min(info.Size(), limit)+bytes.MinRead))
	_, err = data.ReadFrom(io.LimitReader(f, limit+1)) // it may grow meanwhile
	if err == nil && int64(data.Len()) > limit {
		err = notRegular(path, limit)
	}
	return data.Bytes(), err
}

// NotRegularError is that there is something else than a regular file, or one of more than Limit bytes if that is not 0.
type NotRegularError struct{ Limit int64 }

// IsNotRegular says whether err is a NotRegularError.
func IsNotRegular(err error) bool {
	_, ok := errors.AsType[*NotRegularError](err)
	return ok
}

func (e *NotRegularError) Error() string {
	if e.Limit == 0 {
		return "is not a regular file, and symbolic links are not followed"
	}
	return fmt.Sprintf("is not a regular file of at most %d bytes", e.Limit)
}

func notRegular(path string, limit int64) error {
	return &fs.PathError{Op: "read", Path: path, Err: &NotRegularError{limit}}
}
