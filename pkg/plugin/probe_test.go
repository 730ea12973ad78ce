package plugin_test

import (
	"context"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

type conf = plugintest.Conf

// probe is a plugin whose commands are a function of the test.
type probe func(ctx context.Context, command string, req *plugin.Request,
	c *probeConf) (*types100.Result, error)

type probeConf struct {
	plugin.OnMaster
	Words  map[string]string `json:"words"`
	Things []struct {
		ID *int `json:"id"`
	} `json:"things"`
}

func (p probe) Add(
	ctx context.Context, req *plugin.Request, c *probeConf,
) (*types100.Result, error) {
	return p(ctx, "ADD", req, c)
}

func (p probe) Del(ctx context.Context, req *plugin.Request, c *probeConf) error {
	return second(p(ctx, "DEL", req, c))
}

func (p probe) Check(ctx context.Context, req *plugin.Request, c *probeConf) error {
	return second(p(ctx, "CHECK", req, c))
}

func (p probe) GC(ctx context.Context, req *plugin.Request, c *probeConf) error {
	return second(p(ctx, "GC", req, c))
}

func (p probe) Status(ctx context.Context, req *plugin.Request, c *probeConf) error {
	return second(p(ctx, "STATUS", req, c))
}

func second[T any](_ T, err error) error { return err }

// node is a node whose plugin "probe" is do.
func node(t *testing.T, do probe) *plugintest.Node {
	t.Helper()
	return plugintest.New(t, plugintest.Plugins{"probe": plugin.New(do)})
}

// within runs do as the ADD of a plugin in a pod.
func within(
	p *plugintest.Pod, more conf, do func(ctx context.Context, req *plugin.Request) error,
) error {
	p.Node = p.Node.With(plugintest.Plugins{"probe": plugin.New[probeConf](probe(
		func(ctx context.Context, _ string, req *plugin.Request, _ *probeConf) (*types100.Result, error) {
			return req.Result(), do(ctx, req)
		}))})
	_, err := p.Add(conf{"type": "probe"}.With(more))
	return err
}
