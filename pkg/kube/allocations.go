package kube

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fieldselector "k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/braid-cni/braid/pkg/failure"
)

// The attributes by which drivers of dynamic resource allocation describe devices for networks.
// Both are strings: the resource that a NAD names, and the device's ID for its plugins.
const (
	AttributeResource = "k8s.cni.cncf.io/resourceName"
	AttributeID       = "k8s.cni.cncf.io/deviceID"
)

// Allocations reads ResourceClaims and ResourceSlices (resource.k8s.io/v1) from an API server, or
// from manifests.
type Allocations interface {
	// Allocated returns the devices that were allocated for a ResourceClaim.
	Allocated(ctx context.Context, namespace, claim string) ([]Allocated, error)
	// DriverDevices returns the devices of a driver on a node, or for "" those that belong to no
	// single node.
	DriverDevices(ctx context.Context, driver, node string) ([]DriverDevice, error)
}

// Allocated names a device that was allocated.
type Allocated struct {
	Driver string `json:"driver"`
	Pool   string `json:"pool"`
	Device string `json:"device"`
}

// DriverDevice is a device as its driver describes it.
type DriverDevice struct {
	Allocated

	// Generation is the generation of its pool when the driver described it; of several descriptions
	// the newest counts.
	Generation int64
	// Resource and ID are its attributes; empty if it is not for networks.
	Resource, ID string
}

// The parts of resource.k8s.io/v1 that are read.
const (
	draGroup      = "resource.k8s.io"
	draVersion    = "v1"
	claimsPlural  = "resourceclaims"
	claimsKind    = "ResourceClaim"
	slicesPlural  = "resourceslices"
	slicesKind    = "ResourceSlice"
	draPath       = "/apis/" + draGroup + "/" + draVersion
	selectsDriver = "spec.driver"
	selectsNode   = "spec.nodeName"
)

// resourceClaim is the status of a ResourceClaim.
type resourceClaim struct {
	Status struct {
		Allocation struct {
			Devices struct {
				Results []Allocated `json:"results"`
			} `json:"devices"`
		} `json:"allocation"`
	} `json:"status"`
}

// resourceSlice is the spec of a ResourceSlice.
type resourceSlice struct {
	Spec struct {
		Driver string `json:"driver"`
		Pool   struct {
			Name       string `json:"name"`
			Generation int64  `json:"generation"`
		} `json:"pool"`
		Devices []struct {
			Name       string                     `json:"name"`
			Attributes map[string]deviceAttribute `json:"attributes"`
		} `json:"devices"`
	} `json:"spec"`
}

// deviceAttribute is an attribute of a device. It is empty if it is no string.
type deviceAttribute struct {
	String string `json:"string"`
}

func (s *resourceSlice) devices() []DriverDevice {
	var devices []DriverDevice
	for _, d := range s.Spec.Devices {
		devices = append(devices, DriverDevice{
			Allocated:  Allocated{s.Spec.Driver, s.Spec.Pool.Name, d.Name},
			Generation: s.Spec.Pool.Generation,
			Resource:   d.Attributes[AttributeResource].String, ID: d.Attributes[AttributeID].String,
		})
	}
	return devices
}

// Allocated returns the devices that were allocated for a ResourceClaim.
func (a *API) Allocated(ctx context.Context, namespace, claim string) ([]Allocated, error) {
	var object struct {
		described
		resourceClaim
	}
	c := &call{
		verb: "get ResourceClaim", namespace: namespace, name: claim,
		request: func(c *client) *rest.Request {
			return c.core.Get().AbsPath(draPath).Namespace(namespace).Resource(claimsPlural).Name(claim)
		},
	}
	if err := a.get(ctx, c, &object, &object); err != nil {
		return nil, err
	}
	return object.Status.Allocation.Devices.Results, nil
}

// DriverDevices returns the devices of a driver on a node, or for "" those that belong to no single
// node.
func (a *API) DriverDevices(ctx context.Context, driver, node string) ([]DriverDevice, error) {
	selector := fieldselector.SelectorFromSet(fieldselector.Set{
		selectsDriver: driver, selectsNode: node,
	}).String()
	slices, err := listOf[resourceSlice](ctx, a,
		&call{verb: "list ResourceSlices", request: func(c *client) *rest.Request {
			return c.core.Get().AbsPath(draPath).Resource(slicesPlural)
		}}, metav1.ListOptions{FieldSelector: selector}, slicesKind+"List")
	return allDevices(slices), err
}

func allDevices(slices []resourceSlice) []DriverDevice {
	var devices []DriverDevice
	for i := range slices {
		devices = append(devices, slices[i].devices()...)
	}
	return devices
}

func draKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: draGroup, Version: draVersion, Kind: kind}
}

// Allocated returns the devices that were allocated for a ResourceClaim.
func (m *Manifests) Allocated(ctx context.Context, namespace, claim string) ([]Allocated, error) {
	if err := CheckNames(namespace, claim); err != nil {
		return nil, fmt.Errorf("get ResourceClaim: %w", err)
	}
	var raw json.RawMessage
	resource := schema.GroupResource{Group: draGroup, Resource: claimsPlural}
	err := m.find(ctx, draKind(claimsKind), resource, namespace, claim, failure.InvalidConfig, &raw)
	if err != nil {
		return nil, err
	}
	var object resourceClaim
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, badManifest(claimsKind, err)
	}
	return object.Status.Allocation.Devices.Results, nil
}

// DriverDevices returns all devices of a driver: a directory is about one node.
func (m *Manifests) DriverDevices(ctx context.Context, driver, _ string) ([]DriverDevice, error) {
	all, err := readManifests(ctx, m.dir)
	if err != nil {
		return nil, err
	}
	var slices []resourceSlice
	for _, object := range all.objects {
		var slice resourceSlice
		if object.gvk != draKind(slicesKind) {
			continue
		}
		if err := json.Unmarshal(object.raw, &slice); err != nil {
			return nil, badManifest(slicesKind+" in "+object.where, err)
		}
		if slice.Spec.Driver == driver {
			slices = append(slices, slice)
		}
	}
	return allDevices(slices), nil
}

func badManifest(what string, err error) error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: "braid.manifests",
		Err: fmt.Errorf("decode %s: %w", what, err), Fix: "correct the manifest",
	}
}
