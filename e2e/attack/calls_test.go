package attack_test

import "golang.org/x/sys/unix"

// call is a system call that is watched.
type call struct {
	name                     string
	number, dir, path, flags int
	does                     deed
}

// deed is what a call does to what its path leads to.
type deed int

const (
	opens   deed = iota // as the flags say
	opensAs             // as the structure says that stands in the place of flags
	reads               // the directory entry, without following it
	changes             // as reads
	alters              // what the entry leads to
	runs
)

// none is the index of an argument that a call does not have.
const none = -1

// calls are the system calls that open, change or run what a path leads to. A call with two paths
// is there twice.
func calls() []call {
	return append(oldCalls(), []call{
		{"openat", unix.SYS_OPENAT, 0, 1, 2, opens},
		{"openat2", unix.SYS_OPENAT2, 0, 1, 2, opensAs},
		{"mkdirat", unix.SYS_MKDIRAT, 0, 1, none, changes},
		{"mknodat", unix.SYS_MKNODAT, 0, 1, none, changes},
		{"symlinkat", unix.SYS_SYMLINKAT, 1, 2, none, changes},
		{"linkat", unix.SYS_LINKAT, 0, 1, none, reads},
		{"linkat", unix.SYS_LINKAT, 2, 3, none, changes},
		{"renameat", unix.SYS_RENAMEAT, 0, 1, none, changes},
		{"renameat", unix.SYS_RENAMEAT, 2, 3, none, changes},
		{"renameat2", unix.SYS_RENAMEAT2, 0, 1, none, changes},
		{"renameat2", unix.SYS_RENAMEAT2, 2, 3, none, changes},
		{"unlinkat", unix.SYS_UNLINKAT, 0, 1, none, changes},
		{"fchmodat", unix.SYS_FCHMODAT, 0, 1, none, alters},
		{"fchownat", unix.SYS_FCHOWNAT, 0, 1, none, changes},
		{"truncate", unix.SYS_TRUNCATE, none, 0, none, alters},
		{"mount", unix.SYS_MOUNT, none, 1, none, alters},
		{"execve", unix.SYS_EXECVE, none, 0, none, runs},
		{"execveat", unix.SYS_EXECVEAT, 0, 1, none, runs},
	}...)
}
