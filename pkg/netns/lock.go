package netns

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// Lock waits for the exclusive right to change what several plugins share in the namespace, across
// processes; it gives up when ctx ends.
//
// It is an flock on the namespace itself: it makes no file, and is gone with the process. The
// reference's sbr plugin takes the same one.
func (ns *NS) Lock(ctx context.Context) (unlock func(), err error) {
	err = hostfile.Lock(ctx, ns.fd)
	switch {
	case err == nil:
		return func() { _ = unix.Flock(ns.fd, unix.LOCK_UN) }, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("lock network namespace %q: another plugin is at work in it: %w",
			ns.path, err)
	default:
		return nil, fmt.Errorf("lock network namespace %q: %w", ns.path, err)
	}
}
