package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Mark is a record as it was written at one moment. Each write makes another mark.
type Mark struct {
	ContainerID string
	written     time.Time
	inode       uint64
}

// Marks returns the marks of all records, readable or not, in the order of their IDs.
func (s *Store) Marks() ([]Mark, error) {
	ids, err := s.List()
	if err != nil {
		return nil, err
	}
	marks := make([]Mark, 0, len(ids))
	for _, id := range ids {
		mark, err := s.mark(id)
		if errors.Is(err, fs.ErrNotExist) { // it went meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		marks = append(marks, mark)
	}
	return marks, nil
}

// Mark returns the mark of the record as it is now. The error is fs.ErrNotExist if there is none.
func (b *Sandbox) Mark() (Mark, error) { return b.store.mark(b.id) }

// mark returns fs.ErrNotExist if there is no record.
func (s *Store) mark(id string) (Mark, error) {
	var st unix.Stat_t
	err := unix.Lstat(s.path(id), &st)
	if err != nil {
		err = &os.PathError{Op: "lstat", Path: s.path(id), Err: err}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Mark{}, err
	case err != nil:
		return Mark{}, stateFailed(fmt.Errorf("look at record: %w", err))
	}
	return Mark{ContainerID: id, written: time.Unix(st.Mtim.Unix()), inode: st.Ino}, nil
}
