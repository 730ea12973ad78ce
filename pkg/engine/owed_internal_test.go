package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
)

// TestR12Refusals: only what cannot be over with the next DEL is a refusal, and that alone.
func TestR12Refusals(t *testing.T) {
	invalid, busy := types.NewError(7, "no such mode", ""), types.NewError(11, "busy", "")
	plugin := func(err error) error {
		return &failure.Error{Reason: failure.PluginFailed, Plugin: "p", Err: err}
	}
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"none":     {nil, false},
		"code 7":   {plugin(invalid), true},
		"wrapped":  {fmt.Errorf("plugin failed: %w", plugin(invalid)), true},
		"code 1":   {plugin(types.NewError(1, "too new", "")), true},
		"code 2":   {plugin(types.NewError(2, "no field", "")), true},
		"code 3":   {plugin(types.NewError(3, "no container", "")), false},
		"code 5":   {plugin(types.NewError(5, "I/O", "")), false},
		"code 11":  {plugin(busy), false},
		"code 999": {plugin(types.NewError(999, "?", "")), false},
		"no code":  {plugin(errors.New("exit status 2")), false},
		"absent": {&failure.Error{
			Reason: failure.PluginNotFound, Err: errors.New("no such file"),
		}, true},
		"unreadable": {&failure.Error{
			Reason: failure.NADInvalid, Err: types.NewError(6, "no JSON", ""),
		}, true},
		"both": {plugin(errors.Join(invalid, busy)), false},
		"two":  {plugin(errors.Join(invalid, invalid)), true},
		"stopped": {&failure.Error{
			Reason: failure.TimedOut, Err: fmt.Errorf("%w (%w)", context.DeadlineExceeded, invalid),
		}, false},
		"Braid's own": {&failure.Error{
			Reason: failure.InvalidConfig, Err: errors.New("no such node"),
		}, false},
		"the API": {
			&failure.Error{Reason: failure.APIUnavailable, Err: errors.New("refused")},
			false,
		},
		"not a file": {
			&failure.Error{Reason: failure.StateFailed, Err: errors.New("full")},
			false,
		},
		"a plugin's own API": {plugin(&failure.Error{
			Reason: failure.APIUnavailable, Err: errors.New("refused"),
		}), false},
	} {
		if got := refuses(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
