package nl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// RefuseDefaultRouters makes links of the namespace at netnsPath take no default route from router
// advertisements, and removes those that they have taken already. Addresses and other routes that
// routers advertise are still taken. A link that is not there has none.
func (Sandbox) RefuseDefaultRouters(ctx context.Context, netnsPath string, links []string) error {
	ns, err := netns.Open(netnsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := openWithSysctl(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	settings := make([]sysctl.Setting, len(links))
	for i, link := range links {
		settings[i] = sysctl.Setting{Key: "net/ipv6/conf/" + link + "/accept_ra_defrtr", Value: "0"}
	}
	if err := sysctl.Try(ns, settings...); err != nil {
		return err
	}
	if err := h.forgetRouters(ctx, links); err != nil {
		return fmt.Errorf("remove default routes of router advertisements: %w", err)
	}
	return nil
}

// openWithSysctl opens a handle, and the sysctls of ns to pkg/sysctl, in one visit of the
// namespace.
func openWithSysctl(ns *netns.NS) (h *Handle, err error) {
	err = ns.Do(func() (err error) {
		if h, err = Open(ns); err != nil {
			return err
		}
		return sysctl.Reach(ns)
	})
	if err != nil && h != nil {
		h.Close()
	}
	return h, err
}

// forgetRouters removes the default routes via links that were taken from router advertisements.
func (h *Handle) forgetRouters(ctx context.Context, links []string) error {
	routes, err := h.defaultRoutes(ctx, unix.AF_INET6)
	if err != nil {
		return err
	}
	learnt := slices.DeleteFunc(routes, func(r *route) bool {
		return r.header.Protocol != unix.RTPROT_RA
	})
	if len(learnt) == 0 {
		return nil
	}
	for _, name := range links {
		l, err := h.Link(ctx, name)
		if errors.Is(err, ErrNoLink) {
			continue
		}
		if err != nil {
			return err
		}
		if err := h.removeRoutes(ctx, via(learnt, l.Index)); err != nil {
			return err
		}
	}
	return nil
}
