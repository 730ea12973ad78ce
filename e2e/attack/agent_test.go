package attack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// oneAgent is held by who has an agent: there is one socket.
var oneAgent sync.Mutex

// asksAgent has a local user without rights ask the agent, as the runtime does, for a pod whose
// network is a program. It returns the user that the program ran as; empty if it did not.
func (n *node) asksAgent() string {
	n.Helper()
	oneAgent.Lock()
	defer oneAgent.Unlock()
	dir, err := os.MkdirTemp("/run", "attack-") // no user enters the directories of tests
	n.must(err)
	n.must(os.Chmod(dir, 0o755)) //nolint:gosec // as /run is
	n.Cleanup(func() { os.RemoveAll(dir) })
	n.must(os.MkdirAll("/run/braid", 0o755)) //nolint:gosec // what is in it holds by itself
	n.must(os.RemoveAll("/run/braid/agent"))
	agent, err := cluster.Get(n).StartAgent(n.Context(), n.bin, dir, "node-1", n.environ()...)
	n.must(err)
	defer func() { n.must(agent.Stop()) }()

	p := n.pod("team/p", "")
	sandbox := filepath.Join(dir, "netns")
	n.write(sandbox, "")
	n.must(unix.Mount(p.Path, sandbox, "", unix.MS_BIND, ""))
	n.Cleanup(func() { n.must(unix.Unmount(sandbox, unix.MNT_DETACH)) })
	n.plugin("tool", "id -u >"+n.path("ran"))
	n.conf["delegates"] = []any{json.RawMessage(`{"cniVersion":"1.0.0","name":"evil","type":"tool"}`)}
	cmd := exec.CommandContext(n.Context(), agent.Client)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir, cmd.Stdin = "/", bytes.NewReader(n.config())
	cmd.Env = append(n.cni("ADD", p), "CNI_NETNS="+sandbox)
	out, err := cmd.CombinedOutput()
	n.Logf("nobody asks: %v %s", err, out)
	ran, err := os.ReadFile(n.path("ran"))
	if !errors.Is(err, fs.ErrNotExist) {
		n.must(err)
	}
	return strings.TrimSpace(string(ran))
}
