package invoke

import (
	"context"
	"encoding/json"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
)

// Guard protects the links of the node.
type Guard interface {
	// Watch is asked before the ADD of a binary: it returns what that may not do. After the ADD,
	// after returns what it should not have done.
	Watch(ctx context.Context, kind string, config []byte,
		limits *attachment.Limits) (after func(context.Context) error, err error)
}

// runProtected is run, but protects the node from the ADD of an attachment that has limits.
func (e *Exec) runProtected(ctx context.Context, kind, path string, call *Call) ([]byte, error) {
	if call.Terms.Limits == nil || variable(call.Environ, "CNI_COMMAND") != "ADD" {
		return e.run(ctx, path, call.Stdin, call.Environ)
	}
	after, err := e.protect(ctx, kind, sourceOf(ctx, call.Stdin), call)
	if err != nil {
		return nil, err
	}
	out, err := e.run(ctx, path, call.Stdin, call.Environ)
	if err != nil {
		return nil, err
	}
	return out, after(ctx)
}

// Protect returns what a binary that would run with this configuration may not do to the node; nil
// where none would. It is for who wants to know before there is anything to take back.
func (e *Exec) Protect(
	ctx context.Context, kind string, config []byte, paths []string, limits *attachment.Limits,
) error {
	if limits == nil || e.InProcess(kind, config, paths, nil) {
		return nil
	}
	_, err := e.protect(ctx, kind, config, &Call{Stdin: config, Exec: e, Terms: Terms{Limits: limits}})
	if err != nil {
		return &failure.Error{Reason: reasonOf(ctx, err), Plugin: kind, Err: err}
	}
	return nil
}

// protect judges a call of a binary. Of an IPAM plugin, which is called with the configuration of
// another one, that one is judged.
func (e *Exec) protect(
	ctx context.Context, kind string, config []byte, call *Call,
) (after func(context.Context) error, err error) {
	after = func(context.Context) error { return nil }
	var named struct{ Type string }
	if json.Unmarshal(call.Stdin, &named) == nil && named.Type != kind {
		return after, nil
	}
	if e.Builtin[kind] != nil {
		prepared, err := e.prepare(kind, config)
		if err != nil {
			return nil, err
		}
		if prepared.Protect != nil {
			if err := prepared.Protect(ctx, call); err != nil {
				return nil, err
			}
		}
	}
	if e.Guard == nil {
		return after, nil
	}
	return e.Guard.Watch(ctx, kind, call.Stdin, call.Terms.Limits)
}
