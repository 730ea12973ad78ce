package resolve_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/resolve"
)

// finder finds plugins by their types, and notes what it is asked.
type finder struct {
	found map[string]invoke.Found
	errs  map[string]error
	asked []string
}

func (f *finder) Find(kind string, _ []byte, paths []string) (invoke.Found, error) {
	f.asked = append(f.asked, kind+" "+strings.Join(paths, ":"))
	return f.found[kind], f.errs[kind]
}

func chain(plugins string) *plan.Attachment {
	return &plan.Attachment{
		Name: "web/a", IfName: "net1",
		Conf: []byte(`{"cniVersion":"1.0.0","name":"n","plugins":[` + plugins + `]}`),
	}
}

func TestPlugins(t *testing.T) {
	t.Parallel()
	warning := &failure.Error{Reason: failure.IgnoredKey, Field: "x", Err: errors.New("ignored")}
	f := &finder{found: map[string]invoke.Found{
		"macvlan": {Chosen: invoke.Chosen{"macvlan": true}, Warnings: []*failure.Error{warning}},
		"tuning":  {Chosen: invoke.Chosen{"tuning": false}, Execd: true},
	}}
	a := chain(`{"type":"macvlan","ipam":{"type":"static"}},{"type":"own","ipam":{"type":"dhcp"}},` +
		`{"type":"bridge","ipam":{}},{"type":"tuning"}`)
	if err := resolve.Plugins(f, a, []string{"/bin", "/own"}); err != nil {
		t.Fatal(err)
	}
	same(t, "asked", f.asked, []string{
		"macvlan /bin:/own", "static /bin:/own", "own /bin:/own", "bridge /bin:/own", "tuning /bin:/own",
	})
	same(t, "in-process", a.InProcess, map[string]bool{"macvlan": true, "tuning": false})
	same(t, "a binary is in it", a.Execd, true)
	if len(a.Warnings) != 1 || a.Warnings[0].NAD != "web/a" || a.Warnings[0].Interface != "net1" ||
		a.Warnings[0].Field != "x" {
		t.Errorf("warnings: %v", a.Warnings)
	}
	same(t, "the finder's own warning", warning.NAD, "")
}

func TestPluginsErrors(t *testing.T) {
	t.Parallel()
	gone := &failure.Error{
		Reason: failure.PluginNotFound, Plugin: "x", Err: errors.New("no such file"), Fix: "install it",
	}
	for name, test := range map[string]struct {
		conf   string
		err    error
		reason failure.Reason
	}{
		"not found":     {`{"type":"x"}`, gone, failure.PluginNotFound},
		"IPAM":          {`{"type":"vlan","ipam":{"type":"x"}}`, gone, failure.PluginNotFound},
		"without class": {`{"type":"x"}`, errors.New("odd"), failure.NADInvalid},
		"no chain":      {``, nil, failure.NADInvalid},
	} {
		a := chain(test.conf)
		err := resolve.Plugins(&finder{errs: map[string]error{"x": test.err}}, a, nil)
		fe, ok := errors.AsType[*failure.Error](err)
		if !ok || fe.Reason != test.reason || fe.NAD != "web/a" || fe.Interface != "net1" {
			t.Errorf("%s: got %v, want %s", name, err, test.reason)
		}
	}
	same(t, "the finder's own error", gone.NAD, "")
}
