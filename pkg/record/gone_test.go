package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// operate is what an operation on a sandbox does: it has the lock, and looks for the record first.
func operate(t *testing.T, s *Store, id string, do func(*Sandbox) error) {
	t.Helper()
	b, err := s.Lock(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Unlock()
	b.Load() //nolint:errcheck // most have none
	if err := do(b); err != nil {
		t.Fatal(err)
	}
}

func gone(t *testing.T, s *Store, id string) (gone bool) {
	t.Helper()
	operate(t, s, id, func(b *Sandbox) error {
		gone = b.Gone()
		return nil
	})
	return gone
}

func add(b *Sandbox) error { return b.Save(&Record{Complete: true}) }

func TestGoneIsRememberedForAnHour(t *testing.T) {
	now := time.Date(2026, 1, 1, 10, 59, 0, 0, time.UTC)
	s := New(filepath.Join(t.TempDir(), "state"))
	s.now = func() time.Time { return now }
	operate(t, s, "never", func(*Sandbox) error { return nil })
	operate(t, s, "a", add)
	if gone(t, s, "never") || gone(t, s, "a") {
		t.Error("gone, before it was removed")
	}
	operate(t, s, "a", (*Sandbox).Remove)
	for _, test := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Minute, true}, {time.Hour, true}, {2 * time.Hour, false}} {
		s.now = func() time.Time { return now.Add(test.after) }
		if got := gone(t, s, "a"); got != test.want {
			t.Errorf("after %v: gone %v, want %v", test.after, got, test.want)
		}
	}
	operate(t, s, "b", (*Sandbox).Remove)
	hours, err := os.ReadDir(filepath.Join(s.dir, "gone"))
	if err != nil || len(hours) != 1 {
		t.Errorf("hours kept: %v, %v; want one", hours, err)
	}
}

func TestGoneOfAContainerIDThatIsUsedAgain(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "state"))
	operate(t, s, "a", add)
	operate(t, s, "a", (*Sandbox).Remove)
	operate(t, s, "a", add)
	if err := os.Remove(s.path("a")); err != nil {
		t.Fatal(err)
	}
	if gone(t, s, "a") {
		t.Error("gone, though its record was lost and not removed")
	}
}

// A sandbox is only removed if that can be remembered: a disk that is full is a failure like any
// other.
func TestGoneThatCannotBeNoted(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "state"))
	operate(t, s, "a", add)
	if err := os.WriteFile(filepath.Join(s.dir, "gone"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	operate(t, s, "a", func(b *Sandbox) error {
		if err := b.Remove(); err == nil {
			return errors.New("Remove succeeds")
		}
		_, err := b.Load()
		return err
	})
}
