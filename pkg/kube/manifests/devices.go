package manifests

import (
	"context"
	"encoding/json"
	"fmt"

	resourcev1 "github.com/braid-cni/braid/pkg/api/resource/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// Allocated returns the devices that were allocated for a ResourceClaim.
func (d *Directory) Allocated(
	ctx context.Context, namespace, claim string,
) ([]resourcev1.Allocated, error) {
	if err := objects.CheckNames(namespace, claim); err != nil {
		return nil, fmt.Errorf("get ResourceClaim: %w", err)
	}
	var raw json.RawMessage
	if err := d.find(ctx, resourceClaimKind(), namespace, claim, &raw); err != nil {
		return nil, err
	}
	var object resourcev1.Claim
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, undecoded(resourcev1.ClaimKind, err)
	}
	return object.Status.Allocation.Devices.Results, nil
}

// DriverDevices returns all devices of a driver: a directory is about one node.
func (d *Directory) DriverDevices(
	ctx context.Context, driver, _ string,
) ([]resourcev1.Device, error) {
	all, err := readDirectory(ctx, d.dir)
	if err != nil {
		return nil, err
	}
	var slices []resourcev1.Slice
	for _, object := range all.objects {
		var slice resourcev1.Slice
		if object.gvk != resourceSliceKind().GroupVersionKind {
			continue
		}
		if err := json.Unmarshal(object.raw, &slice); err != nil {
			return nil, undecoded(resourcev1.SliceKind+" in "+object.where, err)
		}
		if slice.Spec.Driver == driver {
			slices = append(slices, slice)
		}
	}
	return resourcev1.Devices(slices), nil
}

func undecoded(what string, err error) error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: "braid.manifests",
		Err: fmt.Errorf("decode %s: %w", what, err), Fix: "correct the manifest",
	}
}
