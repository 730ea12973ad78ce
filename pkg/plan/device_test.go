package plan_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
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
		s.nad(ref, `{"plugins": [{"type": "sriov", "deviceID": "static", `+
			`"capabilities": {"deviceID": true}}, {"type": "tuning"}]}`)
		s.nads[ref].Annotations[nadv1.ResourceNameAnnotation] = "intel.com/vf"
	}
	return s
}

// D4, "the allocated device reaches the delegate; an absent one fails".
func TestD4DeviceReachesTheDelegate(t *testing.T) {
	got := withDevices("vf1,a", "0000:01:02.3").must(t)
	want(t, "resource and device", []string{got[1].Resource, got[1].DeviceID},
		[]string{"intel.com/vf", "0000:01:02.3"})
	want(t, "runtimeConfig", runtimeConfig(got[1]), map[string]string{"deviceID": `"0000:01:02.3"`})
	for i, plugin := range decode(t, got[1]).Plugins {
		want(t, "plugin", []string{string(plugin["deviceID"]), string(plugin["pciBusID"])},
			[]string{`"0000:01:02.3"`, `"0000:01:02.3"`})
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
	withDevices("vf1").refused(t, failure.DeviceUnavailable, "NAD web/vf1",
		nadv1.ResourceNameAnnotation, "need 1", "allocated 0", `"intel.com/vf": "1"`)
	withDevices("vf1", "").refused(t, failure.DeviceUnavailable, "allocated 0")
}

// M13, "each device once, none missing".
func TestM13EachDeviceOnce(t *testing.T) {
	got := withDevices("vf1,vf2,vf1", "d1", "d2", "d3").must(t)
	want(t, "devices", names(got, func(a plan.Attachment) string {
		return a.DeviceID
	}), []string{"", "d1", "d2", "d3"})
	withDevices("vf1,vf2,vf1", "d1", "d2").
		refused(t, failure.DeviceUnavailable, "NAD web/vf1", "need 3", "allocated 2",
			`"intel.com/vf": "3"`)
	withDevices("vf1,vf2", "d1", "d1").
		refused(t, failure.DeviceUnavailable, "NAD web/vf2", "need 2", "allocated 1")
}

// marker asks for a network whose resource marks nodes, of a plugin of that configuration.
func marker(config string) *scenario {
	s := newScenario("mark,mark")
	s.nad("web/mark", config).
		Annotations[nadv1.ResourceNameAnnotation] = "bridge.network.kubevirt.io/br1"
	return s
}

// A plugin that takes no device does without one, unless the pod asked for it.
func TestR4DeviceThatIsNotNeeded(t *testing.T) {
	const bridge = `{"type": "cnv-bridge", "bridge": "br1"}`
	absent := fmt.Errorf("dial: %w", &net.OpError{Op: "dial", Err: syscall.ENOENT})
	refused := &failure.Error{
		Reason: failure.DeviceUnavailable, Err: errors.New("the kubelet is silent"),
	}
	for name, change := range map[string]func(*scenario){
		"none allocated": func(*scenario) {},
		"no kubelet":     func(s *scenario) { s.devicesErr = absent },
		"no kubelet, requested": func(s *scenario) {
			s.devicesErr, s.requested = absent, []string{"bridge.network.kubevirt.io/br1"}
		},
		"silent kubelet":             func(s *scenario) { s.devicesErr = refused },
		"another resource requested": func(s *scenario) { s.requested = []string{"cpu", "intel.com/vf"} },
		"another plugin takes device": func(s *scenario) {
			s.nads["web/mark"].Spec.Config = `{"plugins": [` + bridge + `, {"type": "host-device"}]}`
		},
	} {
		s := marker(bridge)
		change(s)
		for _, a := range s.must(t)[1:] {
			want(t, name+": device", []string{a.DeviceID, a.Resource}, []string{"", ""})
			if strings.Contains(string(a.Conf), "deviceID") {
				t.Errorf("%s: a device in %s", name, a.Conf)
			}
		}
	}
}

// A device that was allocated is passed on, whatever the plugin.
func TestR4DeviceThatIsThere(t *testing.T) {
	s := marker(`{"type": "anything"}`)
	s.devices = map[string][]string{"bridge.network.kubevirt.io/br1": {"d1"}}
	got := s.must(t)
	want(t, "devices", []string{got[1].DeviceID, got[2].DeviceID}, []string{"d1", ""})
	s.requested = []string{"bridge.network.kubevirt.io/br1"}
	s.refused(t, failure.DeviceUnavailable, "need 2", "allocated 1")
}

func TestR4DeviceThatIsNeeded(t *testing.T) {
	absent := &failure.Error{
		Reason: failure.DeviceUnavailable, Err: fmt.Errorf("no kubelet: %w", syscall.ENOENT),
	}
	refused := &failure.Error{
		Reason: failure.DeviceUnavailable, Err: errors.New("the kubelet is silent"),
	}
	for _, config := range []string{
		`{"type": "sriov"}`, `{"type": "ib-sriov"}`, `{"type": "host-device"}`, `{"type": "ovs"}`,
		`{"type": "vdpa"}`,
		`{"type": "accelerated-bridge"}`, `{"type": "userspace"}`,
		`{"type": "own", "capabilities": {"deviceID": true}}`,
		`{"plugins": [{"type": "sriov"}, {"type": "tuning"}]}`,
		`{"plugins": [{"type": "own"}, {"type": "tuning", "capabilities": {"deviceID": true}}]}`,
	} {
		s := marker(config)
		s.refused(t, failure.DeviceUnavailable, "NAD web/mark", nadv1.ResourceNameAnnotation,
			"allocated 0")
		s.devicesErr = absent
		s.refused(t, failure.DeviceUnavailable, "NAD web/mark", "no kubelet")
		if def := s.define(plan.Request{Namespace: "web", Name: "mark"}); !def.NeedsDevice() {
			t.Errorf("%s needs no device", config)
		}
	}
	s := marker(`{"type": "own"}`)
	s.requested = []string{"bridge.network.kubevirt.io/br1"}
	s.refused(t, failure.DeviceUnavailable, "NAD web/mark", "allocated 0")
	s.devicesErr = refused
	s.refused(t, failure.DeviceUnavailable, "NAD web/mark", "silent")
	for name, def := range map[string]plan.Definition{
		"marker":      s.define(plan.Request{Namespace: "web", Name: "mark"}),
		"no resource": s.define(plan.Request{Namespace: "web", Name: "a"}),
		"no NAD":      {Conf: []byte(`{"type": "sriov"}`)}, "nothing": {},
		"no JSON": {NAD: s.nad("web/broken", "{")},
	} {
		if def.NeedsDevice() {
			t.Errorf("%s needs a device", name)
		}
	}
}
