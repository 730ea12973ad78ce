package invoke

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/weaken"
)

const (
	// busyRetries and busyWait bound the wait for a binary that is being written: 50 waits of 20 ms,
	// one second in all.
	busyRetries = 50
	busyWait    = 20 * time.Millisecond
	// killGrace is how long a killed plugin's pipes are waited for.
	killGrace = 2 * time.Second
)

// run execs the binary. A binary that is being replaced at this moment ("text file busy") is tried
// again, each time with a new command: an exec.Cmd cannot be run twice.
func (e *Exec) run(
	ctx context.Context, path string, stdin []byte, environ []string,
) ([]byte, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	stdout, stderr := &bounded{full: func() { stop(errTooMuch) }}, &tail{}
	var err error
	for range busyRetries {
		cmd, left := e.command(ctx, path, environ)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), stdout, stderr
		err = cmd.Run()
		if ctx.Err() != nil {
			left.extinguish()
		}
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		pause(ctx, busyWait)
	}
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		// It succeeded, but something of its own still holds its stdout, or the machine is very busy.
		// What it printed is here.
		err = nil
	}
	if err != nil {
		return nil, pluginError(ctx, err, stdout.data, stderr.text())
	}
	return stdout.data, nil
}

// pause waits, but not past the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// CallerEnv is the variable by which Braid, under whatever name it is called, knows that a plugin
// was run by Braid: it is in the environment of each, and of those that they run.
const CallerEnv = "BRAID_CALLER"

// callerKey is the context's key of a caller's environment.
type callerKey struct{}

// WithCaller has binaries be run in the environment of another process, for which this one works.
func WithCaller(ctx context.Context, environ []string) context.Context {
	return context.WithValue(ctx, callerKey{}, environ)
}

// asCaller returns the environment of a binary: the variables of the protocol, and else those of
// the caller, who is this process as a rule.
func asCaller(ctx context.Context, environ []string) []string {
	caller, ok := ctx.Value(callerKey{}).([]string)
	if !ok {
		return slices.Clone(environ)
	}
	protocol := func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		switch name {
		case "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_ARGS", "CNI_IFNAME", "CNI_PATH":
			return true
		}
		return false
	}
	env := slices.DeleteFunc(slices.Clone(caller), protocol)
	for _, v := range environ {
		if protocol(v) {
			env = append(env, v)
		}
	}
	return env
}

// command returns the binary, ready to be run, and what there will be of it. When ctx is done it is
// killed with what it started: a plugin's own child, its IPAM plugin above all, must not go on
// after it.
func (e *Exec) command(ctx context.Context, path string, environ []string) (*exec.Cmd, *family) {
	cmd := exec.CommandContext(ctx, path)
	f := &family{mark: CallerEnv + "=" + strconv.Itoa(os.Getpid()) + "-" + rand.Text()}
	if e.Alone && unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == nil {
		f.reaper = os.Getpid()
	}
	cmd.Env = append(asCaller(ctx, environ), f.mark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if weaken.Off(weaken.Group) {
			return cmd.Process.Kill()
		}
		if first, ok := look(cmd.Process.Pid); ok {
			f.known = append(f.known, first)
		}
		found := f.find(processes())
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		for _, p := range found {
			p.kill()
		}
		return err
	}
	cmd.WaitDelay = killGrace
	if e.Inherit != nil {
		cmd.ExtraFiles = []*os.File{e.Inherit}
	}
	return cmd, f
}

// pluginError returns the error that the plugin printed (CNI 1.1 "Error"), else one made of how it
// ended and its stderr.
func pluginError(ctx context.Context, err error, stdout []byte, stderr string) error {
	printed := &types.Error{}
	if json.Unmarshal(stdout, printed) == nil && (printed.Code != 0 || printed.Msg != "") {
		printed.Msg, printed.Details = short(printed.Msg), short(printed.Details)
		return printed
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	if stderr == "" {
		return fmt.Errorf("no error printed: %w", err)
	}
	return fmt.Errorf("%w: stderr %q", err, stderr)
}
