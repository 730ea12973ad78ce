package main

import (
	"os"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const describe = `file=$(sed 's/.*"CNIDeviceInfoFile":"\([^"]*\)".*/\1/' "$stdin")
[ "$CNI_COMMAND" != ADD ] || echo '{"type":"memif","version":"1.1.0","memif":{"role":"master","path":"/run/m.sock","mode":"ethernet"}}' >"$file"`

// A plugin that declares the capability gets a file to describe its device in (D5), the status has
// what it wrote (D6), and DEL removes the file (D3).
func TestD5DeviceInfoFile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", describe)
	h.nad("a", `{"cniVersion":"1.0.0","type":"one","capabilities":{"CNIDeviceInfoFile":true}}`)
	p := h.pod("p", "a")
	h.add(p)
	info := h.status(p)[1].DeviceInfo
	if info == nil || info.Memif == nil {
		t.Fatalf("no device-info in the status: %+v", info)
	}
	same(t, "status", *info.Memif,
		nadv1.MemifDevice{Role: "master", Path: "/run/m.sock", Mode: "ethernet"})
	file, _ := runtimeConfigOf(h.stdin("one", "ADD", p, "net1"))["CNIDeviceInfoFile"].(string)
	if !strings.HasPrefix(file, h.path("devinfo/cni")+"/") {
		t.Errorf("file: %q", file)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	h.must("DEL", p)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", file, err)
	}
	same(t, "file on DEL", runtimeConfigOf(h.stdin("one", "DEL", p, "net1"))["CNIDeviceInfoFile"],
		any(file))
}

func TestD5OnlyWhereDeclared(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p := h.pod("p", "a")
	h.add(p)
	same(t, "runtimeConfig", len(runtimeConfigOf(h.stdin("one", "ADD", p, "net1"))), 0)
	same(t, "device-info", h.status(p)[1].DeviceInfo, nil)
}

// A resource that marks the nodes where a bridge is, as KubeVirt's, is no device: the pod is
// attached without one, also where there is no kubelet. A plugin that is missing is named, and not
// the device that it might have had.
func TestR4ResourceThatIsNoDevice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("marked", "")
	const marker = "bridge.network.kubevirt.io/br1"
	h.nad("a", `{"cniVersion":"0.3.1","type":"marked","bridge":"br1"}`, nadv1.ResourceNameAnnotation,
		marker)
	h.nad("own", h.macvlan(11, ""), nadv1.ResourceNameAnnotation, marker)
	p := h.pod("p", "a,own")
	h.add(p)
	for _, key := range []string{"deviceID", "pciBusID"} {
		if value, ok := h.stdin("marked", "ADD", p, "net1")[key]; ok {
			t.Errorf("%s is %v", key, value)
		}
	}
	h.must("DEL", p)
	h.clean(p)

	h.nad("absent", `{"cniVersion":"0.3.1","name":"absent","type":"cnv-bridge","bridge":"br1"}`,
		nadv1.ResourceNameAnnotation, marker)
	q := h.pod("q", "absent")
	h.fails("ADD", q, 7, "cnv-bridge", "default/absent")
	same(t, "reason", h.lastEvent(q).Reason, "PluginNotFound")
	h.must("DEL", q)
	h.clean(q)
}

// A plugin that takes a device does not do without one, be it that the kubelet is not there.
func TestR4ResourceThatIsADevice(t *testing.T) {
	t.Parallel()
	for _, config := range []string{
		`{"cniVersion":"1.0.0","type":"host-device"}`,
		`{"cniVersion":"1.0.0","type":"declares","capabilities":{"deviceID":true}}`,
	} {
		h := newHost(t)
		h.fake("host-device", "")
		h.fake("declares", "")
		h.nad("a", config, nadv1.ResourceNameAnnotation, "example.com/vf")
		p := h.pod("p", "a")
		h.fails("ADD", p, 7, "default/a", h.path("kubelet.sock"), "k8s.v1.cni.cncf.io/resourceName")
		same(t, "reason", h.lastEvent(p).Reason, "DeviceUnavailable")
		h.must("DEL", p)
		h.clean(p)
	}
}

// deviceManifests are a pod's claim on two devices of a driver, and what the driver says of them.
const deviceManifests = `
apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {k8s.v1.cni.cncf.io/networks: "a,a,b"}}
spec: {resourceClaims: [{name: nics, resourceClaimTemplateName: nics}]}
status: {resourceClaimStatuses: [{name: nics, resourceClaimName: p-nics}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: p-nics}
spec: {}
status:
  allocation:
    devices:
      results:
      - {request: one, driver: nic.example.com, pool: node-1, device: vf2}
      - {request: two, driver: nic.example.com, pool: node-1, device: vf1}
      - {request: gpu, driver: gpu.example.com, pool: node-1, device: gpu0}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: node-1-nic}
spec:
  driver: nic.example.com
  nodeName: node-1
  pool: {name: node-1, generation: 1, resourceSliceCount: 1}
  devices:
  - name: vf1
    attributes: {k8s.cni.cncf.io/resourceName: {string: example.com/vf}, k8s.cni.cncf.io/deviceID: {string: "0000:05:00.1"}}
  - name: vf2
    attributes: {k8s.cni.cncf.io/resourceName: {string: example.com/vf}, k8s.cni.cncf.io/deviceID: {string: "0000:05:00.2"}, numaNode: {int: 0}}
`

// Devices that a driver of dynamic resource allocation gave to the pod's claims reach the plugins,
// sorted, each once. No kubelet is needed.
func TestR5DevicesOfClaims(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("takes", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"takes","capabilities":{"deviceID":true}}`,
		nadv1.ResourceNameAnnotation, "example.com/vf")
	h.nad("b", `{"cniVersion":"1.0.0","type":"takes"}`, nadv1.ResourceNameAnnotation,
		"example.com/other")
	p := h.pod("p", "")
	if err := os.Remove(h.path("manifests", "Pod-default-p.yaml")); err != nil {
		t.Fatal(err)
	}
	h.write("manifests/dra.yaml", deviceManifests)
	h.add(p)
	for ifname, want := range map[string]any{
		"net1": "0000:05:00.1", "net2": "0000:05:00.2", "net3": nil,
	} {
		given := h.stdin("takes", "ADD", p, ifname)
		same(t, "device of "+ifname, []any{
			given["deviceID"], given["pciBusID"], runtimeConfigOf(given)["deviceID"],
		}, []any{want, want, want})
	}
	h.must("DEL", p)
	h.clean(p)

	h.nad("b", `{"cniVersion":"1.0.0","type":"takes","capabilities":{"deviceID":true}}`,
		nadv1.ResourceNameAnnotation, "example.com/other")
	h.fails("ADD", p, 7, "default/b", "k8s.v1.cni.cncf.io/resourceName")
	h.clean(p)
}
