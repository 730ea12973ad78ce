package netns

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Identity returns a text that no other network namespace has, neither now nor later until the
// machine is booted again. The inode alone is no such text: the kernel uses its number again as
// soon as the namespace is gone.
func (ns *NS) Identity() (string, error) {
	var st unix.Stat_t
	if _, err := retry(func() (int, error) { return 0, unix.Fstat(ns.fd, &st) }); err != nil {
		return "", fmt.Errorf("stat network namespace %q: %w", ns.path, err)
	}
	cookie, err := ns.cookie()
	if err != nil {
		return "", fmt.Errorf("get cookie of network namespace %q: %w", ns.path, err)
	}
	return fmt.Sprintf("%d:%d:%d", st.Dev, st.Ino, cookie), nil
}

// cookie returns the kernel's number of the namespace. Kernels before 5.14 have none, and it is 0
// there.
func (ns *NS) cookie() (cookie uint64, err error) {
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if errors.Is(err, unix.ENOPROTOOPT) {
			err = nil
		}
		return err
	})
	return cookie, err
}

// Identity returns the identity of the namespace at path. It is empty if there is none, which is
// certain then; an error is that it could not be found out.
func Identity(path string) (string, error) {
	ns, err := Open(path)
	if err != nil {
		if absent(err) {
			return "", nil
		}
		return "", err
	}
	defer ns.Close()
	return ns.Identity()
}

// absent reports whether Open failed because there is no network namespace at the path, and for no
// other reason.
func absent(err error) bool {
	for _, none := range []error{
		fs.ErrNotExist, ErrNotNamespace, unix.ENOTDIR, unix.ESRCH, unix.ELOOP, unix.ENAMETOOLONG,
		unix.ENXIO, unix.ENODEV, unix.EINVAL,
	} {
		if errors.Is(err, none) {
			return true
		}
	}
	return false
}
