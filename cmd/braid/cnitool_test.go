package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// cnitool is how a person calls Braid by hand: a runtime of a few lines, with libcni.
func TestCnitool(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.script("braid", fmt.Sprintf("exec env %s=1 %s\n", asPlugin, os.Args[0]))
	plugin, err := json.Marshal(r.conf)
	if err != nil {
		t.Fatal(err)
	}
	r.write("net.d/00-braid.conflist",
		`{"cniVersion":"1.1.0","name":"braid","plugins":[`+string(plugin)+`]}`)

	result := &types100.Result{}
	if err := json.Unmarshal([]byte(r.cnitool("add", p)), result); err != nil {
		t.Fatal(err)
	}
	same(t, "address", result.IPs[0].Address.String(), "10.1.0.2/16")
	r.has(p, "eth0", "net1")
	r.cnitool("check", p)
	r.cnitool("status", p)
	r.cnitool("del", p)
	r.clean(p)
}

// cnitool runs a command that has to succeed.
func (r *rig) cnitool(command string, p *pod) string {
	r.t.Helper()
	cmd := exec.Command(cnitoolPath(r.t), command, "braid", p.Path)
	cmd.Env = append(os.Environ(), "NETCONFPATH="+r.path("net.d"),
		"CNI_PATH="+r.path("bin")+":"+pluginDir(r.t),
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+p.name, "HOME="+r.path("home"),
		"GORACE=atexit_sleep_ms=0")
	var out []byte
	err := r.node.Run(func() (err error) {
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		r.t.Fatalf("cnitool %s: %v: %s\n%s", command, err, out, r.log())
	}
	return string(out)
}

func cnitoolPath(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("BRAID_CNITOOL"); path != "" {
		return path
	}
	out, err := exec.CommandContext(t.Context(), "../../scripts/tools.sh", "cnitool").Output()
	if err != nil {
		t.Fatalf("BRAID_CNITOOL is not set, and scripts/tools.sh cnitool: %v", err)
	}
	return strings.TrimSpace(string(out))
}
