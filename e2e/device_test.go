package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	drapb "k8s.io/kubelet/pkg/apis/dra/v1"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const nic corev1.ResourceName = "example.com/nic"

// Two networks that use the same resource get a device each, those that the kubelet allocated to
// the pod; a pod that did not ask for the resource does not start.
func TestM13Devices(t *testing.T) {
	w := newWorkspace(t)
	w.serveDevices(nic, "nic-a", "nic-b")
	config := `{"cniVersion": "1.0.0", "type": "dump", "capabilities": {"deviceID": true}}`
	w.nad("left", config, nadv1.ResourceNameAnnotation, string(nic))
	w.nad("right", config, nadv1.ResourceNameAnnotation, string(nic))

	two := w.pod("two", "left,right")
	two.Spec.Containers[0].Resources.Limits = corev1.ResourceList{nic: resource.MustParse("2")}
	w.run(two)
	var devices []string
	for _, network := range []string{"net1", "net2"} {
		given := w.dumped(network)
		if given.DeviceID == "" || given.DeviceID != given.PCIBusID ||
			given.DeviceID != given.RuntimeConfig.DeviceID {
			t.Errorf("%s was given device %+v, want the same ID in all three places", network, given)
		}
		devices = append(devices, given.DeviceID)
	}
	slices.Sort(devices)
	if want := []string{"nic-a", "nic-b"}; !slices.Equal(devices, want) {
		t.Errorf("the networks were given devices %q, want %q, each once", devices, want)
	}

	w.create(w.pod("none", "left"))
	message := w.refused("none", "DeviceUnavailable")
	for _, word := range []string{
		w.namespace + "/left", string(nic), "the kubelet allocated 0", "resources.limits",
	} {
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

// dumped is what the plugin dump was given for an interface of the only pod that has one of that
// name.
func (w *workspace) dumped(ifname string) deviceConfig {
	w.t.Helper()
	files, err := filepath.Glob(w.node.Path(dumpDir) + "/*-" + ifname)
	w.must(err)
	if len(files) != 1 {
		w.t.Fatalf("files of the plugin dump for %s: %q, want one", ifname, files)
	}
	data, err := os.ReadFile(files[0])
	w.must(err)
	var given deviceConfig
	w.must(json.Unmarshal(data, &given))
	return given
}

// serveDevices is a device plugin, registered with the node's kubelet, until the test ends. It
// waits until the node offers the devices.
func (w *workspace) serveDevices(name corev1.ResourceName, ids ...string) {
	w.t.Helper()
	socket := strings.ReplaceAll(string(name), "/", "_") + ".sock"
	listener, err := net.Listen("unix", w.node.Path(pluginapi.DevicePluginPath+socket))
	w.must(err)
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, &devicePlugin{ids: ids})
	go server.Serve(listener)
	w.t.Cleanup(server.Stop)

	kubelet, err := grpc.NewClient("unix:"+w.node.Path(pluginapi.KubeletSocket),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	w.must(err)
	defer kubelet.Close()
	_, err = pluginapi.NewRegistrationClient(kubelet).Register(w.ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: socket, ResourceName: string(name),
	})
	w.must(err)
	w.eventually("the node offers "+string(name), func() error {
		node, err := w.cluster.Client().CoreV1().Nodes().Get(w.ctx, w.node.Name, metav1.GetOptions{})
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

func (p *devicePlugin) GetDevicePluginOptions(
	context.Context, *pluginapi.Empty,
) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

func (p *devicePlugin) ListAndWatch(
	_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer,
) error {
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

func (p *devicePlugin) Allocate(
	_ context.Context, request *pluginapi.AllocateRequest,
) (*pluginapi.AllocateResponse, error) {
	answer := &pluginapi.AllocateResponse{}
	for range request.ContainerRequests {
		answer.ContainerResponses = append(answer.ContainerResponses,
			&pluginapi.ContainerAllocateResponse{})
	}
	return answer, nil
}

// claimedNIC is a resource whose devices a driver of dynamic resource allocation has.
const claimedNIC corev1.ResourceName = "example.com/claimed-nic"

// A pod with a claim on one device, and a request for another that the scheduler turns into a
// claim: both reach its networks. A pod that has neither does not start, as the plugin of its
// network takes a device.
func TestR5DevicesOfClaims(t *testing.T) {
	w := newWorkspace(t)
	w.serveClaims("nic.example.com", claimedNIC, "nic-a", "nic-b")
	config := `{"cniVersion": "1.0.0", "type": "dump", "capabilities": {"deviceID": true}}`
	w.nad("left", config, nadv1.ResourceNameAnnotation, string(claimedNIC))
	w.nad("right", config, nadv1.ResourceNameAnnotation, string(claimedNIC))
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Name: "one"}}
	template.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{
		{Name: "nic", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "nic.example.com"}},
	}
	_, err := w.cluster.Client().ResourceV1().ResourceClaimTemplates(w.namespace).
		Create(w.ctx, template, metav1.CreateOptions{})
	w.must(err)

	two := w.pod("two", "left,right")
	two.Spec.ResourceClaims = []corev1.PodResourceClaim{
		{Name: "nic", ResourceClaimTemplateName: &template.Name},
	}
	two.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "nic"}}
	two.Spec.Containers[0].Resources.Limits = corev1.ResourceList{claimedNIC: resource.MustParse("1")}
	made := w.requests(func() { w.run(two) })
	want := map[string]int{
		"get network-attachment-definitions": 2, "get pods": 1, "get resourceclaims": 2,
		"list resourceslices": 1, "patch pods/status": 1,
		"get namespaces": 1, "create events": 4, // of the policy's audit
	}
	if !maps.Equal(made, want) {
		t.Errorf("ADD made requests %v, want %v", made, want)
	}
	devices := []string{w.dumped("net1").DeviceID, w.dumped("net2").DeviceID}
	if want := []string{"nic-a", "nic-b"}; !slices.Equal(devices, want) {
		t.Errorf("the networks were given devices %q, want %q", devices, want)
	}
	w.create(w.pod("none", "left"))
	w.refused("none", "DeviceUnavailable")
}

// serveClaims is a driver of dynamic resource allocation, registered with the node's kubelet, until
// the test ends. It has a device for each ID, and a class by its name through which they can be
// claimed and, as an extended resource, requested.
func (w *workspace) serveClaims(driver string, name corev1.ResourceName, ids ...string) {
	w.t.Helper()
	d := &claimDriver{name: driver, registered: make(chan struct{})}
	d.serve(w, "/var/lib/kubelet/plugins/"+driver+".sock", func(s *grpc.Server) {
		drapb.RegisterDRAPluginServer(s, d)
	})
	d.serve(w, "/var/lib/kubelet/plugins_registry/"+driver+".sock", func(s *grpc.Server) {
		registerapi.RegisterRegistrationServer(s, d)
	})
	select {
	case <-d.registered:
	case <-w.ctx.Done():
		w.t.Fatal("the kubelet does not register the driver")
	}
	text := func(s string) resourcev1.DeviceAttribute {
		return resourcev1.DeviceAttribute{StringValue: &s}
	}
	slice := &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: driver},
		Spec: resourcev1.ResourceSliceSpec{
			Driver: driver, NodeName: &w.node.Name,
			Pool: resourcev1.ResourcePool{Name: w.node.Name, ResourceSliceCount: 1},
		},
	}
	for i, id := range ids {
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{
			Name: fmt.Sprint("device-", i),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{
				"k8s.cni.cncf.io/resourceName": text(string(name)),
				"k8s.cni.cncf.io/deviceID":     text(id),
			},
		})
	}
	extended := string(name)
	class := &resourcev1.DeviceClass{
		ObjectMeta: metav1.ObjectMeta{Name: driver},
		Spec: resourcev1.DeviceClassSpec{
			ExtendedResourceName: &extended,
			Selectors: []resourcev1.DeviceSelector{
				{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "` + driver + `"`}},
			},
		},
	}
	dra := w.cluster.Client().ResourceV1()
	_, err := dra.ResourceSlices().Create(w.ctx, slice, metav1.CreateOptions{})
	w.must(err)
	_, err = dra.DeviceClasses().Create(w.ctx, class, metav1.CreateOptions{})
	w.must(err)
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// The kubelet takes down no pod with claims after its driver is gone.
		err := errors.Join(deletePods(ctx, w.cluster, w.namespace),
			dra.ResourceSlices().Delete(ctx, driver, metav1.DeleteOptions{}),
			dra.DeviceClasses().Delete(ctx, driver, metav1.DeleteOptions{}))
		if err != nil {
			w.t.Error(err)
		}
	})
}

// claimDriver prepares claims by doing nothing: its devices are nothing but an ID.
type claimDriver struct {
	drapb.UnimplementedDRAPluginServer
	registerapi.UnimplementedRegistrationServer

	name       string
	once       sync.Once
	registered chan struct{}
}

// serve starts a gRPC server at a path of the node.
func (d *claimDriver) serve(w *workspace, path string, register func(*grpc.Server)) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.node.Path(path)), 0o750))
	listener, err := net.Listen("unix", w.node.Path(path))
	w.must(err)
	server := grpc.NewServer()
	register(server)
	go server.Serve(listener)
	w.t.Cleanup(server.Stop)
}

func (d *claimDriver) GetInfo(
	context.Context, *registerapi.InfoRequest,
) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type: registerapi.DRAPlugin, Name: d.name,
		Endpoint:          "/var/lib/kubelet/plugins/" + d.name + ".sock",
		SupportedVersions: []string{drapb.DRAPluginService},
	}, nil
}

func (d *claimDriver) NotifyRegistrationStatus(
	context.Context, *registerapi.RegistrationStatus,
) (*registerapi.RegistrationStatusResponse, error) {
	d.once.Do(func() { close(d.registered) })
	return &registerapi.RegistrationStatusResponse{}, nil
}

func (d *claimDriver) NodePrepareResources(
	_ context.Context, request *drapb.NodePrepareResourcesRequest,
) (*drapb.NodePrepareResourcesResponse, error) {
	answer := &drapb.NodePrepareResourcesResponse{
		Claims: map[string]*drapb.NodePrepareResourceResponse{},
	}
	for _, claim := range request.Claims {
		answer.Claims[claim.Uid] = &drapb.NodePrepareResourceResponse{}
	}
	return answer, nil
}

func (d *claimDriver) NodeUnprepareResources(
	_ context.Context, request *drapb.NodeUnprepareResourcesRequest,
) (*drapb.NodeUnprepareResourcesResponse, error) {
	answer := &drapb.NodeUnprepareResourcesResponse{
		Claims: map[string]*drapb.NodeUnprepareResourceResponse{},
	}
	for _, claim := range request.Claims {
		answer.Claims[claim.Uid] = &drapb.NodeUnprepareResourceResponse{}
	}
	return answer, nil
}
