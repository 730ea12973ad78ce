package nl

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Bridge is a link of kind "bridge".
type Bridge struct {
	*Link
	// VLANFiltering is true if ports pass frames of their VLANs only.
	VLANFiltering bool
	// DefaultPVID is the VLAN that a new port is in, untagged; 0 for none.
	DefaultPVID uint16
}

// Bridge finds a bridge by name; ErrNoLink if there is no link of that name. One of another kind is
// an error.
func (h *Handle) Bridge(ctx context.Context, name string) (*Bridge, error) {
	link, attrs, err := h.link(ctx, "interface "+name, byName(name)...)
	if err != nil {
		return nil, err
	}
	if link.Kind != "bridge" {
		return nil, fmt.Errorf("interface %s is a %s, not a bridge", name, link.Kind)
	}
	data := attr(attr(attrs, unix.IFLA_LINKINFO), vnl.IFLA_INFO_DATA)
	return &Bridge{
		Link: link, VLANFiltering: number(attr(data, vnl.IFLA_BR_VLAN_FILTERING)) == 1,
		DefaultPVID: uint16(number(attr(data, vnl.IFLA_BR_VLAN_DEFAULT_PVID))),
	}, nil
}

// AddBridge makes a bridge. A link that has the name already is an error, fs.ErrExist.
func (h *Handle) AddBridge(ctx context.Context, n NewLink, filterVLANs bool) error {
	var data []*vnl.RtAttr
	if filterVLANs { // some kernels cannot
		data = append(data, vnl.NewRtAttr(vnl.IFLA_BR_VLAN_FILTERING, vnl.Uint8Attr(1)))
	}
	return h.Apply(ctx, addLink(n, "bridge", data))
}

// AddPortVeth makes a pair of links. port is in the handle's namespace, and from the start a port
// of the bridge with that index. A name that is taken is an error, fs.ErrExist.
func (h *Handle) AddPortVeth(ctx context.Context, port NewLink, bridge int, peer NewLink) error {
	other := vnl.NewRtAttr(vnl.VETH_INFO_PEER, nil)
	vnl.NewIfInfomsgChild(other, unix.AF_UNSPEC)
	for _, a := range peer.attrs() {
		other.AddChild(a)
	}
	pair := addLink(port, "veth", []*vnl.RtAttr{other},
		vnl.NewRtAttr(unix.IFLA_MASTER, vnl.Uint32Attr(uint32(bridge))))
	pair.what += " with peer " + peer.Name
	return h.Apply(ctx, pair)
}

// Ports lists the ports of a bridge, by index.
func (h *Handle) Ports(ctx context.Context, bridge int) ([]*Link, error) {
	links, err := h.links(ctx, vnl.NewRtAttr(unix.IFLA_MASTER, vnl.Uint32Attr(uint32(bridge))))
	return slices.DeleteFunc(links, func(l *Link) bool { return l.MasterIndex != bridge }), err
}

// Port is what a bridge does with the frames of a link in it.
type Port struct {
	// Hairpin is true if a frame may leave by the port that it came from, Isolated if none passes to
	// another isolated port.
	Hairpin, Isolated bool
	VLANs             []PortVLAN
}

// PortVLAN are VLANs of a port, from First to Last.
type PortVLAN struct {
	First, Last uint16
	// PVID is true if untagged frames that come in belong to it, Untagged if its frames go out without
	// a tag.
	PVID, Untagged bool
}

// SetPort sets the flags of a port, by index, and adds VLANs to those that it has, in their order:
// what is said last of a VLAN counts.
func (h *Handle) SetPort(ctx context.Context, index int, p Port) error {
	flags := vnl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	flags.AddRtAttr(vnl.IFLA_BRPORT_MODE, vnl.Uint8Attr(bit(p.Hairpin)))
	flags.AddRtAttr(vnl.IFLA_BRPORT_ISOLATED, vnl.Uint8Attr(bit(p.Isolated)))
	return h.port(ctx, unix.RTM_SETLINK, index, "set bridge port", flags, p.VLANs)
}

// RemovePortVLAN takes a port, by index, out of a VLAN, if it is in it.
func (h *Handle) RemovePortVLAN(ctx context.Context, index int, id uint16) error {
	return h.port(ctx, unix.RTM_DELLINK, index, fmt.Sprintf("remove VLAN %d of bridge port", id), nil,
		[]PortVLAN{{First: id, Last: id}})
}

// port makes a request of a kind about a bridge port: its flags, if any, and its VLANs.
func (h *Handle) port(
	ctx context.Context, kind uint16, index int, what string, flags *vnl.RtAttr, vlans []PortVLAN,
) error {
	header := vnl.NewIfInfomsg(unix.AF_BRIDGE)
	header.Index = int32(index)
	parts := []vnl.NetlinkRequestData{header}
	if flags != nil {
		parts = append(parts, flags)
	}
	if len(vlans) > 0 {
		spec := vnl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
		spec.AddRtAttr(vnl.IFLA_BRIDGE_FLAGS, vnl.Uint16Attr(vnl.BRIDGE_FLAGS_MASTER))
		for _, v := range vlans {
			for _, info := range v.infos() {
				spec.AddRtAttr(vnl.IFLA_BRIDGE_VLAN_INFO, info.Serialize())
			}
		}
		parts = append(parts, spec)
	}
	if err := h.do(ctx, kind, 0, parts...); err != nil {
		return fmt.Errorf("%s with index %d: %w", what, index, err)
	}
	return nil
}

// infos returns the VLANs in the kernel's form: one entry, or two for the ends of a range.
func (v PortVLAN) infos() []*vnl.BridgeVlanInfo {
	flags := bit(v.PVID)*vnl.BRIDGE_VLAN_INFO_PVID | bit(v.Untagged)*vnl.BRIDGE_VLAN_INFO_UNTAGGED
	if v.First == v.Last {
		return []*vnl.BridgeVlanInfo{{Flags: uint16(flags), Vid: v.First}}
	}
	return []*vnl.BridgeVlanInfo{
		{Flags: uint16(flags | vnl.BRIDGE_VLAN_INFO_RANGE_BEGIN), Vid: v.First},
		{Flags: uint16(flags | vnl.BRIDGE_VLAN_INFO_RANGE_END), Vid: v.Last},
	}
}

// bit is a flag as the kernel takes it.
func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// portTries bounds how often the ports are listed for one that is there.
const portTries = 20

// Port returns the state of a port, by index; ErrNoLink for a link that is in no bridge. Its VLANs
// are in the order of their numbers. A listing that others disturb by removing links leaves some
// out, and the kernel does not say so: what the link says of itself decides whether it is repeated.
func (h *Handle) Port(ctx context.Context, index int) (*Port, error) {
	for range portTries {
		if port, err := h.listedPort(ctx, index); err != nil || port != nil {
			return port, err
		}
		link, err := h.LinkByIndex(ctx, index)
		if err != nil {
			return nil, err
		}
		if link.MasterIndex == 0 {
			break
		}
	}
	return nil, fmt.Errorf("bridge port with index %d: %w", index, ErrNoLink)
}

// listedPort returns nil where no port of that index is listed.
func (h *Handle) listedPort(ctx context.Context, index int) (*Port, error) {
	mask := vnl.NewRtAttr(unix.IFLA_EXT_MASK, vnl.Uint32Attr(vnl.RTEXT_FILTER_BRVLAN_COMPRESSED))
	messages, err := h.dump(ctx, unix.RTM_GETLINK, vnl.NewIfInfomsg(unix.AF_BRIDGE), mask)
	if err != nil {
		return nil, fmt.Errorf("list bridge ports: %w", err)
	}
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			return nil, fmt.Errorf("list bridge ports: %w", errShort)
		}
		if int(vnl.DeserializeIfInfomsg(m).Index) != index {
			continue
		}
		if port, err := parsePort(m[unix.SizeofIfInfomsg:]); err != nil || port != nil {
			return port, err
		}
	}
	return nil, nil
}

// parsePort is nil for a bridge, which is among its ports.
func parsePort(b []byte) (port *Port, err error) {
	var vlans []PortVLAN
	err = eachAttr(b, func(kind uint16, value []byte) error {
		switch kind {
		case unix.IFLA_PROTINFO:
			port = &Port{}
			return port.readFlags(value)
		case unix.IFLA_AF_SPEC:
			return eachAttr(value, func(kind uint16, value []byte) error {
				if kind == vnl.IFLA_BRIDGE_VLAN_INFO {
					vlans, err = appendVLAN(vlans, value)
				}
				return err
			})
		}
		return nil
	})
	if port != nil {
		port.VLANs = vlans
	}
	return port, err
}

// readFlags reads the attributes of a port, IFLA_BRPORT_*.
func (p *Port) readFlags(b []byte) error {
	return eachAttr(b, func(kind uint16, value []byte) error {
		on := len(value) > 0 && value[0] != 0
		switch kind {
		case vnl.IFLA_BRPORT_MODE:
			p.Hairpin = on
		case vnl.IFLA_BRPORT_ISOLATED:
			p.Isolated = on
		}
		return nil
	})
}

// appendVLAN appends a VLAN, or makes it the end of the last one's range: the kernel lists the two
// ends of a range one after the other.
func appendVLAN(vlans []PortVLAN, b []byte) ([]PortVLAN, error) {
	if len(b) < vnl.SizeofBridgeVlanInfo {
		return nil, errShort
	}
	flags, id := binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])
	if flags&vnl.BRIDGE_VLAN_INFO_RANGE_END != 0 && len(vlans) > 0 {
		vlans[len(vlans)-1].Last = id
		return vlans, nil
	}
	pvid, untagged := flags&vnl.BRIDGE_VLAN_INFO_PVID != 0, flags&vnl.BRIDGE_VLAN_INFO_UNTAGGED != 0
	return append(vlans, PortVLAN{First: id, Last: id, PVID: pvid, Untagged: untagged}), nil
}

// eachAttr calls do with the attributes of a message or of a nested attribute.
func eachAttr(b []byte, do func(kind uint16, value []byte) error) error {
	attrs, err := vnl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := do(a.Attr.Type&^unix.NLA_F_NESTED, a.Value); err != nil {
			return err
		}
	}
	return nil
}
