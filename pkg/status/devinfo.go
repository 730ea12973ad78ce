package status

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// DPFile returns the file under dir in which a device plugin describes a device (Device Information
// Specification s.4.1).
func DPFile(dir, resource, deviceID string) string {
	return filepath.Join(dir, "dp", oneElement(resource)+"-"+oneElement(deviceID)+"-device.json")
}

// CNIFile returns the file under dir through which an attachment's plugins and Braid exchange
// device information (s.4.2). The parts make it unique: container ID and interface name, which hold
// no ':', do.
func CNIFile(dir string, unique ...string) string {
	parts := make([]string, len(unique))
	for i, part := range unique {
		parts[i] = strings.ReplaceAll(oneElement(part), ":", "-")
	}
	return filepath.Join(dir, "cni", fitting(strings.Join(parts, ":"))+"-device.json")
}

// maxName leaves room in the name of a file, of 255 bytes, for what is put after it.
const maxName = 255 - len("-device.json.tmp")

// fitting shortens a name that is too long for a file: to a part of it and a hash.
func fitting(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	end := "-" + hex.EncodeToString(sum[:8])
	return name[:maxName-len(end)] + end
}

// oneElement makes s part of a file name; what is put after it keeps "." and ".." from meaning
// directories.
func oneElement(s string) string { return strings.ReplaceAll(s, "/", "-") }

// The forms, as patterns that are compiled where a pod has a device: at each start of the plugin
// they would be for nothing.
const (
	versionForm = `^\d+\.\d+\.\d+$`
	pciForm     = `^[[:xdigit:]]{4,8}:[[:xdigit:]]{2}:[[:xdigit:]]{2}\.[0-7]$`
)

// matches compiles the form at each call.
func matches(form, s string) bool { return regexp.MustCompile(form).MatchString(s) }

// parseDeviceInfo reads one description and holds it to the specification (s.3): a known type, its
// sub-map, the sub-map's required keys. Keys that it does not know are for later versions and pass.
func parseDeviceInfo(raw []byte) (*nadv1.DeviceInfo, error) {
	var info nadv1.DeviceInfo
	if err := json.Unmarshal(raw, &info); err != nil {
		return nil, err
	}
	if !matches(versionForm, info.Version) {
		return nil, fmt.Errorf("field version: %.32q is not of the form 1.1.0", info.Version)
	}
	return &info, checkSubMap(info)
}

// checkSubMap checks what the specification requires of a type (s.3).
func checkSubMap(info nadv1.DeviceInfo) error {
	switch info.Type {
	case "pci":
		if d := info.PCI; d != nil {
			return checkPCI(d.PCIAddress, d.PFPCIAddress)
		}
	case "vdpa":
		if d := info.VDPA; d != nil {
			return errors.Join(present("vdpa.parent-device", d.ParentDevice),
				oneOf("vdpa.driver", d.Driver, "vhost", "virtio"), present("vdpa.path", d.Path))
		}
	case "vhost-user":
		if d := info.VhostUser; d != nil {
			return errors.Join(oneOf("vhost-user.mode", d.Mode, "client", "server"),
				present("vhost-user.path", d.Path))
		}
	case "memif":
		if d := info.Memif; d != nil {
			// the client library of the ecosystem says punt where the specification says inject-punt
			return errors.Join(oneOf("memif.role", d.Role, "master", "slave"),
				present("memif.path", d.Path),
				oneOf("memif.mode", d.Mode, "ethernet", "ip", "inject-punt", "punt"))
		}
	default:
		return oneOf("type", info.Type, "pci", "vdpa", "vhost-user", "memif")
	}
	return fmt.Errorf("field %s: type %s needs it", info.Type, info.Type)
}

// checkPCI checks the device's address, and that of the physical function behind it, which is
// optional.
func checkPCI(device, pf string) error {
	if !matches(pciForm, device) {
		return fmt.Errorf("field pci.pci-address: %.32q is not of the form 0000:01:02.3", device)
	}
	if pf != "" && !matches(pciForm, pf) {
		return fmt.Errorf("field pci.pf-pci-address: %.32q is not of the form 0000:01:02.3", pf)
	}
	return nil
}

func present(field, value string) error {
	if value == "" {
		return fmt.Errorf("field %s: it is required", field)
	}
	return nil
}

func oneOf(field, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("field %s: %.32q is none of %s", field, value, strings.Join(allowed, ", "))
}
