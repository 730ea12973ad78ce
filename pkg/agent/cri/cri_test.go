package cri_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/braid-cni/braid/pkg/agent/cri"
	"github.com/braid-cni/braid/pkg/agent/cri/critest"
	"github.com/braid-cni/braid/pkg/nodeid"
)

const own = "uid-agent"

// sockets returns a directory for sockets, whose paths may be no longer than 107 bytes.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cri") //nolint:usetesting // a socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary directory
	return dir
}

func TestSandboxes(t *testing.T) {
	t.Parallel()
	dir := sockets(t)
	other := critest.Listen(t, filepath.Join(dir, "other"))
	other.Run("x", "uid-x")
	node := critest.Listen(t, filepath.Join(dir, "node"))
	runtime := &cri.Runtime{
		Sockets: []string{
			filepath.Join(dir, "none"), filepath.Join(dir, "other"), filepath.Join(dir, "node"),
		}, Pod: own,
	}
	fails := func(words ...string) {
		t.Helper()
		list, err := runtime.Sandboxes(t.Context())
		if err == nil {
			t.Fatalf("it succeeded: %+v", list)
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error does not say %q: %v", word, err)
			}
		}
	}
	fails("none: ", "the list of 1 has not the agent's own", "the list of 0 has not")
	node.Run("a", own)
	node.Run("p", "uid-p")
	node.Stop("p")
	list, err := runtime.Sandboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list.IDs) != 2 || !list.IDs["a"] || !list.IDs["p"] ||
		list.Runtime != nodeid.Program(os.Getpid()) {
		t.Errorf("got %+v", list)
	}
	node.Fail(status.Error(codes.Unimplemented, "no CRI here"))
	fails("no CRI here")
	node.Fail(nil)
	node.Stop("a") // as another list than that of now has it
	fails("the list of 2 has not the agent's own")
	runtime.Pod = ""
	fails("the list of 2 has not the agent's own")
	runtime.Sockets = nil
	fails("no socket of a runtime is known")
}

// A socket that accepts and does not speak gRPC is an error once the caller's time is up.
func TestSandboxesOfNoRuntime(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(sockets(t), "s")
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			conn.Close() //nolint:errcheck // likewise
		}
	}()
	if list, err := (&cri.Runtime{Sockets: []string{socket}, Pod: own}).
		Sandboxes(t.Context()); err == nil {
		t.Errorf("it succeeded: %+v", list)
	}
	listener.Close() //nolint:errcheck // a test
	<-ended
}
