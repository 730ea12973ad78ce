package nl

import (
	"context"
	"errors"
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// onChange calls done at once, and again when the kernel says that something of the groups
// (unix.RTNLGRP_LINK, ...) has changed in the namespace, until it says so or fails. It returns when
// ctx ends, with its error.
func onChange(ctx context.Context, ns *netns.NS, done func() (bool, error), groups ...uint) error {
	var socket *vnl.NetlinkSocket
	err := ns.Do(func() (err error) {
		socket, err = vnl.SubscribeAt(vnetns.None(), vnetns.None(), unix.NETLINK_ROUTE, groups...)
		return err
	})
	if err != nil {
		return fmt.Errorf("subscribe to changes in network namespace %q: %w", ns.Path(), err)
	}
	defer socket.Close()
	defer context.AfterFunc(ctx, socket.Close)()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		_, _, err := socket.Receive()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// More changes than the socket holds are changes.
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for changes in network namespace %q: %w", ns.Path(), err)
		}
	}
}

// AwaitCarrier waits until the kernel says of a link, by index, that packets pass: not of one that
// it knows nothing about yet, which Link.Operational is true for. It returns when ctx ends, with
// its error.
func (h *Handle) AwaitCarrier(ctx context.Context, ns *netns.NS, index int) error {
	carrier := func() (bool, error) {
		_, attrs, err := h.link(ctx, fmt.Sprintf("interface with index %d", index), byIndex(index))
		return number(attr(attrs, unix.IFLA_OPERSTATE)) == operUp, err
	}
	if done, err := carrier(); done || err != nil {
		return err
	}
	return onChange(ctx, ns, carrier, unix.RTNLGRP_LINK)
}

// Watch calls changed at once, and again when a link or an address of the namespace has changed. It
// returns when ctx ends, with its error.
func Watch(ctx context.Context, ns *netns.NS, changed func()) error {
	return onChange(ctx, ns, func() (bool, error) { changed(); return false, nil },
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
}
