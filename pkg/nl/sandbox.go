package nl

import (
	"context"
	"net/netip"

	"github.com/braid-cni/braid/pkg/netns"
)

// Sandbox does single operations on a namespace that is given by its path: open, do, close.
type Sandbox struct{}

// Links is Handle.LinkNames of the namespace at netnsPath. When the namespace is gone, the error is fs.ErrNotExist.
func (Sandbox) Links(ctx context.Context, netnsPath string) (names []string, err error) {
	err = with(netnsPath, func(h *Handle) error {
		names, err = h.LinkNames(ctx)
		return err
	})
	return names, err
}

// MoveDefaultRoute is Handle.MoveDefaultRoute in the namespace at netnsPath.
func (Sandbox) MoveDefaultRoute(ctx context.Context, netnsPath, ifname string, gateways []netip.Addr) error {
	err := with(netnsPath, func(h *Handle) error { return h.moveDefaultRoute(ctx, ifname, gateways) })
	if err != nil {
		return defaultRouteError(ifname, err)
	}
	return nil
}

// DeleteGroup is Handle.DeleteGroup in the namespace at netnsPath.
func (Sandbox) DeleteGroup(ctx context.Context, netnsPath string, group uint32) error {
	return with(netnsPath, func(h *Handle) error { return h.DeleteGroup(ctx, group) })
}

// DefaultGateways is Handle.DefaultGateways of the namespace at netnsPath.
func (Sandbox) DefaultGateways(ctx context.Context, netnsPath, ifname string) (gateways []netip.Addr, err error) {
	err = with(netnsPath, func(h *Handle) error {
		gateways, err = h.DefaultGateways(ctx, ifname)
		return err
	})
	return gateways, err
}

func with(netnsPath string, do func(*Handle) error) error {
	ns, err := netns.Open(netnsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := Open(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return do(h)
}
