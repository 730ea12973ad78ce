package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
)

// Operation is one operation of the CNI protocol, with its variables and configuration.
type Operation struct {
	Verb    engine.Verb
	Config  *conf.Config
	Request *engine.Request
	// Environ is the environment of plugins that are binaries. If nil, it is that of this process.
	Environ []string
}

// NewOperation reads what the runtime passes, and changes nothing. Errors are CNI errors.
func NewOperation(verb engine.Verb, args *skel.CmdArgs) (*Operation, error) {
	load := conf.LoadForCall
	if verb == engine.Del || verb == engine.GC {
		load = conf.LoadForRemoval
	}
	cfg, err := load(args.StdinData)
	if err != nil {
		return nil, forRuntime(err)
	}
	req, err := engine.NewRequest(args, &cfg.Call)
	if err != nil {
		return nil, forRuntime(err)
	}
	return &Operation{Verb: verb, Config: cfg, Request: req}, nil
}

// Perform does the operation, and returns what is printed. The error is a CNI error, which the
// engine has logged.
func (o *Operation) Perform(ctx context.Context, e *engine.Engine) ([]byte, error) {
	if o.Verb == engine.Add { // once for each pod, as its events
		for _, w := range o.Config.Warnings() {
			e.Log.WarnContext(ctx, w.Error(), "reason", w.Reason)
		}
	}
	if o.Environ != nil {
		ctx = invoke.WithCaller(ctx, o.Environ)
	}
	out, err := o.operate(ctx, e)
	return out, forRuntime(err)
}

// operate does the operation of the verb, and returns what it prints.
func (o *Operation) operate(ctx context.Context, e engine.Operator) ([]byte, error) {
	switch o.Verb {
	case engine.Add:
		result, err := e.Add(ctx, o.Request)
		if err != nil {
			return nil, err
		}
		return printed(result, o.Config.CNIVersion)
	case engine.Del:
		return nil, e.Del(ctx, o.Request)
	case engine.Check:
		return nil, e.Check(ctx, o.Request)
	case engine.GC:
		return nil, e.GC(ctx, o.Request)
	case engine.Status:
		return nil, e.Status(ctx, o.Request)
	}
	return nil, &failure.Error{
		Reason: failure.InvalidEnvironment, Field: "CNI_COMMAND",
		Err: fmt.Errorf("%.40q is not known", o.Verb),
	}
}

// forRuntime converts an error to a CNI error.
func forRuntime(err error) error {
	if err == nil {
		return nil
	}
	return failure.CNI(fmt.Errorf("braid: %w", err))
}

// printed returns the result in the version of Braid's own configuration (CNI 1.1 "Success").
func printed(result types.Result, cniVersion string) ([]byte, error) {
	converted, err := result.GetAsVersion(cniVersion)
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.InvalidConfig, Field: "cniVersion",
			Err: fmt.Errorf("express the default network's result in CNI %s: %w", cniVersion, err),
			Fix: "use a newer cniVersion",
		}
	}
	var out bytes.Buffer
	err = converted.PrintTo(&out)
	return out.Bytes(), err
}

// PrintedError returns a CNI error with the version that it is expressed in (CNI 1.1 "Error"),
// which the library leaves out. The version is empty if it is not known.
func PrintedError(err error, cniVersion string) ([]byte, error) {
	printed, ok := errors.AsType[*types.Error](err)
	if !ok {
		printed = types.NewError(types.ErrInternal, err.Error(), "")
	}
	data, err := json.MarshalIndent(struct {
		CNIVersion string `json:"cniVersion,omitempty"`
		*types.Error
	}{cniVersion, printed}, "", "    ")
	return append(data, '\n'), err
}
