package invoke_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
)

func newExec() *invoke.Exec { return &invoke.Exec{Log: slog.New(slog.DiscardHandler)} }

// script writes an executable shell script and gives its path.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExecPassesStdinAndEnvironment(t *testing.T) {
	path := script(t, `printf '%s|%s|' "$CNI_COMMAND" "$TRACEPARENT"; cat`)
	out, err := newExec().ExecPlugin(t.Context(), path, []byte("{}"), []string{"CNI_COMMAND=ADD", "TRACEPARENT=00-ab-cd-01"})
	if err != nil || string(out) != "ADD|00-ab-cd-01|{}" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestC9ErrorCodesPreserved: what a delegate says reaches the runtime with its code.
func TestC9ErrorCodesPreserved(t *testing.T) {
	for _, code := range []uint{1, 7, 11, 50, 51, 120} {
		path := script(t, fmt.Sprintf(`echo '{"code":%d,"msg":"no","details":"d"}'; exit 1`, code))
		_, err := newExec().ExecPlugin(t.Context(), path, nil, nil)
		fe, ok := errors.AsType[*failure.Error](err)
		if !ok || fe.Plugin != "plugin" || failure.Code(err) != code || !strings.Contains(err.Error(), "no; d") {
			t.Errorf("code %d: got %v with code %d", code, err, failure.Code(err))
		}
	}
}

func TestFailureWithoutErrorObjectQuotesStderr(t *testing.T) {
	path := script(t, `echo "panic: nil map" >&2; exit 2`)
	_, err := newExec().ExecPlugin(t.Context(), path, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 2") || !strings.Contains(err.Error(), "panic: nil map") {
		t.Errorf("got %v", err)
	}
}

// TestM14TextFileBusy: a plugin that is being written when it is called runs once it is there.
func TestM14TextFileBusy(t *testing.T) {
	path := script(t, "echo ran")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(100*time.Millisecond, func() { f.Close() }) //nolint:errcheck // nothing was written
	out, err := newExec().ExecPlugin(t.Context(), path, nil, nil)
	if err != nil || string(out) != "ran\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestM21TypeWithPath: a type with path elements runs nothing outside the plugin path (CVE-2021-20206).
func TestM21TypeWithPath(t *testing.T) {
	path := script(t, "echo ran")
	for _, plugin := range []string{"../" + filepath.Base(filepath.Dir(path)) + "/plugin", path, "./plugin", "missing", ""} {
		_, err := newExec().FindInPath(plugin, []string{filepath.Dir(path)})
		if failure.ReasonOf(err) != failure.PluginNotFound || failure.Code(err) != types.ErrInvalidNetworkConfig {
			t.Errorf("%q: got %v", plugin, err)
		}
	}
}

func TestCancelKillsTheWholeGroup(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	path := script(t, fmt.Sprintf(`sleep 60 & echo $! > %s; wait`, pidfile))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	start := time.Now()
	_, err := newExec().ExecPlugin(ctx, path, nil, nil)
	if failure.ReasonOf(err) != failure.TimedOut || !errors.Is(err, context.Canceled) || failure.Code(err) != 11 || time.Since(start) > 10*time.Second {
		t.Fatalf("after %v: %v", time.Since(start), err)
	}
	data, err := os.ReadFile(pidfile)
	if err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Sscan(string(data), &child); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if syscall.Kill(child, 0) != nil || zombie(child) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the plugin's child %d still runs", child)
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z")
}

// builtin is an in-process plugin that knows no key but "known".
type builtin struct{}

func (builtin) Prepare(config []byte) (*invoke.Prepared, error) {
	var keys map[string]any
	if err := json.Unmarshal(config, &keys); err != nil {
		return nil, err
	}
	p := &invoke.Prepared{Run: func(context.Context, []string) ([]byte, error) { return []byte("builtin\n"), nil }}
	delete(keys, "known")
	if len(keys) > 0 {
		p.Unknown = fmt.Errorf("unknown keys %v", keys)
	}
	return p, nil
}

// TestGuardExecsWhatIsUnknown: a key that the in-process plugin does not know is for the binary; without a binary it is an error.
func TestGuardExecsWhatIsUnknown(t *testing.T) {
	path := script(t, "echo exec")
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	for config, want := range map[string]string{`{"known":1}`: "builtin\n", `{"known":1,"new":2}`: "exec\n"} {
		found, err := e.FindInPath("plugin", []string{filepath.Dir(path)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := e.ExecPlugin(t.Context(), found, []byte(config), []string{"CNI_PATH=/nowhere:" + filepath.Dir(path)})
		if err != nil || string(out) != want {
			t.Errorf("%s: %q, %v", config, out, err)
		}
		if inProcess := e.InProcess("plugin", []byte(config)); inProcess != (want == "builtin\n") {
			t.Errorf("%s: InProcess says %v", config, inProcess)
		}
	}
	_, err := e.ExecPlugin(t.Context(), "builtin:plugin", []byte(`{"new":2}`), []string{"CNI_PATH=/nowhere"})
	if failure.ReasonOf(err) != failure.NADInvalid || failure.Code(err) != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), "new:2") {
		t.Errorf("without a binary: %v", err)
	}
}

func TestBuiltinRunsInProcessUnlessForced(t *testing.T) {
	path := script(t, "echo exec")
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	for _, c := range []struct {
		force []string
		want  string
	}{{nil, "builtin\n"}, {[]string{"plugin"}, "exec\n"}} {
		e.ForceExec = c.force
		found, err := e.FindInPath("plugin", []string{filepath.Dir(path)})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := e.ExecPlugin(t.Context(), found, []byte("{}"), nil); err != nil || string(out) != c.want {
			t.Errorf("forced %v: %q, %v", c.force, out, err)
		}
	}
}

// recorder keeps the stdin that a plugin gets.
type recorder struct {
	*invoke.Exec
	stdin []byte
}

func (r *recorder) ExecPlugin(_ context.Context, _ string, stdin []byte, _ []string) ([]byte, error) {
	r.stdin = slices.Clone(stdin)
	return nil, nil
}

// TestC10NumbersAreAsWritten: whatever libcni makes of a number, the plugin gets the text of the NAD.
func TestC10NumbersAreAsWritten(t *testing.T) {
	for written, sent := range map[string]string{
		"1e3": "1000", "1.0": "1", "-1E+2": "-100", "[true,9007199254740993]": "[true,9007199254740992]", "-9007199254740993": "-9007199254740992",
		`["a\\\"12345678901234567e",2.50]`: `["a\\\"12345678901234567e",2.5]`,
		"999999999999999":                  "999999999999999", `"1e3 \\"`: `"1e3 \\"`,
	} {
		r := &recorder{}
		plugins := []json.RawMessage{json.RawMessage(`{"n":` + written + `}`)}
		if _, err := invoke.Lossless(r, plugins).ExecPlugin(t.Context(), "x", []byte(`{"n":`+sent+`}`), nil); err != nil {
			t.Fatal(err)
		}
		if want := `{"n":` + written + `}`; string(r.stdin) != want {
			t.Errorf("%s of %s, want it as written", r.stdin, want)
		}
	}
}

// TestC10NumbersSurvive: libcni turns numbers into floats; the plugin gets what the NAD says.
func TestC10NumbersSurvive(t *testing.T) {
	plugins := []json.RawMessage{
		json.RawMessage(`{"type":"x","id":1}`),
		json.RawMessage(`{"type":"x","id":12345678901234567891,"nested":{"n":[9007199254740993]},"name":"old"}`),
	}
	sent := `{"type":"x","id":12345678901234567000,"nested":{"n":[9007199254740992]},"name":"new","cniVersion":"1.0.0","runtimeConfig":{"mac":"m"}}`
	r := &recorder{}
	if _, err := invoke.Lossless(r, plugins).ExecPlugin(t.Context(), "x", []byte(sent), nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"id":12345678901234567891`, `"n":[9007199254740993]`, `"name":"new"`, `"runtimeConfig":{"mac":"m"}`} {
		if !strings.Contains(string(r.stdin), want) {
			t.Errorf("%s lacks %s", r.stdin, want)
		}
	}
}
