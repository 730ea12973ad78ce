package attack_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// access is what a process did to a path, or tried to.
type access struct {
	call string
	// path is where it leads, and asked what the process wrote.
	path, asked  string
	writes, runs bool
}

func (a access) String() string {
	if a.path == a.asked {
		return a.call + " " + a.path
	}
	return fmt.Sprintf("%s %s, which is %s", a.call, a.asked, a.path)
}

// watcher sees what the processes that its spawner runs do with paths.
type watcher struct {
	tb       testing.TB
	jobs     *json.Encoder
	answers  *json.Decoder
	listener int
	// spawner is the thread of the spawner that becomes its children.
	spawner int
	calls   map[int][]call

	mu   sync.Mutex
	seen []access
}

// watch starts a spawner in the network namespace at a path.
func watch(tb testing.TB, in string) *watcher {
	tb.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "spawner"), os.NewFile(uintptr(pair[1]), "test")
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // it ends with the socket
	cmd.Env, cmd.Stderr, cmd.ExtraFiles = append(os.Environ(), spawnIn+"="+in), os.Stderr, []*os.File{
		theirs,
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	theirs.Close() //nolint:errcheck // the spawner has it
	w := &watcher{
		tb: tb, jobs: json.NewEncoder(ours), answers: json.NewDecoder(ours), calls: map[int][]call{},
	}
	for _, c := range calls() {
		w.calls[c.number] = append(w.calls[c.number], c)
	}
	w.greet(pair[0])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.listen()
	}()
	tb.Cleanup(func() {
		ours.Close() //nolint:errcheck // that is what ends the spawner
		cmd.Wait()   //nolint:errcheck // as above
		<-ended
		unix.Close(w.listener) //nolint:errcheck // the test is over
	})
	return w
}

// greet receives the descriptor by which calls are seen.
func (w *watcher) greet(conn int) {
	w.tb.Helper()
	text, rights := make([]byte, 32), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := unix.Recvmsg(conn, text, rights, unix.MSG_CMSG_CLOEXEC)
	if err != nil || rn == 0 {
		w.tb.Fatalf("the spawner does not begin: %v", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		w.tb.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		w.tb.Fatal(err)
	}
	w.listener = fds[0]
	if err := json.Unmarshal(text[:n], &w.spawner); err != nil {
		w.tb.Fatal(err)
	}
}

// run runs a process, and returns how it ended and what it and its children did.
func (w *watcher) run(j job) (done, []access) {
	w.tb.Helper()
	w.mu.Lock()
	w.seen = nil
	w.mu.Unlock()
	var d done
	if err := w.jobs.Encode(j); err != nil {
		w.tb.Fatal(err)
	}
	if err := w.answers.Decode(&d); err != nil {
		w.tb.Fatal(err)
	}
	if d.Error != "" {
		w.tb.Fatalf("%s does not run: %s", j.Path, d.Error)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return d, w.seen
}

// notice and answer are struct seccomp_notif and struct seccomp_notif_resp.
type notice struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	pointer    uint64
	args       [6]uint64
}

type answer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

const (
	ioctlReceive  = 0xc0502100
	ioctlSend     = 0xc0182101
	letItContinue = 1
)

// listen sees calls until nobody is left to make any.
func (w *watcher) listen() {
	for {
		ready := []unix.PollFd{{Fd: int32(w.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && err != unix.EINTR {
			return
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			if ready[0].Revents != 0 {
				return
			}
			continue
		}
		var n notice
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(w.listener), ioctlReceive,
			uintptr(unsafe.Pointer(&n)))
		if errno != 0 {
			continue // it was killed meanwhile
		}
		if int(n.pid) != w.spawner {
			w.note(&n)
		}
		a := answer{id: n.id, flags: letItContinue}
		unix.Syscall(unix.SYS_IOCTL, uintptr(w.listener), ioctlSend, uintptr(unsafe.Pointer(&a)))
	}
}

// note notes a call.
func (w *watcher) note(n *notice) {
	pid := int(n.pid)
	for _, c := range w.calls[int(n.number)] {
		asked := textAt(pid, n.args[c.path])
		if asked == "" {
			continue
		}
		a, flags := access{call: c.name, asked: asked}, uint64(0)
		// literally is that the kernel follows no symbolic link, wherever it is in the path.
		literally, follow := false, c.does == opens || c.does == opensAs || c.does == alters ||
			c.does == runs
		if c.flags != none {
			flags = n.args[c.flags]
		}
		if c.does == opensAs {
			flags = 0
			how := unix.OpenHow{}
			if readAt(pid, n.args[c.flags],
				unsafe.Slice((*byte)(unsafe.Pointer(&how)), unsafe.Sizeof(how))) > 0 {
				flags, literally = how.Flags, how.Resolve&unix.RESOLVE_NO_SYMLINKS != 0
			}
		}
		if flags&unix.O_NOFOLLOW != 0 {
			follow = false
		}
		switch c.does {
		case opens, opensAs:
			if flags&unix.O_PATH != 0 {
				continue // its name alone
			}
			a.writes = flags&(unix.O_WRONLY|unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC) != 0
		case changes, alters:
			a.writes = true
		case runs:
			a.runs = true
		}
		base := fmt.Sprintf("/proc/%d/cwd", pid)
		if c.dir != none && int32(n.args[c.dir]) != unix.AT_FDCWD {
			base = fmt.Sprintf("/proc/%d/fd/%d", pid, int32(n.args[c.dir])) //nolint:gosec // as above
		}
		if a.path = leadsTo(pid, base, asked, follow); literally && !filepath.IsAbs(asked) {
			a.path = filepath.Join(leadsTo(pid, base, ".", false), asked)
		}
		w.mu.Lock()
		w.seen = append(w.seen, a)
		w.mu.Unlock()
	}
}

// leadsTo is the path of what a process means by one. What is not there is taken by its name.
func leadsTo(pid int, base, path string, follow bool) string {
	if !filepath.IsAbs(path) {
		dir, err := os.Readlink(base)
		if err != nil {
			return path
		}
		path = dir + "/" + path
	}
	const hops = 40 // as in the kernel
	for range hops {
		path = own(pid, strings.TrimRight(path, "/"))
		parent, name := filepath.Split(path)
		if name == "" || name == "." || name == ".." {
			parent, name = path, ""
		}
		dir, err := filepath.EvalSymlinks(parent + "/.")
		if err != nil {
			return filepath.Clean(path)
		}
		full := filepath.Join(dir, name)
		target, err := os.Readlink(full)
		if err != nil || !follow {
			return full
		}
		if path = target; !filepath.IsAbs(target) {
			if strings.HasPrefix(full, "/proc/") && strings.Contains(target, ":[") {
				return full // a namespace, a pipe
			}
			path = dir + "/" + target
		}
	}
	return path
}

// own puts a process's number in the place of the names by which it means itself.
func own(pid int, path string) string {
	for _, self := range []string{"/proc/self", "/proc/thread-self"} {
		if rest, ok := strings.CutPrefix(path, self); ok && (rest == "" || rest[0] == '/') {
			return fmt.Sprintf("/proc/%d%s", pid, rest)
		}
	}
	return path
}

// textAt is the text at an address of a process; empty for none.
func textAt(pid int, address uint64) string {
	buffer := make([]byte, unix.PathMax)
	text, _, ended := strings.Cut(string(buffer[:readAt(pid, address, buffer)]), "\x00")
	if !ended || address == 0 {
		return ""
	}
	return text
}

// readAt reads the memory of a process, as far as there is some.
func readAt(pid int, address uint64, into []byte) int {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0
	}
	defer memory.Close()                        //nolint:errcheck // opened for reading
	n, _ := memory.ReadAt(into, int64(address)) //nolint:errcheck,gosec // it may end before
	return n
}
