// Command braid-client is what container runtimes call as "braid" on a node that has the agent: it
// hands the call to the agent, whose engine is warm. Whatever keeps the agent from it, and all that
// is no ADD, DEL, CHECK or GC, it becomes braid-full, the CNI plugin beside it, which does the same
// work alone. It makes no error of its own, unless that one cannot be run. Under its own name it
// knows --version.
package main

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/braid-cni/braid/pkg/agent/client"
	"github.com/braid-cni/braid/pkg/agent/wire"
)

// buildVersion is set by the linker.
var buildVersion = "devel"

const (
	// fullName is the file beside this one that does the work alone.
	fullName = "braid-full"
	// patience is how long the kubelet waits for a sandbox: then nobody asks for the result.
	patience = 4 * time.Minute
	// maxStdin is one byte more than Braid takes, which it then says.
	maxStdin = 4<<20 + 1
	// maxNotes bounds the file of notes, in bytes.
	maxNotes = 64 << 10
	// socketEnv names another socket than wire.Socket.
	socketEnv = "BRAID_AGENT_SOCKET"
	// afterAgent tells braid-full that an agent may have finished the ADD, whose result was lost.
	afterAgent = "BRAID_AFTER_AGENT"
)

func main() { os.Exit(run()) }

// run returns only for calls that the agent did, or that nobody can do.
func run() int {
	if asksVersion(os.Args) {
		os.Stdout.WriteString("braid-client " + buildVersion + "\n") //nolint:errcheck // nobody to tell
		return 0
	}
	if filepath.Base(os.Args[0]) != "braid" || !isForAgent(os.Getenv("CNI_COMMAND")) {
		return become()
	}
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, maxStdin))
	if err != nil {
		return failed("read stdin: " + err.Error())
	}
	socket := cmp.Or(os.Getenv(socketEnv), wire.Socket)
	result, err := (&client.Client{Socket: socket}).Do(&wire.Frame{
		Type: wire.Hello, Version: wire.Version, Oldest: wire.Version, Verb: wire.CNI,
		Environ: wire.Environ(os.Environ()), Stdin: stdin, Millis: int(patience.Milliseconds()),
	}, os.Getenv("CNI_NETNS"))
	if err == nil {
		return show(result)
	}
	remember(err, filepath.Join(filepath.Dir(socket), filepath.Base(wire.Notes)))
	if err := again(stdin); err != nil {
		return failed("hand stdin on: " + err.Error())
	}
	return become()
}

// asksVersion reports whether the program is called under its own name, for its version.
func asksVersion(args []string) bool {
	return filepath.Base(args[0]) == "braid-client" && len(args) == 2 && args[1] == "--version"
}

// isForAgent reports whether the agent does the operation.
func isForAgent(command string) bool {
	switch command {
	case "ADD", "DEL", "CHECK", "GC":
		return true
	}
	return false
}

// remember notes for the agent, and for braid-full, why the agent did not do the call.
func remember(err error, notes string) {
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return
	}
	note(notes, e.Reason)
	if e.Sent {
		os.Setenv(afterAgent, "1") //nolint:errcheck // the name is one
	}
}

// show prints what the agent would have.
func show(result *wire.Frame) int {
	for file, text := range map[*os.File][]byte{os.Stderr: result.Stderr, os.Stdout: result.Stdout} {
		if len(text) == 0 {
			continue
		}
		if _, err := file.Write(text); err != nil {
			return 1
		}
	}
	return result.Exit
}

// note adds a line for the agent that counts them, if there is a directory for it.
func note(path string, reason client.Reason) {
	file, err := os.OpenFile(path,
		os.O_WRONLY|os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return
	}
	defer file.Close() //nolint:errcheck // a note that is lost is not counted
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() && info.Size() < maxNotes {
		file.WriteString(string(reason) + "\n") //nolint:errcheck // as above
	}
}

// again makes stdin be read once more.
func again(stdin []byte) error {
	fd, err := memory()
	if err == nil {
		file := os.NewFile(uintptr(fd), "stdin")
		if _, err = file.Write(stdin); err == nil {
			_, err = file.Seek(0, io.SeekStart)
		}
		if err == nil {
			err = syscall.Dup3(fd, 0, 0)
		}
		runtime.KeepAlive(file)
	}
	if err == nil {
		return nil
	}
	return pipe(stdin)
}

// memory returns a file in memory. Where programs in such files are forbidden, it has to be one
// that cannot be executed, which older kernels do not know.
func memory() (int, error) {
	const cloexec, noexec = 1, 8
	name, err := syscall.BytePtrFromString("stdin")
	if err != nil {
		return -1, err
	}
	fd, errno := memfdCreate(name, cloexec|noexec)
	if errno == syscall.EINVAL {
		fd, errno = memfdCreate(name, cloexec)
	}
	if errno != 0 {
		return -1, errno
	}
	return fd, nil
}

// pipe is for systems without files in memory. What does not fit into a pipe is not handed on.
func pipe(stdin []byte) error {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		return err
	}
	if len(stdin) > 64<<10 {
		const setPipeSize = 1031
		//nolint:errcheck // the write fails then
		syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[1]), setPipeSize, uintptr(len(stdin)))
	}
	n, err := syscall.Write(fds[1], stdin)
	if err == nil && n < len(stdin) {
		err = syscall.EFBIG
	}
	if err == nil {
		err = syscall.SetNonblock(fds[0], false)
	}
	if err == nil {
		err = syscall.Dup3(fds[0], 0, 0)
	}
	return errors.Join(err, syscall.Close(fds[1]))
}

// become replaces this process by braid-full, under the name that this one was called by. It
// returns only if that cannot be run.
func become() int {
	self, err := os.Executable()
	if err != nil {
		return failed("find the directory of " + fullName + ": " + err.Error())
	}
	full := filepath.Join(filepath.Dir(self), fullName)
	return failed("run " + full + ": " + syscall.Exec(full, os.Args, os.Environ()).Error())
}

// failed prints a CNI error: try again later, when the agent has repaired the installation.
func failed(text string) int {
	text = "braid-client " + buildVersion + ": " + text +
		"; reinstall Braid, or restart its agent on this node"
	//nolint:errcheck // nobody to tell
	os.Stdout.WriteString(`{"code":11,"msg":` + strconv.QuoteToASCII(text) + "}\n")
	return 1
}
