package nl

import (
	"context"
	"encoding/binary"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// vlan returns the ID of a VLAN link of IEEE 802.1Q, by the attributes that only its kind has; 0
// for another.
func vlan(kind string, data []byte) int {
	protocol := attr(data, vnl.IFLA_VLAN_PROTOCOL)
	if kind != "vlan" || len(protocol) != 2 || binary.BigEndian.Uint16(protocol) != unix.ETH_P_8021Q {
		return 0
	}
	return number(attr(data, vnl.IFLA_VLAN_ID))
}

// AddVLAN makes a link for the frames of one VLAN of the link parent, an index. A name that is
// taken, and a VLAN that has a link on parent already, are errors, fs.ErrExist.
func (h *Handle) AddVLAN(ctx context.Context, n NewLink, parent, id int) error {
	data := []*vnl.RtAttr{vnl.NewRtAttr(vnl.IFLA_VLAN_ID, vnl.Uint16Attr(uint16(id)))}
	return h.Apply(ctx, addLink(n, "vlan", data, on(parent)))
}

// VLAN finds the link for a VLAN of the link parent, an index; ErrNoLink if there is none.
func (h *Handle) VLAN(ctx context.Context, parent, id int) (*Link, error) {
	what := fmt.Sprintf("VLAN %d of interface with index %d", id, parent)
	links, err := h.links(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	for _, link := range links {
		if link.VLAN == id && link.ParentIndex == parent {
			return link, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", what, ErrNoLink)
}

// SetAlias sets the alias of a link, by index.
func SetAlias(index int, alias string) Change {
	return setLink(index, "set alias of", vnl.NewRtAttr(unix.IFLA_IFALIAS, vnl.ZeroTerminated(alias)))
}
