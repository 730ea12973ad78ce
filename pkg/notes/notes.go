// Package notes keeps short texts for a short time on a node, for processes that live for one call:
// what the next one need not ask or say again.
//
// Contract: a note is a hint. It may be lost at any time, and one that cannot be read or written is
// none: nothing here fails. A note counts only if this user wrote it, for as long as Life by the
// clock, and never if it is from the future. Each is a file of a few bytes with a name of a fixed
// form, whatever the key is, in a directory that others may not enter; there are at most Max.
package notes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	// Max is how many notes a directory has at most. When there would be more, all are dropped but
	// those that still count, and these, too, if they are as many.
	Max = 256
	// maxSize bounds a file, in bytes.
	maxSize = 1024
	// othersMay are the permissions with which somebody else could have written a note.
	othersMay = 0o022
)

// Notes are the notes of one kind.
type Notes struct {
	// Dir is made when it is needed.
	Dir string
	// Life is how long a note counts.
	Life time.Duration
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Get returns the note of a key.
func (n *Notes) Get(key string) (text string, ok bool) {
	dir, err := openOwn(n.Dir)
	if err != nil {
		return "", false
	}
	defer dir.Close()
	return n.read(dir, name(key))
}

// Put notes a text, a line at most, for a key.
func (n *Notes) Put(key, text string) {
	if dir, err := n.open(); err == nil {
		defer dir.Close()
		n.write(dir, name(key), text)
	}
}

// First reports whether there is no note of a key, and makes one. Of several callers at once one is
// the first. Where notes cannot be kept, everybody is.
func (n *Notes) First(ctx context.Context, key string) bool {
	dir, err := n.open()
	if err != nil {
		return true
	}
	defer dir.Close()
	if err := hostfile.Lock(ctx, dir.FD()); err != nil {
		return true
	}
	if _, ok := n.read(dir, name(key)); ok {
		return false
	}
	n.write(dir, name(key), "")
	return true
}

// name returns the name of a key's file.
func name(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

func (n *Notes) open() (hostfile.Dir, error) {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return hostfile.NoDir(), err
	}
	return openOwn(n.Dir)
}

// openOwn opens a directory into which nobody else may put anything.
func openOwn(path string) (hostfile.Dir, error) {
	dir, err := hostfile.OpenDir(path)
	if err != nil {
		return dir, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir.FD(), &st); err != nil || !own(&st) {
		dir.Close()
		return hostfile.NoDir(), dir.Fail("open", ".", fs.ErrPermission)
	}
	return dir, nil
}

// own reports whether what was looked at is this user's, and nobody else's to write.
func own(st *unix.Stat_t) bool { return int(st.Uid) == os.Geteuid() && st.Mode&othersMay == 0 }

func (n *Notes) now() time.Time {
	if n.Now != nil {
		return n.Now()
	}
	return time.Now()
}

func (n *Notes) read(dir hostfile.Dir, file string) (text string, ok bool) {
	data, st, err := dir.Read(file, maxSize)
	if err != nil || !own(&st) {
		return "", false
	}
	written, text, ok := strings.Cut(string(data), " ")
	at, err := strconv.ParseInt(written, 10, 64)
	text, complete := strings.CutSuffix(text, "\n")
	if !ok || err != nil || !complete {
		return "", false
	}
	if age := n.now().Sub(time.Unix(0, at)); age < 0 || age >= n.Life {
		return "", false
	}
	return text, true
}

func (n *Notes) write(dir hostfile.Dir, file, text string) {
	content := strconv.FormatInt(n.now().UnixNano(), 10) + " " + text + "\n"
	if len(content) > maxSize || strings.Contains(text, "\n") {
		return
	}
	if has, err := dir.Has(file); err != nil || !has && !n.room(dir) {
		return
	}
	// What is there in the place of a note of this user is not written to.
	if dir.Overwrite(file, 0o600, []byte(content)) != nil {
		dir.RemoveAny(file) //nolint:errcheck // then there is no note
	}
}

// room makes room for a note.
func (n *Notes) room(dir hostfile.Dir) bool {
	names, err := dir.Names()
	if err != nil || len(names) < Max {
		return err == nil
	}
	left := 0
	for _, file := range names {
		if _, counts := n.read(dir, file); counts {
			left++
			continue
		}
		dir.RemoveAny(file) //nolint:errcheck // counted below
	}
	if left >= Max {
		for _, file := range names {
			dir.RemoveAny(file) //nolint:errcheck // counted below
		}
	}
	names, err = dir.Names()
	return err == nil && len(names) < Max
}
