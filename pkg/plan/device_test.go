package plan_test

import (
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// withDevices asks for networks of the resource intel.com/vf.
func withDevices(networks string, ids ...string) *scenario {
	s := newScenario(networks)
	s.devices = map[string][]string{"intel.com/vf": ids, "other.com/vf": {"other"}}
	for _, ref := range []string{"web/vf1", "web/vf2"} {
		s.nad(ref, `{"plugins": [{"type": "sriov", "deviceID": "static", "capabilities": {"deviceID": true}}, {"type": "tuning"}]}`)
		s.nads[ref].Annotations[nadv1.ResourceNameAnnotation] = "intel.com/vf"
	}
	return s
}

func TestD4DeviceReachesTheDelegate(t *testing.T) {
	got := withDevices("vf1,a", "0000:01:02.3").must(t)
	want(t, "resource and device", []string{got[1].Resource, got[1].DeviceID}, []string{"intel.com/vf", "0000:01:02.3"})
	want(t, "runtimeConfig", runtimeConfig(got[1]), map[string]string{"deviceID": `"0000:01:02.3"`})
	for i, plugin := range decode(t, got[1]).Plugins {
		want(t, "plugin", []string{string(plugin["deviceID"]), string(plugin["pciBusID"])}, []string{`"0000:01:02.3"`, `"0000:01:02.3"`})
		want(t, "type", string(plugin["type"]), []string{`"sriov"`, `"tuning"`}[i])
	}
	want(t, "network without a resource", got[2].DeviceID, "")
	if strings.Contains(string(got[2].Conf), "deviceID") {
		t.Errorf("a device for a network that asks for none: %s", got[2].Conf)
	}
}

func TestD4RuntimeConfigOnlyWhereDeclared(t *testing.T) {
	s := withDevices("vf1", "d1")
	s.nads["web/vf1"].Spec.Config = `{"type": "host-device"}`
	want(t, "runtimeConfig", runtimeConfig(s.must(t)[1]), map[string]string{})
}

func TestD4DeviceOfTheDefaultNetwork(t *testing.T) {
	s := withDevices("vf1", "d1", "d2")
	s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = "web/vf2"
	got := s.must(t)
	want(t, "devices", []string{got[0].DeviceID, got[1].DeviceID}, []string{"d1", "d2"})
}

func TestD4AbsentDeviceFails(t *testing.T) {
	withDevices("vf1").refused(t, failure.DeviceUnavailable, "NAD web/vf1", nadv1.ResourceNameAnnotation, "need 1", "allocated 0", `"intel.com/vf": "1"`)
	withDevices("vf1", "").refused(t, failure.DeviceUnavailable, "allocated 0")
}

func TestM13EachDeviceOnce(t *testing.T) {
	got := withDevices("vf1,vf2,vf1", "d1", "d2", "d3").must(t)
	want(t, "devices", names(got, func(a plan.Attachment) string { return a.DeviceID }), []string{"", "d1", "d2", "d3"})
	withDevices("vf1,vf2,vf1", "d1", "d2").refused(t, failure.DeviceUnavailable, "NAD web/vf1", "need 3", "allocated 2", `"intel.com/vf": "3"`)
	withDevices("vf1,vf2", "d1", "d1").refused(t, failure.DeviceUnavailable, "NAD web/vf2", "need 2", "allocated 1")
}
