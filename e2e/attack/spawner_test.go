package attack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// A spawner is a process of the test binary whose children are watched: the system calls of them
// and of theirs wait until the test has seen them (seccomp_unotify(2)). The test does not start
// them itself, since a process that waits for its own answer waits for ever.

// spawnIn is in the environment of a spawner: the network namespace that its children are in.
const spawnIn = "BRAID_TEST_SPAWN_IN"

// job is a process for the spawner to run.
type job struct {
	Path  string
	Env   []string
	Stdin []byte
}

// done is how it ended.
type done struct {
	Stdout, Stderr []byte
	Failed         bool
	// Error is that it did not run.
	Error string
}

// socket is the spawner's connection to the test.
const socket = 3

func spawns() bool { return os.Getenv(spawnIn) != "" }

// spawn is the spawner. It ends with the test.
func spawn() int {
	runtime.LockOSThread() // children are in this thread's namespace, and have its filter
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "spawn:", err)
		return 1
	}
	return 0
}

func serve() error {
	in, err := netns.Open(os.Getenv(spawnIn))
	if err != nil {
		return err
	}
	if err := unix.Setns(in.Fd(), unix.CLONE_NEWNET); err != nil {
		return err
	}
	in.Close()
	listener, err := filter()
	if err != nil {
		return fmt.Errorf("have system calls watched: %w", err)
	}
	tid, err := json.Marshal(unix.Gettid())
	if err != nil {
		return err
	}
	if err := unix.Sendmsg(socket, tid, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	if err := unix.Close(listener); err != nil {
		return err
	}
	conn := os.NewFile(socket, "test")
	jobs, answers := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var j job
		if err := jobs.Decode(&j); err != nil {
			return nil //nolint:nilerr // the test is over
		}
		if err := answers.Encode(j.run()); err != nil {
			return err
		}
	}
}

func (j *job) run() done {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(j.Path) //nolint:noctx // it ends by itself
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = j.Env, bytes.NewReader(j.Stdin), &stdout, &stderr
	d := done{}
	if err := cmd.Run(); err != nil {
		d.Failed = true
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			d.Error = err.Error()
		}
	}
	d.Stdout, d.Stderr = stdout.Bytes(), stderr.Bytes()
	return d
}

// filter has the watched calls of the thread and of its children wait for who has the descriptor.
func filter() (listener int, err error) {
	const number = 0 // its offset in struct seccomp_data
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number}}
	var numbers []int
	for _, c := range calls() {
		numbers = append(numbers, c.number)
	}
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	program = append(program,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	bpf := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]} //nolint:gosec // some dozens
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&bpf)))
	if errno != 0 {
		return none, errno
	}
	return int(fd), nil
}
