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
		change func(r *rig)
		log    string
	}{
		"no cniVersion": {func(r *rig) { delete(r.conf, "cniVersion") }, "field cniVersion"},
		"list of binDir": {func(r *rig) {
			r.conf["binDir"] = []string{r.path("none"), r.path("more")}
		}, "field binDir"},
		"trace":    {func(r *rig) { r.conf["logLevel"] = "trace" }, "field logLevel"},
		"verbose":  {func(r *rig) { r.conf["logLevel"] = "verbose" }, "field logLevel"},
		"no level": {func(r *rig) { r.conf["logLevel"] = "loud" }, "field logLevel"},
		"log options": {func(r *rig) {
			r.conf["logOptions"] = map[string]any{"maxAge": -1, "maxBackups": 1}
		}, "field logOptions.maxAge"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.fake("one", "")
			if err := os.Rename(r.path("bin"), r.path("more")); err != nil {
				t.Fatal(err)
			}
			c.change(r)
			r.nad("a", r.macvlan(11, ""))
			networks := "a"
			if name == "list of binDir" {
				r.nad("b", `{"cniVersion":"1.0.0","type":"one"}`)
				networks = "a,b"
			}
			p := r.pod("p", networks)
			result := &types100.Result{}
			err := json.Unmarshal([]byte(r.must("ADD", p)), result)
			if err != nil || len(result.IPs) != 1 || result.CNIVersion == "" {
				t.Errorf("result %+v, %v", result, err)
			}
			if log := r.log(); !strings.Contains(log, "level=WARN") || strings.Count(log, c.log) != 1 {
				t.Errorf("the log does not say %q once: %s", c.log, log)
			}
			r.warned(p) // it is not the pod's fault
			r.must("DEL", p)
			r.clean(p)
		})
	}
}

// Of those that Multus takes, an absent cniVersion is refused by the CNI library unless told
// otherwise; one that Braid does not speak stays an error.
func TestR9VersionsThatAreNotSpoken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, version := range []string{"0.1.0", "0.2.0", "9.9.9"} {
		r.conf["cniVersion"] = version
		r.fails("ADD", r.pod("p", ""), 1)
	}
	delete(r.conf, "cniVersion")
	out := r.must("VERSION", nil)
	if strings.Contains(out, `"0.2.0"`) || !strings.Contains(out, `"0.3.0"`) {
		t.Errorf("VERSION: %s", out)
	}
}
