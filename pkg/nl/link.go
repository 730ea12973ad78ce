package nl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// ErrNoLink says that no link has the name or index asked for.
var ErrNoLink = errors.New("no such interface")

// Link is a network interface as the kernel describes it.
type Link struct {
	Index int
	Name  string
	// Kind is the driver's name: "veth", "macvlan", "ipvlan", "bridge", "device" for a NIC.
	Kind string
	// MTU in bytes.
	MTU int
	MAC net.HardwareAddr
	// Up, Promisc and AllMulti are the administrator's wish; Operational is that packets can pass,
	// Carrier that the other end is there: the kernel knows the latter at once.
	Up, Operational, Carrier bool
	Promisc, AllMulti        bool
	// TxQLen is the length of the transmit queue in packets.
	TxQLen int
	// MasterIndex is the bridge that the link is a port of, ParentIndex the link below it or, of a
	// veth, the other end; 0 for none.
	MasterIndex, ParentIndex int
	// Group is the link group, 0 by default.
	Group uint32
	// Mode is the mode of a macvlan ("bridge", "private", "vepa", "passthru") or an ipvlan ("l2",
	// "l3", "l3s").
	Mode string
	// VLAN is the ID of a link of kind "vlan" (IEEE 802.1Q); 0 for all others.
	VLAN int
	// Alias is a text that administrators and programs may give a link; empty for none.
	Alias string
	// AltNames are further names of the link.
	AltNames []string
	// PermanentMAC is the MAC of the device, whatever the link's is; nil where it has none.
	PermanentMAC net.HardwareAddr
	// Loopback is true if packets come back by the link.
	Loopback bool
	// ParentElsewhere is true if ParentIndex is of another network namespace.
	ParentElsewhere bool
}

// NewLink describes a link to make; it is down at first.
type NewLink struct {
	Name string
	// In is the namespace that gets the link; nil for that of the handle.
	In *netns.NS
	// MTU in bytes; 0 is the kernel's default.
	MTU int
	// MAC is chosen by the kernel where it is empty.
	MAC   net.HardwareAddr
	Group uint32
}

// attrs describes the link in a message.
func (n NewLink) attrs() []*vnl.RtAttr {
	attrs := []*vnl.RtAttr{vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(n.Name))}
	if n.MTU != 0 {
		attrs = append(attrs, vnl.NewRtAttr(unix.IFLA_MTU, vnl.Uint32Attr(uint32(n.MTU))))
	}
	if n.MAC != nil {
		attrs = append(attrs, vnl.NewRtAttr(unix.IFLA_ADDRESS, n.MAC))
	}
	if n.Group != 0 {
		attrs = append(attrs, vnl.NewRtAttr(unix.IFLA_GROUP, vnl.Uint32Attr(n.Group)))
	}
	if n.In != nil {
		attrs = append(attrs, vnl.NewRtAttr(unix.IFLA_NET_NS_FD, vnl.Uint32Attr(uint32(n.In.Fd()))))
	}
	return attrs
}

// on says that the link is made on another, by index.
func on(parent int) *vnl.RtAttr {
	return vnl.NewRtAttr(unix.IFLA_LINK, vnl.Uint32Attr(uint32(parent)))
}

// addLink makes a link of a kind. data are the attributes that only that kind has, more are others.
func addLink(n NewLink, kind string, data []*vnl.RtAttr, more ...*vnl.RtAttr) Change {
	info := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(vnl.IFLA_INFO_KIND, vnl.NonZeroTerminated(kind))
	inner := info.AddRtAttr(vnl.IFLA_INFO_DATA, nil)
	for _, a := range data {
		inner.AddChild(a)
	}
	parts := []vnl.NetlinkRequestData{vnl.NewIfInfomsg(unix.AF_UNSPEC)}
	for _, a := range append(append(n.attrs(), more...), info) {
		parts = append(parts, a)
	}
	return Change{
		"add " + kind + " " + n.Name,
		newRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, parts...),
	}
}

// Link finds a link by name; ErrNoLink if there is none.
func (h *Handle) Link(ctx context.Context, name string) (*Link, error) {
	link, _, err := h.link(ctx, "interface "+name, byName(name)...)
	return link, err
}

// LinkByIndex finds a link by its index; ErrNoLink if there is none.
func (h *Handle) LinkByIndex(ctx context.Context, index int) (*Link, error) {
	link, _, err := h.link(ctx, fmt.Sprintf("interface with index %d", index), byIndex(index))
	return link, err
}

// byName asks for a link by its name or, as the kernel has longer ones there only, by an
// alternative name.
func byName(name string) []vnl.NetlinkRequestData {
	kind := unix.IFLA_IFNAME
	if len(name) >= unix.IFNAMSIZ {
		kind = unix.IFLA_ALT_IFNAME
	}
	return []vnl.NetlinkRequestData{
		vnl.NewIfInfomsg(unix.AF_UNSPEC), vnl.NewRtAttr(kind, vnl.ZeroTerminated(name)),
	}
}

// byIndex asks for a link by its index.
func byIndex(index int) vnl.NetlinkRequestData {
	header := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	header.Index = int32(index)
	return header
}

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h; the others are states of an interface
// (linux/if.h).
const (
	skipStats   = 1 << 3
	operUnknown = 0
	operUp      = 6
)

// link finds the link that a request asks for, which the error calls what, and returns the
// attributes that the kernel describes it by, too.
func (h *Handle) link(
	ctx context.Context, what string, parts ...vnl.NetlinkRequestData,
) (*Link, []byte, error) {
	answer, err := h.get(ctx, unix.RTM_GETLINK,
		append(parts, vnl.NewRtAttr(unix.IFLA_EXT_MASK, vnl.Uint32Attr(skipStats)))...)
	if errors.Is(err, unix.ENODEV) {
		err = ErrNoLink
	} else if err == nil && len(answer) < unix.SizeofIfInfomsg {
		err = errShort
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	attrs := answer[unix.SizeofIfInfomsg:]
	return parseLink(vnl.DeserializeIfInfomsg(answer), attrs), attrs, nil
}

// parseLink reads a link from a message. What it keeps of attrs it does not copy.
func parseLink(header *vnl.IfInfomsg, attrs []byte) *Link {
	link := &Link{
		Index: int(header.Index), Kind: "device", Up: header.Flags&unix.IFF_UP != 0,
		Carrier: header.Flags&unix.IFF_LOWER_UP != 0,
		Promisc: header.Flags&unix.IFF_PROMISC != 0, AllMulti: header.Flags&unix.IFF_ALLMULTI != 0,
		Loopback: header.Flags&unix.IFF_LOOPBACK != 0,
	}
	for kind, value := range Attrs(attrs) {
		switch kind {
		case unix.IFLA_IFNAME:
			link.Name = unix.ByteSliceToString(value)
		case unix.IFLA_MTU:
			link.MTU = number(value)
		case unix.IFLA_ADDRESS:
			if len(bytes.Trim(value, "\x00")) > 0 {
				link.MAC = value
			}
		case unix.IFLA_OPERSTATE:
			state := number(value)
			link.Operational = state == operUp || state == operUnknown
		case unix.IFLA_TXQLEN:
			link.TxQLen = number(value)
		case unix.IFLA_MASTER:
			link.MasterIndex = number(value)
		case unix.IFLA_LINK:
			link.ParentIndex = number(value)
		case unix.IFLA_LINK_NETNSID:
			link.ParentElsewhere = true
		case unix.IFLA_PERM_ADDRESS:
			link.PermanentMAC = value
		case unix.IFLA_PROP_LIST, unix.IFLA_PROP_LIST | unix.NLA_F_NESTED:
			link.AltNames = append(link.AltNames, altNames(value)...)
		case unix.IFLA_GROUP:
			link.Group = uint32(number(value))
		case unix.IFLA_IFALIAS:
			link.Alias = unix.ByteSliceToString(value)
		case unix.IFLA_LINKINFO:
			link.Kind = unix.ByteSliceToString(attr(value, vnl.IFLA_INFO_KIND))
			data := attr(value, vnl.IFLA_INFO_DATA)
			link.Mode, link.VLAN = mode(link.Kind, data), vlan(link.Kind, data)
		}
	}
	return link
}

// altNames returns the alternative names in the list of a link's properties.
func altNames(properties []byte) (names []string) {
	for kind, name := range Attrs(properties) {
		if kind == unix.IFLA_ALT_IFNAME {
			names = append(names, unix.ByteSliceToString(name))
		}
	}
	return names
}

// mode returns a link's Mode by the attributes of its kind.
func mode(kind string, data []byte) string {
	switch kind {
	case "macvlan":
		return macvlanModes[uint32(number(attr(data, vnl.IFLA_MACVLAN_MODE)))]
	case "ipvlan":
		return ipvlanModes[uint16(number(attr(data, vnl.IFLA_IPVLAN_MODE)))]
	}
	return ""
}

// LinkIndexes lists the network interfaces, loopback included, by their names.
func (h *Handle) LinkIndexes(ctx context.Context) (map[string]int, error) {
	messages, err := h.dump(ctx, unix.RTM_GETLINK, vnl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	indexes := make(map[string]int, len(messages))
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			return nil, fmt.Errorf("list links: %w", errShort)
		}
		name := unix.ByteSliceToString(attr(m[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
		indexes[name] = int(vnl.DeserializeIfInfomsg(m).Index)
	}
	return indexes, nil
}

// Links lists all links, by index.
func (h *Handle) Links(ctx context.Context) ([]*Link, error) { return h.links(ctx) }

// links lists the links that a filter leaves, where the kernel knows it.
func (h *Handle) links(ctx context.Context, filter ...vnl.NetlinkRequestData) ([]*Link, error) {
	parts := append([]vnl.NetlinkRequestData{
		vnl.NewIfInfomsg(unix.AF_UNSPEC), vnl.NewRtAttr(unix.IFLA_EXT_MASK, vnl.Uint32Attr(skipStats)),
	}, filter...)
	messages, err := h.dump(ctx, unix.RTM_GETLINK, parts...)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]*Link, 0, len(messages))
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			return nil, fmt.Errorf("list links: %w", errShort)
		}
		links = append(links, parseLink(vnl.DeserializeIfInfomsg(m), m[unix.SizeofIfInfomsg:]))
	}
	return links, nil
}

// DeleteLink removes a link by name. One that is not there is removed already.
func (h *Handle) DeleteLink(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l, err := h.Link(ctx, name)
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	if err != nil {
		return err
	}
	return h.deleteIndex(ctx, l.Index, name)
}

// deleteIndex removes a link by its index. One that is not there is removed already.
func (h *Handle) deleteIndex(ctx context.Context, index int, name string) error {
	err := h.do(ctx, unix.RTM_DELLINK, 0, byIndex(index))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// DeleteGroup removes all links of a group of the namespace in one step, and waits for the kernel's
// grace period once. A group without links is removed already. The kernel removes all or none:
// EOPNOTSUPP where one of them cannot be removed.
func (h *Handle) DeleteGroup(ctx context.Context, group uint32) error {
	err := h.do(ctx, unix.RTM_DELLINK, 0, vnl.NewIfInfomsg(unix.AF_UNSPEC),
		vnl.NewRtAttr(unix.IFLA_GROUP, vnl.Uint32Attr(group)))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link group %d: %w", group, err)
	}
	return nil
}
