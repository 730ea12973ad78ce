// Package hostfile reads files of the node, in whose place there may be anything, keeps state in
// them, and waits for locks on them.
//
// Contract: nothing here waits for a peer, such as the writer of a FIFO, nor reads more than it was
// told. Errors name the path; where a function is given an open file, that is left to its caller.
package hostfile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Read returns the content of a regular file of at most limit bytes. A path that is a symbolic link
// is an error.
func Read(path string, limit int64) ([]byte, error) { return read(path, unix.O_NOFOLLOW, limit) }

// ReadLinked is Read for a path that an administrator chose: symbolic links are followed.
func ReadLinked(path string, limit int64) ([]byte, error) { return read(path, 0, limit) }

func read(path string, flags int, limit int64) ([]byte, error) {
	data, _, err := working().read(path, flags, limit)
	return data, err
}

// NotRegularError means that there is something else than a regular file, or one of more than Limit
// bytes if that is not 0.
type NotRegularError struct {
	Limit int64
	// Link is true if it is a symbolic link.
	Link bool
}

// IsNotRegular reports whether err is a NotRegularError.
func IsNotRegular(err error) bool {
	_, ok := errors.AsType[*NotRegularError](err)
	return ok
}

// Error goes on from the name of the file: "is not a regular file".
func (e *NotRegularError) Error() string {
	switch {
	case e.Link:
		return "is not a regular file, and symbolic links are not followed"
	case e.Limit == 0:
		return "is not a regular file"
	}
	return fmt.Sprintf("is not a regular file of at most %d bytes", e.Limit)
}
