// Command killer runs a program again and again, and kills it just before a chosen change of the
// file system: before each of them in turn, whoever orders so.
//
//	killer -dir DIR -under /etc/cni,/var/lib/braid -- PROGRAM ARGUMENT...
//
// It starts the program for each new DIR/order, which is an [Order] in JSON, and ends each run with
// SIGKILL when the order says so or another comes. It writes the changes of run 7 to DIR/steps-7,
// each before it is made, and makes DIR/end-7 when the program has ended. It needs no hook in the
// program: the kernel stops it at its system calls (ptrace, seccomp), with all that it executes and
// forks.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Order is what to do next.
type Order struct {
	// Run numbers the runs. A number that is greater than the last begins a new one.
	Run int `json:"run"`
	// Kill is the step before which the program is killed, as DIR/steps has it; empty for none.
	Kill string `json:"kill"`
	// End ends the run, and begins none.
	End bool `json:"end"`
}

// asFilter makes the command the program, under a filter that stops it at changes.
const asFilter = "KILLER_EXEC"

func main() {
	runtime.LockOSThread() // the kernel lets only the thread that traces a program ask for it
	fmt.Fprintln(os.Stderr, "killer:", run())
	os.Exit(1)
}

// run returns only with an error.
func run() error {
	if os.Getenv(asFilter) != "" {
		return become(os.Args[1:])
	}
	k := &killer{}
	flag.StringVar(&k.dir, "dir", "", "directory of orders and reports")
	under := flag.String("under", "/", "directories in which changes count, separated by commas")
	flag.Parse()
	k.under, k.argv = strings.Split(*under, ","), flag.Args()
	if k.dir == "" || len(k.argv) == 0 {
		return errors.New("give -dir and a program")
	}
	for {
		order := k.next()
		if err := k.once(order); err != nil {
			return err
		}
	}
}

type killer struct {
	dir   string
	under []string
	argv  []string

	// The run under way: the program's process, and how often each step was seen. last is the step
	// before; a write may be the rest of it.
	order Order
	pid   int
	steps *os.File
	seen  map[string]int
	last  string
}

// next waits for an order.
func (k *killer) next() Order {
	for ; ; time.Sleep(5 * time.Millisecond) {
		if o := k.read(); o.Run > k.order.Run && !o.End {
			return o
		}
	}
}

// read returns the order that there is; a zero one if there is none yet.
func (k *killer) read() (o Order) {
	raw, err := os.ReadFile(filepath.Join(k.dir, "order"))
	if err != nil || json.Unmarshal(raw, &o) != nil {
		return Order{} // there is none yet
	}
	return o
}

// once runs the program until it ends, is killed, or the next order comes.
func (k *killer) once(order Order) (err error) {
	k.order, k.seen, k.last = order, map[string]int{}, ""
	if k.steps, err = os.Create(k.path("steps")); err != nil {
		return err
	}
	defer k.steps.Close()
	// A new agent has another identity, although it is in the same pod here.
	for key, value := range map[string]string{
		asFilter: "1", "POD_UID": fmt.Sprintf("run-%d", order.Run),
	} {
		if err := os.Setenv(key, value); err != nil {
			return err
		}
	}
	self, err := os.StartProcess("/proc/self/exe", append([]string{"killer"}, k.argv...), &os.ProcAttr{
		Files: []*os.File{nil, os.Stdout, os.Stderr}, Sys: &unix.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return err
	}
	k.pid = self.Pid
	var ended atomic.Bool
	go killOnOrder(k.read, order.Run, self.Pid, &ended)
	status, err := k.trace()
	ended.Store(true)
	if err != nil {
		return err
	}
	return os.WriteFile(k.path("end"), []byte(status), 0o600)
}

// killOnOrder kills the program of a run when an order ends the run or begins another.
func killOnOrder(read func() Order, run, pid int, ended *atomic.Bool) {
	for ; !ended.Load(); time.Sleep(5 * time.Millisecond) {
		if o := read(); o.Run > run || o.End {
			unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it has just ended
			return
		}
	}
}

// path returns the path of a report of the run.
func (k *killer) path(name string) string {
	return filepath.Join(k.dir, fmt.Sprintf("%s-%d", name, k.order.Run))
}

// trace follows the program and its children until it ends, and returns how.
func (k *killer) trace() (string, error) {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(k.pid, &ws, unix.WALL, nil); err != nil {
		return "", fmt.Errorf("wait for the program's start: %w", err)
	}
	const options = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(k.pid, options); err != nil {
		return "", fmt.Errorf("trace the program: %w", err)
	}
	tid := k.pid
	for {
		if ws.Stopped() {
			// ESRCH: it was killed
			err := unix.PtraceCont(tid, k.stopped(tid, ws))
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return "", fmt.Errorf("continue the program: %w", err)
			}
		}
		var err error
		if tid, err = waitAny(&ws); err != nil {
			return "", fmt.Errorf("wait for the program: %w", err)
		}
		if how := ending(ws); tid == k.pid && how != "" {
			return how, nil
		}
	}
}

// waitAny waits until something happens to any thread that is traced.
func waitAny(ws *unix.WaitStatus) (tid int, err error) {
	for {
		tid, err = unix.Wait4(-1, ws, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return tid, err
		}
	}
}

// ending returns how a process ended; empty if it did not.
func ending(ws unix.WaitStatus) string {
	switch {
	case ws.Signaled():
		return ws.Signal().String()
	case ws.Exited():
		return fmt.Sprintf("exit %d", ws.ExitStatus())
	}
	return ""
}

// stopped looks at a thread that the kernel has stopped, and returns the signal to go on with.
func (k *killer) stopped(tid int, ws unix.WaitStatus) int {
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP && ws.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		k.step(tid)
		return 0
	case sig == unix.SIGTRAP, sig == unix.SIGSTOP: // another event, or a new thread
		return 0
	default:
		return int(sig)
	}
}

// step notes the change that a thread is about to make, and kills the program if it is the one.
func (k *killer) step(tid int) {
	c, err := callOf(tid)
	if err != nil {
		return // it was killed
	}
	verb, path := c.change()
	if verb == "" || !k.counts(path) {
		return
	}
	key := verb + " " + path
	if verb == "write" && key == k.last {
		key += " on" // what follows the first part of a file is one step
		if k.seen[key] > 0 {
			return
		}
	} else {
		k.last = key
	}
	k.seen[key]++
	if n := k.seen[key]; n > 1 {
		key += fmt.Sprintf(" #%d", n)
	}
	if _, err := fmt.Fprintln(k.steps, key); err != nil {
		fmt.Fprintln(os.Stderr, "killer:", err)
	}
	if key == k.order.Kill {
		unix.Kill(k.pid, unix.SIGKILL) //nolint:errcheck // it is stopped, so it is there
	}
}

// counts reports whether changes of a path are steps.
func (k *killer) counts(path string) bool {
	for _, dir := range k.under {
		if strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") || path == dir {
			return true
		}
	}
	return false
}
