// Package cri asks the node's container runtime for its sandboxes.
//
// Contract: what is returned is the whole answer of one runtime that runs this very agent: a list
// without the agent's own sandbox is that of another runtime, or wrong, and an error. Nothing stays
// open after a call.
package cri

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/braid-cni/braid/pkg/nodeid"
)

const (
	// podUID is the label by which the kubelet tells sandboxes of pods.
	podUID = "io.kubernetes.pod.uid"
	// maxMessage bounds an answer, in bytes, as the kubelet does.
	maxMessage = 16 << 20
)

// List are the sandboxes that a runtime knows, in whatever state.
type List struct {
	// Runtime is the name of the program that answered, as containerd.
	Runtime string
	// IDs are the container IDs of the sandboxes.
	IDs map[string]bool
}

// Runtime is the runtime that runs the agent.
type Runtime struct {
	// Sockets are where runtimes may listen.
	Sockets []string
	// Pod is the uid of the agent's own pod.
	Pod string
}

// Sandboxes returns the list of the first runtime that has the agent's own sandbox. The error joins
// those of all sockets.
func (r *Runtime) Sandboxes(ctx context.Context) (*List, error) {
	var all error
	for _, socket := range r.Sockets {
		list, err := r.ask(ctx, socket)
		if err == nil {
			return list, nil
		}
		all = errors.Join(all, fmt.Errorf("list sandboxes of %s: %w", socket, err))
	}
	if all == nil {
		all = errors.New("list sandboxes: no socket of a runtime is known")
	}
	return nil, all
}

// ask lists the sandboxes of the runtime at a socket, which has to be the one of this node.
func (r *Runtime) ask(ctx context.Context, socket string) (list *List, err error) {
	peer := make(chan string, 1)
	conn, err := connect(socket, peer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	answer, err := runtimev1.NewRuntimeServiceClient(conn).
		ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	list = &List{Runtime: <-peer, IDs: map[string]bool{}}
	own := false
	for _, s := range answer.GetItems() {
		list.IDs[s.GetId()] = true
		own = own || r.isOwn(s)
	}
	switch {
	case !own:
		return nil, fmt.Errorf("the list of %d has not the agent's own sandbox, so it is not that of "+
			"this node", len(list.IDs))
	case list.Runtime == "":
		return nil, errors.New("it is not known which program listens")
	}
	return list, nil
}

// isOwn reports whether a sandbox is the agent's own.
func (r *Runtime) isOwn(s *runtimev1.PodSandbox) bool {
	return r.Pod != "" && s.GetLabels()[podUID] == r.Pod &&
		s.GetState() == runtimev1.PodSandboxState_SANDBOX_READY
}

// connect returns a client of a socket. The program that listens there is sent to peer, when the
// first call has connected.
func connect(socket string, peer chan<- string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
			if err == nil {
				select {
				case peer <- listener(conn):
				default: // another try is answered by the same
				}
			}
			return conn, err
		}))
}

// listener returns the name of the program that listens at the other end; empty if it is not known.
func listener(conn net.Conn) (name string) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return ""
	}
	err = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil &&
			peer.Pid > 0 {
			name = nodeid.Program(int(peer.Pid))
		}
	})
	if err != nil {
		return ""
	}
	return name
}
