package engine

import (
	"context"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
)

// Status says whether an ADD can succeed now: code 50 when it cannot, or the code of the default network's own STATUS (CNI 1.1
// "STATUS"). It is immediate: it looks at the node only, and asks the API only where the default network is a NAD.
func (e *Engine) Status(ctx context.Context, req *Request) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, req.Config.Braid.Timeouts.Status)
	defer cancel()
	err := e.status(ctx, req)
	if err != nil {
		e.logDone(ctx, "STATUS", start, err)
	}
	return err
}

func (e *Engine) status(ctx context.Context, req *Request) error {
	if err := ready(req.Config); err != nil {
		return notAvailable(err)
	}
	network, err := e.defaultNetwork(ctx, req)
	if err != nil {
		return notAvailable(err)
	}
	list, err := conf.ToLibcni(network.Conf)
	if err != nil {
		return notAvailable(err)
	}
	exec := e.NewExec(nil)
	defer exec.Close()
	err = e.chains(req, lossless(exec, list)).GetStatusNetworkList(ctx, list)
	switch {
	case err == nil:
		return nil
	case failure.ReasonOf(err) == failure.PluginNotFound:
		return notAvailable(chainError(err, network))
	}
	return chainError(err, network)
}

// notAvailable is the runtime's sign not to start pods here (CNI 1.1 "STATUS", code 50).
func notAvailable(err error) error {
	return &failure.Error{Reason: failure.NotReady, Err: types.NewError(failure.CodePluginNotAvailable, err.Error(), "")}
}
