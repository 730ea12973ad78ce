package plugintest

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
)

// Within runs do as the ADD of a plugin in the pod. more are keys of its configuration.
func (p *Pod) Within(
	more Conf, do func(ctx context.Context, req *plugin.Request) error,
) error {
	p.Node = p.Node.With(Plugins{"within": plugin.New[plugin.Common](within(do))})
	_, err := p.Add(Conf{"type": "within"}.With(more))
	return err
}

// within is a plugin that has an ADD alone.
type within func(ctx context.Context, req *plugin.Request) error

// Add returns the result of the chain as it is.
func (w within) Add(
	ctx context.Context, req *plugin.Request, _ *plugin.Common,
) (*types100.Result, error) {
	return req.Result(), w(ctx, req)
}

// Del does nothing.
func (within) Del(context.Context, *plugin.Request, *plugin.Common) error { return nil }

// Check does nothing.
func (within) Check(context.Context, *plugin.Request, *plugin.Common) error { return nil }

// GC does nothing.
func (within) GC(context.Context, *plugin.Request, *plugin.Common) error { return nil }

// Status does nothing.
func (within) Status(context.Context, *plugin.Request, *plugin.Common) error { return nil }
