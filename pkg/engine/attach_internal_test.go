package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/status"
)

func TestGatewaysOf(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ named, result, want string }{
		"those that the pod named": {
			"192.0.2.9",
			`"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}]`, "192.0.2.9",
		},
		"of the addresses": {
			"",
			`"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"},{"address":"fd00::2/64",` +
				`"gateway":"fd00::1"}]`, "10.0.0.1 fd00::1",
		},
		"the first of a family": {
			"",
			`"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"},{"address":"10.1.0.2/24",` +
				`"gateway":"10.1.0.1"}]`, "10.0.0.1",
		},
		"of default routes before": {
			"",
			`"ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}],"routes":[{"dst":"0.0.0.0/0",` +
				`"gw":"10.0.0.254"}]`, "10.0.0.254",
		},
		"of both, one a family": {
			"",
			`"ips":[{"address":"fd00::2/64","gateway":"fd00::1"}],"routes":[{"dst":"0.0.0.0/0",` +
				`"gw":"10.0.0.1"}]`, "10.0.0.1 fd00::1",
		},
		"not of other routes": {
			"",
			`"routes":[{"dst":"10.9.0.0/16","gw":"10.0.0.3"},{"dst":"0.0.0.0/0","gw":"10.0.0.1"}]`,
			"10.0.0.1",
		},
		"mapped ones are IPv4": {
			"",
			`"ips":[{"address":"10.0.0.2/24","gateway":"::ffff:10.0.0.1"}],"routes":[{"dst":"::/0",` +
				`"gw":"fd00::1"}]`, "fd00::1 10.0.0.1",
		},
		"a route without, then not": {
			"",
			`"ips":[{"address":"10.0.0.2/24"}],"routes":[{"dst":"0.0.0.0/0"},{"dst":"10.9.0.0/16",` +
				`"gw":"10.0.0.3"}]`, "",
		},
		"nothing": {"", `"ips":[]`, ""},
	} {
		result, err := types100.NewResult(fmt.Appendf(nil, `{"cniVersion":"1.0.0",%s}`, test.result))
		if err != nil {
			t.Fatal(err)
		}
		got, err := gatewaysOf(status.Result{
			Attachment: plan.Attachment{Name: "default/a", IfName: "net1", Gateways: addresses(test.named)},
			CNI:        result,
		})
		diff := cmp.Diff(addresses(test.want), got, cmpopts.EquateEmpty(),
			cmpopts.EquateComparable(netip.Addr{}))
		if diff != "" {
			t.Errorf("%s, -want +got:\n%s", name, diff)
		}
		if refused := failure.ReasonOf(err) == failure.DefaultRouteFailed; refused != (test.want == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func addresses(text string) (list []netip.Addr) {
	for field := range strings.FieldsSeq(text) {
		list = append(list, netip.MustParseAddr(field))
	}
	return list
}

func TestMasterOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ plugins, failed, want string }{
		{`{"type":"macvlan","master":"eth9"}`, "macvlan", "eth9"},
		{`{"type":"tuning","master":"eth8"},{"type":"macvlan","master":"eth9"}`, "macvlan", "eth9"},
		{`{"type":"macvlan","master":"eth9"},{"type":"tuning"}`, "tuning", ""},
		{`{"type":"macvlan","master":"eth9","linkInContainer":false}`, "macvlan", "eth9"},
		{`{"type":"macvlan","master":"eth9","linkInContainer":true}`, "macvlan", ""},
		{`{"type":"macvlan","master":["eth9"]}`, "macvlan", ""},
		{`{"type":"macvlan"}`, "macvlan", ""},
		{`{"type":`, "macvlan", ""},
		{`{"type":"macvlan","master":"eth9"}`, "", ""},
	} {
		conf := json.RawMessage(`{"cniVersion":"1.0.0","name":"n","plugins":[` + test.plugins + `]}`)
		if got := masterOf(&plan.Attachment{Conf: conf}, test.failed); got != test.want {
			t.Errorf("%s failed in %s: %q, want %q", test.failed, test.plugins, got, test.want)
		}
	}
}

// TestAdvice: what the plugin says itself counts.
func TestAdvice(t *testing.T) {
	t.Parallel()
	in := func(err error) error {
		return &failure.Error{Reason: failure.PluginFailed, Plugin: "macvlan", Err: err}
	}
	for text, err := range map[string]error{
		"plugin macvlan: x; " + adviceAdd:    in(errors.New("x")),
		"plugin macvlan: x; " + adviceConfig: in(types.NewError(7, "x", "")),
		"plugin macvlan: x; do y":            in(failure.WithFix(errors.New("x"), "do y")),
		"plugin macvlan: plugin static: x; do y": in(&failure.Error{
			Reason: failure.PluginFailed, Plugin: "static",
			Err: failure.WithFix(types.NewError(7, "x", ""), "do y"),
		}),
		"plugin macvlan: a: x; do y": in(fmt.Errorf("a: %w", failure.WithFix(errors.New("x"), "do y"))),
		"x; " + adviceAdd:            errors.New("x"),
		"plugin macvlan: not finished within 1s; do less": &failure.Error{
			Reason: failure.TimedOut, Plugin: "macvlan", Err: errors.New("not finished within 1s"),
			Fix: "do less",
		},
	} {
		got := chainError(err, &plan.Attachment{Name: "a/b", IfName: "net1"}).Error()
		if got != "NAD a/b: interface net1: "+text {
			t.Errorf("got %s, want %s", got, text)
		}
	}
}

func TestEachGivesTheOutermostErrorsThatWereJoined(t *testing.T) {
	t.Parallel()
	a, b := errors.New("a"), errors.New("b")
	inner := errors.Join(a, b)
	wrapped := fmt.Errorf("all: %w", inner)
	for _, test := range []struct {
		err  error
		want []error
	}{
		{nil, nil},
		{a, []error{a}},
		{inner, []error{a, b}},
		{errors.Join(inner, b), []error{inner, b}},
		{wrapped, []error{wrapped}},
	} {
		if got := each(test.err); !slices.Equal(got, test.want) {
			t.Errorf("of %v: %q, want %q", test.err, got, test.want)
		}
	}
}
