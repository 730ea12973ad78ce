package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// fake puts a delegate written in sh in place of the plugin kind. It notes each call, with its
// stdin and its environment, and does what body says; the end of body is an ADD with an empty
// result. Fakes show what no reference plugin does.
func (h *host) fake(kind, body string) {
	h.t.Helper()
	if err := os.MkdirAll(h.path("calls"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	h.script(kind, fmt.Sprintf(`
dir=%s kind=%s
stdin=$dir/$kind-$CNI_COMMAND-$CNI_CONTAINERID-$CNI_IFNAME.json
cat >"$stdin"
env >"${stdin%%.json}.env"
echo "$kind $CNI_COMMAND $CNI_IFNAME" >>"$dir/list"
%s
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0"}'
`, h.path("calls"), kind, body))
}

// passOn is the body of a chained fake, which prints the result of the plugin before it.
const passOn = `if [ "$CNI_COMMAND" = ADD ]; then sed 's/.*"prevResult":\({.*}\),` +
	`"\(runtimeConfig\|type\)":.*/\1/' "$stdin"; exit; fi`

// failing is the body of a fake whose command fails with a CNI error.
func failing(command string, code int, msg string) string {
	return fmt.Sprintf(`if [ "$CNI_COMMAND" = %s ]; then echo '{"cniVersion":"1.0.0","code":%d,`+
		`"msg":"%s"}'; exit 1; fi`, command, code, msg)
}

// giving is the body of a fake whose ADD has this result.
func giving(result string) string {
	return fmt.Sprintf(`if [ "$CNI_COMMAND" = ADD ]; then echo '%s'; exit; fi`, result)
}

// calls are the calls of all fakes so far, in their order, as "kind ADD net1", and forgets them.
func (h *host) calls() []string {
	h.t.Helper()
	data, err := os.ReadFile(h.path("calls", "list"))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	if err := os.RemoveAll(h.path("calls", "list")); err != nil {
		h.t.Fatal(err)
	}
	var calls []string
	for line := range strings.Lines(string(data)) {
		calls = append(calls, strings.TrimSpace(line))
	}
	return calls
}

// stdin is what a fake got on stdin by its last call of this command; p is nil for GC and STATUS.
func (h *host) stdin(kind, command string, p *pod, ifname string) map[string]any {
	h.t.Helper()
	var config map[string]any
	if err := json.Unmarshal([]byte(h.noted(kind, command, p, ifname, "json")), &config); err != nil {
		h.t.Fatal(err)
	}
	return config
}

// environment is the environment of a fake by its last call of this command.
func (h *host) environment(kind, command string, p *pod, ifname string) map[string]string {
	h.t.Helper()
	env := map[string]string{}
	for line := range strings.Lines(h.noted(kind, command, p, ifname, "env")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[key] = value
	}
	return env
}

func (h *host) noted(kind, command string, p *pod, ifname, what string) string {
	h.t.Helper()
	id := ""
	if p != nil {
		id = p.id
	}
	data, err := os.ReadFile(
		h.path("calls", fmt.Sprintf("%s-%s-%s-%s.%s", kind, command, id, ifname, what)))
	if err != nil {
		h.t.Fatalf("%s was not called: %v", kind, err)
	}
	return string(data)
}

// runtimeConfigOf is "runtimeConfig" of a plugin's stdin; nil without one.
func runtimeConfigOf(stdin map[string]any) map[string]any {
	config, _ := stdin["runtimeConfig"].(map[string]any)
	return config
}

// podEvent is an event of a pod, as the directory of manifests has it.
type podEvent struct{ Type, Reason, Message string }

// events are all events of a pod.
func (h *host) events(p *pod) []podEvent {
	h.t.Helper()
	data, err := os.ReadFile(h.path("manifests", p.namespace+"_"+p.name+".events.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	var events []podEvent
	for line := range strings.Lines(string(data)) {
		var e podEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			h.t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// lastEvent is the pod's last event; there must be one.
func (h *host) lastEvent(p *pod) podEvent {
	h.t.Helper()
	events := h.events(p)
	if len(events) == 0 {
		h.t.Fatalf("pod %s has no event", p.name)
	}
	return events[len(events)-1]
}

// table lists the pod's routes of one table of a family, 4 or 6, as `ip route list table` does.
func table(p *pod, family int, name string) []string {
	var routes []string
	for line := range strings.Lines(p.Routes()) {
		if route, ok := strings.CutPrefix(line, fmt.Sprintf("route%d table %s ", family, name)); ok {
			routes = append(routes, strings.TrimSpace(route))
		}
	}
	return routes
}

// defaults are the default routes among them.
func defaults(routes []string) []string {
	var found []string
	for _, route := range routes {
		if strings.HasPrefix(route, "default ") {
			found = append(found, route)
		}
	}
	return found
}

// same compares what a test got with what it wants.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	a, b := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want)
	if a != b {
		t.Errorf("%s:\n got %s\nwant %s", what, a, b)
	}
}

// remove deletes a file of the host, or a directory, which must be there.
func (h *host) remove(elem ...string) {
	h.t.Helper()
	if _, err := os.Lstat(h.path(elem...)); err != nil {
		h.t.Fatal(err)
	}
	if err := os.RemoveAll(h.path(elem...)); err != nil {
		h.t.Fatal(err)
	}
}

// compact is JSON without white space.
func compact(t *testing.T, raw []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
