package main

import (
	"os"
	"strings"
	"testing"
)

// mixed makes a pod of a network that is built in and one that is exec'd and describes a device.
func (h *host) mixed(name string) *pod {
	h.t.Helper()
	h.fake("one", describe)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", `{"cniVersion":"1.1.0","type":"one","capabilities":{"CNIDeviceInfoFile":true}}`)
	return h.pod(name, "a,b")
}

// configureAnew has the node know none of the places where it has found and kept things so far.
func (h *host) configureAnew() {
	h.conf["binDir"], h.conf["cniDir"] = h.path("none"), h.path("other/cni")
	h.setBraid("deviceInfoDir", h.path("other/devinfo"))
	h.env = append(h.env, "CNI_PATH="+h.path("none"))
}

// asIfNeverConfigured fails the test if something was made where configureAnew has the node keep
// things.
func (h *host) asIfNeverConfigured() {
	h.t.Helper()
	if _, err := os.Lstat(h.path("other")); !os.IsNotExist(err) {
		h.t.Errorf("%s: %v", h.path("other"), err)
	}
}

// removedAsAdded fails the test unless the exec'd plugin of mixed was told on DEL what it had made,
// and the file that it had described it in.
func (h *host) removedAsAdded(p *pod) {
	h.t.Helper()
	del := h.stdin("one", "DEL", p, "net2")
	if del["prevResult"] == nil {
		h.t.Error("DEL without the result of the ADD")
	}
	same(h.t, "file on DEL", runtimeConfigOf(del), runtimeConfigOf(h.stdin("one", "ADD", p, "net2")))
	h.asIfNeverConfigured()
	h.clean()
}

// onlyID is the environment of an operation that knows nothing of the sandbox but its container ID.
var onlyID = []string{"CNI_NETNS=", "CNI_ARGS="}

// TestRecordSuffices: a sandbox is removed by what its ADD recorded, where the caller knows only
// its ID and the node is configured anew.
func TestRecordSuffices(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		remove func(*host, *pod)
	}{
		{"DEL", func(h *host, p *pod) {
			h.must("DEL", p, onlyID...)
			h.clean(p)
		}},
		{"CHECK first", func(h *host, p *pod) {
			h.must("CHECK", p)
			h.asIfNeverConfigured()
			h.must("DEL", p, onlyID...)
			h.clean(p)
		}},
		{"GC", func(h *host, p *pod) {
			h.valid()
			h.must("GC", nil)
			h.clean(p)
		}},
		{"DEL of another, after the namespace", func(h *host, p *pod) {
			h.edit(p, `"complete":true`, `"complete":false`)
			h.write("state/sandboxes/"+p.id+".json.lock", "")
			p.Unmount()
			h.must("DEL", h.pod("another", ""))
			h.valid() // a guest runs no binary
			h.must("GC", nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			p := h.mixed("p")
			h.add(p)
			h.configureAnew()
			test.remove(h, p)
			h.removedAsAdded(p)
		})
	}
}

// edit replaces a text in the record of a sandbox.
func (h *host) edit(p *pod, old, replacement string) {
	h.t.Helper()
	record := h.record(p)
	if !strings.Contains(record, old) {
		h.t.Fatalf("no %s in the record: %s", old, record)
	}
	h.write("state/sandboxes/"+p.id+".json", strings.ReplaceAll(record, old, replacement))
}

// record is the text of the record of a sandbox.
func (h *host) record(p *pod) string {
	h.t.Helper()
	data, err := os.ReadFile(h.path("state/sandboxes", p.id+".json"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

// TestRecordedPathFirst: the plugin of the directory that the ADD found it in removes what it made;
// where that is gone, the one that the caller's path leads to.
func TestRecordedPathFirst(t *testing.T) {
	t.Parallel()
	for _, moved := range []bool{false, true} {
		h := newHost(t)
		p := h.mixed("p")
		h.add(p)
		if moved {
			if err := os.Rename(h.path("bin"), h.path("old")); err != nil {
				t.Fatal(err)
			}
		}
		h.calls()
		made, err := os.ReadFile(h.path(map[bool]string{false: "bin", true: "old"}[moved], "one"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(h.path("new"), 0o700); err != nil {
			t.Fatal(err)
		}
		err = os.WriteFile(h.path("new/one"),
			[]byte(strings.Replace(string(made), "kind=one", "kind=new", 1)), 0o700)
		if err != nil {
			t.Fatal(err)
		}
		h.conf["binDir"] = h.path("none")
		h.must("DEL", p, "CNI_PATH="+h.path("new"))
		want := map[bool]string{false: "one DEL net2", true: "new DEL net2"}[moved]
		same(t, "ran", h.calls(), []string{want})
		kind := strings.Fields(want)[0]
		same(t, "CNI_PATH", h.environment(kind, "DEL", p, "net2")["CNI_PATH"],
			strings.Join([]string{h.path("bin"), pluginDir(t), h.path("new"), h.path("none")}, ":"))
		h.clean(p)
	}
}

// TestNetworkRemembersPath: the plugins of a network that no pod has any more are asked for GC
// where its last pod had them.
func TestNetworkRemembersPath(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.mixed("p")
	h.add(p)
	h.must("DEL", p)
	h.configureAnew()
	h.calls()
	h.valid()
	h.must("GC", nil)
	same(t, "ran", h.calls(), []string{"one GC"})
	h.clean(p)
}

// TestRecordedExec: what ran a plugin on ADD runs it later, a binary or this one, whatever the node
// is to exec by then, and so for the IPAM plugin.
func TestRecordedExec(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		// then and now are what is exec'd on ADD and from then on.
		then, now []string
		// calls are those of the binaries from then on.
		calls []string
	}{
		{"a binary", []string{"macvlan"}, []string{}, []string{"macvlan CHECK net1", "macvlan DEL net1"}},
		{"built in", []string{}, []string{"macvlan"}, nil},
		{
			"an IPAM binary",
			[]string{"static"},
			[]string{},
			[]string{"static CHECK net1", "static DEL net1"},
		},
		{"IPAM built in", []string{}, []string{"static"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nad("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+nic+`","mode":"bridge",
				"ipam":{"type":"static","addresses":[{"address":"10.11.0.5/24"}]}}`)
			h.fake("macvlan",
				giving(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x"}],"ips":[]}`))
			h.fake("static", giving(`{"cniVersion":"1.0.0","ips":[{"address":"10.11.0.5/24"}]}`))
			p := h.pod("p", "a")
			h.execs(test.then...)
			h.add(p)
			h.calls()
			h.execs(test.now...)
			h.must("CHECK", p)
			h.must("DEL", p)
			same(t, "ran", h.calls(), test.calls)
			h.clean(p)
		})
	}
}

// TestRecordedExecEndsWithTheSandbox: an ADD that clears what a killed one left runs plugins as the
// node is configured.
func TestRecordedExecEndsWithTheSandbox(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+nic+`","mode":"bridge"}`)
	h.fake("macvlan",
		giving(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x"}],"ips":[]}`))
	p := h.pod("p", "a")
	h.execs("macvlan")
	h.add(p)
	h.edit(p, `"complete":true`, `"complete":false`)
	h.execs()
	h.calls()
	h.add(p)
	same(t, "ran", h.calls(), []string{"macvlan DEL net1"})
	h.has(p, "eth0", "net1")
	h.must("DEL", p)
	h.clean(p)
}
