package invoke_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
)

func newExec() *invoke.Exec { return &invoke.Exec{Log: slog.New(slog.DiscardHandler)} }

// script writes an executable shell script and returns its path.
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
	out, err := newExec().ExecPlugin(t.Context(), path, []byte("{}"),
		[]string{"CNI_COMMAND=ADD", "TRACEPARENT=00-ab-cd-01"})
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
		if !ok || fe.Plugin != "plugin" || failure.Code(err) != code ||
			!strings.Contains(err.Error(), "no; d") {
			t.Errorf("code %d: got %v with code %d", code, err, failure.Code(err))
		}
	}
}

func TestFailureWithoutErrorObjectQuotesStderr(t *testing.T) {
	path := script(t, `echo "panic: nil map" >&2; exit 2`)
	_, err := newExec().ExecPlugin(t.Context(), path, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "exit status 2") ||
		!strings.Contains(err.Error(), "panic: nil map") {
		t.Errorf("got %v", err)
	}
}

// TestM37OutputIsBounded: what a plugin prints costs neither memory nor time without end, whatever
// it prints it on, and it does not outlive that.
func TestM37OutputIsBounded(t *testing.T) {
	const endless = `yes 0123456789012345678901234567890123456789`
	pid := filepath.Join(t.TempDir(), "pid")
	for name, test := range map[string]struct{ body, says string }{
		"stdout": {endless, "1048576 bytes"},
		"stdout of a child": {
			`sh -c 'echo $$ >` + pid + `; ` + endless + `'; sleep 600`,
			"1048576 bytes",
		},
		"stdout, and no SIGPIPE": {`trap "" PIPE; ` + endless +
			`; while :; do echo more; sleep 0.01; done`, "1048576 bytes"},
		"stdout of one that ends": {endless + ` | head -c 800000000`, "1048576 bytes"},
		"an error": {`printf '{"code":7,"msg":"'; ` + endless +
			` | head -c 500000 | tr -d '\n'; printf '"}'; exit 1`, "0123"},
		"stderr": {
			endless + ` | head -c 80000000 >&2; echo the end >&2; exit 1`,
			"the end",
		},
	} {
		before := rss(t)
		_, err := newExec().ExecPlugin(t.Context(), script(t, test.body), nil,
			[]string{"PATH=" + os.Getenv("PATH")})
		if err == nil || !strings.Contains(err.Error(), test.says) || len(err.Error()) > 8000 {
			t.Errorf("%s: %.300v", name, err)
		}
		if failure.ReasonOf(err) != failure.PluginFailed {
			t.Errorf("%s: reason %s", name, failure.ReasonOf(err))
		}
		if grown := rss(t) - before; grown > 32<<20 {
			t.Errorf("%s: it took %d bytes", name, grown)
		}
	}
	data, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // killed, and to be waited for by init
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(data)) + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a child that prints without end outlives the call")
}

// rss is what this process has in memory at the most, in bytes.
func rss(t *testing.T) int64 {
	t.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return usage.Maxrss << 10
}

// TestM37LargeResult: a result that is large, and no larger than that, is one.
func TestM37LargeResult(t *testing.T) {
	path := script(t, `printf '{"x":"'; yes 0123456789 | head -c 1000000 | tr -d '\n'; printf '"}'; `+
		`head -c 3000000 /dev/zero >&2`)
	out, err := newExec().ExecPlugin(t.Context(), path, nil, []string{"PATH=" + os.Getenv("PATH")})
	if err != nil || !json.Valid(out) || len(out) < 900_000 {
		t.Errorf("%d bytes, %v", len(out), err)
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

// TestM21TypeWithPath: a type with path elements runs nothing outside the plugin path
// (CVE-2021-20206).
func TestM21TypeWithPath(t *testing.T) {
	path := script(t, "echo ran")
	for _, plugin := range []string{
		"../" + filepath.Base(filepath.Dir(path)) + "/plugin", path, "./plugin", "missing", "",
	} {
		_, err := newExec().FindInPath(plugin, []string{filepath.Dir(path)})
		if failure.ReasonOf(err) != failure.PluginNotFound ||
			failure.Code(err) != types.ErrInvalidNetworkConfig {
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
	if failure.ReasonOf(err) != failure.TimedOut || !errors.Is(err, context.Canceled) ||
		failure.Code(err) != 11 || time.Since(start) > 10*time.Second {
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

// builtin is an in-process plugin that knows no key but "known", reads "KNOWN" as that, takes
// "slip" for a slip of it, and "foreign" for one with a value that it does not know.
type builtin struct{}

func (builtin) Prepare(config []byte) (*invoke.Prepared, error) {
	var keys map[string]any
	if err := json.Unmarshal(config, &keys); err != nil {
		return nil, err
	}
	p := &invoke.Prepared{Run: func(context.Context, *invoke.Call) ([]byte, error) {
		return []byte("builtin\n"), nil
	}}
	delete(keys, "known")
	for key := range keys {
		switch key {
		case "KNOWN":
			p.Recased = []invoke.Recased{{Path: key, Key: "known"}}
		case "slip":
			p.Refused = &failure.Error{
				Reason: failure.NADInvalid, Field: key, Err: errors.New("unknown key"), Fix: "write known",
			}
		case "foreign":
			p.Foreign = errors.New("not mine")
		default:
			continue
		}
		delete(keys, key)
	}
	p.Unknown = slices.Sorted(maps.Keys(keys))
	return p, nil
}

// ran is what ran a configuration of type plugin, which is built in: "builtin" or "exec".
func ran(t *testing.T, exec cniinvoke.Exec, config, paths, command string) (string, error) {
	t.Helper()
	found, err := exec.FindInPath("plugin", filepath.SplitList(paths))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.ExecPlugin(t.Context(), found, []byte(config),
		[]string{"CNI_COMMAND=" + command, "CNI_PATH=" + paths})
	return strings.TrimSpace(string(out)), err
}

// TestR32UnknownKeys: a key that the in-process plugin does not know is for the binary; without one
// it is ignored. Both are warnings.
func TestR32UnknownKeys(t *testing.T) {
	dir := filepath.Dir(script(t, "echo exec"))
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	for _, c := range []struct {
		config, paths, want string
		reason              failure.Reason
	}{
		{`{"known":1}`, "/nowhere:" + dir, "builtin", ""},
		{`{"known":1}`, "/nowhere", "builtin", ""},
		{`{"known":1,"new":2}`, "/nowhere:" + dir, "exec", failure.PluginExecuted},
		{`{"new":2}`, "/nowhere", "builtin", failure.IgnoredKey},
		{`{"foreign":2}`, dir, "exec", ""},
	} {
		for _, command := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} {
			if got, err := ran(t, e, c.config, c.paths, command); err != nil || got != c.want {
				t.Errorf("%s %s with %s: %q, %v, want %s", command, c.config, c.paths, got, err, c.want)
			}
		}
		paths := filepath.SplitList(c.paths)
		inProcess := e.InProcess("plugin", []byte(c.config), paths, nil)
		if inProcess != (c.want == "builtin") {
			t.Errorf("%s: InProcess says %v", c.config, inProcess)
		}
		found, err := e.Find("plugin", []byte(c.config), paths)
		if err != nil || len(found.Warnings) == 0 != (c.reason == "") {
			t.Fatalf("%s: %+v, %v", c.config, found, err)
		}
		if c.reason == "" {
			continue
		}
		w := found.Warnings[0]
		if w.Reason != c.reason || w.Plugin != "plugin" || w.Field != "new" || w.Fix == "" {
			t.Errorf("%s: warning %#v", c.config, w)
		}
		if inProcess, ok := found.Chosen["plugin"]; !ok || inProcess != (c.want == "builtin") {
			t.Errorf("%s: chosen %v", c.config, found.Chosen)
		}
	}
}

// TestR32LaterOperationsRunWhatTheAddRan: whatever was installed or removed since.
func TestR32LaterOperationsRunWhatTheAddRan(t *testing.T) {
	path := script(t, "echo exec")
	dir := filepath.Dir(path)
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	for _, c := range []struct {
		chosen invoke.Chosen
		config string
		want   string
	}{
		{invoke.Chosen{"plugin": true}, `{"new":2}`, "builtin"},
		{invoke.Chosen{"plugin": false}, `{"new":2}`, "exec"},
		{invoke.Chosen{"other": true}, `{"new":2}`, "exec"},
		{invoke.Chosen{"plugin": false}, `{"known":2}`, "builtin"},
	} {
		got, err := ran(t, invoke.Under(e, invoke.Terms{Chosen: c.chosen}), c.config, dir, "DEL")
		if err != nil || got != c.want {
			t.Errorf("%v: %q, %v, want %s", c.chosen, got, err, c.want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := ran(t, invoke.Under(e, invoke.Terms{Chosen: invoke.Chosen{"plugin": false}}),
		`{"new":2}`, dir, "DEL")
	if failure.ReasonOf(err) != failure.PluginNotFound ||
		failure.Code(err) != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), "new") {
		t.Errorf("DEL of what a binary made that is gone: %v", err)
	}
}

// TestR32Refusals: what looks like a slip is refused by ADD alone, with a binary and without; a
// value that only a binary knows needs one.
func TestR32Refusals(t *testing.T) {
	dir := filepath.Dir(script(t, "echo exec"))
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	refused := func(config, paths, words string) {
		t.Helper()
		_, found := e.Find("plugin", []byte(config), []string{paths})
		_, add := ran(t, e, config, paths, "ADD")
		for _, err := range []error{found, add} {
			if failure.ReasonOf(err) != failure.NADInvalid ||
				failure.Code(err) != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), words) {
				t.Errorf("%s with %s: %v, want %q in it", config, paths, err, words)
			}
		}
	}
	for _, paths := range []string{dir, "/nowhere"} {
		refused(`{"slip":1}`, paths, "write known")
		if _, err := ran(t, e, `{"slip":1}`, paths, "DEL"); err != nil {
			t.Errorf("DEL after that: %v", err)
		}
	}
	refused(`{"foreign":1}`, "/nowhere", "install a plugin of type plugin")
	if _, err := ran(t, e, `{"foreign":1}`, "/nowhere", "DEL"); err == nil {
		t.Error("DEL leaves what only a binary can remove")
	}
	e.RefuseUnknown = true
	refused(`{"new":1}`, "/nowhere", "no such key")
	if got, err := ran(t, e, `{"new":1}`, dir, "ADD"); got != "exec" {
		t.Errorf("a binary that may know the key: %q, %v", got, err)
	}
	if _, err := ran(t, e, `{"new":1}`, "/nowhere", "DEL"); err != nil {
		t.Errorf("DEL of what is refused now: %v", err)
	}
}

// TestR34ProgramIsNotItsOwnReference: a link of the plugin's name to the program itself is no other
// plugin, nor is what comes before it in the path; another type is not this program under another
// name.
func TestR34ProgramIsNotItsOwnReference(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	links, reference := t.TempDir(), filepath.Dir(script(t, "echo exec"))
	for _, name := range []string{"plugin", "other"} {
		if err := os.Symlink(self, filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	for paths, want := range map[string]string{
		links: "builtin", links + ":" + reference: "exec", reference + ":" + links: "builtin",
		reference: "exec",
	} {
		if got, err := ran(t, e, `{"new":1}`, paths, "ADD"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %s", paths, got, err, want)
		}
	}
	_, err = e.FindInPath("other", []string{links})
	if failure.ReasonOf(err) != failure.NADInvalid || !strings.Contains(err.Error(), "call itself") {
		t.Errorf("Braid under another name: %v", err)
	}
}

// TestR34Alone: without an engine, warnings go to Warn, and DEL passes over what its ADD refused.
func TestR34Alone(t *testing.T) {
	e := newExec()
	e.Builtin = invoke.Registry{"plugin": builtin{}}
	var warned []string
	e.Warn = func(w *failure.Error) { warned = append(warned, string(w.Reason)+" "+w.Field) }
	for _, command := range []string{"ADD", "CHECK", "DEL"} {
		if _, err := ran(t, e, `{"new":1,"KNOWN":2}`, "/nowhere", command); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"MiscasedKey KNOWN", "IgnoredKey new"}; !slices.Equal(warned, want) {
		t.Errorf("warned %q, want %q", warned, want)
	}
	if _, err := ran(t, e, `{"foreign":1}`, "/nowhere", "ADD"); err == nil {
		t.Error("a foreign value is accepted")
	}
	if got, err := ran(t, e, `{"foreign":1}`, "/nowhere", "DEL"); err != nil || got != "builtin" {
		t.Errorf("DEL after that: %q, %v", got, err)
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
		out, err := e.ExecPlugin(t.Context(), found, []byte("{}"), nil)
		if err != nil || string(out) != c.want {
			t.Errorf("forced %v: %q, %v", c.force, out, err)
		}
	}
}

// TestM37DescendantsDieToo: a plugin that is killed leaves no process behind, however far that went
// from it.
func TestM37DescendantsDieToo(t *testing.T) {
	sleeper := filepath.Join(t.TempDir(), "sleeper")
	copyTo(t, sleeper)
	const twice = `setsid sh -c '%s setsid %s 600 >/dev/null 2>&1 </dev/null &' & `
	for name, test := range map[string]struct {
		body  string
		alone bool
	}{
		"child":                          {sleeper + " 600 & ", false},
		"session of its own":             {"setsid " + sleeper + " 600 & ", false},
		"orphan in a session of its own": {fmt.Sprintf(twice, "", sleeper), false},
		"the same without output": {
			fmt.Sprintf(twice, "", sleeper) + "exec >/dev/null 2>&1; ",
			false,
		},
		"child without environment":  {"setsid env -i " + sleeper + " 600 & ", false},
		"orphan without environment": {fmt.Sprintf(twice, "env -i", sleeper), true},
		"one that starts others for itself": {"setsid sh -c 'while :; do setsid " + sleeper +
			" 600 & sleep 0.02; done' >/dev/null 2>&1 & ", false},
	} {
		t.Run(name, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for len(running(sleeper)) == 0 || !exists(ready) {
					time.Sleep(5 * time.Millisecond)
				}
				cancel()
			}()
			exec := newExec()
			if exec.Alone = test.alone; test.alone {
				defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) //nolint:errcheck // as it was
			}
			path := script(t, test.body+"touch "+ready+"; sleep 600")
			_, err := exec.ExecPlugin(ctx, path, nil, []string{"PATH=" + os.Getenv("PATH")})
			if failure.ReasonOf(err) != failure.TimedOut {
				t.Errorf("got %v", err)
			}
			if left := running(sleeper); len(left) > 0 {
				t.Errorf("processes %v are left", left)
				for _, pid := range left {
					syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // for the next test
				}
			}
		})
	}
}

// TestDaemonsOfPluginsStay: a plugin that ends by itself may leave a daemon, and so may one before
// another that is killed.
func TestDaemonsOfPluginsStay(t *testing.T) {
	sleeper := filepath.Join(t.TempDir(), "sleeper")
	copyTo(t, sleeper)
	exec, environ := newExec(), []string{"PATH=" + os.Getenv("PATH")}
	_, err := exec.ExecPlugin(t.Context(),
		script(t, "setsid "+sleeper+" 600 >/dev/null 2>&1 & echo '{}'"), nil, environ)
	if err != nil {
		t.Fatal(err)
	}
	for len(running(sleeper)) == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := exec.ExecPlugin(ctx, script(t, "sleep 600"), nil, environ); err == nil {
		t.Error("the second plugin was not killed")
	}
	left := running(sleeper)
	if len(left) != 1 {
		t.Errorf("daemons %v are left, want one", left)
	}
	for _, pid := range left {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it was the test's
	}
}

// copyTo makes a program that sleeps, which no one else runs.
func copyTo(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o700); err != nil {
		t.Fatal(err)
	}
}

// running are the processes of a program.
func running(program string) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/exe") //nolint:errcheck // the pattern is one
	for _, link := range links {
		if exe, err := os.Readlink(link); err == nil && exe == program {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(link))) //nolint:errcheck // by the pattern
			pids = append(pids, pid)
		}
	}
	return pids
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
