// Package nodeid names the machine that a program runs on, as a node and in its present boot, and
// the programs that run there.
//
// Contract: all programs of a node that share Braid's state directory get the same names, whatever
// else they see of the machine.
package nodeid

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/record"
)

// Boot returns what names this boot of the machine to all who share the state, whatever /run they
// have.
func Boot(stateDir string) func() (string, error) {
	return func() (string, error) {
		id, err := file.Kernel().ID()
		if err != nil {
			return "", fmt.Errorf("read boot ID: %w", err)
		}
		return record.New(stateDir).Boot(id, func() string { return bootOf(id) })
	}
}

// bootOf names the life of what is in /run: of this boot of the machine, and of the mount, since a
// node that is a container is started anew without a boot. It is the same for state that is made
// anew in a boot: that must not be taken for a reboot.
func bootOf(id string) string {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, "/run", 0, unix.STATX_BTIME, &st) == nil &&
		st.Mask&unix.STATX_BTIME != 0 {
		id += fmt.Sprint(" ", st.Btime.Sec, " ", st.Btime.Nsec)
	}
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("%x", sum[:4])
}

// Hostname returns what the kubelet takes for the name of its node where nobody tells it.
func Hostname() (string, error) {
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read hostname: %w", err)
	}
	return strings.ToLower(strings.TrimSpace(name)), nil
}

// Program returns the name of the program that a process runs, as containerd, in the kernel's 15
// bytes; empty if there is no such process to be seen.
func Program(pid int) string {
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

// Parent returns the process that started another; 0 if that is not to be seen.
func Parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, which is in parentheses, may have any of them.
	_, rest, _ := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}
