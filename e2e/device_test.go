package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const nic corev1.ResourceName = "example.com/nic"

// Two networks that use the same resource get a device each, those that the kubelet allocated to the pod; a pod that did not ask for
// the resource does not start.
func TestM13Devices(t *testing.T) {
	r := newRig(t)
	r.serveDevices(nic, "nic-a", "nic-b")
	config := `{"cniVersion": "1.0.0", "type": "dump", "capabilities": {"deviceID": true}}`
	r.nad("left", config, nadv1.ResourceNameAnnotation, string(nic))
	r.nad("right", config, nadv1.ResourceNameAnnotation, string(nic))

	two := r.pod("two", "left,right")
	two.Spec.Containers[0].Resources.Limits = corev1.ResourceList{nic: resource.MustParse("2")}
	r.run(two)
	var devices []string
	for _, network := range []string{"net1", "net2"} {
		given := r.dumped(network)
		if given.DeviceID == "" || given.DeviceID != given.PCIBusID || given.DeviceID != given.RuntimeConfig.DeviceID {
			t.Errorf("%s was given device %+v, want the same ID in all three places", network, given)
		}
		devices = append(devices, given.DeviceID)
	}
	slices.Sort(devices)
	if want := []string{"nic-a", "nic-b"}; !slices.Equal(devices, want) {
		t.Errorf("the networks were given devices %q, want %q, each once", devices, want)
	}

	r.create(r.pod("none", "left"))
	message := r.refused("none", "DeviceUnavailable")
	for _, word := range []string{r.namespace + "/left", string(nic), "the kubelet allocated 0", "resources.limits"} {
		if !strings.Contains(message, word) {
			t.Errorf("the event does not say %q: %s", word, message)
		}
	}
}

// deviceConfig is where delegates look for their device.
type deviceConfig struct {
	DeviceID      string                    `json:"deviceID"`
	PCIBusID      string                    `json:"pciBusID"`
	RuntimeConfig struct{ DeviceID string } `json:"runtimeConfig"`
}

// dumped is what the plugin dump was given for an interface of the only pod that has one of that name.
func (r *rig) dumped(ifname string) deviceConfig {
	r.t.Helper()
	files, err := filepath.Glob(r.node.Path(dumpDir) + "/*-" + ifname)
	r.must(err)
	if len(files) != 1 {
		r.t.Fatalf("files of the plugin dump for %s: %q, want one", ifname, files)
	}
	data, err := os.ReadFile(files[0])
	r.must(err)
	var given deviceConfig
	r.must(json.Unmarshal(data, &given))
	return given
}

// serveDevices is a device plugin, registered with the node's kubelet, until the test ends. It waits until the node offers the devices.
func (r *rig) serveDevices(name corev1.ResourceName, ids ...string) {
	r.t.Helper()
	socket := strings.ReplaceAll(string(name), "/", "_") + ".sock"
	listener, err := net.Listen("unix", r.node.Path(pluginapi.DevicePluginPath+socket))
	r.must(err)
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, &devicePlugin{ids: ids})
	go server.Serve(listener)
	r.t.Cleanup(server.Stop)

	kubelet, err := grpc.NewClient("unix:"+r.node.Path(pluginapi.KubeletSocket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	r.must(err)
	defer kubelet.Close()
	_, err = pluginapi.NewRegistrationClient(kubelet).Register(r.ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: socket, ResourceName: string(name),
	})
	r.must(err)
	r.eventually("the node offers "+string(name), func() error {
		node, err := r.cluster.Client().CoreV1().Nodes().Get(r.ctx, r.node.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if offered := node.Status.Allocatable[name]; offered.Value() != int64(len(ids)) {
			return errors.New("it offers " + offered.String())
		}
		return nil
	})
}

// devicePlugin offers devices that are nothing but an ID.
type devicePlugin struct {
	pluginapi.UnimplementedDevicePluginServer
	ids []string
}

func (p *devicePlugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (p *devicePlugin) ListAndWatch(_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer) error {
	var devices []*pluginapi.Device
	for _, id := range p.ids {
		devices = append(devices, &pluginapi.Device{ID: id, Health: pluginapi.Healthy})
	}
	if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: devices}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

func (p *devicePlugin) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	answer := &pluginapi.AllocateResponse{}
	for range request.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses, &pluginapi.ContainerAllocateResponse{})
	}
	return answer, nil
}
