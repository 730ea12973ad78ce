package netns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The waits between attempts to get a lock that another holds, which double.
const lockFirstWait, lockLongestWait = time.Millisecond, 20 * time.Millisecond

// Lock waits for the exclusive right to change what several plugins share in the namespace, across processes; it gives up when ctx ends.
//
// It is an flock on the namespace itself: it makes no file, and is gone with the process. The reference's sbr plugin takes the same one.
func (ns *NS) Lock(ctx context.Context) (unlock func(), err error) {
	for wait := lockFirstWait; ; wait = min(2*wait, lockLongestWait) {
		err := unix.Flock(ns.fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Flock(ns.fd, unix.LOCK_UN) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("lock network namespace %q: %w", ns.path, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock network namespace %q: another plugin is at work in it: %w", ns.path, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
}
