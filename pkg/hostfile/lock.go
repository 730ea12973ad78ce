package hostfile

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// TryLock takes the flock(2) of an open file if nobody else has it. It is the open file that has
// the lock, so goroutines exclude each other as processes do, and a process that inherits the file
// has it too.
func TryLock(fd int) (bool, error) {
	switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		return false, nil
	default:
		return false, err
	}
}

// Lock waits for the flock(2) of an open file; when ctx ends first, the error is its cause, and the
// file is not to be locked again.
//
// Waiting is the kernel's, which lets nobody starve: who tries again and again comes last where
// many want the lock. It takes a thread, and as it cannot be called off, that thread outlives a
// Lock that gave up until it has the lock, and releases it.
func Lock(ctx context.Context, fd int) error {
	if ok, err := TryLock(fd); ok || err != nil {
		return err
	}
	same, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) //nolint:gosec // a descriptor
	if err != nil {
		return err
	}
	locked := make(chan error)
	go func() {
		defer unix.Close(same)
		err := wait(same)
		select {
		case locked <- err:
		case <-ctx.Done():
			unix.Flock(same, unix.LOCK_UN) //nolint:errcheck // closing fd does the same
		}
	}()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func wait(fd int) (err error) {
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	return err
}

// Sleep waits until the time has passed, or returns the cause for which ctx has ended.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
