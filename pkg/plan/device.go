package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// devices hands out the pod's devices, each at most once.
type devices struct {
	free      map[string][]string // by resource, in the order that was given
	total     map[string]int
	wanted    map[string]int
	requested []string
	err       error
}

// newDevices begins with all of the pod's devices free. A device that is listed twice counts once.
func newDevices(in Input) *devices {
	d := &devices{
		free: map[string][]string{}, total: map[string]int{}, wanted: map[string]int{},
		requested: in.Requested, err: in.DevicesErr,
	}
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
		d.wanted[def.Resource()]++
	}
	return d
}

// Resource returns the name of the resource whose devices the network uses; empty where it names
// none.
func (def Definition) Resource() string {
	if def.NAD == nil {
		return ""
	}
	return def.NAD.Annotations[nadv1.ResourceNameAnnotation]
}

// NeedsDevice reports whether the network names a resource and its first plugin cannot work without
// a device of it. A definition that cannot be read needs none.
func (def Definition) NeedsDevice() bool {
	if def.Resource() == "" {
		return false
	}
	raw := []byte(def.Conf)
	if len(raw) == 0 {
		raw = []byte(def.NAD.Spec.Config)
	}
	list, err := netconf.Parse(raw)
	return err == nil && consumesDevice(list)
}

// consumesDevice reports whether the chain moves a device, or a part of one, into the pod. For
// other types a resource only marks the nodes that have the network.
func consumesDevice(list *netconf.List) bool {
	consumers := []string{
		"sriov", "ib-sriov", "host-device", "ovs", "vdpa", "accelerated-bridge", "userspace",
	}
	return slices.Contains(consumers, list.Types()[0]) || list.Capabilities()[capDeviceID]
}

// assign assigns the next device of its resource to the attachment.
func (d *devices) assign(a *Attachment, def Definition, list *netconf.List) error {
	resource := def.Resource()
	if resource == "" {
		return nil
	}
	if len(d.free[resource]) == 0 {
		return d.missing(resource, list)
	}
	id := d.free[resource][0]
	d.free[resource] = d.free[resource][1:]
	a.Resource, a.DeviceID = resource, id
	a.passDevice(list)
	return nil
}

// passDevice passes the attachment's device to its plugins, on the three ways that delegates know:
// deviceID and pciBusID in the configuration, as Multus writes them, and the capability deviceID.
func (a *Attachment) passDevice(list *netconf.List) {
	raw := strictjson.Marshal(a.DeviceID)
	list.SetAll("deviceID", raw)
	list.SetAll("pciBusID", raw)
	if list.Capabilities()[capDeviceID] {
		a.RuntimeConfig[capDeviceID] = raw
	}
}

// missing returns the error of a network for which no device is left. It is nil if the plugin takes
// none and the pod requested none. Without a kubelet to ask, only the plugin counts.
func (d *devices) missing(resource string, list *netconf.List) error {
	consumes := consumesDevice(list)
	switch {
	case !consumes && (!slices.Contains(d.requested, resource) || errors.Is(d.err, fs.ErrNotExist)):
		return nil
	case d.err != nil:
		return d.err
	}
	return &failure.Error{
		Reason: failure.DeviceUnavailable, Field: nadv1.ResourceNameAnnotation,
		Err: fmt.Errorf("networks of the pod need %d of resource %s, the kubelet allocated %d to it",
			d.wanted[resource], strictjson.Quote(resource), d.total[resource]),
		Fix: fmt.Sprintf(
			`put %s: "%d" into resources.requests and resources.limits of the pod's containers`,
			strictjson.Quote(resource), d.wanted[resource]),
	}
}
