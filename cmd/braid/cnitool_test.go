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
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.script("braid", fmt.Sprintf("exec env %s=1 %s\n", asPlugin, os.Args[0]))
	plugin, err := json.Marshal(h.conf)
	if err != nil {
		t.Fatal(err)
	}
	h.write("net.d/00-braid.conflist",
		`{"cniVersion":"1.1.0","name":"braid","plugins":[`+string(plugin)+`]}`)

	result := &types100.Result{}
	if err := json.Unmarshal([]byte(h.cnitool("add", p)), result); err != nil {
		t.Fatal(err)
	}
	same(t, "address", result.IPs[0].Address.String(), "10.1.0.2/16")
	h.has(p, "eth0", "net1")
	h.cnitool("check", p)
	h.cnitool("status", p)
	h.cnitool("del", p)
	h.clean(p)
}

// cnitool runs a command that has to succeed.
func (h *host) cnitool(command string, p *pod) string {
	h.t.Helper()
	cmd := exec.Command(cnitoolPath(h.t), command, "braid", p.Path)
	cmd.Env = append(os.Environ(), "NETCONFPATH="+h.path("net.d"),
		"CNI_PATH="+h.path("bin")+":"+pluginDir(h.t),
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+p.name, "HOME="+h.path("home"),
		"GORACE=atexit_sleep_ms=0")
	var out []byte
	err := h.node.Run(func() (err error) {
		out, err = cmd.Output()
		return err
	})
	if err != nil {
		h.t.Fatalf("cnitool %s: %v: %s\n%s", command, err, out, h.log())
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
