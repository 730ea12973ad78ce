package kubelet_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
)

// fakeKubelet is the kubelet's service, behind a real gRPC server.
type fakeKubelet struct {
	podresourcesv1.UnimplementedPodResourcesListerServer

	pods    []*podresourcesv1.PodResources
	getErr  func(call int32) error // nil: Get works
	listErr error

	allocatable    []*podresourcesv1.ContainerDevices
	allocatableErr error
	busy           atomic.Int32 // so many times it is asked too often

	gets  atomic.Int32
	lists atomic.Int32
}

func (f *fakeKubelet) Get(
	_ context.Context, req *podresourcesv1.GetPodResourcesRequest,
) (*podresourcesv1.GetPodResourcesResponse, error) {
	if n := f.gets.Add(1); f.getErr != nil {
		if err := f.getErr(n); err != nil {
			return nil, err
		}
	}
	for _, p := range f.pods {
		if p.Name == req.PodName && p.Namespace == req.PodNamespace {
			return &podresourcesv1.GetPodResourcesResponse{PodResources: p}, nil
		}
	}
	return nil, errors.New("pod not found") // as the kubelet does it: without a code
}

func (f *fakeKubelet) GetAllocatableResources(
	context.Context, *podresourcesv1.AllocatableResourcesRequest,
) (*podresourcesv1.AllocatableResourcesResponse, error) {
	if f.busy.Add(-1) >= 0 {
		return nil, status.Error(codes.ResourceExhausted, "rate limit")
	}
	return &podresourcesv1.AllocatableResourcesResponse{
		Devices: f.allocatable, CpuIds: []int64{1},
	}, f.allocatableErr
}

func (f *fakeKubelet) List(
	context.Context, *podresourcesv1.ListPodResourcesRequest,
) (*podresourcesv1.ListPodResourcesResponse, error) {
	f.lists.Add(1)
	return &podresourcesv1.ListPodResourcesResponse{PodResources: f.pods}, f.listErr
}

func startKubelet(t *testing.T, f *fakeKubelet) *kubelet.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	podresourcesv1.RegisterPodResourcesListerServer(server, f)
	go server.Serve(listener) //nolint:errcheck // ends with Stop
	t.Cleanup(server.Stop)
	return kubelet.New(socket)
}

func devicesOf(resource string, numa int64, ids ...string) *podresourcesv1.ContainerDevices {
	return &podresourcesv1.ContainerDevices{
		ResourceName: resource, DeviceIds: ids,
		Topology: &podresourcesv1.TopologyInfo{Nodes: []*podresourcesv1.NUMANode{{ID: numa}}},
	}
}

// somePods have every field that the API has. Braid passes over most of them.
func somePods() []*podresourcesv1.PodResources {
	return []*podresourcesv1.PodResources{
		{Name: "other", Namespace: "ns", Containers: []*podresourcesv1.ContainerResources{
			{Name: "c", Devices: []*podresourcesv1.ContainerDevices{devicesOf("v/a", 0, "wrong")}},
		}},
		{Name: "p", Namespace: "elsewhere", Containers: []*podresourcesv1.ContainerResources{
			{Name: "c", Devices: []*podresourcesv1.ContainerDevices{devicesOf("v/a", 0, "wrong")}},
		}},
		{
			Name: "p", Namespace: "ns", CpuIds: []int64{1, 2},
			Memory: []*podresourcesv1.ContainerMemory{{MemoryType: "memory", Size: 1 << 40}},
			Containers: []*podresourcesv1.ContainerResources{
				{
					Name: "c1", CpuIds: []int64{1, -2, 3},
					Memory: []*podresourcesv1.ContainerMemory{{MemoryType: "hugepages", Size: 5}},
					Devices: []*podresourcesv1.ContainerDevices{
						devicesOf("v/a", 1, "0000:03:02.7", "0000:03:02.1"), devicesOf("v/b", 0, "b1"),
						devicesOf("v/none", 0),
					},
					DynamicResources: []*podresourcesv1.DynamicResource{
						{ClaimName: "x", ClaimResources: []*podresourcesv1.ClaimResource{
							{DriverName: "d", ShareId: proto.String("s")},
						}},
					},
				},
				{Name: "c2", Devices: []*podresourcesv1.ContainerDevices{
					devicesOf("v/a", 0, "0000:03:02.5", "0000:03:02.1"),
				}},
			},
		},
		{Name: "bare", Namespace: "ns"},
	}
}

func TestKubeletDevices(t *testing.T) {
	want := map[string][]string{"v/a": {"0000:03:02.1", "0000:03:02.5", "0000:03:02.7"}, "v/b": {"b1"}}
	for name, test := range map[string]struct {
		getErr func(int32) error
		lists  int32
	}{
		"Get": {nil, 0},
		"Get switched off": {func(int32) error {
			return errors.New("PodResources API Get method disabled")
		}, 1},
		"Get unknown": {func(int32) error {
			return status.Error(codes.Unimplemented, "unknown method Get")
		}, 1},
		"kubelet asked too often": {func(n int32) error {
			return onlyFirst(n, codes.ResourceExhausted)
		}, 0},
		"kubelet not ready at once": {func(n int32) error { return onlyFirst(n, codes.Unavailable) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeKubelet{pods: somePods(), getErr: test.getErr}
			k := startKubelet(t, f)
			got, err := k.Devices(t.Context(), "ns", "p")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("devices (-want +got):\n%s", diff)
			}
			if n := f.lists.Load(); n != test.lists {
				t.Errorf("%d calls of List, want %d", n, test.lists)
			}
			if got, err = k.Devices(t.Context(), "ns", "bare"); err != nil || got == nil || len(got) > 0 {
				t.Errorf("a pod without devices has %v, %v", got, err)
			}
		})
	}
}

func onlyFirst(n int32, code codes.Code) error {
	if n == 1 {
		return status.Error(code, "later")
	}
	return nil
}

// The kubelet answers with as much as 16 MB; that is more than one HTTP/2 frame, and than one
// window.
func TestKubeletManyPods(t *testing.T) {
	pods := somePods()
	for range 20000 {
		pods = append(pods, pods[0])
	}
	pods[0], pods[len(pods)-1] = pods[len(pods)-1], pods[2]
	f := &fakeKubelet{pods: pods, getErr: func(int32) error {
		return status.Error(codes.Unimplemented, "")
	}}
	got, err := startKubelet(t, f).Devices(t.Context(), "ns", "p")
	if err != nil || len(got["v/a"]) != 3 {
		t.Errorf("got %v, %v", got, err)
	}
}

// The node has devices of a resource unless its kubelet says otherwise.
func TestR4DevicesOfTheNode(t *testing.T) {
	all := []*podresourcesv1.ContainerDevices{
		devicesOf("v/a", 0, "a1"), devicesOf("v/none", 0), devicesOf("v/a", 1, "a2"),
	}
	busy := &fakeKubelet{allocatable: all}
	busy.busy.Store(2)
	k := startKubelet(t, busy)
	silent := startKubelet(t,
		&fakeKubelet{allocatable: all, allocatableErr: status.Error(codes.Unimplemented, "")})
	for resource, want := range map[string]bool{"v/a": true, "v/none": false, "v/b": false} {
		if got := k.Has(t.Context(), resource); got != want {
			t.Errorf("%s: %v, want %v", resource, got, want)
		}
		if !silent.Has(t.Context(), resource) {
			t.Errorf("%s: the node has none, though nobody says so", resource)
		}
	}
	if !kubelet.New("/none").Has(t.Context(), "v/b") {
		t.Error("the node has none, though there is no kubelet that says so")
	}
}

func TestKubeletFailures(t *testing.T) {
	denied := status.Error(codes.PermissionDenied, "not you: 100% sure\n")
	for name, test := range map[string]struct {
		kubelet *fakeKubelet
		want    string
	}{
		"no such pod": {&fakeKubelet{pods: somePods()}, "knows no such pod"},
		"Get denied": {&fakeKubelet{getErr: func(int32) error {
			return denied
		}}, "not you: 100% sure"},
		"neither works": {&fakeKubelet{listErr: denied}, "not you: 100% sure"},
		"never calms down": {&fakeKubelet{getErr: func(int32) error {
			return status.Error(codes.ResourceExhausted, "rate limit")
		}}, "rate limit"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := startKubelet(t, test.kubelet).Devices(t.Context(), "ns", "absent")
			if failure.ReasonOf(err) != failure.DeviceUnavailable ||
				!strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "ns/absent") {
				t.Errorf("got error %v of class %q, want one that says %q",
					err, failure.ReasonOf(err), test.want)
			}
		})
	}
}

func TestKubeletSilent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "kubelet.sock")
	listener, err := net.Listen("unix", socket) // accepts, in the kernel, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // a test's listener
	for name, path := range map[string]string{"silent": socket, "missing": socket + "x"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := kubelet.New(path).Devices(ctx, "ns", "p")
			if failure.ReasonOf(err) != failure.DeviceUnavailable || !strings.Contains(err.Error(), path) ||
				time.Since(start) > 20*time.Second {
				t.Errorf("got error %v of class %q after %v", err, failure.ReasonOf(err), time.Since(start))
			}
		})
	}
}
