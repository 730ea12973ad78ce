// Package whereabouts gives pods addresses that are unique in the whole cluster, out of ranges that
// all nodes share.
//
// Contract: plugin.Interface. The addresses are those of pkg/ipam/block: an ADD gets one of each
// range, or none at all. DEL and GC need nothing but the network's name, whatever became of the
// rest of the configuration and of the flat file.
package whereabouts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
)

// Plugin is the plugin.
type Plugin struct {
	// Open opens the addresses of this node. It bears a log that cannot be written.
	Open func(*Conf) (*Addresses, error)
	// Files are the places of the flat file, see Files.
	Files []string
	// Logs are where the key log_file of a configuration may lead to; nil for anywhere.
	Logs hostfile.Roots
	// Trusting is true if the configuration may name files of the node to read, as one that is called
	// by its own name has it.
	Trusting bool
}

// Addresses are the addresses of this node, open for one operation.
type Addresses struct {
	*block.Manager
	Claims block.IPAMClaims
	// Got, if set, is called when an ADD has got addresses that no claim keeps.
	Got func(context.Context, []block.Wish)
	// Close ends their use.
	Close func()
}

var _ plugin.Interface[Conf] = Plugin{}

// Add takes an address of each range.
func (p Plugin) Add(
	ctx context.Context, req *plugin.Request, c *Conf,
) (result *types100.Result, err error) {
	written := c.NetworkName
	c, flat, err := p.complete(c)
	if err != nil {
		return nil, err
	}
	want, err := c.plan()
	if err != nil {
		return nil, err
	}
	want.beside(p.otherSpaces(req, c, written))
	if err := ipam.CheckFamilies(req, want.addrs()); err != nil {
		return nil, err
	}
	err = p.operate(ctx, "ADD", req, c, func(m *Addresses) error {
		c.logUnused(ctx, m.Log, req.Network, flat)
		addrs, err := want.allocate(ctx, m, req, func(ctx context.Context) error {
			return p.operate(ctx, "DEL", req, c, func(m *Addresses) error { return m.Del(ctx, req.ID) })
		})
		if err == nil {
			result = want.result(addrs)
			result.DNS = c.DNS
		}
		return err
	})
	return result, err
}

// logUnused logs which keys of the configuration and of the flat file have no effect.
func (c *Conf) logUnused(ctx context.Context, log *slog.Logger, network, flat string) {
	if unused := c.unusedKeys(); len(unused) > 0 {
		log.InfoContext(ctx, "keys without effect",
			"network", network, "keys", unused, "flatFile", flat)
	}
}

// otherSpaces returns the network_names under which a tenant's network may have addresses, beside
// that of its configuration. What is written there nowhere, the flat file may have.
func (p Plugin) otherSpaces(req *plugin.Request, c *Conf, written string) []string {
	others := req.Limits.OtherSpaces(written)
	if req.Limits == nil || written != attachment.OwnSpace(req.Limits.Namespace, "") {
		return others
	}
	flat, _, err := p.complete(&Conf{ConfigurationPath: c.ConfigurationPath})
	if err == nil && flat.NetworkName != "" {
		others = append(others, flat.NetworkName)
	}
	return others
}

// allocate returns an address for each wish; undo gives them back, when m is not open any more.
func (p *plan) allocate(
	ctx context.Context, m *Addresses, req *plugin.Request, undo func(context.Context) error,
) ([]netip.Addr, error) {
	pod, err := podOf(req)
	if err != nil {
		return nil, err
	}
	claim, err := pod.claim(ctx, m.Claims, req)
	if err != nil {
		return nil, err
	}
	if err := p.grant(req, pod, claim); err != nil || len(p.wishes) == 0 {
		return nil, err
	}
	addrs, err := m.Add(ctx, pod.holder(req), p.wishes, claim)
	if err != nil {
		return nil, err
	}
	req.Undo.Push(undo)
	if m.Got != nil && claim == nil {
		m.Got(ctx, p.wishes)
	}
	return addrs, p.publish(ctx, m.Claims, pod, claim, addrs)
}

// result returns the result of an ADD which has got these addresses.
func (p *plan) result(addrs []netip.Addr) *types100.Result {
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Routes: p.routes}
	for i, addr := range addrs {
		ip := &types100.IPConfig{Address: plugin.IPNet(netip.PrefixFrom(addr, p.bits(i)))}
		if p.gateway.BitLen() == addr.BitLen() {
			ip.Gateway = p.gateway.AsSlice()
		}
		result.IPs = append(result.IPs, ip)
	}
	for _, a := range p.static {
		result.IPs = append(result.IPs,
			&types100.IPConfig{Address: plugin.IPNet(a.prefix), Gateway: a.gateway.AsSlice()})
	}
	return result
}

// bits returns the prefix length of a wish's addresses.
func (p *plan) bits(i int) int { return p.wishes[i].Window.Prefix().Bits() }

// Del releases the addresses.
func (p Plugin) Del(ctx context.Context, req *plugin.Request, c *Conf) error {
	return p.always(ctx, "DEL", req, c, func(m *Addresses) error { return m.Del(ctx, req.ID) })
}

// GC releases the addresses of attachments that are not valid.
func (p Plugin) GC(ctx context.Context, req *plugin.Request, c *Conf) error {
	return p.always(ctx, "GC", req, c, func(m *Addresses) error {
		return m.GC(ctx, req.Network, req.Valid)
	})
}

// always is operate for what a flat file that cannot be read must not stop.
func (p Plugin) always(
	ctx context.Context, command string, req *plugin.Request, c *Conf, do func(*Addresses) error,
) error {
	c, _, flat := p.complete(c)
	return p.operate(ctx, command, req, c, func(m *Addresses) error {
		if flat != nil {
			m.Log.WarnContext(ctx, "done without the flat file", "error", flat)
		}
		return do(m)
	})
}

// Check looks for the addresses of prevResult that are in one of the ranges; where there is none,
// for any address.
func (p Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	c, _, err := p.complete(c)
	if err != nil {
		return err
	}
	want, err := c.plan()
	if err != nil || len(want.wishes) == 0 {
		return err
	}
	var ours []netip.Addr
	if req.PrevResult != nil {
		for _, ip := range req.PrevResult.IPs {
			if addr, _ := netip.AddrFromSlice(ip.Address.IP); want.may(addr.Unmap()) {
				ours = append(ours, addr.Unmap())
			}
		}
	}
	return p.operate(ctx, "CHECK", req, c, func(m *Addresses) error {
		return m.Check(ctx, req.ID, ours)
	})
}

// may reports whether the address can be one of the ranges'.
func (p *plan) may(addr netip.Addr) bool {
	return slices.ContainsFunc(p.wishes, func(w block.Wish) bool { return w.Window.Contains(addr) })
}

// Status returns an error of code 50 where an ADD has just found no address. It asks the API
// nothing.
func (p Plugin) Status(ctx context.Context, req *plugin.Request, c *Conf) error {
	c, _, err := p.complete(c)
	if err != nil {
		return err
	}
	want, err := c.plan()
	if err != nil {
		return err
	}
	return p.operate(ctx, "STATUS", req, c, func(m *Addresses) error {
		return m.Status(ctx, want.wishes)
	})
}

// Room returns how many addresses the range has that has the fewest, see block.Manager.Free.
func (p Plugin) Room(ctx context.Context, req *plugin.Request, c *Conf) (uint64, error) {
	written := c.NetworkName
	c, _, err := p.complete(c)
	if err != nil {
		return 0, err
	}
	want, err := c.plan()
	if err != nil || len(want.wishes) == 0 {
		return plugin.Unlimited, err
	}
	want.beside(p.otherSpaces(req, c, written))
	m, err := p.Open(c)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	room := plugin.Unlimited
	for _, w := range want.wishes {
		free, err := m.Free(ctx, w)
		if err != nil {
			return 0, err
		}
		room = min(room, free)
	}
	return room, nil
}

// operate opens the node's addresses for one operation. How it ended is said in the plugin's own
// log, where there is one: that of the caller has it from the caller.
func (p Plugin) operate(
	ctx context.Context, command string, req *plugin.Request, c *Conf, do func(*Addresses) error,
) error {
	m, err := p.Open(c)
	if err != nil {
		return err
	}
	defer m.Close()
	start := time.Now()
	err = explain(command, req, do(m))
	if c.LogFile != "" {
		level, pod := slog.LevelInfo, &pod{}
		req.Env(pod) //nolint:errcheck // told by what needs it
		if err != nil {
			level = slog.LevelError
		}
		m.Log.Log(ctx, level, command, "pod", pod.holder(req).Pod, "network", req.Network,
			"container", req.ContainerID, "interface", req.IfName,
			"duration", time.Since(start).Round(time.Microsecond), "error", err)
	}
	return err
}

// coded is an error with its CNI code.
type coded struct {
	code uint
	err  error
}

func (c *coded) Error() string { return c.err.Error() }

// Unwrap returns the error of the protocol, too.
func (c *coded) Unwrap() []error {
	return []error{types.NewError(c.code, c.err.Error(), ""), c.err}
}

// explain gives an error of the node's addresses its CNI code and says what to do. What is full or
// taken may be given back: try again later.
func explain(command string, req *plugin.Request, err error) error {
	if _, ok := errors.AsType[*types.Error](err); ok || err == nil {
		return err
	}
	fix, code := "", types.ErrTryAgainLater
	switch {
	case errors.Is(err, block.ErrFull):
		fix = "delete pods, or give the network a larger range"
		if command == "STATUS" {
			code = failure.CodePluginNotAvailable
		}
	case errors.Is(err, block.ErrTaken):
		fix = "delete the pod that has it, or ask for another one"
	case !errors.Is(err, block.ErrLater):
		code = failure.Code(err)
	}
	if err = fmt.Errorf("network %s: %w", req.Network, err); fix != "" {
		err = failure.WithFix(err, fix)
	}
	if code == types.ErrInternal { // the caller may know better, as when time is up
		return err
	}
	return &coded{code, err}
}
