// Package hostlocal gives addresses to pods out of ranges that belong to this node.
//
// Contract: plugin.Interface. The leases are those of pkg/ipam/file, which are the reference's. An
// ADD gets one address of each range set, or none at all. DEL, GC and the roll-back need the keys
// dataDir and name only, whatever became of the ranges.
package hostlocal

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
)

// Plugin is the plugin.
type Plugin struct {
	// Boot says when the machine was started. The zero value asks the kernel each time, file.Kernel
	// once.
	Boot file.Boot
	// Roots are where the key dataDir may lead to; nil for anywhere.
	Roots hostfile.Roots
	// ResolvConf are where the key resolvConf may lead to; nil for anywhere.
	ResolvConf hostfile.Roots
}

var _ plugin.Interface[Conf] = Plugin{}

// Add takes an address of each range set.
func (p Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	store, err := p.store(req, c)
	if err != nil {
		return nil, err
	}
	want, err := c.want(req)
	if err != nil {
		return nil, err
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if result.Routes, err = ipam.Routes(c.Routes); err != nil {
		return nil, err
	}
	if result.DNS, err = p.resolvConf(c.ResolvConf); err != nil {
		return nil, err
	}
	leases, err := store.Add(ctx, req.ID, want)
	if err != nil {
		return nil, explain(err)
	}
	var addrs []netip.Addr
	for _, l := range leases {
		addrs = append(addrs, l.Addr.Addr())
		result.IPs = append(result.IPs,
			&types100.IPConfig{Address: plugin.IPNet(l.Addr), Gateway: l.Gateway.AsSlice()})
	}
	req.Undo.Push(func(ctx context.Context) error { return store.Release(ctx, req.ID, addrs) })
	return result, nil
}

// explain adds what can be done about an ADD for which there is no address.
func explain(err error) error {
	switch {
	case errors.Is(err, file.ErrFull):
		return failure.WithFix(err, "delete pods of this network on this node, or enlarge its range")
	case errors.Is(err, file.ErrTaken):
		return failure.WithFix(err, "delete the pod that has it, or ask for another one")
	case errors.Is(err, file.ErrHolds):
		return failure.WithFix(err,
			"a DEL must come before another ADD of the same container and interface")
	}
	return err
}

// want checks all of the configuration that an ADD needs to choose addresses.
func (c *Conf) want(req *plugin.Request) ([]file.Wish, error) {
	sets, err := c.sets(req)
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		return nil, plugin.ConfError("ipam.ranges", c.Ranges,
			"there are no ranges, neither here nor in subnet or runtimeConfig.ipRanges")
	}
	var firsts []netip.Addr
	for _, set := range sets {
		firsts = append(firsts, set[0].First)
	}
	if err := ipam.CheckFamilies(req, firsts); err != nil {
		return nil, err
	}
	return wishes(req, sets)
}

// Del removes the leases. Where they would be in a directory that is not allowed there are none,
// unless it was allowed at the time of the ADD.
func (p Plugin) Del(ctx context.Context, req *plugin.Request, c *Conf) error {
	store, err := p.store(req, c)
	if err == nil {
		err = store.Del(ctx, req.ID, promised(req))
	}
	if isRefused(err) {
		dir, ok := req.Kept(c.DataDir)
		if !ok {
			return nil
		}
		kept := file.Store{DataDir: dir.String(), Roots: dir.Roots(), Network: req.Network, Boot: p.Boot}
		if holds := kept.Check(ctx, req.ID, nil) == nil; !holds {
			return nil
		}
	}
	return err
}

// isRefused reports whether an error is that of a directory where no leases may be.
func isRefused(err error) bool {
	_, refused := errors.AsType[*plugin.RefusedError](err)
	return refused || errors.Is(err, unix.ELOOP)
}

// promised returns the addresses of prevResult.
func promised(req *plugin.Request) []netip.Addr {
	if req.PrevResult == nil {
		return nil
	}
	var addrs []netip.Addr
	for _, ip := range req.PrevResult.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// Check looks for the lease of each address of prevResult that is in one of the ranges; where there
// is none, for any lease.
func (p Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	store, err := p.store(req, c)
	if err != nil {
		return err
	}
	sets, err := c.sets(req)
	if err != nil {
		return err
	}
	var ours []netip.Addr
	for _, addr := range promised(req) {
		for _, set := range sets {
			if _, ok := set.Find(addr); ok {
				ours = append(ours, addr)
			}
		}
	}
	return store.Check(ctx, req.ID, ours)
}

// GC removes the leases of attachments that are not valid. There are none where none may be. Of a
// tenant's network it removes those only that were made here: others may use the directory by the
// same name.
func (p Plugin) GC(ctx context.Context, req *plugin.Request, c *Conf) error {
	store, err := p.store(req, c)
	if err == nil && req.Limits != nil {
		err = store.GCMade(ctx, req.Valid)
	} else if err == nil {
		err = store.GC(ctx, req.Valid)
	}
	if isRefused(err) {
		return nil
	}
	return err
}

// Status returns an error of code 50 where a range set has no free address.
func (p Plugin) Status(ctx context.Context, req *plugin.Request, c *Conf) error {
	store, err := p.store(req, c)
	if err != nil {
		return err
	}
	sets, err := c.sets(req)
	if err != nil {
		return err
	}
	free, err := store.Free(ctx, sets)
	full := slices.Index(free, 0)
	if err != nil || full < 0 {
		return err
	}
	msg := fmt.Sprintf("no address is free in range set %d, %v, of network %s",
		full, sets[full], req.Network)
	return types.NewError(types.ErrPluginNotAvailable, msg, "")
}

// Room returns how many addresses the range set has that has the fewest.
func (p Plugin) Room(ctx context.Context, req *plugin.Request, c *Conf) (uint64, error) {
	store, err := p.store(req, c)
	if err != nil {
		return 0, err
	}
	sets, err := c.sets(req)
	if err != nil || len(sets) == 0 {
		return 0, err
	}
	free, err := store.Free(ctx, sets)
	if err != nil {
		return 0, err
	}
	return slices.Min(free), nil
}
