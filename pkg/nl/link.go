package nl

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
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
	// Up, Promisc and AllMulti are the administrator's wish; Operational is that packets can pass, Carrier that the other end is there: the
	// kernel knows the latter at once.
	Up, Operational, Carrier bool
	Promisc, AllMulti        bool
	// TxQLen is the length of the transmit queue in packets.
	TxQLen int
	// MasterIndex is the bridge that the link is a port of, ParentIndex the link below it or, of a veth, the other end; 0 for none.
	MasterIndex, ParentIndex int
	// Group is the link group, 0 by default.
	Group uint32
	// Mode is that of a macvlan ("bridge", "private", "vepa", "passthru") or an ipvlan ("l2", "l3", "l3s").
	Mode string
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

func (n NewLink) attrs(parent int) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.HardwareAddr, a.Group, a.ParentIndex = n.Name, n.MTU, n.MAC, n.Group, parent
	if n.In != nil {
		a.Namespace = netlink.NsFd(n.In.Fd())
	}
	return a
}

func (h *Handle) add(ctx context.Context, l netlink.Link) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.lib.LinkAdd(l); err != nil {
		return fmt.Errorf("add %s %s: %w", l.Type(), l.Attrs().Name, err)
	}
	return nil
}

// Link finds a link by name; ErrNoLink if there is none.
func (h *Handle) Link(ctx context.Context, name string) (*Link, error) {
	l, err := call(ctx, func() (netlink.Link, error) { return h.lib.LinkByName(name) })
	return linkOf(l, err, "interface "+name)
}

// LinkByIndex finds a link by its index; ErrNoLink if there is none.
func (h *Handle) LinkByIndex(ctx context.Context, index int) (*Link, error) {
	l, err := call(ctx, func() (netlink.Link, error) { return h.lib.LinkByIndex(index) })
	return linkOf(l, err, fmt.Sprintf("interface with index %d", index))
}

func linkOf(l netlink.Link, err error, what string) (*Link, error) {
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("%s: %w", what, ErrNoLink)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	a := l.Attrs()
	link := &Link{
		Index: a.Index, Name: a.Name, Kind: l.Type(), MTU: a.MTU, MAC: a.HardwareAddr,
		Up: a.RawFlags&unix.IFF_UP != 0, Operational: a.OperState == netlink.OperUp || a.OperState == netlink.OperUnknown,
		Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Promisc: a.RawFlags&unix.IFF_PROMISC != 0, AllMulti: a.RawFlags&unix.IFF_ALLMULTI != 0, TxQLen: a.TxQLen,
		MasterIndex: a.MasterIndex, ParentIndex: a.ParentIndex, Group: a.Group,
	}
	switch l := l.(type) {
	case *netlink.Macvlan:
		link.Mode = macvlanModes[l.Mode]
	case *netlink.IPVlan:
		link.Mode = ipvlanModes[l.Mode]
	}
	return link, nil
}

// LinkNames lists the network interfaces, loopback included, in the kernel's order (by index).
func (h *Handle) LinkNames(ctx context.Context) ([]string, error) {
	messages, err := h.dump(ctx, unix.RTM_GETLINK, vnl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := make([]string, 0, len(messages))
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			return nil, fmt.Errorf("list links: %w", errShort)
		}
		names = append(names, unix.ByteSliceToString(attr(m[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME)))
	}
	return names, nil
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
	if err := h.lib.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.Index}}); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// DeleteGroup removes all links of a group of the namespace in one step, and waits for the kernel's grace period once. A group without
// links is removed already. The kernel removes all or none: EOPNOTSUPP where one of them cannot be removed.
func (h *Handle) DeleteGroup(ctx context.Context, group uint32) error {
	err := h.do(ctx, unix.RTM_DELLINK, 0, vnl.NewIfInfomsg(unix.AF_UNSPEC), vnl.NewRtAttr(unix.IFLA_GROUP, vnl.Uint32Attr(group)))
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link group %d: %w", group, err)
	}
	return nil
}
