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
	r := newRig(t)
	r.fake("one", describe)
	r.nad("a", `{"cniVersion":"1.0.0","type":"one","capabilities":{"CNIDeviceInfoFile":true}}`)
	p := r.pod("p", "a")
	r.add(p)
	info := r.status(p)[1].DeviceInfo
	if info == nil || info.Memif == nil {
		t.Fatalf("no device-info in the status: %+v", info)
	}
	same(t, "status", *info.Memif,
		nadv1.MemifDevice{Role: "master", Path: "/run/m.sock", Mode: "ethernet"})
	file, _ := runtimeConfigOf(r.stdin("one", "ADD", p, "net1"))["CNIDeviceInfoFile"].(string)
	if !strings.HasPrefix(file, r.path("devinfo/cni")+"/") {
		t.Errorf("file: %q", file)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	r.must("DEL", p)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", file, err)
	}
	same(t, "file on DEL", runtimeConfigOf(r.stdin("one", "DEL", p, "net1"))["CNIDeviceInfoFile"],
		any(file))
}

func TestD5OnlyWhereDeclared(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	p := r.pod("p", "a")
	r.add(p)
	same(t, "runtimeConfig", len(runtimeConfigOf(r.stdin("one", "ADD", p, "net1"))), 0)
	same(t, "device-info", r.status(p)[1].DeviceInfo, nil)
}

// A resource that marks the nodes where a bridge is, as KubeVirt's, is no device: the pod is
// attached without one, also where there is no kubelet. A plugin that is missing is named, and not
// the device that it might have had.
func TestR4ResourceThatIsNoDevice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("marked", "")
	const marker = "bridge.network.kubevirt.io/br1"
	r.nad("a", `{"cniVersion":"0.3.1","type":"marked","bridge":"br1"}`, nadv1.ResourceNameAnnotation,
		marker)
	r.nad("own", r.macvlan(11, ""), nadv1.ResourceNameAnnotation, marker)
	p := r.pod("p", "a,own")
	r.add(p)
	for _, key := range []string{"deviceID", "pciBusID"} {
		if value, ok := r.stdin("marked", "ADD", p, "net1")[key]; ok {
			t.Errorf("%s is %v", key, value)
		}
	}
	r.must("DEL", p)
	r.clean(p)

	r.nad("absent", `{"cniVersion":"0.3.1","name":"absent","type":"cnv-bridge","bridge":"br1"}`,
		nadv1.ResourceNameAnnotation, marker)
	q := r.pod("q", "absent")
	r.fails("ADD", q, 7, "cnv-bridge", "default/absent")
	same(t, "reason", r.lastEvent(q).Reason, "PluginNotFound")
	r.must("DEL", q)
	r.clean(q)
}

// A plugin that takes a device does not do without one, be it that the kubelet is not there.
func TestR4ResourceThatIsADevice(t *testing.T) {
	t.Parallel()
	for _, config := range []string{
		`{"cniVersion":"1.0.0","type":"host-device"}`,
		`{"cniVersion":"1.0.0","type":"declares","capabilities":{"deviceID":true}}`,
	} {
		r := newRig(t)
		r.fake("host-device", "")
		r.fake("declares", "")
		r.nad("a", config, nadv1.ResourceNameAnnotation, "example.com/vf")
		p := r.pod("p", "a")
		r.fails("ADD", p, 7, "default/a", r.path("kubelet.sock"), "k8s.v1.cni.cncf.io/resourceName")
		same(t, "reason", r.lastEvent(p).Reason, "DeviceUnavailable")
		r.must("DEL", p)
		r.clean(p)
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
	r := newRig(t)
	r.fake("takes", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"takes","capabilities":{"deviceID":true}}`,
		nadv1.ResourceNameAnnotation, "example.com/vf")
	r.nad("b", `{"cniVersion":"1.0.0","type":"takes"}`, nadv1.ResourceNameAnnotation,
		"example.com/other")
	p := r.pod("p", "")
	if err := os.Remove(r.path("manifests", "Pod-default-p.yaml")); err != nil {
		t.Fatal(err)
	}
	r.write("manifests/dra.yaml", deviceManifests)
	r.add(p)
	for ifname, want := range map[string]any{
		"net1": "0000:05:00.1", "net2": "0000:05:00.2", "net3": nil,
	} {
		given := r.stdin("takes", "ADD", p, ifname)
		same(t, "device of "+ifname, []any{
			given["deviceID"], given["pciBusID"], runtimeConfigOf(given)["deviceID"],
		}, []any{want, want, want})
	}
	r.must("DEL", p)
	r.clean(p)

	r.nad("b", `{"cniVersion":"1.0.0","type":"takes","capabilities":{"deviceID":true}}`,
		nadv1.ResourceNameAnnotation, "example.com/other")
	r.fails("ADD", p, 7, "default/b", "k8s.v1.cni.cncf.io/resourceName")
	r.clean(p)
}
