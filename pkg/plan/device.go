package plan

import (
	"encoding/json"
	"fmt"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/conf/strictjson"
	"github.com/braid-cni/braid/pkg/failure"
)

// devices hands out the pod's devices, each at most once.
type devices struct {
	free   map[string][]string // by resource, in the kubelet's order
	total  map[string]int
	wanted map[string]int
}

func newDevices(in Input) *devices {
	d := &devices{free: map[string][]string{}, total: map[string]int{}, wanted: map[string]int{}}
	for resource, ids := range in.Devices {
		seen := map[string]bool{}
		for _, id := range ids {
			if id != "" && !seen[id] {
				seen[id] = true
				d.free[resource] = append(d.free[resource], id)
			}
		}
		d.total[resource] = len(d.free[resource])
	}
	for _, def := range in.Definitions {
		d.wanted[resourceOf(def)]++
	}
	return d
}

// resourceOf is the device-plugin resource of a NAD; empty where it uses none.
func resourceOf(def Definition) string {
	if def.NAD == nil {
		return ""
	}
	return def.NAD.Annotations[nadv1.ResourceNameAnnotation]
}

// assign gives the attachment the next device of its resource and passes it on the three ways that delegates know: deviceID
// and pciBusID in the configuration, as Multus writes them, and the capability deviceID.
func (d *devices) assign(a *Attachment, def Definition, list *conf.List) error {
	resource := resourceOf(def)
	if resource == "" {
		return nil
	}
	if len(d.free[resource]) == 0 {
		return &failure.Error{
			Reason: failure.DeviceUnavailable, Field: nadv1.ResourceNameAnnotation,
			Err: fmt.Errorf("networks of the pod need %d of resource %s, the kubelet allocated %d to it",
				d.wanted[resource], strictjson.Quote(resource), d.total[resource]),
			Fix: fmt.Sprintf(`put %s: "%d" into resources.requests and resources.limits of the pod's containers`,
				strictjson.Quote(resource), d.wanted[resource]),
		}
	}
	id := d.free[resource][0]
	d.free[resource] = d.free[resource][1:]
	a.Resource, a.DeviceID = resource, id

	raw, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("encode device ID: %w", err)
	}
	list.SetAll("deviceID", raw)
	list.SetAll("pciBusID", raw)
	if list.Capabilities()[capDeviceID] {
		a.RuntimeConfig[capDeviceID] = raw
	}
	return nil
}
