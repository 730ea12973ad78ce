package kube

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"

	resourcev1 "github.com/braid-cni/braid/pkg/api/resource/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

func resourceKind(kind string) schema.GroupVersionKind {
	return schema.GroupVersionKind{
		Group: resourcev1.GroupName, Version: resourcev1.Version, Kind: kind,
	}
}

// Allocated returns the devices that were allocated for a ResourceClaim.
func (m *Manifests) Allocated(
	ctx context.Context, namespace, claim string,
) ([]resourcev1.Allocated, error) {
	if err := objects.CheckNames(namespace, claim); err != nil {
		return nil, fmt.Errorf("get ResourceClaim: %w", err)
	}
	var raw json.RawMessage
	kind := resourceKind(resourcev1.ClaimKind)
	resource := schema.GroupResource{
		Group: resourcev1.GroupName, Resource: resourcev1.ClaimResource,
	}
	err := m.find(ctx, kind, resource, namespace, claim, failure.InvalidConfig, &raw)
	if err != nil {
		return nil, err
	}
	var object resourcev1.Claim
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, badManifest(resourcev1.ClaimKind, err)
	}
	return object.Status.Allocation.Devices.Results, nil
}

// DriverDevices returns all devices of a driver: a directory is about one node.
func (m *Manifests) DriverDevices(
	ctx context.Context, driver, _ string,
) ([]resourcev1.Device, error) {
	all, err := readManifests(ctx, m.dir)
	if err != nil {
		return nil, err
	}
	var slices []resourcev1.Slice
	for _, object := range all.objects {
		var slice resourcev1.Slice
		if object.gvk != resourceKind(resourcev1.SliceKind) {
			continue
		}
		if err := json.Unmarshal(object.raw, &slice); err != nil {
			return nil, badManifest(resourcev1.SliceKind+" in "+object.where, err)
		}
		if slice.Spec.Driver == driver {
			slices = append(slices, slice)
		}
	}
	return resourcev1.Devices(slices), nil
}

func badManifest(what string, err error) error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: "braid.manifests",
		Err: fmt.Errorf("decode %s: %w", what, err), Fix: "correct the manifest",
	}
}
