package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// A configuration that Multus takes stops no node: what is odd in it is a line of the log.
func TestR9OddConfiguration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(h *host)
		log    string
	}{
		"no cniVersion": {func(h *host) { delete(h.conf, "cniVersion") }, "field cniVersion"},
		"list of binDir": {func(h *host) {
			h.conf["binDir"] = []string{h.path("none"), h.path("more")}
		}, "field binDir"},
		"trace":    {func(h *host) { h.conf["logLevel"] = "trace" }, "field logLevel"},
		"verbose":  {func(h *host) { h.conf["logLevel"] = "verbose" }, "field logLevel"},
		"no level": {func(h *host) { h.conf["logLevel"] = "loud" }, "field logLevel"},
		"log options": {func(h *host) {
			h.conf["logOptions"] = map[string]any{"maxAge": -1, "maxBackups": 1}
		}, "field logOptions.maxAge"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake("one", "")
			if err := os.Rename(h.path("bin"), h.path("more")); err != nil {
				t.Fatal(err)
			}
			c.change(h)
			h.nad("a", h.macvlan(11, ""))
			networks := "a"
			if name == "list of binDir" {
				h.nad("b", `{"cniVersion":"1.0.0","type":"one"}`)
				networks = "a,b"
			}
			p := h.pod("p", networks)
			result := &types100.Result{}
			err := json.Unmarshal([]byte(h.must("ADD", p)), result)
			if err != nil || len(result.IPs) != 1 || result.CNIVersion == "" {
				t.Errorf("result %+v, %v", result, err)
			}
			if log := h.log(); !strings.Contains(log, "level=WARN") || strings.Count(log, c.log) != 1 {
				t.Errorf("the log does not say %q once: %s", c.log, log)
			}
			h.warned(p) // it is not the pod's fault
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// Of those that Multus takes, an absent cniVersion is refused by the CNI library unless told
// otherwise; one that Braid does not speak stays an error.
func TestR9VersionsThatAreNotSpoken(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, version := range []string{"0.1.0", "0.2.0", "9.9.9"} {
		h.conf["cniVersion"] = version
		h.fails("ADD", h.pod("p", ""), 1)
	}
	delete(h.conf, "cniVersion")
	out := h.must("VERSION", nil)
	if strings.Contains(out, `"0.2.0"`) || !strings.Contains(out, `"0.3.0"`) {
		t.Errorf("VERSION: %s", out)
	}
}
