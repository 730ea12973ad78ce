// Package critest is the socket of a container runtime, for tests: it lists the sandboxes that it
// is told of.
package critest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Server is a runtime. It is safe for concurrent use.
type Server struct {
	runtimev1.UnimplementedRuntimeServiceServer

	mu        sync.Mutex
	sandboxes map[string]*runtimev1.PodSandbox
	err       error
	asked     int
}

// Listen serves at the path of a socket until the test ends.
func Listen(t testing.TB, socket string) *Server {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{sandboxes: map[string]*runtimev1.PodSandbox{}}
	server := grpc.NewServer()
	runtimev1.RegisterRuntimeServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	return s
}

// Run adds a sandbox of the pod of that uid.
func (s *Server) Run(id, podUID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandboxes[id] = &runtimev1.PodSandbox{
		Id: id, Labels: map[string]string{"io.kubernetes.pod.uid": podUID},
	}
}

// Stop has a sandbox not be ready any more, as between a stop and the removal.
func (s *Server) Stop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandboxes[id].State = runtimev1.PodSandboxState_SANDBOX_NOTREADY
}

// Forget forgets a sandbox.
func (s *Server) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sandboxes, id)
}

// Fail has all calls fail from now on; nil takes it back.
func (s *Server) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Asked returns the number of calls so far.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// ListPodSandbox implements the CRI.
func (s *Server) ListPodSandbox(
	context.Context, *runtimev1.ListPodSandboxRequest,
) (*runtimev1.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.err != nil {
		return nil, s.err
	}
	answer := &runtimev1.ListPodSandboxResponse{}
	for _, sandbox := range s.sandboxes {
		answer.Items = append(answer.Items,
			&runtimev1.PodSandbox{Id: sandbox.Id, Labels: sandbox.Labels, State: sandbox.State})
	}
	return answer, nil
}
