package nettest

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// isolated is in the environment of a process that Isolate has started.
const isolated = "BRAID_TEST_ISOLATED"

// Isolate starts the test binary again in a mount namespace of its own, where /run, /var/lib and
// /var/log are empty: what the CNI plugins of this machine keep there is neither seen nor touched,
// and what tests leave there goes with them. It comes first in a TestMain, and returns in the
// process that it has started, or with an error. Without root it does nothing, and tests that need
// root skip themselves.
func Isolate() error {
	if os.Geteuid() != 0 || os.Getenv(isolated) != "" {
		return nil
	}
	runtime.LockOSThread() // the thread that calls exec is the one that is left
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/log"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), isolated+"=1"))
}
