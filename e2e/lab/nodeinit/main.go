// Command nodeinit is the first process of a lab sandbox. The lab starts it in fresh namespaces; it
// furnishes them, writes a line to stdout, and from then on only waits, and reaps what is orphaned
// to it, until it is killed.
//
//	nodeinit                                      for a network namespace alone
//	nodeinit -root DIR -hostname NAME -bind SRC=DST ...   for a node: DIR is empty, and for its root
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() { os.Exit(run()) }

func run() int {
	root := flag.String("root", "", "directory to build the node's root in")
	hostname := flag.String("hostname", "", "host name")
	var binds []string
	flag.Func("bind", "SRC=DST, a directory of the machine that the node sees, read-only; repeatable",
		func(s string) error {
			binds = append(binds, s)
			return nil
		})
	flag.Parse()
	if *root != "" {
		if err := furnish(*root, *hostname, binds); err != nil {
			fmt.Fprintln(os.Stderr, "nodeinit:", err)
			return 1
		}
	}
	fmt.Println("ready")
	// Whoever reads this has what it wanted; the read end is closed soon.
	os.Stdout.Close()
	reap()
	return 0
}

// reap waits for children for ever. Shims detach from containerd and become children of this
// process.
func reap() {
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// furnish makes the namespaces look like a machine of its own.
func furnish(dir, hostname string, binds []string) error {
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// Before anything else: nothing mounted from here on may reach the machine's own mount namespace.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	root, err := overlayRoot(dir)
	if err != nil {
		return err
	}
	if err := mountSystem(root); err != nil {
		return err
	}
	if err := mountOwn(root); err != nil {
		return err
	}
	for _, bind := range binds {
		src, dst, _ := strings.Cut(bind, "=")
		if err := bindReadOnly(src, filepath.Join(root, dst)); err != nil {
			return err
		}
	}
	if err := enterRoot(root); err != nil {
		return err
	}
	return shieldMachine()
}

// overlayRoot mounts the machine's root with a tmpfs above it, for all writes: they cost no disk
// and end with the node.
func overlayRoot(dir string) (string, error) {
	if err := mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		return "", err
	}
	root, upper, work := filepath.Join(dir, "root"), filepath.Join(dir, "upper"), filepath.Join(dir,
		"work")
	for _, d := range []string{root, upper, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return "", fmt.Errorf("make root: %w", err)
		}
	}
	return root, mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work)
}

// mountSystem mounts what the kernel provides. proc and sysfs are new, so that they show the node's
// processes and links; the machine's cgroups are kept, because a node's pods are in a subtree of
// them.
func mountSystem(root string) error {
	err := mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil {
		return err
	}
	err = mount("sysfs", root+"/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/sys/fs/cgroup"} {
		if err := mount(dir, root+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	return nil
}

// mountOwn mounts an empty tmpfs wherever nodes have state: what the machine has there is no
// business of the node, and snapshots, overlays themselves, cannot lie on an overlay.
func mountOwn(root string) error {
	for _, dir := range []string{
		"/run", "/tmp", "/etc/cni", "/etc/kubernetes", "/opt/cni", "/var/lib/cni",
		"/var/lib/containerd", "/var/lib/containers", "/var/lib/crio", "/var/lib/kubelet", "/var/log",
	} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if err := mount("tmpfs", root+dir, "tmpfs", 0, "mode=0755"); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/etc/cni/net.d", "/opt/cni/bin", "/run/netns", "/run/lock"} {
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return os.Chmod(root+"/tmp", 0o1777)
}

// bindReadOnly mounts a directory of the machine where the node sees it and cannot change it.
func bindReadOnly(src, dst string) error {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dst, err)
	}
	if err := mount(src, dst, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	// A bind mount takes flags only when it is mounted again.
	return mount("", dst, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// enterRoot makes root the root of the mount namespace and lets go of the machine's.
func enterRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("change to %s: %w", root, err)
	}
	// "." twice stacks the old root on the new one, so that no directory is needed to put it in.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount old root: %w", err)
	}
	// As systemd leaves it on a real node: containerd's mounts in /run/netns have to reach pods that
	// ask for HostToContainer.
	return mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// shieldMachine covers the settings of the whole kernel that a kubelet insists on with files that
// already say what it wants, and turns on forwarding, which is the network namespace's own.
func shieldMachine() error {
	if err := hideControllers(); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10",
		"kernel/panic_on_oops":     "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		if err := standIn("/proc/sys/"+name, value+"\n"); err != nil {
			return err
		}
	}
	for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("turn on forwarding: %w", err)
		}
	}
	return nil
}

// hideControllers has cgroup controllers of version 1 that are nowhere mounted be disabled ones:
// CRI-O goes by /proc/cgroups, and then sets limits that cannot be set.
func hideControllers() error {
	const list, mounts = "/proc/cgroups", "/sys/fs/cgroup/"
	if _, err := os.Stat(mounts + "cgroup.controllers"); err == nil {
		return nil // version 2
	}
	text, err := os.ReadFile(list)
	if err != nil {
		return fmt.Errorf("list cgroup controllers: %w", err)
	}
	var lines strings.Builder
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, "\t")
		if _, err := os.Stat(mounts + name); err != nil && !strings.HasPrefix(line, "#") {
			line = strings.TrimSuffix(line, "1\n") + "0\n"
		}
		lines.WriteString(line)
	}
	return standIn(list, lines.String())
}

// standIn covers a file with one of that content.
func standIn(file, content string) error {
	cover := "/run/lock/" + strings.ReplaceAll(file[1:], "/", ".")
	if err := os.WriteFile(cover, []byte(content), 0o644); err != nil {
		return fmt.Errorf("make stand-in for %s: %w", file, err)
	}
	return mount(cover, file, "", unix.MS_BIND, "")
}

func mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source+fstype, target, err)
	}
	return nil
}
