package soak_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// state is what the runtime knows of a sandbox.
type state string

const (
	// failed: its ADD was refused, or killed, or never sent. Anything may be there.
	failed state = "failed"
	// live: its ADD succeeded, and no DEL was begun.
	live state = "live"
	// leaving: a DEL was begun.
	leaving state = "leaving"
	// over: a DEL, or a GC, has succeeded. Nothing may be there.
	over state = "over"
)

// sandbox is one sandbox of a pod, from its first ADD to its last DEL.
type sandbox struct {
	id, pod string
	// path is where its namespace was; another's may be there now.
	path  string
	port  int
	slot  *slot
	state state
	// addrs are its addresses while it is live, as "net1 10.0.0.2".
	addrs []string
	// fresh: no ADD of it was begun.
	fresh bool
	// plain: its networks were without their auxiliary plugins.
	plain bool
	// inode is the network namespace's.
	inode uint64
	// orphan: Braid's state was lost while the sandbox was there.
	orphan bool
	// pathless: its path leads to another sandbox that Braid cannot tell from this one.
	pathless bool

	mu      sync.Mutex
	history []string
	// reported: what happened to it has been printed.
	reported bool
}

func (b *sandbox) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.history = append(b.history, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (b *sandbox) told() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.id + " is " + string(b.state) + "\n    " + strings.Join(b.history, "\n    ")
}

// slot is a pod of the cluster, and the path that the network namespaces of its sandboxes have.
type slot struct {
	mu    sync.Mutex
	index int
	path  string
	// made says that there is a namespace at the path: that of now, if there is one.
	made bool
	// now is the sandbox that the pod has; former are those whose namespace is gone, and which have
	// had no DEL yet.
	now    *sandbox
	former []*sandbox
	// past are some that are over.
	past []*sandbox
}

// fault is what happens to an operation.
type fault string

const (
	none   fault = ""
	kill   fault = "SIGKILL"
	term   fault = "SIGTERM"
	stop   fault = "SIGSTOP"
	nsGone fault = "netns deleted"
)

// outcome is what became of an operation.
type outcome struct {
	err    *types.Error
	killed bool
}

func (o outcome) String() string {
	switch {
	case o.killed:
		return "killed"
	case o.err != nil:
		return fmt.Sprintf("code %d: %.300s", o.err.Code, o.err.Msg)
	}
	return "ok"
}

func (o outcome) ok() bool { return !o.killed && o.err == nil }

// call runs an operation. A path is given as it is: empty for a namespace that is gone.
func (s *soak) call(
	command string, b *sandbox, path string, f fault, rng *rand.Rand, more map[string]any,
) outcome {
	config := map[string]any{}
	for k, v := range s.config {
		config[k] = v
	}
	for k, v := range more {
		config[k] = v
	}
	env := []string{"CNI_COMMAND=" + command, "CNI_PATH=" + cmp.Or(s.plugins, s.dir)}
	if b != nil {
		config["runtimeConfig"] = map[string]any{
			"portMappings": []any{
				map[string]any{"hostPort": b.port, "containerPort": 80, "protocol": "tcp"},
			},
		}
		env = append(env, "CNI_CONTAINERID="+b.id, "CNI_NETNS="+path, "CNI_IFNAME=eth0",
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME="+b.pod)
	}
	stdin, err := json.Marshal(config)
	s.must(err)
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(s.braid)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(stdin), &stdout, &stderr
	s.must(cmd.Start())
	over, start := make(chan struct{}), time.Now()
	var wg sync.WaitGroup
	if f != none {
		after, pause := s.usual(command, rng.Float64()), s.usual(command, 2*rng.Float64())
		wg.Go(func() { s.disturb(cmd, b, f, after, pause, over) })
	}
	err = cmd.Wait()
	close(over)
	wg.Wait()
	if f == none {
		s.took(command, time.Since(start))
	}
	o := s.outcomeOf(command, err, cmd.ProcessState.Sys().(syscall.WaitStatus), stdout.Bytes(),
		stderr.String(), b)
	what := strings.TrimSpace(command + " " + string(f))
	if w := s.window(); w != "" {
		what += " while " + w
	}
	s.count(what, o)
	if b != nil {
		b.note("%s with path %q: %v", what, path, o)
	}
	return o
}

// usual is a part of the time that an operation takes here and now, so that faults come in all of
// its course.
func (s *soak) usual(command string, part float64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(part * float64(max(s.times[command], time.Millisecond)))
}

func (s *soak) took(command string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[command] = (3*s.times[command] + d) / 4
}

// disturb does what the fault is, unless the program ends before.
func (s *soak) disturb(
	cmd *exec.Cmd, b *sandbox, f fault, after, pause time.Duration, over <-chan struct{},
) {
	select {
	case <-over:
		return
	case <-time.After(after):
	}
	switch f {
	case kill:
		cmd.Process.Signal(syscall.SIGKILL) //nolint:errcheck // it may have ended
	case term:
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // as above
	case stop:
		cmd.Process.Signal(syscall.SIGSTOP) //nolint:errcheck // as above
		time.Sleep(pause)
		cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // as above
	case nsGone:
		s.destroy(b.slot)
	}
}

func (s *soak) outcomeOf(
	command string, err error, status syscall.WaitStatus, stdout []byte, stderr string, b *sandbox,
) outcome {
	if err == nil {
		return outcome{}
	}
	if status.Signaled() && (status.Signal() == syscall.SIGKILL ||
		status.Signal() == syscall.SIGTERM) {
		return outcome{killed: true}
	}
	failure := &types.Error{}
	if jerr := json.Unmarshal(stdout, failure); jerr != nil || failure.Msg == "" {
		s.violated(b, "%s: %v, no error on stdout but %q, stderr %q", command, err, stdout, stderr)
	}
	return outcome{err: failure}
}

// destroy ends the namespace of a slot.
func (s *soak) destroy(at *slot) {
	if at.made {
		at.made = false
		s.must(removeNetns(at.path))
	}
}

// create makes one for the slot's next sandbox.
func (s *soak) create(at *slot) {
	if !at.made {
		if without("reuse") {
			at.path, _, _ = strings.Cut(at.path, "+")
			at.path += fmt.Sprint("+", s.sandboxes, "-", time.Now().UnixNano())
		}
		s.must(makeNetns(at.path))
		at.made = true
	}
}
