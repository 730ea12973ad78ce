package notes_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/notes"
)

// clock is a clock that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func kept(t *testing.T) (*notes.Notes, *clock) {
	t.Helper()
	c := &clock{time.Unix(1_000_000, 0)}
	return &notes.Notes{
		Dir: filepath.Join(t.TempDir(), "notes", "of-a-kind"), Life: time.Minute, Now: c.now,
	}, c
}

func Example() {
	dir, err := os.MkdirTemp("", "notes")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example
	said := &notes.Notes{Dir: dir, Life: time.Hour}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	fmt.Println(said.First(ctx, "default/lan"), said.First(ctx, "default/lan"))
	// Output: true false
}

// A note counts for its life, and the last one of a key counts.
func TestNotes(t *testing.T) {
	n, c := kept(t)
	if text, ok := n.Get("a"); ok {
		t.Errorf("before the first note: %q", text)
	}
	n.Put("a", "one")
	n.Put("a", "two words, and a slash / of 世")
	n.Put("../b", "")
	for key, want := range map[string]string{"a": "two words, and a slash / of 世", "../b": ""} {
		if text, ok := n.Get(key); !ok || text != want {
			t.Errorf("%s: %q, %t; want %q", key, text, ok, want)
		}
	}
	for _, at := range []struct {
		after time.Duration
		want  bool
	}{{time.Minute - time.Second, true}, {time.Minute, false}, {-time.Second, false}} {
		if text, ok := (&notes.Notes{Dir: n.Dir, Life: n.Life, Now: func() time.Time {
			return c.at.Add(at.after)
		}}).Get("a"); ok != at.want || !ok && text != "" {
			t.Errorf("%v later: %q, %t", at.after, text, ok)
		}
	}
	names := entries(t, n.Dir)
	if len(names) != 2 {
		t.Errorf("there are %q", names)
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(n.Dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// Of several at once one is the first, and again when the note has ended.
func TestFirst(t *testing.T) {
	n, c := kept(t)
	for range 2 {
		var first atomic.Int32
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if n.First(t.Context(), "key") {
					first.Add(1)
				}
			})
		}
		group.Wait()
		if first.Load() != 1 {
			t.Errorf("%d are the first", first.Load())
		}
		c.at = c.at.Add(n.Life)
	}
}

// There is a bound, and what still counts is kept as long as it leaves room.
func TestBound(t *testing.T) {
	n, c := kept(t)
	for i := range notes.Max - 1 {
		n.Put(fmt.Sprint("old", i), "")
	}
	c.at = c.at.Add(n.Life)
	n.Put("new", "")
	n.Put("newer", "")
	if _, ok := n.Get("new"); !ok || len(entries(t, n.Dir)) != 2 {
		t.Errorf("the note is there: %t, of %d", ok, len(entries(t, n.Dir)))
	}
	for i := range 2 * notes.Max {
		n.Put(fmt.Sprint(i), "")
		if i%100 == 0 && len(entries(t, n.Dir)) > notes.Max {
			t.Fatalf("there are %d notes", len(entries(t, n.Dir)))
		}
	}
	if _, ok := n.Get(fmt.Sprint(2*notes.Max - 1)); !ok {
		t.Error("the last note is not there")
	}
}

// What is in the place of a note is none, is not followed, and is replaced.
func TestHostileNotes(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink("/etc/passwd", path) },
		"dangling link": func(path string) error {
			return os.Symlink(filepath.Join(filepath.Dir(path), "elsewhere"), path)
		},
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"large": func(path string) error {
			return os.WriteFile(path, make([]byte, 1<<20), 0o600)
		},
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"cut off": func(path string) error {
			return os.WriteFile(path, []byte("1000000000000000 ha"), 0o600)
		},
		"not a time": func(path string) error {
			return os.WriteFile(path, []byte("x tenant\n"), 0o600)
		},
		"another's": func(path string) error {
			nettest.NeedsRoot(t)
			if err := os.WriteFile(path, []byte("1000000000000000 ha\n"), 0o600); err != nil {
				return err
			}
			return os.Chown(path, 12345, 0)
		},
		"written by others": func(path string) error {
			if err := os.WriteFile(path, []byte("1000000000000000 ha\n"), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, 0o622)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := kept(t)
			n.Put("key", "")
			path := filepath.Join(n.Dir, entries(t, n.Dir)[0])
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			if text, ok := n.Get("key"); ok {
				t.Errorf("the note is %q", text)
			}
			if !n.First(t.Context(), "key") {
				t.Error("it is not the first")
			}
			n.Put("key", "text")
			if names := entries(t, n.Dir); slices.Contains(names, "elsewhere") {
				t.Errorf("there are %q", names)
			}
		})
	}
}

// Where nothing can be kept, everybody is the first, and nothing is noted.
func TestNoPlaceForNotes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(file, "notes"), open, "/proc/notes"} {
		n := &notes.Notes{Dir: dir, Life: time.Hour}
		n.Put("key", "text")
		if _, ok := n.Get("key"); ok || !n.First(t.Context(), "key") || !n.First(t.Context(), "key") {
			t.Errorf("%s: something is noted", dir)
		}
	}
	n, _ := kept(t)
	n.Put("key", "two\nlines")
	n.Put("other", strings.Repeat("x", 2000))
	if _, ok := n.Get("key"); ok {
		t.Error("two lines are noted")
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range all {
		names = append(names, entry.Name())
	}
	return names
}
