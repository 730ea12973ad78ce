package kubelet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/braid-cni/braid/e2e/lab"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	wirev1 "github.com/braid-cni/braid/pkg/api/resource/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
	"github.com/braid-cni/braid/pkg/kube/manifests"
)

// The devices of the tests: a driver's two NICs for networks on node-1 and one on node-2, one NIC
// that all nodes reach, and what is not for networks.
func draSlices() []resourcev1.ResourceSlice {
	device := func(name string, attributes ...string) resourcev1.Device {
		d := resourcev1.Device{
			Name: name, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{
				"numa": {IntValue: new(int64)},
			},
		}
		for i := 0; i < len(attributes); i += 2 {
			d.Attributes[resourcev1.QualifiedName(attributes[i])] = resourcev1.DeviceAttribute{
				StringValue: &attributes[i+1],
			}
		}
		return d
	}
	slice := func(name, driver, node, pool string, generation int64,
		devices ...resourcev1.Device,
	) resourcev1.ResourceSlice {
		s := resourcev1.ResourceSlice{
			TypeMeta:   metav1.TypeMeta{APIVersion: "resource.k8s.io/v1", Kind: "ResourceSlice"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: resourcev1.ResourceSliceSpec{
				Driver: driver, Pool: resourcev1.ResourcePool{
					Name: pool, Generation: generation, ResourceSliceCount: 1,
				}, Devices: devices,
			},
		}
		if node == "" {
			s.Spec.AllNodes = new(true)
		} else {
			s.Spec.NodeName = &node
		}
		return s
	}
	return []resourcev1.ResourceSlice{
		slice("old", "nic.example.com", "node-1", "p", 1,
			device("vf0", wirev1.AttributeResource, "v/nic", wirev1.AttributeID, "stale")),
		slice("new", "nic.example.com", "node-1", "p", 2,
			device("vf0", wirev1.AttributeResource, "v/nic", wirev1.AttributeID, "0000:05:00.2"),
			device("vf1", wirev1.AttributeResource, "v/nic", wirev1.AttributeID, "0000:05:00.1")),
		slice("elsewhere", "nic.example.com", "node-2", "p2", 2,
			device("vf0", wirev1.AttributeResource, "v/nic", wirev1.AttributeID, "wrong")),
		slice("shared", "nic.example.com", "", "fabric", 1,
			device("port", wirev1.AttributeResource, "v/fabric", wirev1.AttributeID, "port-7")),
		slice("gpus", "gpu.example.com", "node-1", "g", 1, device("gpu0"),
			device("gpu1", wirev1.AttributeResource, "v/nic"), device("gpu2", wirev1.AttributeID, "x")),
	}
}

// draClaim is a claim that was allocated these devices: "driver/pool/device".
func draClaim(name string, devices ...string) resourcev1.ResourceClaim {
	c := resourcev1.ResourceClaim{
		TypeMeta:   metav1.TypeMeta{APIVersion: "resource.k8s.io/v1", Kind: "ResourceClaim"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "dra"},
	}
	if len(devices) == 0 {
		c.Spec.Devices.Requests = []resourcev1.DeviceRequest{
			{Name: "r0", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "class"}},
		}
		return c
	}
	c.Status.Allocation = &resourcev1.AllocationResult{}
	for i, text := range devices {
		part := strings.Split(text, "/")
		request := fmt.Sprint("r", i)
		c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, resourcev1.DeviceRequest{
			Name: request, Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "class"},
		})
		c.Status.Allocation.Devices.Results = append(c.Status.Allocation.Devices.Results,
			resourcev1.DeviceRequestAllocationResult{
				Request: request, Driver: part[0], Pool: part[1], Device: part[2],
			})
	}
	return c
}

// draClaims are the claims of the pod dra/p, by what they are.
func draClaims() []resourcev1.ResourceClaim {
	return []resourcev1.ResourceClaim{
		draClaim("generated", "nic.example.com/p/vf0", "gpu.example.com/g/gpu0", "nic.example.com/p/vf1"),
		draClaim("named", "nic.example.com/fabric/port"),
		draClaim("extended", "gpu.example.com/g/gpu1", "gpu.example.com/g/gpu2",
			"nic.example.com/p/unknown", "other.example.com/p/x"),
		draClaim("pending"),
		draClaim("not-of-the-pod", "nic.example.com/p2/vf0"),
	}
}

// draPod is a pod with claims of each kind: made from a template, named, made for an extended
// resource, gone, not allocated.
func draPod() *corev1.Pod {
	claimed := func(name, claim, template string) corev1.PodResourceClaim {
		c := corev1.PodResourceClaim{Name: name}
		if claim != "" {
			c.ResourceClaimName = &claim
		} else {
			c.ResourceClaimTemplateName = &template
		}
		return c
	}
	one := corev1.ResourceList{"v/nic": resource.MustParse("1")}
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "dra"},
		Spec: corev1.PodSpec{
			NodeName: "node-1",
			Containers: []corev1.Container{
				{Name: "c", Image: "none", Resources: corev1.ResourceRequirements{Limits: one, Requests: one}},
			},
			ResourceClaims: []corev1.PodResourceClaim{
				claimed("a", "", "template"), claimed("b", "named", ""), claimed("c", "gone", ""),
				claimed("d", "pending", ""), claimed("e", "", "none"),
			},
		},
		Status: corev1.PodStatus{
			ResourceClaimStatuses: []corev1.PodResourceClaimStatus{
				{Name: "a", ResourceClaimName: new("generated")}, {Name: "e"},
			},
			ExtendedResourceClaimStatus: &corev1.PodExtendedResourceClaimStatus{
				ResourceClaimName: "extended",
				RequestMappings: []corev1.ContainerExtendedResourceRequest{
					{ContainerName: "c", ResourceName: "v/nic", RequestName: "r0"},
				},
			},
		},
	}
}

// wantClaims are the names of draPod's claims, wantDevices what they come to.
func wantClaims() []string { return []string{"extended", "generated", "gone", "named", "pending"} }

func wantDevices() map[string][]string {
	return map[string][]string{"v/nic": {"0000:05:00.1", "0000:05:00.2"}, "v/fabric": {"port-7"}}
}

// draSource is where the pods and claims are.
type draSource interface {
	kubelet.Allocations
	Pod(ctx context.Context, namespace, name string) (*podv1.Pod, error)
}

func testR5(t *testing.T, src draSource) {
	t.Helper()
	pod, err := src.Pod(t.Context(), "dra", "p")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"v/nic"}, pod.Requested); diff != "" {
		t.Errorf("requested (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantClaims(), pod.Claims); diff != "" || pod.NodeName != "node-1" {
		t.Errorf("pod of node %s has claims (-want +got):\n%s", pod.NodeName, diff)
	}
	absent := kubelet.New(filepath.Join(t.TempDir(), "absent.sock"))
	got, err := kubelet.NewDevices(absent, src).Devices(t.Context(), pod)
	if !errors.Is(err, fs.ErrNotExist) || failure.ReasonOf(err) != failure.DeviceUnavailable {
		t.Errorf("without a kubelet: error %v of class %q", err, failure.ReasonOf(err))
	}
	if diff := cmp.Diff(wantDevices(), got); diff != "" {
		t.Errorf("devices without a kubelet (-want +got):\n%s", diff)
	}
	answering := startKubelet(t,
		&fakeKubelet{pods: []*podresourcesv1.PodResources{{
			Name: "p", Namespace: "dra",
			Containers: []*podresourcesv1.ContainerResources{
				{Name: "c", Devices: []*podresourcesv1.ContainerDevices{
					devicesOf("v/nic", 0, "0000:04:00.1", "0000:05:00.2"), devicesOf("v/own", 0, "o"),
				}},
			},
		}}})
	want := wantDevices()
	want["v/nic"], want["v/own"] = []string{
		"0000:04:00.1", "0000:05:00.1", "0000:05:00.2",
	}, []string{"o"}
	if got, err = kubelet.NewDevices(answering, src).Devices(t.Context(), pod); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// R5, "dynamic resource allocation".
func TestR5DevicesOfClaims(t *testing.T) {
	server := cluster.Get(t)
	src := apiOf(t, server, account)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dra"}}
	_, err := server.Client().CoreV1().Namespaces().
		Create(t.Context(), namespace, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dra := server.Client().ResourceV1()
	for _, slice := range draSlices() {
		_, err := dra.ResourceSlices().Create(t.Context(), &slice, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, claim := range draClaims() {
		created, err := dra.ResourceClaims("dra").Create(t.Context(), &claim, metav1.CreateOptions{})
		if err == nil && claim.Status.Allocation != nil {
			created.Status = claim.Status
			_, err = dra.ResourceClaims("dra").UpdateStatus(t.Context(), created, metav1.UpdateOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	pods := server.Client().CoreV1().Pods("dra")
	pod := draPod()
	created, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	if err == nil {
		created.Status.ResourceClaimStatuses = pod.Status.ResourceClaimStatuses
		created.Status.ExtendedResourceClaimStatus = pod.Status.ExtendedResourceClaimStatus
		_, err = pods.UpdateStatus(t.Context(), created, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	testR5(t, src)

	requests, err := server.RequestsDuring(t.Context(), account, func() error {
		meta := metav1.ObjectMeta{Namespace: "dra", Name: "p"}
		_, err := kubelet.NewDevices(startKubelet(t,
			&fakeKubelet{pods: []*podresourcesv1.PodResources{{Name: "p", Namespace: "dra"}}}), src).
			Devices(t.Context(), &podv1.Pod{
				ObjectMeta: meta, NodeName: "node-1", Claims: []string{"generated"},
			})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var made []string
	for _, r := range requests {
		made = append(made, r.Verb+" "+r.Resource)
	}
	// One for each driver.
	diff := cmp.Diff([]string{
		"get resourceclaims", "list resourceslices", "list resourceslices",
	}, made)
	if diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// What cannot be read is no answer.
func TestR5ClaimsThatAreDenied(t *testing.T) {
	src := apiOf(t, cluster.Get(t), "nobody", "nothing")
	pod := &podv1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dra", Name: "p"}, Claims: []string{"generated"},
	}
	_, err := kubelet.NewDevices(kubelet.New("/none"), src).Devices(t.Context(), pod)
	if err == nil || !strings.Contains(err.Error(), "ResourceClaim generated") {
		t.Errorf("got error %v, want forbidden", err)
	}
}

func TestR5DevicesOfClaimsInManifests(t *testing.T) {
	objects := map[string]any{"pod": draPod()}
	for _, s := range draSlices() {
		if s.Name != "elsewhere" {
			objects["slice-"+s.Name] = s
		}
	}
	for _, c := range draClaims() {
		objects["claim-"+c.Name] = c
	}
	dir := t.TempDir()
	for name, object := range objects {
		data, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name+".json"), string(data))
	}
	src, err := manifests.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	testR5(t, src)

	writeFile(t, filepath.Join(dir, "claim-generated.json"),
		`{"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"name":"generated",`+
			`"namespace":"dra"},"status":{"allocation":[]}}`)
	_, err = src.Allocated(t.Context(), "dra", "generated")
	if failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// account is who Braid is on a node.
const account = "system:serviceaccount:kube-system:braid"

// apiOf is an API server that a user asks, where nodes have the rights of conf/rbac.
func apiOf(t *testing.T, server *lab.API, user string, groups ...string) *kube.API {
	t.Helper()
	for _, name := range []string{"node.yaml", "node-pods.yaml", "node-devices.yaml"} {
		roles, err := os.ReadFile(filepath.Join("../../../conf/rbac", name))
		if err == nil {
			err = server.Apply(t.Context(), string(roles))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := server.Kubeconfig(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	api, err := kube.NewAPI(kube.APIOptions{Kubeconfig: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	return api
}
