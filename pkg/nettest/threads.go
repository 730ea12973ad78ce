package nettest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// NoThreadIn fails the test if a thread of this process is, and stays, in one of the namespaces. A
// thread that is about to end has a few seconds to do so.
func NoThreadIn(tb testing.TB, namespaces ...*Namespace) {
	tb.Helper()
	inside := map[uint64]string{}
	for _, n := range namespaces {
		inside[n.Inode()] = n.Path
	}
	var found []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		found = nil
		for _, in := range threads(tb) {
			if path, ok := inside[in.inode]; ok {
				found = append(found, fmt.Sprintf("thread %s is in %s", in.task, path))
			}
		}
		if len(found) == 0 {
			return
		}
		if time.Now().After(end) {
			tb.Errorf("nettest: %q", found)
			return
		}
	}
}

type thread struct {
	task  string
	inode uint64
}

// threads says in which network namespace each thread of this process is.
func threads(tb testing.TB) []thread {
	tb.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	must(tb, err)
	all := make([]thread, 0, len(tasks))
	for _, task := range tasks {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join("/proc/self/task", task.Name(), "ns/net"), &st); err != nil {
			continue // ended
		}
		all = append(all, thread{task.Name(), st.Ino})
	}
	return all
}
