// Package passthru is a plugin without a network of its own. It leads the chain of
// auxiliaryCNIChainName, so that plugins that only work on what another made, such as tuning, can
// follow it.
//
// Contract: plugin.Interface. ADD changes nothing and gives the result so far, an empty one at the
// head of a chain; every other command does nothing.
package passthru

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
)

// Conf has no keys of its own.
type Conf struct{ plugin.Common }

// Plugin is the plugin.
type Plugin struct{}

var _ plugin.Interface[Conf] = Plugin{}

// Add returns the result so far.
func (Plugin) Add(_ context.Context, req *plugin.Request, _ *Conf) (*types100.Result, error) {
	return req.Result(), nil
}

// Del does nothing.
func (Plugin) Del(context.Context, *plugin.Request, *Conf) error { return nil }

// Check does nothing.
func (Plugin) Check(context.Context, *plugin.Request, *Conf) error { return nil }

// GC does nothing.
func (Plugin) GC(context.Context, *plugin.Request, *Conf) error { return nil }

// Status does nothing.
func (Plugin) Status(context.Context, *plugin.Request, *Conf) error { return nil }
