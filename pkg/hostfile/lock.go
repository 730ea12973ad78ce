package hostfile

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// firstPause and lastPause bound how long a lock that is taken is left alone before the next try.
const (
	firstPause = 50 * time.Microsecond
	lastPause  = 5 * time.Millisecond
)

// TryLock takes the flock(2) of an open file if nobody else has it. It is the open file that has the lock, so goroutines exclude each other as
// processes do, and a process that inherits the file has it too.
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

// Lock waits for the flock(2) of an open file. When ctx ends first, the error is its cause.
func Lock(ctx context.Context, fd int) error {
	return Poll(ctx, Sleep, func() (bool, error) { return TryLock(fd) })
}

// Poll tries until it succeeds, fails, or ctx ends; then the error is that of sleep. There is no waiting for a flock(2) that can be called
// off.
func Poll(ctx context.Context, sleep func(context.Context, time.Duration) error, try func() (bool, error)) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if ok, err := try(); ok || err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// Sleep waits until the time has passed, or gives the cause for which ctx has ended.
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
