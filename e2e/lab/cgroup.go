package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// makeCgroups makes the node's cgroup in each hierarchy: the kubelet wants to find it.
func (n *Node) makeCgroups() error {
	const mounts = "/sys/fs/cgroup"
	if _, err := os.Stat(mounts + "/cgroup.controllers"); err == nil {
		return makeUnifiedCgroup(mounts, n.cgroup)
	}
	hierarchies, err := filepath.Glob(mounts + "/*") // cgroup v1: one for each controller
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	for _, hierarchy := range hierarchies {
		if err := os.MkdirAll(hierarchy+n.cgroup, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

// makeUnifiedCgroup makes a cgroup of cgroup v2, with all controllers that the root has: a cgroup
// has those that its parent passes on.
func makeUnifiedCgroup(mount, cgroup string) error {
	dir := mount
	for _, name := range strings.Split(strings.Trim(cgroup, "/"), "/") {
		controllers, err := os.ReadFile(dir + "/cgroup.controllers")
		if err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
		for _, controller := range strings.Fields(string(controllers)) {
			err := os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+controller), 0o644)
			if err != nil {
				return fmt.Errorf("make cgroup: pass on %s: %w", controller, err)
			}
		}
		dir += "/" + name
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	return nil
}

// removeCgroups removes what there is of a cgroup in each hierarchy.
func removeCgroups(name string) error {
	// One hierarchy per controller where cgroup v1 is in use, a single one with v2.
	for _, pattern := range []string{"/sys/fs/cgroup/*", "/sys/fs/cgroup"} {
		groups, err := filepath.Glob(filepath.Join(pattern, name))
		if err != nil {
			return fmt.Errorf("find cgroup: %w", err)
		}
		for _, group := range groups {
			if err := removeCgroup(group); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroup removes a cgroup and those below it. Processes that were just killed may still be on
// their way out.
func removeCgroup(group string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := removeCgroupOnce(group)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeCgroupOnce removes a cgroup and those in it. The kernel refuses while a process is in one.
func removeCgroupOnce(group string) error {
	var dirs []string
	err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("walk cgroup: %w", err)
	}
	// Innermost first. The files of a cgroup go with its directory, so os.RemoveAll, which would
	// unlink them, does not do.
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
	return nil
}
