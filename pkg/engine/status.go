package engine

import (
	"context"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
)

// Status reports whether an ADD can succeed now: code 50 when it cannot, or the code of the default
// network's own STATUS (CNI 1.1 "STATUS"). It is immediate: it looks at the node only, and asks no
// API server. A default network that is a NAD is known from the last pod that had it; before the
// first one, only what does not depend on it is looked at.
func (e *Engine) Status(ctx context.Context, req *Request) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, e.Node.Timeouts.Status)
	defer cancel()
	err := e.status(ctx, req)
	e.operationDone(ctx, Status, start, err)
	return err
}

// status looks first at what keeps an ADD from succeeding at all, then asks the default network.
func (e *Engine) status(ctx context.Context, req *Request) error {
	if err := e.ready(); err != nil {
		return notAvailable(err)
	}
	network, err := e.knownDefault(ctx, req)
	if err != nil {
		return notAvailable(err)
	}
	if network == nil { // its plugins speak for themselves when the first pod comes
		return nil
	}
	list, err := netconf.Libcni(network.Conf)
	if err != nil {
		return notAvailable(err)
	}
	exec := e.NewExec(nil)
	defer exec.Close()
	known, made := asMade(exec, list, list.Name, network, nil)
	err = e.libcni(req, made).GetStatusNetworkList(ctx, known)
	switch {
	case err == nil:
		return nil
	case failure.ReasonOf(err) == failure.PluginNotFound:
		return notAvailable(chainError(err, network))
	}
	return chainError(err, network)
}

// knownDefault returns the default network as far as this node knows it without asking an API
// server; nil if it does not.
func (e *Engine) knownDefault(ctx context.Context, req *Request) (*plan.Attachment, error) {
	requests, err := plan.Requests(e.Node, e.Policy, nil)
	if err != nil {
		return nil, err
	}
	r := requests[0]
	if !e.Remote || !r.IsNAD() {
		return e.resolver().Default(ctx, req.Call)
	}
	networks, err := e.Records.Networks()
	if err != nil {
		e.Log.WarnContext(ctx, "networks of this node cannot be read", "error", err)
	}
	for _, n := range networks {
		if n.Name == r.Namespace+"/"+r.Name {
			return &plan.Attachment{Name: n.Name, Network: n.Network, Default: true, Conf: n.Conf}, nil
		}
	}
	if !r.OnDisk {
		return nil, nil
	}
	return e.defaultOnDisk(req, r)
}

// defaultOnDisk returns the default network as the node's files have it; nil if they do not.
func (e *Engine) defaultOnDisk(req *Request, r plan.Request) (*plan.Attachment, error) {
	raw, err := netconf.OnDisk(e.Node.ConfDir, r.Name)
	if err != nil {
		return nil, nil //nolint:nilerr // it is a NAD, then
	}
	attachments, err := plan.Make(plan.Input{
		Node: e.Node, Policy: e.Policy, Call: req.Call, ContainerID: "any", IfName: "eth0",
		Requests: []plan.Request{r}, Definitions: []plan.Definition{{Conf: raw}},
	})
	if err != nil {
		return nil, err
	}
	return &attachments[0], nil
}

// notAvailable is the runtime's sign not to start pods here (CNI 1.1 "STATUS", code 50).
func notAvailable(err error) error {
	return &failure.Error{
		Reason: failure.NotReady, Err: types.NewError(failure.CodePluginNotAvailable, err.Error(), ""),
	}
}
