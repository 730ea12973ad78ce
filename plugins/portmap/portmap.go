// Package portmap makes ports of the node lead to ports of a pod.
//
// Contract: plugin.Interface. The rules are nf_tables', in the table braid_hostport of the node's
// namespace, which has those of all pods; each rule carries its attachment as its tag, by which
// alone DEL and a repeated ADD find it. The plugin is chained: it finds the pod's addresses in
// prevResult, which it returns as it is. A mapping that would lead nowhere, or whose port of the
// node is taken, is an error.
package portmap

import (
	"context"
	"errors"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nft"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Conf is the plugin's configuration.
type Conf struct {
	plugin.Common
	// Backend is "nftables", which is the default, or "iptables", which is not this plugin's.
	Backend string `json:"backend,omitempty"`
	// SNAT has connections from the node's loopback addresses and from the pod's own subnet come from
	// the node's address. Their answers would not come back through the node else. Default true.
	SNAT *bool `json:"snat,omitempty"`
	// MasqAll extends SNAT to all connections.
	MasqAll bool `json:"masqAll,omitempty"`
	// ConditionsV4 and ConditionsV6 are further conditions for packets, in the words of nft or
	// iptables.
	ConditionsV4 []string `json:"conditionsV4,omitempty"`
	ConditionsV6 []string `json:"conditionsV6,omitempty"`
	// MarkMasqBit is accepted and not used: nothing is marked.
	MarkMasqBit *int `json:"markMasqBit,omitempty"`
	// ExternalSetMarkChain is a chain of iptables, which is not this plugin's.
	ExternalSetMarkChain *string `json:"externalSetMarkChain,omitempty"`
}

// Plugin is the plugin.
type Plugin struct{}

var (
	_ plugin.Interface[Conf] = Plugin{}
	_ plugin.Picky           = (*Conf)(nil)
)

const (
	backendNftables = "nftables"
	// maxMarkBit is the highest bit of a packet's mark.
	maxMarkBit = 31
)

// Knows returns an error for what needs iptables, and for conditions that parseConditions does not
// know.
func (c *Conf) Knows() error {
	if c.Backend != "" && c.Backend != backendNftables {
		return plugin.ConfError("backend", c.Backend, `is not "`+backendNftables+`"`)
	}
	if c.ExternalSetMarkChain != nil {
		return plugin.ConfError("externalSetMarkChain", *c.ExternalSetMarkChain, "is for iptables")
	}
	if _, err := parseConditions("conditionsV4", c.ConditionsV4, true); err != nil {
		return err
	}
	_, err := parseConditions("conditionsV6", c.ConditionsV6, false)
	return err
}

// check refuses a bit that a packet's mark does not have.
func (c *Conf) check() error {
	if c.MarkMasqBit != nil && (*c.MarkMasqBit < 0 || *c.MarkMasqBit > maxMarkBit) {
		return plugin.ConfError("markMasqBit", *c.MarkMasqBit,
			fmt.Sprintf("must be from 0 to %d", maxMarkBit))
	}
	return nil
}

// Validate judges the values.
func (c *Conf) Validate() error { return c.check() }

// snat reports whether the source of packets to the pod may become the node: by default it may.
func (c *Conf) snat() bool { return c.SNAT == nil || *c.SNAT }

// Add makes the rules. Those of an ADD before go, also if there are no mappings any more.
func (Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	w, err := wanted(req, c)
	if err != nil {
		return nil, err
	}
	if len(w.rules) == 0 {
		return req.Result(), release(ctx, req, nil)
	}
	if err := w.checkListeners(ctx, req); err != nil {
		return nil, err
	}
	return req.Result(), req.Filter(func(conn *nft.Conn) error {
		had, err := conn.Swap(ctx, table(), req.ID, w.claim(req), w.rules...)
		if err != nil {
			return err
		}
		// A process may have begun to listen meanwhile; a tenant's rules give way.
		if req.Limits != nil {
			if err := w.checkListeners(ctx, req); err != nil {
				return err
			}
		}
		if err := forget(ctx, conn, append(flows(w.forwards, w.pods), flowsOf(had)...)); err != nil {
			return err
		}
		return w.routeLocalnet(ctx, req)
	})
}

// claim returns a function that checks the rules of others before those of the work are made.
func (w *work) claim(req *plugin.Request) func(others []nft.Owned) error {
	pushed := false
	return func(others []nft.Owned) error {
		if err := w.checkOthers(others); err != nil {
			return err
		}
		// Before the change: without an answer of the kernel nobody knows whether it was made.
		if !pushed {
			pushed = true
			req.Undo.Push(func(ctx context.Context) error {
				return req.Unfilter(func(conn *nft.Conn) error { return conn.Delete(ctx, table(), req.ID) })
			})
		}
		return nil
	}
}

// Del removes the attachment's rules. They carry its tag, so it does not matter what the
// configuration says.
func (Plugin) Del(ctx context.Context, req *plugin.Request, _ *Conf) error {
	// No rules were made for mappings that are wrong, but there may be those of an ADD before.
	forwards, _ := mappings(req) //nolint:errcheck // those before the first wrong one are enough
	return release(ctx, req, flows(forwards, formerPods(req)))
}

// release removes the attachment's rules and forgets these flows, and those that the rules led to
// the pod.
func release(ctx context.Context, req *plugin.Request, known []flow) error {
	return req.Unfilter(func(conn *nft.Conn) error {
		had, err := conn.Swap(ctx, table(), req.ID, nil)
		return errors.Join(err, forget(ctx, conn, append(known, flowsOf(had)...)))
	})
}

// Check compares the rules and the interface's setting with what Add makes.
func (Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	w, err := wanted(req, c)
	if err != nil || len(w.rules) == 0 {
		return err
	}
	return req.Filter(func(conn *nft.Conn) error {
		if err := conn.Check(ctx, table(), req.ID, w.rules...); err != nil {
			return err
		}
		return w.checkLocalnet(ctx, req)
	})
}

// GC removes the rules of the network's attachments that are not valid.
func (Plugin) GC(ctx context.Context, req *plugin.Request, _ *Conf) error {
	return req.Unfilter(func(conn *nft.Conn) error {
		return conn.Keep(ctx, table(), req.Network, req.Valid)
	})
}

// Status is always good: a network may have no pod that asks for ports.
func (Plugin) Status(context.Context, *plugin.Request, *Conf) error { return nil }
