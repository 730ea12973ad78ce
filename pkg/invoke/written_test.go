package invoke_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/invoke"
)

// recorder keeps the stdin that plugins get.
type recorder struct {
	*invoke.Exec
	stdin []string
}

func (r *recorder) FindInPath(plugin string, _ []string) (string, error) { return plugin, nil }

func (r *recorder) ExecPlugin(
	_ context.Context, _ string, stdin []byte, _ []string,
) ([]byte, error) {
	r.stdin = append(r.stdin, string(stdin))
	return []byte(`{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.9/24"}]}`), nil
}

// listOf is a list of plugins as netconf.Libcni makes it.
func listOf(t *testing.T, plugins ...string) *libcni.NetworkConfigList {
	t.Helper()
	list := &libcni.NetworkConfigList{Name: "net", CNIVersion: "1.1.0"}
	for _, text := range plugins {
		one, err := libcni.NetworkPluginConfFromBytes([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		list.Plugins = append(list.Plugins, one)
	}
	return list
}

// written is libcni with what Written returns.
func written(
	t *testing.T, inner cniinvoke.Exec, plugins ...string,
) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf) {
	t.Helper()
	list, exec := invoke.Written(inner, listOf(t, plugins...), "short")
	rt := &libcni.RuntimeConf{
		ContainerID: "id", IfName: "eth0", NetNS: "/ns",
		CapabilityArgs: map[string]any{"mac": "m", "ips": []string{"i"}},
	}
	return libcni.NewCNIConfigWithCacheDir(nil, t.TempDir(), exec), list, rt
}

// TestC10NumbersAreAsWritten: whatever libcni makes of a number, the plugin gets the text of the
// NAD.
func TestC10NumbersAreAsWritten(t *testing.T) {
	for _, value := range []string{
		"1e3", "1.0", "-1E+2", "[true,9007199254740993]", "-9007199254740993",
		`["a\\\"12345678901234567e",2.50]`, "999999999999999", `"1e3 \\"`,
	} {
		r := &recorder{}
		cni, list, rt := written(t, r, `{"type":"x","n":`+value+`}`)
		if _, err := cni.AddNetworkList(t.Context(), list, rt); err != nil {
			t.Fatal(err)
		}
		want := `{"cniVersion":"1.1.0","n":` + value + `,"name":"net","type":"x"}`
		if r.stdin[0] != want {
			t.Errorf("%s, want %s", r.stdin[0], want)
		}
	}
}

// TestC10NumbersSurvive: libcni turns numbers into floats; the plugin gets what the NAD says.
func TestC10NumbersSurvive(t *testing.T) {
	r := &recorder{}
	cni, list, rt := written(t, r, `{"type":"x","id":1}`,
		`{"type":"x","id":12345678901234567891,"nested":{"n":[9007199254740993]},"name":"old",`+
			`"capabilities":{"mac":true}}`)
	if _, err := cni.AddNetworkList(t.Context(), list, rt); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"id":12345678901234567891`, `"n":[9007199254740993]`, `"name":"net"`,
		`"runtimeConfig":{"mac":"m"}`,
	} {
		if !strings.Contains(r.stdin[1], want) {
			t.Errorf("%s lacks %s", r.stdin[1], want)
		}
	}
}

// What libcni sets counts; of a key that it does not set, what the configuration has. Each plugin
// of a type has its own configuration, in either order of the chain.
func TestWrittenHasWhatLibcniSets(t *testing.T) {
	const (
		first = `{"type":"x","id":1,"index":7,"name":"own","cniVersion":"0.3.0",` +
			`"runtimeConfig":{"a":1},"prevResult":{"b":2}}`
		second = `{"type":"x","id":2,"capabilities":{"mac":true,"ips":false},"runtimeConfig":{"a":1},` +
			`"prevResult":{"b":2},"args":{"cni":{"<":"&"}}}`
		prev = `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.9/24"}]}`
	)
	want := map[string]string{
		"first alone": `{"type":"x","id":1,"index":7,"name":"net","cniVersion":"1.1.0",` +
			`"runtimeConfig":{"a":1},"prevResult":{"b":2}}`,
		"first": `{"type":"x","id":1,"index":7,"name":"net","cniVersion":"1.1.0",` +
			`"runtimeConfig":{"a":1},"prevResult":` + prev + `}`,
		"second": `{"type":"x","id":2,"capabilities":{"mac":true,"ips":false},"runtimeConfig":{"mac":"m"},"prevResult":` + prev + `,
			"args":{"cni":{"<":"&"}},"name":"net","cniVersion":"1.1.0"}`,
		"first of GC": `{"type":"x","id":1,"index":7,"name":"net","cniVersion":"1.1.0","runtimeConfig":{"a":1},"prevResult":{"b":2},
			"cni.dev/valid-attachments":[],"cni.dev/attachments":[]}`,
		"second of GC": `{"type":"x","id":2,"capabilities":{"mac":true,"ips":false},"runtimeConfig":{"a":1},"prevResult":{"b":2},
			"args":{"cni":{"<":"&"}},"name":"net","cniVersion":"1.1.0","cni.dev/valid-attachments":[],"cni.dev/attachments":[]}`,
	}
	r := &recorder{}
	cni, list, rt := written(t, r, first, second)
	_, err := cni.AddNetworkList(t.Context(), list, rt)
	err = errors.Join(err, cni.CheckNetworkList(t.Context(), list, rt),
		cni.DelNetworkList(t.Context(), list, rt),
		cni.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}))
	if err != nil {
		t.Fatal(err)
	}
	order := []string{
		"first alone", "second", "first", "second", "second", "first", "first of GC", "second of GC",
	}
	if len(r.stdin) != len(order) {
		t.Fatalf("%d calls: %q", len(r.stdin), r.stdin)
	}
	for i, name := range order {
		if diff := cmp.Diff(value(t, want[name]), value(t, r.stdin[i])); diff != "" {
			t.Errorf("call %d, %s: -want +got\n%s", i, name, diff)
		}
	}
}

func value(t *testing.T, text string) (value any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return value
}

// counter is an in-process plugin that keeps the configurations that it reads, and calls its IPAM
// plugin.
type counter struct {
	delegates bool
	read      *[]string
	stdin     *[]string
}

func (c counter) Prepare(config []byte) (*invoke.Prepared, error) {
	*c.read = append(*c.read, string(config))
	return &invoke.Prepared{Run: func(ctx context.Context, call *invoke.Call) ([]byte, error) {
		*c.stdin = append(*c.stdin, string(call.Stdin))
		if c.delegates {
			_, err := call.Exec.ExecPlugin(ctx, "builtin:ipam", slices.Clone(call.Stdin), call.Environ)
			if err != nil {
				return nil, err
			}
		}
		return []byte(`{"cniVersion":"1.1.0"}`), nil
	}}, nil
}

// Each configuration is read once, by the plugin and by its IPAM plugin, whatever an operation does
// with it. Each call has the keys that are its own.
func TestConfigurationIsReadOnce(t *testing.T) {
	var read, stdin, ipamRead, ipamStdin []string
	e := &invoke.Exec{Log: slog.New(slog.DiscardHandler), Builtin: invoke.Registry{
		"x": counter{true, &read, &stdin}, "ipam": counter{false, &ipamRead, &ipamStdin},
	}}
	plugins := []string{`{"type":"x","id":1,"capabilities":{"mac":true}}`, `{"type":"x","id":2}`}
	for _, config := range plugins {
		for _, kind := range []string{"x", "ipam"} {
			if _, err := e.Find(kind, []byte(config), nil); err != nil {
				t.Fatal(err)
			}
			if !e.InProcess(kind, []byte(config), nil, nil) {
				t.Errorf("%s is exec'd", kind)
			}
		}
	}
	cni, list, rt := written(t, e, plugins...)
	_, err := cni.AddNetworkList(t.Context(), list, rt)
	err = errors.Join(err, cni.CheckNetworkList(t.Context(), list, rt),
		cni.DelNetworkList(t.Context(), list, rt))
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range [][]string{read, ipamRead} {
		if diff := cmp.Diff(plugins, got); diff != "" {
			t.Errorf("configurations that were read: -want +got\n%s", diff)
		}
	}
	if diff := cmp.Diff(stdin, ipamStdin); diff != "" {
		t.Errorf("what the IPAM plugin gets: -want +got\n%s", diff)
	}
	if len(stdin) != 6 || !strings.Contains(stdin[0], `"runtimeConfig":{"mac":"m"}`) ||
		!strings.Contains(stdin[1], `"prevResult":{`) {
		t.Errorf("calls: %q", stdin)
	}
	// A configuration that is not of this call is read for itself.
	_, err = e.ExecPlugin(t.Context(), "builtin:x", []byte(`{"type":"x","id":3}`), nil)
	if err != nil || len(read) != 3 {
		t.Errorf("%v, %q", err, read)
	}
}
