package plugin_test

import (
	"context"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

type conf = plugintest.Conf

// probe is a plugin whose commands are a function of the test.
type probe func(ctx context.Context, command string, req *plugin.Request,
	c *probeConf) (*types100.Result, error)

type probeConf struct {
	link.OnMaster
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
