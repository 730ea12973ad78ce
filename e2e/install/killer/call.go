package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// effect is what a system call does to a file, and in which of its arguments the file is.
type effect struct {
	verb string
	file func(c *call, arg int) string
	arg  int
}

// changes are the system calls that change files. The programs of Go use no others.
func changes() map[uint64]effect {
	at, fd := (*call).at, (*call).fd
	return map[uint64]effect{
		unix.SYS_OPENAT:          {"create", at, 0},
		unix.SYS_WRITE:           {"write", fd, 0},
		unix.SYS_PWRITE64:        {"write", fd, 0},
		unix.SYS_COPY_FILE_RANGE: {"write", fd, 2},
		unix.SYS_SENDFILE:        {"write", fd, 0},
		unix.SYS_FTRUNCATE:       {"truncate", fd, 0},
		unix.SYS_FCHMOD:          {"chmod", fd, 0},
		unix.SYS_FCHMODAT:        {"chmod", at, 0},
		unix.SYS_FSYNC:           {"sync", fd, 0},
		unix.SYS_FDATASYNC:       {"sync", fd, 0},
		unix.SYS_RENAMEAT:        {"rename", at, 2},
		unix.SYS_RENAMEAT2:       {"rename", at, 2},
		unix.SYS_LINKAT:          {"rename", at, 2},
		unix.SYS_UNLINKAT:        {"remove", at, 0},
		unix.SYS_MKDIRAT:         {"make", at, 0},
		unix.SYS_SYMLINKAT:       {"link", at, 1},
	}
}

// become executes a program that the kernel stops at each change, for who traces it.
func become(argv []string) error {
	// the call's number
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	all := slices.Sorted(maps.Keys(changes()))
	for i, nr := range all {
		filter = append(filter, unix.SockFilter{
			Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(nr), Jt: uint8(len(all) - i),
		}) //nolint:gosec // a few
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_TRACE})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]} //nolint:gosec // a few
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
		uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	if err := os.Unsetenv(asFilter); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// call is a system call that a thread is about to make.
type call struct {
	tid  int
	nr   uint64
	args [6]uint64
}

// info is the kernel's struct ptrace_syscall_info at a stop by a filter.
type info struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	nr   uint64
	args [6]uint64
	data uint32
	_    uint32
}

// callOf returns the system call that a thread is at, which a filter has stopped.
func callOf(tid int) (*call, error) {
	var i info
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(i), uintptr(unsafe.Pointer(&i)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	if i.op != unix.PTRACE_SYSCALL_INFO_SECCOMP {
		return nil, errors.New("is at no system call")
	}
	return &call{tid, i.nr, i.args}, nil
}

// change returns what the call does to which file; no verb if nothing.
func (c *call) change() (verb, path string) {
	const anew = unix.O_CREAT | unix.O_EXCL
	if c.nr == unix.SYS_OPENAT && c.args[2]&anew != anew {
		return "", "" // what may be there already is a lock or a log
	}
	e, ok := changes()[c.nr]
	if !ok {
		return "", ""
	}
	return e.verb, e.file(c, e.arg)
}

// fd returns the path of the descriptor that an argument is.
func (c *call) fd(arg int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.tid, int32(c.args[arg])))
	if err != nil {
		return ""
	}
	return path
}

// at returns the path that a directory's descriptor and the argument after it are.
func (c *call) at(arg int) string {
	name := make([]byte, 512)
	n, _ := unix.PtracePeekData(c.tid, uintptr(c.args[arg+1]), name)
	name, _, _ = bytes.Cut(name[:n], []byte{0})
	if filepath.IsAbs(string(name)) || int32(c.args[arg]) == unix.AT_FDCWD {
		return filepath.Clean(string(name))
	}
	return filepath.Join(c.fd(arg), string(name))
}
