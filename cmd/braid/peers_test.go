package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/nettest"
)

// Defects of the peers that Braid must not have. M2 is with the default routes, M3 with GC.

// The old default route is there with every way in which the kernel may tell of it: after the move
// there is one.
func TestM1NoSecondDefaultRoute(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", `[{"name":"a","default-route":["10.11.0.1"]}]`)
	h.add(p)
	same(t, "default routes", defaults(table(p, 4, "main")),
		[]string{"default via 10.11.0.1 dev net1"})
	// Without net1 nothing leads out: eth0's route is gone, not hidden.
	p.Down("net1")
	same(t, "default routes without net1", len(defaults(table(p, 4, "main"))), 0)
}

// halve truncates the files of a pattern. There must be one.
func halve(h *host, pattern string) {
	h.t.Helper()
	files, err := filepath.Glob(h.path(pattern))
	if err != nil || len(files) == 0 {
		h.t.Fatalf("%s: %q, %v", pattern, files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, data[:len(data)/2], 0o600)
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// M4, "DEL with damaged files".
func TestM4DelWithDamagedFiles(t *testing.T) {
	t.Parallel()
	for name, patterns := range map[string][]string{
		"cache": {"state/cni/results/*"}, "record": {"state/sandboxes/id-p.json"},
		"both": {"state/cni/results/*", "state/sandboxes/id-p.json"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", h.macvlan(11, ""))
			p := h.pod("p", "a,a")
			h.add(p)
			for _, pattern := range patterns {
				halve(h, pattern)
			}
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// With the record damaged and nothing else to go by, DEL says that it did not do it.
func TestM4DelThatCannotKnowFails(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	halve(h, "state/sandboxes/id-p.json")
	halve(h, "state/cni/results/*")
	h.remove("manifests")
	h.remove("state", "networks")
	leases := h.leases()
	h.fails("DEL", p, 7, "default/p")
	same(t, "leases", h.leases(), leases)
}

// M5, "DEL while what it needs is away".
func TestM5DelWithTheAPIAway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a,a")
	h.add(p)
	awayAPI(h)
	h.must("DEL", p)
	h.clean(p)
}

// Without a record Braid would have to ask; as long as it cannot, it does not claim that nothing is
// left, unless it sees that the sandbox is empty: the ADD was refused as well.
func TestM5DelOfUnknownSandboxWithTheAPIAway(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	awayAPI(h)
	p := h.pod("p", "")
	h.fails("ADD", p, 11, "default/p")
	h.must("DEL", p)
	other := h.pod("other", "")
	other.Veth("eth0", nettest.New(t), "wire")
	h.fails("DEL", other, 11, "default/other")
	gone := h.pod("gone", "")
	gone.Unmount()
	h.fails("DEL", gone, 11, "default/gone")
}

// M6, "a failed DEL is remembered".
func TestM6FailedDelIsRemembered(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.execs("macvlan")
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	h.script("macvlan", `echo '{"cniVersion":"1.0.0","code":5,"msg":"disk failed"}'; exit 1`)
	for range 2 {
		h.fails("DEL", p, 5, "default/p", "default/a", "disk failed")
		same(t, "leases", h.leases(), []string{"a/10.11.0.2"})
		h.has(p, "net1")
	}
	h.remove("bin", "macvlan")
	h.must("DEL", p)
	h.clean(p)
}

// M7, "ADD for a pod that is gone".
func TestM7AddForAPodThatIsGone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.remove("manifests", "Pod-default-p.yaml")
	h.fails("ADD", p, 3, "default/p")
	h.clean(p)
}

// The same name is not the same pod.
func TestM7AddForAPodThatWasReplaced(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.pod("p", "")
	out, err := h.call("ADD", p,
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;"+
			"K8S_POD_UID=11111111-2222-3333-4444-555555555555")
	if err == nil || err.Code != 3 || !strings.Contains(err.Msg, "replaced") {
		t.Errorf("ADD: %s, %v", out, err)
	}
	h.clean(p)
}

// M11, "CHECK of the annotation's networks".
func TestM11CheckSeesTheAnnotationsNetworks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	h.must("CHECK", p)
	if err := p.Netlink().LinkDel(p.Link("net1")); err != nil {
		t.Fatal(err)
	}
	_, err := h.call("CHECK", p)
	if err == nil || !strings.Contains(err.Msg, "default/a") || !strings.Contains(err.Msg, "net1") {
		t.Errorf("CHECK without net1: %v", err)
	}
}

// Braid called many times in one process, as the daemon will, leaves the log file closed.
func TestM12LogFileIsClosed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	stdin, err := json.Marshal(h.conf)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		args := &skel.CmdArgs{ContainerID: "unknown", IfName: "eth0", StdinData: stdin}
		err := (&app{stdout: os.Stderr, stderr: os.Stderr}).do(t.Context(), engine.Check, args)
		if err == nil {
			t.Fatal("CHECK of an unknown sandbox succeeds")
		}
	}
	if !strings.Contains(h.log(), "CHECK failed") {
		t.Fatal("nothing was logged")
	}
	same(t, "open descriptors", open(t, "self", h.path("braid.log")), 0)
}

// A delegate does not inherit it either.
func TestM12DelegateDoesNotInheritTheLog(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", `ls -l /proc/$$/fd >"$dir/fds"`)
	h.nad("a", `{"cniVersion":"1.0.0","type":"one"}`)
	h.add(h.pod("p", "a"))
	fds, err := os.ReadFile(h.path("calls", "fds"))
	if err != nil || len(fds) == 0 || strings.Contains(string(fds), "braid.log") {
		t.Errorf("descriptors: %s, %v", fds, err)
	}
}

// open counts the descriptors of a process for a file.
func open(t *testing.T, pid, path string) int {
	t.Helper()
	fds, err := filepath.Glob("/proc/" + pid + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == path {
			n++
		}
	}
	return n
}

// A network that needs a device is not attached without one. Here no kubelet has given one.
func TestM13NotWithoutItsDevice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("sriov", "")
	h.nad("vf", `{"cniVersion":"1.0.0","type":"sriov"}`, nadv1.ResourceNameAnnotation,
		"example.com/vf")
	p := h.pod("p", "vf")
	h.fails("ADD", p, 7, "default/p", "default/vf", nadv1.ResourceNameAnnotation)
	h.clean(p)
}

// Neither the plugin nor its IPAM plugin is run from outside of the plugin path.
func TestM21NothingOutsideThePluginPath(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	marker := h.path("marker")
	h.script("honest", "exit 1")
	err := os.WriteFile(h.path("evil"), []byte("#!/bin/sh\ntouch "+marker+"\n"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	for i, config := range []string{
		`{"cniVersion":"1.0.0","type":"../evil"}`,
		`{"cniVersion":"1.0.0","type":"` + h.path("evil") + `"}`,
		`{"cniVersion":"1.0.0","plugins":[{"type":"honest"},{"type":"../evil"}]}`,
		`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"../evil"}}`,
	} {
		h.nad("a", config)
		p := h.pod(fmt.Sprintf("p%d", i), "a")
		h.fails("ADD", p, 7, "default/a", "type")
		h.must("DEL", p)
		h.clean(p)
	}
	if _, err := os.Stat(marker); !os.IsNotExist(err) {
		t.Errorf("it ran: %v", err)
	}
}
