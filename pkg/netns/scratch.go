package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Scratch makes an empty network namespace, with nothing but a loopback link. It is reached by
// path, from other processes too, until release is called, once, and ends then. A thread of its own
// holds the namespace, on which nothing else ever runs and which ends with it.
func Scratch() (path string, release func(), err error) {
	type made struct {
		path string
		err  error
	}
	ready, done := make(chan made), make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread does not end. While it is held here, the next goroutine is on another.
			defer runtime.UnlockOSThread()
			path, inner, err := Scratch()
			ready <- made{path, err}
			if err == nil {
				<-done
				inner()
			}
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- made{err: fmt.Errorf("make a network namespace: %w", err)}
			return
		}
		ready <- made{path: fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid())}
		<-done
	}()
	m := <-ready
	return m.path, func() { close(done) }, m.err
}
