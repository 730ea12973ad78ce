package plugin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

func TestMAC(t *testing.T) {
	const (
		configured = "02:00:00:00:00:01"
		env        = "02:00:00:00:00:02"
		args       = "02:00:00:00:00:03"
		runtime    = "02:00:00:00:00:04"
	)
	all := plugin.Request{
		Args:    "IgnoreUnknown=1;K8S_POD_NAME=x;MAC=" + env,
		CNIArgs: []byte(`{"mac":"` + args + `","x":5}`), Runtime: []byte(`{"mac":"` + runtime + `"}`),
	}
	for name, c := range map[string]struct {
		req        plugin.Request
		configured string
		sources    []plugin.MACSource
		want       string
	}{
		"none":           {want: ""},
		"configured":     {configured: configured, want: configured},
		"as bridge asks": {req: all, configured: configured, want: runtime},
		"as tuning asks": {
			req:     all,
			sources: []plugin.MACSource{plugin.EnvMAC, plugin.RuntimeMAC, plugin.ArgsMAC}, want: args,
		},
		"not asked": {
			req: all, configured: configured,
			sources: []plugin.MACSource{plugin.EnvMAC}, want: env,
		},
		"the last is empty": {
			req:  plugin.Request{Args: "MAC=" + env, Runtime: []byte(`{"mac":""}`)},
			want: env,
		},
		"upper case": {configured: "02-AB-00-00-00-01", want: "02:ab:00:00:00:01"},
	} {
		mac, err := c.req.MAC(c.configured)
		if c.sources != nil {
			mac, err = c.req.MACFrom(c.configured, c.sources...)
		}
		if err != nil || mac.String() != c.want {
			t.Errorf("%s: %s, %v, want %s", name, mac, err, c.want)
		}
	}
	for says, req := range map[string]plugin.Request{
		"CNI_ARGS MAC": {Args: "MAC=x"}, "args.cni.mac": {CNIArgs: []byte(`{"mac":"02:00:00"}`)},
		"runtimeConfig.mac": {Runtime: []byte(`{"mac":"01:00:00:00:00:01"}`)},
		"args.cni.mac 5":    {CNIArgs: []byte(`{"mac":5}`)}, "runtimeConfig []": {Runtime: []byte(`[]`)},
	} {
		mac, err := req.MAC("")
		if plugintest.Code(err) != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %s, %v", says, mac, err)
		}
	}
	unknown := plugin.Request{Args: "COLOUR=blue"}
	_, err := unknown.MAC("")
	if plugintest.Code(err) != types.ErrInvalidEnvironmentVariables ||
		!strings.Contains(err.Error(), "COLOUR") {
		t.Errorf("unknown key of CNI_ARGS: %v", err)
	}
}

func TestResultIsACopy(t *testing.T) {
	r := (&plugin.Request{}).Result()
	if r.CNIVersion != types100.ImplementedSpecVersion || r.Interfaces != nil {
		t.Errorf("without prevResult: %v", r)
	}
	prev := &types100.Result{CNIVersion: "0.4.0", DNS: types.DNS{Domain: "x"}}
	r = (&plugin.Request{PrevResult: prev}).Result()
	r.DNS.Domain = "y"
	if prev.DNS.Domain != "x" || prev.CNIVersion != "0.4.0" ||
		r.CNIVersion != types100.ImplementedSpecVersion {
		t.Errorf("prevResult %v, result %v", prev, r)
	}
}

// A namespace that is not there is ErrNoPod, however it is not there. One that was there is there
// for the whole request.
func TestPod(t *testing.T) {
	n := node(t, nil)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", file, file + "absent", "/proc/self/ns/mnt"} {
		p := n.Pod("a")
		p.NetNS = path
		err := p.Within(nil, func(_ context.Context, req *plugin.Request) error {
			return third(req.Pod())
		})
		if !errors.Is(err, plugin.ErrNoPod) {
			t.Errorf("%q: %v", path, err)
		}
	}
	p := n.Pod("a")
	err := p.Within(nil, func(ctx context.Context, req *plugin.Request) error {
		ns, pod, err := req.Pod()
		if err != nil {
			return err
		}
		_, host, err := req.Host()
		if err != nil {
			return err
		}
		if ns.Inode() != p.Inode() || pod == host {
			t.Error("wrong namespace")
		}
		p.Unmount()
		again, handle, err := req.Pod()
		if err != nil {
			return err
		}
		if again != ns || handle != pod {
			t.Error("opened twice")
		}
		return second(pod.Link(ctx, "lo"))
	})
	if err != nil {
		t.Error(err)
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }
