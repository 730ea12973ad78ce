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

// onChange calls done at once, and again when the kernel says that something of a group (unix.RTNLGRP_LINK, ...) has changed in the
// namespace, until it says so or fails. It returns when ctx ends, with its error.
func onChange(ctx context.Context, ns *netns.NS, group uint, done func() (bool, error)) error {
	var socket *vnl.NetlinkSocket
	err := ns.Do(func() (err error) {
		socket, err = vnl.SubscribeAt(vnetns.None(), vnetns.None(), unix.NETLINK_ROUTE, group)
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

// AwaitCarrier waits until the kernel says of a link, by index, that packets pass: not of one that it knows nothing about yet, which
// Link.Operational is true for. It returns when ctx ends, with its error.
func (h *Handle) AwaitCarrier(ctx context.Context, ns *netns.NS, index int) error {
	carrier := func() (bool, error) {
		_, attrs, err := h.link(ctx, fmt.Sprintf("interface with index %d", index), byIndex(index))
		return number(attr(attrs, unix.IFLA_OPERSTATE)) == operUp, err
	}
	if done, err := carrier(); done || err != nil {
		return err
	}
	return onChange(ctx, ns, unix.RTNLGRP_LINK, carrier)
}
