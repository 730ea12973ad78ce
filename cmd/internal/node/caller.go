package node

import (
	"errors"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/weaken"
)

// NotByBraid returns an error if Braid is called by Braid: a network whose plugin is Braid under
// another name, as a link or a copy, could choose what is run. It also finds calls with other
// plugins between the two. env returns the value of a variable of the call.
func NotByBraid(env func(name string) string) error {
	if env(invoke.CallerEnv) == "" || weaken.Off(weaken.Caller) {
		return nil
	}
	return &failure.Error{
		Reason: failure.NADInvalid,
		Err:    errors.New("it is Braid, called by Braid: it cannot be a network of its own"),
		Fix:    "name the plugin that makes the interface, as bridge or macvlan",
	}
}
