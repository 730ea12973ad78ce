// Package v1 holds what Braid reads of the wire types of resource.k8s.io/v1: which devices were
// allocated for a ResourceClaim, and how their drivers describe them. Nothing here is ever written.
package v1

// GroupName and Version name the API; the others are its kinds and the plurals under which they are
// served.
const (
	GroupName     = "resource.k8s.io"
	Version       = "v1"
	ClaimKind     = "ResourceClaim"
	ClaimResource = "resourceclaims"
	SliceKind     = "ResourceSlice"
	SliceResource = "resourceslices"
)

// The attributes by which drivers describe devices for networks. Both are strings: the resource
// that a NAD names, and the device's ID for its plugins.
const (
	AttributeResource = "k8s.cni.cncf.io/resourceName"
	AttributeID       = "k8s.cni.cncf.io/deviceID"
)

// Claim is the status of a ResourceClaim.
type Claim struct {
	Status struct {
		Allocation struct {
			Devices struct {
				Results []Allocated `json:"results"`
			} `json:"devices"`
		} `json:"allocation"`
	} `json:"status"`
}

// Allocated names a device that was allocated.
type Allocated struct {
	Driver string `json:"driver"`
	Pool   string `json:"pool"`
	Device string `json:"device"`
}

// Slice is the spec of a ResourceSlice: devices of one driver and pool.
type Slice struct {
	Spec struct {
		Driver string `json:"driver"`
		Pool   struct {
			Name       string `json:"name"`
			Generation int64  `json:"generation"`
		} `json:"pool"`
		Devices []struct {
			Name       string               `json:"name"`
			Attributes map[string]Attribute `json:"attributes"`
		} `json:"devices"`
	} `json:"spec"`
}

// Attribute is an attribute of a device. It is empty if it is no string.
type Attribute struct {
	String string `json:"string"`
}

// Device is a device as its driver describes it.
type Device struct {
	Allocated

	// Generation is the generation of its pool when the driver described it; of several descriptions
	// the newest counts.
	Generation int64
	// Resource and ID are its attributes; empty if it is not for networks.
	Resource, ID string
}

// Devices returns the devices of slices, in their order.
func Devices(slices []Slice) []Device {
	var devices []Device
	for i := range slices {
		spec := &slices[i].Spec
		for _, d := range spec.Devices {
			devices = append(devices, Device{
				Allocated:  Allocated{spec.Driver, spec.Pool.Name, d.Name},
				Generation: spec.Pool.Generation,
				Resource:   d.Attributes[AttributeResource].String,
				ID:         d.Attributes[AttributeID].String,
			})
		}
	}
	return devices
}
