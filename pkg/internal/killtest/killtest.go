// Package killtest is for tests that kill a process at each of its changes of state. The process is
// the test binary itself, which Main makes one that can be killed.
package killtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/braid-cni/braid/pkg/nettest"
)

// killAt in the environment makes the test binary a process that is killed at its n-th change.
const killAt = "BRAID_TEST_KILL_AT"

// Work is what a process does that may be killed. It calls step before each change.
type Work func(args []string, step func(change string) error) error

// Main is for a TestMain, and returns the exit code. In a process of [Run] it does the work. In any
// other it runs the tests, in a mount namespace of their own where a sync costs nothing.
func Main(m *testing.M, work Work) int {
	if n, err := strconv.Atoi(os.Getenv(killAt)); err == nil {
		return child(n, work)
	}
	if err := nettest.Isolate(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Geteuid() == 0 {
		os.Setenv("TMPDIR", "/run") // a tmpfs of this process
	}
	return m.Run()
}

func child(n int, work Work) int {
	err := work(os.Args[1:], func(string) error {
		if n--; n < 0 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Run does the work in a process that is killed at its n-th change, from 0, and reports whether it
// was. The test fails at once if the work does.
func Run(t *testing.T, n int, args ...string) (killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), killAt+"="+strconv.Itoa(n))
	out, err := cmd.CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && !exit.Exited() {
		return true
	}
	if err != nil {
		t.Fatalf("step %d: %v: %s", n, err, out)
	}
	return false
}
