package invoke

import (
	"bytes"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/weaken"
)

// This file finds what a plugin started, to kill it with the plugin: its children may have left its
// process group and its session, and their parents may have ended.

const (
	// killRounds and roundWait bound the search: as long as something was found, it may have started
	// more.
	killRounds = 50
	roundWait  = 10 * time.Millisecond
	// maxEnviron bounds what is read of a process's environment, in bytes.
	maxEnviron = 256 << 10
)

// family is a plugin that is run, and what it started.
type family struct {
	// mark is a variable, with its value, that is in the environment of the plugin alone, and of what
	// inherits that.
	mark string
	// reaper is the process that orphans of the family become children of, if it has no others; 0 for
	// none.
	reaper int
	// known are the processes that were found so far.
	known []process
}

// process is one of the node, at one moment. Its start, in clock ticks, tells it from another one
// of the same pid.
type process struct {
	pid, parent, session, started int
}

// kill kills those of the family that there are. It reports whether there were any.
func (f *family) kill() bool {
	found := f.find(processes())
	for _, p := range found {
		p.kill()
	}
	return len(found) > 0
}

// extinguish kills the family until nothing of it is left.
func (f *family) extinguish() {
	for range killRounds {
		if !f.kill() {
			return
		}
		time.Sleep(roundWait)
	}
}

// find returns those of the family among all processes: those that were known, or have the mark;
// what is below them, or in a session that one of them leads; and orphans.
func (f *family) find(all []process) (found []process) {
	if weaken.Off(weaken.Group) {
		return nil
	}
	s := search{family: f, member: map[int]bool{}, leads: map[int]bool{}}
	for _, p := range f.known {
		s.leads[p.pid] = true
	}
	environ := make([]byte, maxEnviron)
	for _, p := range all {
		if f.has(p, environ) {
			s.add(p)
		}
	}
	for count := -1; count != len(s.found); {
		count = len(s.found)
		for _, p := range all {
			if s.leadsTo(p) {
				s.add(p)
			}
		}
	}
	return s.found
}

// search is one find.
type search struct {
	*family

	// member are the processes of the family, leads those that lead a session of theirs, by pid.
	member, leads map[int]bool
	found         []process
}

// add adds a process to the family. Neither this process nor the first one is ever of it.
func (s *search) add(p process) {
	if p.pid == os.Getpid() || p.pid == 1 {
		return
	}
	s.member[p.pid], s.leads[p.pid] = true, true
	s.found = append(s.found, p)
	if !slices.Contains(s.known, p) {
		s.known = append(s.known, p)
	}
}

// leadsTo reports whether a process is of the family by its parent or its session, and not found
// yet.
func (s *search) leadsTo(p process) bool {
	return !s.member[p.pid] && (s.member[p.parent] || s.leads[p.session])
}

// has reports whether a process is of the family by itself. buffer is for its environment.
func (f *family) has(p process, buffer []byte) bool {
	return slices.ContainsFunc(f.known, p.is) || f.orphaned(p) || f.marked(p.pid, buffer)
}

// orphaned reports whether a process went to the reaper since the first of the family started.
func (f *family) orphaned(p process) bool {
	return f.reaper != 0 && p.parent == f.reaper && len(f.known) > 0 &&
		p.started >= f.known[0].started
}

// is reports whether two are the same process, though its parent may have ended.
func (p process) is(other process) bool { return p.pid == other.pid && p.started == other.started }

// marked reports whether a process was started with the mark in its environment.
func (f *family) marked(pid int, buffer []byte) bool {
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	defer file.Close()                //nolint:errcheck // it was read
	n, _ := io.ReadFull(file, buffer) //nolint:errcheck // a process that has ended has none
	return slices.ContainsFunc(bytes.Split(buffer[:n], []byte{0}), func(v []byte) bool {
		return string(v) == f.mark
	})
}

// processes returns all that there are, without those that have ended and are only to be waited
// for.
func processes() (all []process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, ok := look(pid); ok {
			all = append(all, p)
		}
	}
	return all
}

// look reads what the kernel says of a process.
func look(pid int) (p process, ok bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return process{}, false
	}
	// The name, in parentheses, may have anything in it.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	const state, parent, session, started = 0, 1, 3, 19
	if len(fields) <= started || fields[state] == "Z" || fields[state] == "X" {
		return process{}, false
	}
	p.pid = pid
	for _, f := range []struct {
		into  *int
		field int
	}{{&p.parent, parent}, {&p.session, session}, {&p.started, started}} {
		if *f.into, err = strconv.Atoi(fields[f.field]); err != nil {
			return process{}, false
		}
	}
	return p, true
}

// kill kills a process, and no other one that has its pid by now.
func (p process) kill() {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if now, ok := look(p.pid); ok && now.is(p) {
		unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) //nolint:errcheck // it ended, or is found again
	}
}
