package failure_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
)

var errCause = errors.New("cause")

// What the runtime is told is decided by the plugin's own code, else by the outermost class.
func TestCode(t *testing.T) {
	class := func(r failure.Reason, err error) error { return &failure.Error{Reason: r, Err: err} }
	full := types.NewError(types.ErrTryAgainLater, "full", "")
	for _, c := range []struct {
		err  error
		code uint
	}{
		{errCause, types.ErrInternal},
		{class("", errCause), types.ErrInternal},
		{class(failure.NADInvalid, errCause), types.ErrInvalidNetworkConfig},
		{class(failure.PolicyRefused, errCause), types.ErrInvalidNetworkConfig},
		{class(failure.InterfaceConflict, errCause), types.ErrInvalidEnvironmentVariables},
		{class(failure.PodNotFound, errCause), types.ErrUnknownContainer},
		{class(failure.StateCorrupt, errCause), types.ErrDecodingFailure},
		{class(failure.StateFailed, errCause), types.ErrIOFailure},
		{class(failure.APIUnavailable, errCause), types.ErrTryAgainLater},
		{class(failure.PluginFailed, full), types.ErrTryAgainLater},
		{class(failure.NADInvalid, fmt.Errorf("plugin: %w", full)), types.ErrTryAgainLater},
		{class(failure.Busy, class(failure.NADInvalid, errCause)), types.ErrTryAgainLater},
		{class("", class(failure.NADInvalid, errCause)), types.ErrInvalidNetworkConfig},
		{class(failure.Busy, &types.Error{Msg: "without a code"}), types.ErrTryAgainLater},
	} {
		if got := failure.Code(c.err); got != c.code {
			t.Errorf("code of %v (%s) is %d, want %d", c.err, failure.ReasonOf(c.err), got, c.code)
		}
	}
}

// A remedy is found through whatever wraps it, the text has it once, and no text of a plugin writes
// to the runtime's terminal.
func TestRemedies(t *testing.T) {
	if failure.WithFix(nil, "do that") != nil || failure.FixOf(errCause) != "" {
		t.Error("a remedy for nothing")
	}
	err := fmt.Errorf("attach: %w", &failure.Error{
		Reason: failure.PluginFailed, NAD: "team/a", Plugin: "macvlan", Field: "master",
		Err: failure.WithFix(errors.New("no \x1b[31mlink\nens5"), "name a link"),
	})
	if fix := failure.FixOf(err); fix != "name a link" {
		t.Errorf("the remedy is %q", fix)
	}
	printed := failure.CNI(err)
	if printed.Code != types.ErrInternal || strings.ContainsAny(printed.Msg, "\x1b\n") ||
		strings.Count(printed.Msg, "; name a link") != 1 ||
		!strings.HasPrefix(printed.Msg, "attach: NAD team/a: plugin macvlan: field master: no ") {
		t.Errorf("printed %d, %q", printed.Code, printed.Msg)
	}
}

func TestAtNAD(t *testing.T) {
	nameless := &failure.Error{Err: errCause}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nameless, "NAD team/a: cause"},
		{&failure.Error{NAD: "web/b", Err: errCause}, "NAD web/b: cause"},
		{errCause, "cause"},
	} {
		if got := failure.AtNAD(c.err, "team/a").Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	if nameless.NAD != "" {
		t.Error("the error that was handed over has changed")
	}
}
