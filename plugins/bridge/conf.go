package bridge

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Conf is the plugin's configuration.
type Conf struct {
	plugin.Common
	// Bridge is the name of the bridge, "cni0" by default.
	Bridge string `json:"bridge"`
	// IsGateway gives the bridge the addresses of the pods' gateways, and makes the node forward
	// packets.
	IsGateway bool `json:"isGateway"`
	// IsDefaultGateway is IsGateway with a default route in the pod.
	IsDefaultGateway bool `json:"isDefaultGateway"`
	// ForceAddress is true if a gateway's address replaces others of the bridge; without it they are
	// an error.
	ForceAddress bool `json:"forceAddress"`
	// IPMasq is true if packets of the pod that leave its network do so with the node's address.
	IPMasq bool `json:"ipMasq"`
	// IPMasqBackend is "nftables" (default) or "iptables", which is not this plugin's.
	IPMasqBackend string `json:"ipMasqBackend,omitempty"`
	// MTU in bytes of bridge and link, the kernel's default where it is 0.
	MTU int `json:"mtu"`
	// HairpinMode is true if the pod may reach itself by way of the bridge.
	HairpinMode bool `json:"hairpinMode"`
	// PromiscMode is true if the bridge takes all frames.
	PromiscMode bool `json:"promiscMode"`
	// VLAN is the VLAN of the pod's untagged frames, 1 to 4094; 0 for none.
	VLAN int `json:"vlan"`
	// VLANTrunk are VLANs that pass with their tags.
	VLANTrunk []VLANRange `json:"vlanTrunk,omitempty"`
	// PreserveDefaultVLAN leaves the pod in the bridge's default VLAN beside those of VLAN and
	// VLANTrunk.
	PreserveDefaultVLAN bool `json:"preserveDefaultVlan"`
	// MACSpoofCheck drops frames with another source address than the link's MAC. If nil, the
	// attachment's limits decide.
	MACSpoofCheck *bool `json:"macspoofchk,omitempty"`
	// EnableDAD is true if IPv6 addresses are checked for duplicates, for which ADD waits.
	EnableDAD bool `json:"enabledad,omitempty"`
	// DisableContainerInterface leaves the pod's link down. It excludes IPAM.
	DisableContainerInterface bool `json:"disableContainerInterface,omitempty"`
	// PortIsolation is true if pods that have it do not reach each other, only the bridge and ports
	// without it.
	PortIsolation bool `json:"portIsolation,omitempty"`
}

// VLANRange is an element of VLANTrunk: a range, a single VLAN, or both.
type VLANRange struct {
	MinID *int `json:"minID,omitempty"`
	MaxID *int `json:"maxID,omitempty"`
	ID    *int `json:"id,omitempty"`
}

const (
	defaultBridge = "cni0"
	// Bounds of Ethernet's MTU as the kernel has them.
	minMTU, maxMTU = 68, 65535
	maxVLAN        = 4094
	// nativeVLAN is the VLAN of untagged frames of a trunk without the key vlan.
	nativeVLAN = 1

	nftablesBackend, iptablesBackend = "nftables", "iptables"
)

// bridge returns the name of the bridge.
func (c *Conf) bridge() string {
	if c.Bridge == "" {
		return defaultBridge
	}
	return c.Bridge
}

// gateway reports whether the node is the pod's gateway, which needs addresses.
func (c *Conf) gateway(ipam string) bool {
	return ipam != "" && (c.IsGateway || c.IsDefaultGateway)
}

// filtersVLANs reports whether the bridge has to keep VLANs apart.
func (c *Conf) filtersVLANs() bool { return c.VLAN != 0 || c.VLANTrunk != nil }

// vlanInterface returns the name of the interface of the node in the VLAN, which has the gateway's
// addresses.
func (c *Conf) vlanInterface() string { return fmt.Sprintf("%s.%d", c.bridge(), c.VLAN) }

// checked returns the type of the IPAM plugin, and an error if the configuration cannot work.
func (c *Conf) checked() (ipam string, err error) {
	if ipam, err = c.IPAMType(); err != nil {
		return "", err
	}
	return ipam, c.check(ipam)
}

// check is checked for an IPAM plugin whose type is known.
func (c *Conf) check(ipam string) error {
	if err := utils.ValidateInterfaceName(c.bridge()); err != nil {
		return plugin.ConfError("bridge", c.Bridge, err.Msg)
	}
	switch {
	case strings.Contains(c.Bridge, "%"):
		return plugin.ConfError("bridge", c.Bridge,
			"contains %, which the kernel takes for a number to fill in")
	case c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU):
		return plugin.ConfError("mtu", c.MTU, fmt.Sprintf("must be 0 or from %d to %d", minMTU, maxMTU))
	case c.HairpinMode && c.PromiscMode:
		return plugin.ConfError("hairpinMode", true, "cannot be together with promiscMode")
	case c.DisableContainerInterface && ipam != "":
		return plugin.ConfError("disableContainerInterface", true,
			"cannot be together with ipam: addresses need an interface that is up")
	case c.masquerades(ipam) && c.IPMasqBackend != "" && c.IPMasqBackend != nftablesBackend:
		return plugin.ConfError("ipMasqBackend", c.IPMasqBackend,
			fmt.Sprintf("give %q or %q", nftablesBackend, iptablesBackend))
	}
	return c.checkVLAN(ipam)
}

// checkVLAN is check for the key vlan.
func (c *Conf) checkVLAN(ipam string) error {
	if c.VLAN < 0 || c.VLAN > maxVLAN {
		return plugin.ConfError("vlan", c.VLAN, fmt.Sprintf("must be from 0 to %d", maxVLAN))
	}
	if c.VLAN == 0 || !c.gateway(ipam) {
		return nil
	}
	if err := utils.ValidateInterfaceName(c.vlanInterface()); err != nil {
		return plugin.ConfError("bridge", c.bridge(),
			fmt.Sprintf("is too long for the gateway's interface %s", c.vlanInterface()))
	}
	return nil
}

// Validate checks all that needs neither the pod nor the node.
func (c *Conf) Validate() error {
	if _, err := c.checked(); err != nil {
		return err
	}
	_, err := c.vlans()
	return err
}

// Knows returns an error for the backend that only the reference's plugin has.
func (c *Conf) Knows() error {
	ipam, err := c.IPAMType()
	if err == nil && c.masquerades(ipam) && c.IPMasqBackend == iptablesBackend {
		return plugin.ConfError("ipMasqBackend", c.IPMasqBackend,
			"is done by the reference's plugin only")
	}
	return nil //nolint:nilerr // told by check
}

// masquerades reports whether packets of the pod get the node's address. Without IPAM there is no
// address to replace.
func (c *Conf) masquerades(ipam string) bool { return c.IPMasq && ipam != "" }

// port returns what the configuration says of the pod's port of the bridge.
func (c *Conf) port() (nl.Port, error) {
	vlans, err := c.vlans()
	return nl.Port{Hairpin: c.HairpinMode, Isolated: c.PortIsolation, VLANs: vlans}, err
}

// vlans returns the VLANs of the pod's port, to be set in this order: a VLAN that is both vlan and
// in the trunk is tagged.
func (c *Conf) vlans() ([]nl.PortVLAN, error) {
	trunk, err := c.trunk()
	switch {
	case err != nil:
		return nil, err
	case c.VLAN != 0:
		return append([]nl.PortVLAN{untagged(c.VLAN)}, trunk...), nil
	case len(trunk) > 0:
		return append(trunk, untagged(nativeVLAN)), nil
	}
	return nil, nil
}

// untagged returns the VLAN that a port's frames without a tag are in, on their way in and out.
func untagged(vlan int) nl.PortVLAN {
	return nl.PortVLAN{First: uint16(vlan), Last: uint16(vlan), PVID: true, Untagged: true}
}

// trunk is VLANTrunk as ranges that do not touch each other.
func (c *Conf) trunk() ([]nl.PortVLAN, error) {
	var set vlanSet
	for i, r := range c.VLANTrunk {
		first, last, err := r.ends(fmt.Sprintf("vlanTrunk[%d]", i))
		if err != nil {
			return nil, err
		}
		for v := first; v != 0 && v <= last; v++ {
			set[v] = true
		}
		if r.ID != nil {
			set[*r.ID] = true
		}
	}
	return set.ranges(), nil
}

// vlanSet holds whether each VLAN is in a set, by its ID. 0 is none.
type vlanSet [maxVLAN + 2]bool

// ranges returns the set as the fewest ranges, in order.
func (s *vlanSet) ranges() (ranges []nl.PortVLAN) {
	for v := uint16(1); v <= maxVLAN; v++ {
		switch {
		case s[v] && s[v-1]:
			ranges[len(ranges)-1].Last = v
		case s[v]:
			ranges = append(ranges, nl.PortVLAN{First: v, Last: v})
		}
	}
	return ranges
}

// isVLAN reports whether a VLAN can have the ID: IEEE 802.1Q keeps 0 and 4095 for itself.
func isVLAN(id int) bool { return id >= 1 && id <= maxVLAN }

// ends returns the ends of the range, 0 where there is none; name is for errors.
func (r VLANRange) ends(name string) (first, last int, err error) {
	for _, id := range []struct {
		key   string
		value *int
	}{{"minID", r.MinID}, {"maxID", r.MaxID}, {"id", r.ID}} {
		if id.value != nil && !isVLAN(*id.value) {
			return 0, 0, plugin.ConfError(name+"."+id.key, *id.value,
				fmt.Sprintf("must be from 1 to %d", maxVLAN))
		}
	}
	switch {
	case r.MinID == nil && r.MaxID == nil:
		return 0, 0, nil
	case r.MaxID == nil:
		return 0, 0, plugin.ConfError(name+".minID", *r.MinID, "needs maxID beside it")
	case r.MinID == nil:
		return 0, 0, plugin.ConfError(name+".maxID", *r.MaxID, "needs minID beside it")
	case *r.MaxID < *r.MinID:
		return 0, 0, plugin.ConfError(name+".minID", *r.MinID,
			fmt.Sprintf("is greater than maxID %d", *r.MaxID))
	}
	return *r.MinID, *r.MaxID, nil
}
