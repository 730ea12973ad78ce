package netns_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
)

func TestLock(t *testing.T) {
	n := nettest.New(t)
	open := func() *netns.NS {
		ns, err := netns.Open(n.Path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ns.Close)
		return ns
	}
	first, second := open(), open()
	unlock, err := first.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := second.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: %v, want the end of the context", err)
	}
	got := make(chan error)
	third := open()
	go func() {
		again, err := third.Lock(t.Context())
		if err == nil {
			again()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	second = open() // a file whose Lock gave up is not to be locked again

	// A namespace that is closed is not locked any more, whoever forgot to unlock it.
	if _, err := first.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if unlock, err = second.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer unlock()

	// What other programs lock is the same.
	f, err := os.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("flock of the path: %v", err)
	}
}
