package kubelet

import (
	"testing"

	"google.golang.org/protobuf/proto"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// The hand-written decoder reads what the generated types write, whatever is in it.
func FuzzPodResources(f *testing.F) {
	seed, err := proto.Marshal(
		&podresourcesv1.ListPodResourcesResponse{PodResources: []*podresourcesv1.PodResources{
			{Name: "p", Namespace: "ns", Containers: []*podresourcesv1.ContainerResources{
				{Name: "c", Devices: []*podresourcesv1.ContainerDevices{
					{ResourceName: "v/a", DeviceIds: []string{"1", "2"}},
				}},
			}},
		}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, message []byte) {
		got, err := decodeListResponse(message)
		var want podresourcesv1.ListPodResourcesResponse
		if proto.Unmarshal(message, &want) != nil {
			return // whatever we read of it: no panic
		}
		if err != nil || len(got) != len(want.PodResources) {
			t.Fatalf("got %d pods, %v, want %d", len(got), err, len(want.PodResources))
		}
		for i, p := range want.PodResources {
			if got[i].name != p.Name || got[i].namespace != p.Namespace {
				t.Errorf("pod %d is %s/%s, want %s/%s", i, got[i].namespace, got[i].name, p.Namespace, p.Name)
			}
		}
	})
}
