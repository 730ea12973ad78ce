package hostns_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/install/hostns"
	"github.com/braid-cni/braid/pkg/nettest"
)

// role in the environment makes the test binary a process of a test.
const role = "BRAID_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "host":
		exit(host(os.Args[1], os.Args[2]))
	case "agent":
		exit(agent(os.Args[1], os.Args[2]))
	}
	if err := nettest.Isolate(); err != nil {
		exit(err)
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// host is a container runtime: it has a file system of its own on dir, and listens.
func host(dir, socket string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("host"), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin) // until the test ends
	return err
}

// seen is what an agent sees in its second life.
type seen struct {
	File, Image, Token, Dir, Env string
	Args                         []string
	Leaked                       string
}

// agent is a process in a container: it has another file system on dir, a token, and a program that
// lies on it.
func agent(dir, socket string) error {
	ns, err := hostns.Host([]string{"/nowhere", socket})
	if err != nil {
		return err
	}
	err = hostns.Enter(ns, map[string]string{
		"image": filepath.Join(dir, "image"), "token": filepath.Join(dir, "..", "token"),
	})
	if err != nil {
		return err
	}
	ns.Close()
	dirs, err := hostns.Dirs()
	if err != nil {
		return err
	}
	if again, err := hostns.Dirs(); err != nil || again != nil {
		return fmt.Errorf("kept twice: %v, %w", again, err)
	}
	read := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err.Error()
		}
		return string(raw)
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() { // the test asks
		s := seen{Env: os.Getenv("KEPT"), Args: os.Args[1:]}
		s.File, s.Image, s.Token = read(filepath.Join(dir, "file")), read(dirs["image"]+"/file"), read(
			dirs["token"]+"/token")
		s.Dir, _ = os.Getwd()
		out, _ := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
		if strings.Contains(string(out), "image") {
			s.Leaked = string(out)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
	}
	return in.Err()
}

// process is one that a test talks to.
type process struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, program, as string, flags uintptr, args ...string) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), role+"="+as, "KEPT=kept")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
			t.Errorf("%s: %v", as, err)
		}
	})
	return &process{t, in, bufio.NewScanner(out)}
}

func (p *process) line() string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("the process ended: %v", p.out.Err())
	}
	return p.out.Text()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// container makes what a container would have: a file system on dir with the program, and a token
// that is rotated as the kubelet does it. The runtime is in a mount namespace of its own.
func container(t *testing.T) (program, dir, socket string, rotate func(token string)) {
	t.Helper()
	nettest.NeedsRoot(t)
	root := t.TempDir()
	dir, socket = filepath.Join(root, "mnt"), filepath.Join(root, "socket")
	tokens := filepath.Join(root, "token")
	for _, d := range []string{dir, tokens} {
		must(t, os.Mkdir(d, 0o755))
		must(t, unix.Mount("tmpfs", d, "tmpfs", 0, ""))
		t.Cleanup(func() { unix.Unmount(d, unix.MNT_DETACH) })
	}
	must(t, os.Mkdir(filepath.Join(dir, "image"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "image", "file"), []byte("image"), 0o600))
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	program = filepath.Join(dir, "program")
	must(t, os.WriteFile(program, self, 0o755))
	n := 0
	rotate = func(token string) {
		n++
		data := fmt.Sprintf("..%d", n)
		must(t, os.Mkdir(filepath.Join(tokens, data), 0o755))
		must(t, os.WriteFile(filepath.Join(tokens, data, "token"), []byte(token), 0o600))
		must(t, os.Symlink(data, filepath.Join(tokens, "..tmp")))
		must(t, os.Rename(filepath.Join(tokens, "..tmp"), filepath.Join(tokens, "..data")))
	}
	rotate("first")
	must(t, os.Symlink("..data/token", filepath.Join(tokens, "token")))
	return program, dir, socket, rotate
}

func (p *process) sees(want seen) {
	p.t.Helper()
	fmt.Fprintln(p.in)
	line := p.line()
	raw, err := json.Marshal(want)
	must(p.t, err)
	if line != string(raw) {
		p.t.Errorf("the agent sees\n%s, want\n%s", line, raw)
	}
}

// The process is where the runtime is, and still reads what its container has: also after the
// container's namespace is gone, since nobody else was in it, and after the token was replaced.
func TestEnter(t *testing.T) {
	program, dir, socket, rotate := container(t)
	h := start(t, "/proc/self/exe", "host", unix.CLONE_NEWNS, dir, socket)
	if line := h.line(); line != "ready" {
		t.Fatal(line)
	}
	a := start(t, program, "agent", unix.CLONE_NEWNS, dir, socket)
	want := seen{
		File: "host", Image: "image", Token: "first", Dir: "/", Env: "kept", Args: []string{dir, socket},
	}
	a.sees(want)
	rotate("second")
	want.Token = "second"
	a.sees(want)
	must(t, unix.Unmount(dir, unix.MNT_DETACH)) // as when the container's file system goes
	a.sees(want)
}

// A process that is there already stays as it is.
func TestEnterTwice(t *testing.T) {
	ns, err := hostns.OfProcess(os.Getpid())
	must(t, err)
	defer ns.Close()
	must(t, hostns.Enter(ns, map[string]string{"x": "/nowhere"}))
	if dirs, err := hostns.Dirs(); err != nil || dirs != nil {
		t.Errorf("kept are %v, %v", dirs, err)
	}
}

// What cannot be kept is known before anything has changed.
func TestEnterRefuses(t *testing.T) {
	nettest.NeedsRoot(t)
	_, dir, socket, _ := container(t)
	h := start(t, "/proc/self/exe", "host", unix.CLONE_NEWNS, dir, socket)
	h.line()
	ns, err := hostns.OfPeer(socket)
	must(t, err)
	defer ns.Close()
	err = hostns.Enter(ns, map[string]string{"x": filepath.Join(dir, "nothing")})
	if err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("error is %v", err)
	}
	_, err = hostns.OfPeer(socket + "x")
	if err == nil || !strings.Contains(err.Error(), socket+"x") {
		t.Errorf("no socket: %v", err)
	}
	if _, err := hostns.OfProcess(1 << 30); err == nil {
		t.Error("no process, and no error")
	}
	if len(hostns.Sockets()) == 0 {
		t.Error("no sockets")
	}
}
