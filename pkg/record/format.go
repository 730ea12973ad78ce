package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// This file holds what this version of Braid does with the files of others: a node is upgraded, and
// an upgrade is taken back, under live pods.
//
//	record            is read        what becomes of it
//	older             whole          saved in the present format
//	later, readable   what is known  saved in the present format, without the rest
//	later             not at all     ErrLater; it stays as it is, whatever is done
//
// A later record is readable if its OldestReader is not later than the present format. Who changes
// the format raises formatVersion, and oldestReader too if a DEL that does not know of the change
// would leave something.
//
// The networks that are remembered have a version alone. One of a later version stays as it is, and
// GC does without it. The marks of what is gone have no content, and a mark that is lost costs no
// more than a repeated DEL, so they have no version.

const (
	// formatVersion is the version of the records that are written: 1 lacks Execd, 2 lacks Places, 3
	// lacks Limits, 4 Places.DataRoots, 5 Runtime, 6 what Engine.Update notes and 7 Limits.Name,
	// without which a DEL is whole.
	formatVersion = 8
	// oldestReader is the version from which on a DEL by a written record is whole.
	oldestReader = 3
	// networkVersion is the version of Network. Files without one are older.
	networkVersion = 1
)

// ErrLater is the error of a file that a later version of Braid wrote and this one does not
// understand.
var ErrLater = errors.New("a later version of Braid wrote it")

// decode reads a record in any format.
func decode(data []byte) (*Record, error) {
	var head struct{ Version, OldestReader int }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	rec := &Record{}
	if head.Version <= formatVersion {
		if err := strictjson.Decode(data, rec); err != nil {
			return nil, err
		}
		rec.modernise()
		return rec, nil
	}
	if head.OldestReader < 1 || head.OldestReader > formatVersion {
		return nil, fmt.Errorf("%w: format %d, this one reads up to %d",
			ErrLater, head.Version, formatVersion)
	}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, err
	}
	rec.Version, rec.OldestReader = formatVersion, oldestReader
	return rec, nil
}

// modernise fills in what an older record lacks.
func (r *Record) modernise() {
	if r.Version < 1 || r.Version == formatVersion {
		return
	}
	if r.Version < 2 {
		for i := range r.Attachments {
			r.Attachments[i].Execd = true // it may be
		}
	}
	r.Version, r.OldestReader = formatVersion, oldestReader
}

// decodeNetwork reads a network that is remembered, in any version.
func decodeNetwork(data []byte) (n Network, err error) {
	var head struct{ Version int }
	if err := json.Unmarshal(data, &head); err != nil {
		return n, err
	}
	if head.Version > networkVersion {
		return n, fmt.Errorf("%w: version %d, this one reads up to %d",
			ErrLater, head.Version, networkVersion)
	}
	err = json.Unmarshal(data, &n)
	return n, err
}

// isSystem reports whether an error is the system's, and no fault of the file.
func isSystem(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok && !hostfile.IsNotRegular(err)
}

// unreadable returns the error of a record that exists. It is corrupt only if the file itself is at
// fault. Another error may be over with the next try.
func unreadable(path string, err error) error {
	err = fmt.Errorf("read record %s: %w", path, err)
	bad := &failure.Error{Reason: failure.StateCorrupt, Err: err}
	switch {
	case errors.Is(err, ErrLater):
		bad.Fix = "install that version again, whose DEL or GC ends with the file; " +
			"or remove the file once the sandbox is gone and its interfaces and addresses are released"
	case isSystem(err):
		return stateFailed(err)
	default:
		bad.Fix = "it was changed by something other than Braid; once the sandbox is gone and its " +
			"interfaces and addresses are released, remove the file"
	}
	return bad
}
