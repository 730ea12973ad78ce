package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one of the lab's daemons. It can be started again after it was killed; its log goes on
// in the same file.
type process struct {
	name string
	argv []string // argv[0] is an absolute path, as seen in the sandbox
	env  []string // in addition to the test's own
	in   *sandbox // where it runs; nil for the test's own namespaces
	log  string   // file that stdout and stderr are appended to

	cmd  *exec.Cmd
	gone chan struct{} // closed when the process was reaped; nil before the first start
}

// start starts the process. To start one that runs is an error.
func (p *process) start() error {
	if p.running() {
		return fmt.Errorf("start %s: it is running", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = log, log
	gone, err := p.in.start(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.gone = cmd, gone
	return nil
}

// running reports whether the process was started and was not reaped yet.
func (p *process) running() bool {
	if p.gone == nil {
		return false
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

// kill sends SIGKILL and waits until the process is gone. It is no error where there is none.
func (p *process) kill() {
	if p == nil || !p.running() {
		return
	}
	p.cmd.Process.Kill() // fails only where it is gone already
	<-p.gone
}

// describe adds the end of the log to an error: "exit status 1" alone helps nobody.
func (p *process) describe(err error) error {
	state := "running"
	if !p.running() {
		state = "not running"
	}
	return fmt.Errorf("%w (%s is %s; its log ends:\n%s)", err, p.name, state, tail(p.log, 15))
}

// tail returns the last lines of a file, the longest of them cut, or why it cannot.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	// Lines of these logs are rarely longer than 500 bytes; a log of hundreds of megabytes is not read
	// whole.
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, size-int64(lines)*500), io.SeekStart)
	}
	data, _ := io.ReadAll(f)
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		if len(line) > 500 {
			all[i] = line[:500] + "..."
		}
	}
	return strings.Join(all, "\n")
}

// tails returns the ends of all logs in a directory, for a failed test.
func tails(dir string) string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, path := range logs {
		fmt.Fprintf(&b, "==> %s <==\n%s\n", filepath.Base(path), tail(path, 25))
	}
	return b.String()
}

// start starts a command in the sandbox, or in the test's own namespaces where s is nil, and
// returns a channel that is closed once it is gone. The command is killed when the test process
// dies.
func (s *sandbox) start(cmd *exec.Cmd) (gone chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A group of its own: an interrupt typed at the terminal is for the test, which then takes the lab
	// down in order.
	cmd.SysProcAttr.Setpgid = true
	if s == nil || s.flags&unix.CLONE_NEWPID == 0 {
		// In a process namespace it is not needed, because the namespace dies with its first process, and
		// would not do: Go has a child that does not see its parent's process id kill itself at once, and
		// across the border that id is 0.
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started, gone := make(chan error), make(chan struct{})
	go func() {
		defer close(gone)
		// The kernel sends the death signal when the thread that forked ends, not the process, so this
		// thread has to live as long as the command. And it is never unlocked, because after enter it is
		// in the wrong namespaces for any other goroutine: Go ends a thread whose goroutine returns
		// locked.
		runtime.LockOSThread()
		err := s.enter()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			cmd.Wait() // daemons end by SIGKILL; those who care look at cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return gone, nil
}

// output runs a command to its end in the sandbox and returns what it wrote to stdout; what it
// wrote to stderr is in the error.
func (s *sandbox) output(ctx context.Context, stdin string, argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = 2 * time.Second // where it leaves behind a child that holds its output open
	gone, err := s.start(cmd)
	if err != nil {
		return "", fmt.Errorf("run %s: %w", strings.Join(argv, " "), err)
	}
	<-gone
	if err := ctx.Err(); err != nil {
		return stdout.String(), fmt.Errorf("run %s: %w: %s",
			strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	if !cmd.ProcessState.Success() {
		return stdout.String(), fmt.Errorf("run %s: %s: %s",
			strings.Join(argv, " "), cmd.ProcessState, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
