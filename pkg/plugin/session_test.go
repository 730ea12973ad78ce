package plugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// run is one command of a probe in a session of its own.
func run(t *testing.T, do probe, stdin string, environ ...string) (string, error) {
	t.Helper()
	return runWith(t, t.Context(), &fakeExec{}, plugin.New(do), stdin, environ...)
}

func runWith(
	t *testing.T, ctx context.Context, exec *fakeExec, p *plugin.Plugin, stdin string,
	environ ...string,
) (string, error) { //nolint:revive // a test's first
	t.Helper()
	session := plugin.NewSession(plugin.HostNS)
	defer session.Close()
	out, err := plugintest.Run(ctx, session.Bind(p),
		&invoke.Call{Environ: environ, Stdin: []byte(stdin), Exec: exec})
	return string(out), err
}

// fakeExec finds the plugin "fixed", and keeps what it was asked.
type fakeExec struct {
	version.PluginDecoder
	out     string
	err     error
	environ []string
	stdin   string
}

func (*fakeExec) FindInPath(kind string, paths []string) (string, error) {
	if kind != "fixed" {
		return "", errors.New("no " + kind + " in " + strings.Join(paths, " and "))
	}
	return kind, nil
}

func (f *fakeExec) ExecPlugin(
	_ context.Context, _ string, stdin []byte, environ []string,
) ([]byte, error) {
	f.environ, f.stdin = environ, string(stdin)
	return []byte(f.out), f.err
}

const plain = `{"cniVersion":"1.1.0","name":"n","type":"probe"}`

func TestRequest(t *testing.T) {
	stdin := `{"cniVersion":"1.0.0","name":"n","type":"probe","mtu":7,"args":{"cni":{"a":5},"x":6},"runtimeConfig":{"b":6},
		"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}}`
	called := ""
	_, err := run(t, func(_ context.Context, command string, req *plugin.Request,
		c *probeConf,
	) (*types100.Result, error) {
		called = command
		if req.ContainerID != "c" || req.IfName != "net2" || req.NetNS != "/ns" || req.Args != "A=b" ||
			req.Network != "n" || req.Version != "1.0.0" {
			t.Errorf("request %+v", req)
		}
		if string(req.CNIArgs) != `{"a":5}` || string(req.Runtime) != `{"b":6}` ||
			string(req.Config) != stdin || req.PrevResult.IPs[0].Address.IP.String() != "10.0.0.2" {
			t.Errorf("request %+v", req)
		}
		if c.MTU != 7 || c.Name != "n" {
			t.Errorf("configuration %+v", c)
		}
		return nil, nil
	}, stdin, "CNI_COMMAND=ADD", "CNI_COMMAND=DEL", "CNI_CONTAINERID=c", "CNI_IFNAME=net1",
		"CNI_IFNAME=net2", "CNI_NETNS=/ns", "CNI_ARGS=A=b")
	if err != nil || called != "DEL" {
		t.Errorf("called %q, %v: the last of a variable counts", called, err)
	}
}

func TestBadRequests(t *testing.T) {
	for name, c := range map[string]struct {
		stdin, command string
		code           uint
	}{
		"no JSON":           {"{", "ADD", types.ErrDecodingFailure},
		"no command":        {plain, "", types.ErrInvalidEnvironmentVariables},
		"unknown command":   {plain, "UPDATE", types.ErrInvalidEnvironmentVariables},
		"GC without a list": {plain, "GC", types.ErrInvalidNetworkConfig},
		"GC with null": {
			`{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":null}`, "GC",
			types.ErrInvalidNetworkConfig,
		},
		"unknown key": {
			`{"cniVersion":"1.1.0","name":"n","mut":5}`, "ADD",
			types.ErrInvalidNetworkConfig,
		},
		"key twice": {
			`{"cniVersion":"1.1.0","name":"n","mtu":5,"mtu":6}`, "ADD",
			types.ErrInvalidNetworkConfig,
		},
		"prevResult no JSON": {`{"cniVersion":"1.1.0","name":"n","prevResult":{"cniVersion":"1.1.0",` +
			`"ips":5}}`, "ADD", types.ErrDecodingFailure},
	} {
		_, err := run(t, func(context.Context, string, *plugin.Request, *probeConf) (*types100.Result,
			error,
		) {
			t.Errorf("%s: the plugin ran", name)
			return nil, nil
		}, c.stdin, "CNI_COMMAND="+c.command)
		if plugintest.Code(err) != c.code {
			t.Errorf("%s: code %d, want %d: %v", name, plugintest.Code(err), c.code, err)
		}
	}
}

// R33: a prevResult that names no version has the configuration's.
func TestR33PrevResultWithoutVersion(t *testing.T) {
	for _, v := range append([]string{""}, version.All.SupportedVersions()...) {
		for _, command := range []string{"ADD", "CHECK", "DEL"} {
			for _, named := range []string{"", `"cniVersion":"",`, `"cniVersion":null,`} {
				stdin := `{"cniVersion":"` + v + `","name":"n","prevResult":{` + named +
					`"ip4":{"ip":"10.0.0.2/8"},"ips":[{"version":"4","address":"10.0.0.2/8"}]}}`
				_, err := run(t, func(_ context.Context, _ string, req *plugin.Request,
					_ *probeConf,
				) (*types100.Result, error) {
					if req.PrevResult == nil || len(req.PrevResult.IPs) != 1 ||
						req.PrevResult.IPs[0].Address.IP.String() != "10.0.0.2" {
						t.Errorf("%s of %s: prevResult %v", command, stdin, req.PrevResult)
					}
					return nil, nil
				}, stdin, "CNI_COMMAND="+command)
				if err != nil {
					t.Errorf("%s of %s: %v", command, stdin, err)
				}
			}
		}
	}
}

// broken are results that nobody can read.
func broken() []string {
	return []string{
		`5`, `"x"`, `[]`, `{"cniVersion":5}`, `{"cniVersion":"9.9.9"}`, `{"cniVersion":"0.2.0"}`,
		`{"ips":5}`, `{"ips":[null]}`,
		`{"interfaces":[null],"ips":[{"address":"10.0.0.2/8","interface":0}]}`, `{"routes":[null]}`,
		`{"ips":[{"address":"x"}]}`, `{"a":1,"a":2,"cniVersion":"0.4.0","ips":[null]}`,
	}
}

// R33: what needs a prevResult refuses one that cannot be read; all others do without it.
func TestR33BrokenPrevResult(t *testing.T) {
	for _, prev := range broken() {
		for command, refused := range map[string]bool{
			"ADD": true, "CHECK": true, "DEL": false, "GC": false, "STATUS": false,
		} {
			ran := false
			_, err := run(t, func(_ context.Context, _ string, req *plugin.Request,
				_ *probeConf,
			) (*types100.Result, error) {
				if ran = true; req.PrevResult != nil {
					t.Errorf("%s of %s: prevResult %v", command, prev, req.PrevResult)
				}
				return nil, nil
			}, `{"cniVersion":"1.0.0","name":"n","cni.dev/valid-attachments":[],"prevResult":`+prev+`}`,
				"CNI_COMMAND="+command)
			if ran == refused || refused && (plugintest.Code(err) != types.ErrDecodingFailure ||
				!strings.Contains(err.Error(), "prevResult")) || !refused && err != nil {
				t.Errorf("%s of %s: ran %v: %v", command, prev, ran, err)
			}
		}
	}
}

func TestGCGetsTheList(t *testing.T) {
	for list, want := range map[string][]types.GCAttachment{
		`[]`: {}, `[{"containerID":"c","ifname":"net1"}]`: {{ContainerID: "c", IfName: "net1"}},
	} {
		out, err := run(t, func(_ context.Context, _ string, req *plugin.Request,
			_ *probeConf,
		) (*types100.Result, error) {
			if req.Valid == nil || !slices.Equal(req.Valid, attachment.InNetwork("n", want)) {
				t.Errorf("%s: valid %v", list, req.Valid)
			}
			return nil, nil
		}, `{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":`+list+`}`, "CNI_COMMAND=GC")
		if err != nil || out != "" {
			t.Errorf("%s: %q, %v", list, out, err)
		}
	}
}

// Whatever makes an ADD fail, what it did is taken back, newest first, also when its time is up;
// another command takes nothing back.
func TestFailedAddIsUndone(t *testing.T) {
	for name, c := range map[string]struct {
		command, stdin string
		fail           func(cancel func()) (*types100.Result, error)
		undone         string
		says           string
	}{
		"error": {
			"ADD", plain,
			func(func()) (*types100.Result, error) { return nil, errors.New("broken") }, "ba", "broken",
		},
		"panic": {
			"ADD", plain,
			func(func()) (*types100.Result, error) { panic("broken") }, "ba", "panic: broken",
		},
		"time is up": {
			"ADD", plain,
			func(cancel func()) (*types100.Result, error) {
				cancel()
				return nil, context.Canceled
			}, "ba", "context canceled",
		},
		"no such cniVersion": {
			"ADD", strings.Replace(plain, "1.1.0", "9.9.9", 1),
			func(func()) (*types100.Result, error) { return &types100.Result{}, nil }, "", "9.9.9",
		},
		"no words for it": {
			"ADD", strings.Replace(plain, "1.1.0", "0.2.0", 1),
			func(func()) (*types100.Result, error) { return &types100.Result{}, nil }, "ba", "CNI 0.2.0",
		},
		"success": {
			"ADD", plain,
			func(func()) (*types100.Result, error) { return &types100.Result{}, nil }, "", "",
		},
		"DEL": {
			"DEL", plain,
			func(func()) (*types100.Result, error) { return nil, errors.New("broken") }, "", "broken",
		},
	} {
		undone := ""
		ctx, cancel := context.WithCancel(t.Context())
		_, err := runWith(t, ctx, &fakeExec{},
			plugin.New(probe(func(_ context.Context, _ string, req *plugin.Request,
				_ *probeConf,
			) (*types100.Result, error) {
				for _, step := range []string{"a", "b"} {
					req.Undo.Push(func(ctx context.Context) error { undone += step; return ctx.Err() })
				}
				return c.fail(cancel)
			})), c.stdin, "CNI_COMMAND="+c.command)
		cancel()
		if undone != c.undone || (err != nil) != (c.says != "") ||
			err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: undone %q, %v", name, undone, err)
		}
		if err != nil && strings.Contains(err.Error(), "could not be taken back") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := run(t, func(_ context.Context, _ string, req *plugin.Request,
		_ *probeConf,
	) (*types100.Result, error) {
		req.Undo.Push(func(context.Context) error { return os.ErrClosed })
		return nil, types.NewError(50, "full", "")
	}, plain, "CNI_COMMAND=ADD")
	if plugintest.Code(err) != 50 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("both errors: %v", err)
	}
}

// A result is printed in the configuration's version, whatever the plugin says.
func TestResultsOfAllVersions(t *testing.T) {
	for _, v := range version.All.SupportedVersions() {
		out, err := run(t, func(_ context.Context, _ string, req *plugin.Request,
			_ *probeConf,
		) (*types100.Result, error) {
			return req.Result(), nil
		}, `{"cniVersion":"`+v+`","name":"n","prevResult":{"cniVersion":"`+v+
			`","ip4":{"ip":"10.0.0.2/8"},"ips":[{"version":"4","address":"10.0.0.2/8"}]}}`,
			"CNI_COMMAND=ADD")
		var printed struct {
			CNIVersion string `json:"cniVersion"`
		}
		if err != nil || json.Unmarshal([]byte(out), &printed) != nil || printed.CNIVersion != v ||
			!strings.Contains(out, "10.0.0.2/8") {
			t.Errorf("%s: %s, %v", v, out, err)
		}
	}
}

func TestIPAM(t *testing.T) {
	exec := &fakeExec{out: `{"ips":[{"address":"10.0.0.2/8"}]}`}
	ask := func(command, kind string) (result *types100.Result, err error) {
		_, runErr := runWith(t, t.Context(), exec,
			plugin.New(probe(func(ctx context.Context, _ string, req *plugin.Request,
				_ *probeConf,
			) (*types100.Result, error) {
				result, err = req.IPAM(ctx, kind, command)
				return nil, nil
			})), plain, "CNI_COMMAND=CHECK", "CNI_IFNAME=net1", "CNI_PATH=/a:/b")
		if runErr != nil {
			t.Error(runErr)
		}
		return result, err
	}
	result, err := ask("ADD", "fixed")
	if err != nil || len(result.IPs) != 1 {
		t.Errorf("a result without cniVersion has the configuration's: %v, %v", result, err)
	}
	if exec.stdin != plain || exec.environ[len(exec.environ)-1] != "CNI_COMMAND=ADD" ||
		!slices.Contains(exec.environ, "CNI_IFNAME=net1") {
		t.Errorf("the IPAM plugin got %q, %q", exec.environ, exec.stdin)
	}
	exec.out = `{"cniVersion":"","ips":[{"address":"10.0.0.2/8"}]}`
	if result, err = ask("ADD", "fixed"); err != nil || len(result.IPs) != 1 {
		t.Errorf("nor one with an empty one: %v, %v", result, err)
	}
	exec.out = `{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.3/8"}}`
	result, err = ask("ADD", "fixed")
	if err != nil || result.IPs[0].Address.IP.String() != "10.0.0.3" {
		t.Errorf("another version: %v, %v", result, err)
	}
	if result, err = ask("DEL", "fixed"); result != nil || err != nil {
		t.Errorf("DEL: %v, %v", result, err)
	}
	_, err = ask("ADD", "absent")
	if err == nil || !strings.Contains(err.Error(), "no absent in /a and /b") {
		t.Errorf("a plugin that there is not: %v", err)
	}
	if _, err = ask("ADD", ""); err == nil {
		t.Error("no plugin's name")
	}
	for _, exec.out = range []string{
		"", "x", "[]", `{"cniVersion":"7.0.0"}`, `{"cniVersion":5}`, `{"ips":5}`,
	} {
		_, err = ask("ADD", "fixed")
		if plugintest.Code(err) != types.ErrDecodingFailure ||
			!strings.Contains(err.Error(), "IPAM plugin fixed") {
			t.Errorf("result %q: %v", exec.out, err)
		}
	}
	exec.err = types.NewError(50, "full", "")
	if _, err = ask("ADD", "fixed"); plugintest.Code(err) != 50 {
		t.Errorf("an error of the plugin: %v", err)
	}
}

// An IPAM plugin's configuration is the object "ipam"; the rest is its caller's.
func TestIPAMPluginReadsItsPart(t *testing.T) {
	p := plugin.NewIPAM(probe(
		func(_ context.Context, _ string, req *plugin.Request, c *probeConf) (*types100.Result, error) {
			if c.MTU != 7 || req.Network != "n" {
				t.Errorf("configuration %+v of network %s", c, req.Network)
			}
			return &types100.Result{}, nil
		}))
	_, err := runWith(t, t.Context(), nil, p,
		`{"cniVersion":"1.1.0","name":"n","mtu":"any","ipam":{"type":"probe","mtu":7}}`,
		"CNI_COMMAND=ADD")
	if err != nil {
		t.Error(err)
	}
	for _, stdin := range []string{
		`{"name":"n"}`, `{"name":"n","ipam":null}`, `{"name":"n","ipam":{"mut":7}}`,
		`{"name":"n","ipam":"x"}`,
	} {
		_, err := runWith(t, t.Context(), nil, p, stdin, "CNI_COMMAND=ADD")
		if plugintest.Code(err) != types.ErrInvalidNetworkConfig {
			t.Errorf("%s: %v", stdin, err)
		}
	}
}

func TestSessionLeavesNoDescriptor(t *testing.T) {
	n := node(t, func(_ context.Context, _ string, req *plugin.Request,
		_ *probeConf,
	) (*types100.Result, error) {
		return req.Result(), errors.Join(third(req.Pod()), third(req.Host()))
	})
	p := n.Pod("a")
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	add := func() {
		if _, err := p.Add(conf{"type": "probe"}); err != nil {
			t.Fatal(err)
		}
	}
	add()
	before := count()
	for range 20 {
		add()
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
