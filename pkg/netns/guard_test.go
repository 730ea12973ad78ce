package netns_test

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
)

// enter leaves the calling thread in a namespace, as a failure to switch back would.
func enter(path string) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(ns.Fd(), unix.CLONE_NEWNET)
}

func TestGuardEndsThreadsThatDoNotComeBack(t *testing.T) {
	n := nettest.New(t)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if err := netns.Guard(func() error { return enter(n.Path) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	nettest.NoThreadIn(t, n)
}

// The main thread cannot be ended, so Guard must not use it, not even when it is called on it.
func TestGuardKeepsOffTheMainThread(t *testing.T) {
	n := nettest.New(t)
	for range 200 {
		err := netns.Guard(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("runs on the main thread")
			}
			return enter(n.Path)
		})
		if err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	nettest.NoThreadIn(t, n)
}

func TestGuardCarriesOver(t *testing.T) {
	n := nettest.New(t)
	want := errors.New("this one")
	if err := netns.Guard(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if err := netns.Guard(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error from a goroutine that ended early")
	}
	func() {
		defer func() {
			if r := recover(); r == nil || !strings.Contains(r.(string), "guard_test.go") {
				t.Errorf("recovered %v, want the panic with its stack", r)
			}
		}()
		_ = netns.Guard(func() error {
			if err := enter(n.Path); err != nil {
				return err
			}
			panic("boom")
		})
	}()
	nettest.NoThreadIn(t, n)
}
