package attack_test

import "golang.org/x/sys/unix"

// oldCalls are those that newer architectures lack.
func oldCalls() []call {
	return []call{
		{"open", unix.SYS_OPEN, none, 0, 1, opens},
		{"creat", unix.SYS_CREAT, none, 0, none, alters},
		{"mkdir", unix.SYS_MKDIR, none, 0, none, changes},
		{"mknod", unix.SYS_MKNOD, none, 0, none, changes},
		{"symlink", unix.SYS_SYMLINK, none, 1, none, changes},
		{"link", unix.SYS_LINK, none, 0, none, reads},
		{"link", unix.SYS_LINK, none, 1, none, changes},
		{"rename", unix.SYS_RENAME, none, 0, none, changes},
		{"rename", unix.SYS_RENAME, none, 1, none, changes},
		{"unlink", unix.SYS_UNLINK, none, 0, none, changes},
		{"rmdir", unix.SYS_RMDIR, none, 0, none, changes},
		{"chmod", unix.SYS_CHMOD, none, 0, none, alters},
		{"chown", unix.SYS_CHOWN, none, 0, none, alters},
		{"lchown", unix.SYS_LCHOWN, none, 0, none, changes},
	}
}
