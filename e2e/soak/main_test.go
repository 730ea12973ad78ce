// Package soak_test runs thousands of operations of the real binary on one node, in manifests mode:
// ADD, DEL, CHECK and GC of many pods at a time, with whatever goes wrong on a node, and looks
// after each whether an address is held twice and whether anything is left. `make soak` runs it at
// length, and `make test` a short form of it; both need root.
//
// The node is the process: before the tests begin it starts itself again in a mount, network and
// PID namespace of its own, with /run and /var/lib/cni in memory. Nothing of the machine is
// touched.
//
// What happens follows from a seed, but for the time that programs take. BRAID_SOAK_SEED sets it,
// BRAID_SOAK_OPS the number of operations, BRAID_SOAK_WORKERS how many are at work at a time;
// BRAID_SOAK_WITHOUT leaves out some of kill, term, stop, nsgone, twice, disk, edit (of networks),
// exec, loss, boot, rename (of the node), gc, nopath (DEL without CNI_NETNS while the namespace
// lives), forget and reuse (of paths), separated by commas. BRAID_BINARY is braid, and
// BRAID_SOAK_LOG where its log is kept.
package soak_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside says that the process is the node.
const inside = "BRAID_SOAK_INSIDE"

func TestMain(m *testing.M) {
	switch {
	case os.Geteuid() != 0: // the test skips itself
		os.Exit(m.Run())
	case os.Getenv(inside) == "":
		os.Exit(outside())
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// outside starts the node and returns its exit code. The node ends with this process, and all that
// runs on it with the node.
func outside() int {
	runtime.LockOSThread() // the node would end with the thread that started it
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "soak:", err)
		return 1
	}
	return 0
}

// enter makes the new namespaces a node's. What the machine has mounted below /run is no part of
// it.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	points, err := mountsBelow("/run")
	if err != nil {
		return err
	}
	for _, point := range slices.Backward(points) {
		unix.Unmount(point, unix.MNT_DETACH) //nolint:errcheck // it may be gone
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
}

// mountsBelow are the mount points at and below directories, in the order in which they were
// mounted.
func mountsBelow(dirs ...string) (points []string, err error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		point := strings.Fields(line)[4]
		if slices.ContainsFunc(dirs, func(dir string) bool {
			return point == dir || strings.HasPrefix(point, dir+"/")
		}) {
			points = append(points, point)
		}
	}
	return points, err
}
