package plan_test

import (
	"encoding/json"
	"errors"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
)

func FuzzMake(f *testing.F) {
	f.Add("a,b@net1,default/x", `{"cniVersion": "1.0.0", "type": "macvlan"}`,
		`{"name": "cluster", "type": "bridge"}`)
	f.Add(`[{"name": "a", "ips": ["10.0.0.1/24"], "default-route": [], "cni-args": {"x": 1}}, `+
		`{"name": "a", "interface": "net2"}]`,
		`{"plugins": [{"type": "bridge", "isDefaultGateway": true, "capabilities": {"ips": true, `+
			`"deviceID": true}, "ipam": {"type": "static"}}]}`,
		`{"cniVersion": "0.3.1", "name": "c", "plugins": [{"type": "bridge"}, {"type": "portmap", `+
			`"capabilities": {"portMappings": true}}]}`)
	f.Add("a@net2,b", `{"type": "macvlan", "ipam": {"Routes": [{"dst": "::0/0"}, {"gw": 1}, null, `+
		`"0/0"]}}`, `{"type": "x"}`)
	f.Fuzz(func(t *testing.T, annotation, nadConfig, cluster string) {
		s := newScenario(annotation)
		s.cfg.Delegates = []json.RawMessage{json.RawMessage(cluster), json.RawMessage(nadConfig)}
		s.cfg.RuntimeConfig = map[string]json.RawMessage{"portMappings": json.RawMessage(`[]`)}
		s.devices = map[string][]string{"r": {"1", "2"}}
		s.nad("web/a", nadConfig).Annotations[nadv1.ResourceNameAnnotation] = "r"
		s.nad("web/b", nadConfig)
		s.nad("default/x", nadConfig)
		got, err := s.plan()
		if err != nil {
			_, ok := errors.AsType[*failure.Error](err)
			if !ok || failure.ReasonOf(err) == "" || err.Error() == "" {
				t.Fatalf("an error without a class: %T %v", err, err)
			}
			return
		}
		checkInvariants(t, got)
		again, err := s.plan()
		if err != nil {
			t.Fatalf("the second time: %v", err)
		}
		want(t, "the second time", again, got)
	})
}

func checkInvariants(t *testing.T, attachments []plan.Attachment) {
	t.Helper()
	interfaces, devices := map[string]bool{"lo": true}, map[string]bool{}
	for i, a := range attachments {
		if a.Default != (i == 0) {
			t.Errorf("attachment %d: default %v", i, a.Default)
		}
		if interfaces[a.IfName] {
			t.Errorf("interface %q twice", a.IfName)
		}
		interfaces[a.IfName] = true
		if a.DeviceID != "" && devices[a.DeviceID] {
			t.Errorf("device %q twice", a.DeviceID)
		}
		devices[a.DeviceID] = true
		if !a.Default && len(a.RuntimeConfig["portMappings"]) == 2 {
			t.Errorf("%s got the runtime's port mappings", a.Name)
		}
		list, err := netconf.Parse(a.Conf)
		if err != nil {
			t.Fatalf("conf of %s does not parse again: %v\n%s", a.Name, err, a.Conf)
		}
		if list.Name() == "" || list.Name() != a.Network || list.CNIVersion() == "" {
			t.Errorf("conf of %s lacks name or version: %s", a.Name, a.Conf)
		}
	}
}
