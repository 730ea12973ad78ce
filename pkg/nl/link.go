package nl

import (
	"context"
	"errors"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// errNoLink says that no link has the name asked for.
var errNoLink = errors.New("no such interface in the pod's network namespace")

// link is what Braid needs to know of a network interface.
type link struct {
	index int
	name  string
	up    bool // as the administrator, or a plugin, set it; carrier does not count
}

// LinkNames lists the network interfaces, loopback included, in the kernel's order (by index).
func (h *Handle) LinkNames(ctx context.Context) ([]string, error) {
	links, err := h.links(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.name
	}
	return names, nil
}

// link finds a link by its name; errNoLink if there is none.
func (h *Handle) link(ctx context.Context, name string) (link, error) {
	links, err := h.links(ctx)
	if err != nil {
		return link{}, err
	}
	for _, l := range links {
		if l.name == name {
			return l, nil
		}
	}
	return link{}, errNoLink
}

func (h *Handle) links(ctx context.Context) ([]link, error) {
	messages, err := h.dump(ctx, unix.RTM_GETLINK, vnl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]link, 0, len(messages))
	for _, m := range messages {
		l, err := parseLink(m)
		if err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
		links = append(links, l)
	}
	return links, nil
}

func parseLink(m []byte) (link, error) {
	if len(m) < unix.SizeofIfInfomsg {
		return link{}, errShort
	}
	attrs, err := vnl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
	if err != nil {
		return link{}, err
	}
	header := vnl.DeserializeIfInfomsg(m)
	l := link{index: int(header.Index), up: header.Flags&unix.IFF_UP != 0}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME {
			l.name = unix.ByteSliceToString(a.Value)
		}
	}
	return l, nil
}
