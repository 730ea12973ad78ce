package nl

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/braid-cni/braid/pkg/netns"
)

// Sandbox does single operations on a namespace that is given by its path: open, do, close.
type Sandbox struct{}

// Links is Handle.LinkIndexes of the namespace at netnsPath. When the namespace is gone, the error
// is fs.ErrNotExist.
func (Sandbox) Links(ctx context.Context, netnsPath string) (indexes map[string]int, err error) {
	err = with(netnsPath, func(h *Handle) error {
		indexes, err = h.LinkIndexes(ctx)
		return err
	})
	return indexes, err
}

// DeleteIndex removes the link of that index from the namespace at netnsPath. One that is not there
// is removed already.
func (Sandbox) DeleteIndex(ctx context.Context, netnsPath string, index int) error {
	return with(netnsPath, func(h *Handle) error {
		return h.deleteIndex(ctx, index, fmt.Sprintf("with index %d", index))
	})
}

// MoveDefaultRoute is Handle.MoveDefaultRoute in the namespace at netnsPath.
func (Sandbox) MoveDefaultRoute(
	ctx context.Context, netnsPath, ifname string, gateways []netip.Addr,
) error {
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
func (Sandbox) DefaultGateways(
	ctx context.Context, netnsPath, ifname string,
) (gateways []netip.Addr, err error) {
	err = with(netnsPath, func(h *Handle) error {
		gateways, err = h.DefaultGateways(ctx, ifname)
		return err
	})
	return gateways, err
}

// with calls do with a handle that is open as long, in the namespace at netnsPath.
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
