package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/agent/wire"
)

// agentStops is how long an agent may take to end.
const agentStops = 30 * time.Second

// Agent is a braidd that does calls of the CNI protocol, in the namespaces of this process. There
// is one at a time, as its socket is wire.Socket.
type Agent struct {
	// Client is what a runtime calls as "braid"; braid-full is beside it.
	Client string

	cmd *exec.Cmd
	log string
}

// StartAgent starts the braidd of a directory, in which braid and braid-client are, too, as the
// agent of a node. dir is for its files. env is added to its environment. It returns when calls are
// served.
func (a *API) StartAgent(
	ctx context.Context, binaries, dir, node string, env ...string,
) (*Agent, error) {
	agent := &Agent{
		Client: filepath.Join(dir, "client/braid"), log: filepath.Join(dir, "agent.log"),
	}
	if err := errors.Join(a.agentObjects(ctx, node), a.agentFiles(binaries, dir)); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	host, port := a.Address()
	agent.cmd = exec.Command(filepath.Join(binaries, "braidd"),
		"--stay", "--serve", "--profile=plain", "--node-name="+node, "--state-dir="+dir+"/state",
		"--cni-conf-dir="+dir+"/conf", "--cni-bin-dir="+dir+"/bin", "--token-dir="+dir+"/token",
		"--api-server=https://"+net.JoinHostPort(host, strconv.Itoa(port)))
	agent.cmd.Env = append(os.Environ(),
		"POD_NAMESPACE=kube-system", "POD_NAME=agent-"+node, "POD_UID=uid-"+node)
	agent.cmd.Env = append(agent.cmd.Env, env...)
	log, err := os.Create(agent.log)
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	defer log.Close() //nolint:errcheck // the agent writes it
	agent.cmd.Stdout, agent.cmd.Stderr = log, log
	if err := agent.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	if err := agent.await(ctx); err != nil {
		return nil, errors.Join(err, agent.Stop())
	}
	return agent, nil
}

// agentFiles makes the agent's token, the client with the plugin beside it, and the directories of
// a runtime.
func (a *API) agentFiles(binaries, dir string) error {
	for path, content := range map[string][]byte{
		"token/token": []byte(a.Token(UserAdmin)), "token/ca.crt": a.CA(),
	} {
		path = filepath.Join(dir, path)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err = errors.Join(err, os.WriteFile(path, content, 0o600)); err != nil {
			return err
		}
	}
	for name, from := range map[string]string{
		"client/braid": "braid-client", "client/braid-full": "braid", "conf": "", "bin": "",
	} {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if from == "" {
			err = errors.Join(err, os.MkdirAll(path, 0o755))
		} else {
			err = errors.Join(err, copyFile(filepath.Join(binaries, from), path))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// agentObjects makes the Node, and the agent's pod.
func (a *API) agentObjects(ctx context.Context, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := a.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) {
		controller := true
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: "agent-" + name, OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "apps/v1", Kind: "DaemonSet", Name: "braid-agent", UID: "installation",
					Controller: &controller,
				}},
			},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
		}
		_, err = a.client.CoreV1().Pods("kube-system").Create(ctx, pod, metav1.CreateOptions{})
	}
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o755)
}

// await returns when the agent listens.
func (g *Agent) await(ctx context.Context) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", wire.Socket)
		if err == nil {
			return conn.Close()
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return fmt.Errorf("the agent does not listen: %s", tail(g.log, 20))
}

// PID is the agent's process.
func (g *Agent) PID() int { return g.cmd.Process.Pid }

// Log is what the agent has written.
func (g *Agent) Log() string {
	text, err := os.ReadFile(g.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Stop ends the agent.
func (g *Agent) Stop() error {
	kill := time.AfterFunc(agentStops, func() {
		g.cmd.Process.Kill() //nolint:errcheck // it has just ended
	})
	defer kill.Stop()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop agent: %w", err)
	}
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("stop agent: %w: %s", err, tail(g.log, 20))
	}
	return nil
}

// Usage is what a process has.
type Usage struct {
	Descriptors, Threads, Goroutines int
	// Resident is its memory, in bytes.
	Resident int
}

// Usage returns what the agent has now. stateDir is that of the CNI plugin, where it has its
// profiles.
func (g *Agent) Usage(ctx context.Context, stateDir string) (u Usage, err error) {
	proc := fmt.Sprintf("/proc/%d/", g.PID())
	fds, err := os.ReadDir(proc + "fd")
	tasks, terr := os.ReadDir(proc + "task")
	status, serr := os.ReadFile(proc + "status")
	if err = errors.Join(err, terr, serr); err != nil {
		return u, fmt.Errorf("look at agent: %w", err)
	}
	u.Descriptors, u.Threads = len(fds), len(tasks)
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	if _, err := fmt.Sscan(rest, &u.Resident); err != nil {
		return u, fmt.Errorf("look at agent: %w", err)
	}
	u.Resident <<= 10
	u.Goroutines, err = goroutines(ctx, filepath.Join(stateDir, "debug.sock"))
	return u, err
}

// goroutines asks a process how many goroutines it has, by its socket for debugging.
func goroutines(ctx context.Context, socket string) (n int, err error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	const page = "http://braid/debug/pprof/goroutine?debug=1"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return 0, err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, fmt.Errorf("count goroutines: %w", err)
	}
	found := regexp.MustCompile(`^goroutine profile: total (\d+)`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("count goroutines: %.100s", text)
	}
	return strconv.Atoi(string(found[1]))
}
