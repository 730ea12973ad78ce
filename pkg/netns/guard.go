package netns

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// Guard runs fn on a thread that no other goroutine uses meanwhile, and waits for it. If fn comes
// back with that thread in another network namespace than before, the thread ends instead of being
// used again; its goroutine's work is done by then.
//
// It is for code that switches the namespace of its thread and may fail to switch back.
// vishvananda/netlink's handles do: to make a socket in a namespace they lock the goroutine to its
// thread, enter the namespace, make the socket, and return to the previous namespace, but ignore an
// error of that last step and unlock the thread all the same. Unguarded, such a thread would serve
// later requests from inside a pod.
//
// While fn runs, threads that the Go runtime starts do not inherit the foreign namespace: it starts
// them from another thread while one is locked. Processes that fn starts do inherit it, so fn
// starts none. fn must not spread its namespace by goroutines: those run on other threads.
//
// A panic of fn is carried over to the caller, as is the end of the goroutine by runtime.Goexit (as
// an error).
func Guard(fn func() error) error {
	type outcome struct {
		err   error
		panic any
	}
	done := make(chan outcome, 1)
	onThread := func() {
		res := outcome{err: errors.New("goroutine ended early")}
		defer func() {
			if r := recover(); r != nil {
				res.panic = fmt.Sprintf("%v\n%s", r, debug.Stack())
			}
			done <- res
		}()
		runtime.LockOSThread()
		res.err = contain(fn)
	}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() != unix.Getpid() {
			onThread()
			return
		}
		// The runtime cannot end the main thread: it would park it for good, in whatever namespace. While
		// it is held here, the next goroutine is on another, on which the caller goes on.
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			onThread()
		}()
		<-ended
	}()
	res := <-done
	if res.panic != nil {
		panic(res.panic)
	}
	return res.err
}

// Do runs fn on a thread that is in the namespace; fn must not spread it, as with Guard. Where the
// process is in that namespace itself, the caller's thread will do.
func (ns *NS) Do(fn func() error) error {
	if here, err := current(); err == nil && here == ns.inode {
		return fn()
	}
	return Guard(func() error {
		back, err := retry(func() (int, error) {
			return unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		})
		if err != nil {
			return fmt.Errorf("open the thread's network namespace: %w", err)
		}
		defer unix.Close(back)
		if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %q: %w", ns.path, err)
		}
		defer unix.Setns(back, unix.CLONE_NEWNET) //nolint:errcheck // Guard ends such a thread
		return fn()
	})
}

// contain runs fn and unlocks the calling goroutine from its thread only if that is known to be in
// the namespace that it was in: a thread that is still locked ends with its goroutine. Deferred, so
// that a panic is no way around it.
func contain(fn func() error) error {
	before, err := current()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if after, err := current(); err == nil && after == before {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// current identifies the namespace of the calling thread.
func current() (inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return 0, fmt.Errorf("identify the thread's network namespace: %w", err)
	}
	return st.Ino, nil
}
