// Package warm does calls of the CNI protocol with engines that outlive them, for the agent.
//
// Contract: a call is done as cmd/braid would do it alone, with the configuration that the runtime
// passes in it, and with the environment of its client. What cmd/braid would refuse before it does
// anything is left to it. Events are sent, and blocks reserved, when the call has its answer.
package warm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent/server"
	"github.com/braid-cni/braid/pkg/agent/trace"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodeid"
)

// Handler implements server.Handler.
type Handler struct {
	Engines *Engines
	// Tracer makes spans of calls; nil for none.
	Tracer *trace.Tracer
}

// Prepare reads a call.
func (h *Handler) Prepare(call *server.Call) (*server.Prepared, error) {
	if err := node.NotByBraid(call.Env); err != nil {
		return nil, err
	}
	verb := engine.Verb(call.Env("CNI_COMMAND"))
	args := &skel.CmdArgs{
		ContainerID: call.Env("CNI_CONTAINERID"), Netns: call.Env("CNI_NETNS"),
		IfName: call.Env("CNI_IFNAME"),
		Args:   call.Env("CNI_ARGS"), Path: call.Env("CNI_PATH"), StdinData: call.Stdin,
	}
	if err := judge(verb, args); err != nil {
		return nil, err
	}
	op, err := node.NewOperation(verb, args)
	if err != nil {
		return nil, err
	}
	if err := speaks(verb, op.Config.CNIVersion); err != nil {
		return nil, err
	}
	if op.Config.Kubeconfig == "" && op.Config.Manifests == "" {
		return nil, errors.New("its configuration has no kubeconfig, and the agent's own account is " +
			"not for that")
	}
	op.Request.Still, op.Environ = call.Still, call.Environ
	op.Request.Runtime = nodeid.Program(nodeid.Parent(call.PID))
	after := &held{}
	return &server.Prepared{
		Urgent: verb == engine.Del, After: after.release,
		Do: func(ctx context.Context) *server.Result {
			ctx = withHeld(ctx, after)
			namespace, pod := op.Request.Pod()
			ctx, end := h.Tracer.Start(ctx, &trace.Call{
				Verb: verb, Env: call.Env, Namespace: namespace, Pod: pod, Sandbox: args.ContainerID,
			})
			defer end()
			return h.do(ctx, op)
		},
	}, nil
}

// judge finds what the CNI library refuses of the variables.
func judge(verb engine.Verb, args *skel.CmdArgs) error {
	switch verb {
	case engine.Add, engine.Check:
		if args.Netns == "" {
			return errors.New("CNI_NETNS is empty")
		}
	case engine.Del, engine.GC:
	default:
		return fmt.Errorf("the command %.40q is not for the agent", verb)
	}
	for _, dir := range filepath.SplitList(args.Path) {
		if !filepath.IsAbs(dir) { // the agent has another working directory
			return fmt.Errorf("CNI_PATH has %.200q, which is no absolute path", dir)
		}
	}
	if args.Path == "" {
		return errors.New("CNI_PATH is empty")
	}
	if verb == engine.GC {
		return nil
	}
	return errors.Join(plain(utils.ValidateContainerID(args.ContainerID)),
		plain(utils.ValidateInterfaceName(args.IfName)))
}

// plain is err, which is an interface that is nil if err is.
func plain(err *types.Error) error {
	if err == nil {
		return nil
	}
	return err
}

// speaks holds the configuration to a version of the protocol that has the command.
func speaks(verb engine.Verb, cniVersion string) error {
	least := map[engine.Verb]string{engine.Check: "0.4.0", engine.GC: "1.1.0"}[verb]
	if least == "" {
		return nil
	}
	if ok, err := version.GreaterThanOrEqualTo(cniVersion, least); err != nil || !ok {
		return fmt.Errorf("CNI %.40q has no %s", cniVersion, verb)
	}
	return nil
}

func (h *Handler) do(ctx context.Context, op *node.Operation) *server.Result {
	var stderr strings.Builder
	out, err := h.perform(withStderr(ctx, &stderr), op)
	result := &server.Result{Stdout: out, Stderr: []byte(stderr.String())}
	if err != nil {
		result.Exit = 1
		result.Stdout, err = node.PrintedError(err, op.Config.CNIVersion)
	}
	if err != nil {
		result.Stderr = append(result.Stderr, err.Error()...)
	}
	return result
}

func (h *Handler) perform(ctx context.Context, op *node.Operation) ([]byte, error) {
	e, release, err := h.Engines.get(op.Config)
	if err != nil {
		h.Tracer.Operation(ctx, engine.Operation{Verb: op.Verb, Err: err})
		return nil, failure.CNI(fmt.Errorf("braid: %w", err))
	}
	defer release()
	return op.Perform(ctx, e)
}
