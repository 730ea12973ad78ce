package main

import (
	"os"
	"strings"
	"testing"
)

// mixed makes a pod of a network that is built in and one that is exec'd and describes a device.
func (r *rig) mixed(name string) *pod {
	r.t.Helper()
	r.fake("one", describe)
	r.nad("a", r.macvlan(11, ""))
	r.nad("b", `{"cniVersion":"1.1.0","type":"one","capabilities":{"CNIDeviceInfoFile":true}}`)
	return r.pod(name, "a,b")
}

// configureAnew has the node know none of the places where it has found and kept things so far.
func (r *rig) configureAnew() {
	r.conf["binDir"], r.conf["cniDir"] = r.path("none"), r.path("other/cni")
	r.setBraid("deviceInfoDir", r.path("other/devinfo"))
	r.env = append(r.env, "CNI_PATH="+r.path("none"))
}

// asIfNeverConfigured fails the test if something was made where configureAnew has the node keep
// things.
func (r *rig) asIfNeverConfigured() {
	r.t.Helper()
	if _, err := os.Lstat(r.path("other")); !os.IsNotExist(err) {
		r.t.Errorf("%s: %v", r.path("other"), err)
	}
}

// removedAsAdded fails the test unless the exec'd plugin of mixed was told on DEL what it had made,
// and the file that it had described it in.
func (r *rig) removedAsAdded(p *pod) {
	r.t.Helper()
	del := r.stdin("one", "DEL", p, "net2")
	if del["prevResult"] == nil {
		r.t.Error("DEL without the result of the ADD")
	}
	same(r.t, "file on DEL", runtimeConfigOf(del), runtimeConfigOf(r.stdin("one", "ADD", p, "net2")))
	r.asIfNeverConfigured()
	r.clean()
}

// onlyID is the environment of an operation that knows nothing of the sandbox but its container ID.
var onlyID = []string{"CNI_NETNS=", "CNI_ARGS="}

// TestRecordSuffices: a sandbox is removed by what its ADD recorded, where the caller knows only
// its ID and the node is configured anew.
func TestRecordSuffices(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		remove func(*rig, *pod)
	}{
		{"DEL", func(r *rig, p *pod) {
			r.must("DEL", p, onlyID...)
			r.clean(p)
		}},
		{"CHECK first", func(r *rig, p *pod) {
			r.must("CHECK", p)
			r.asIfNeverConfigured()
			r.must("DEL", p, onlyID...)
			r.clean(p)
		}},
		{"GC", func(r *rig, p *pod) {
			r.valid()
			r.must("GC", nil)
			r.clean(p)
		}},
		{"DEL of another, after the namespace", func(r *rig, p *pod) {
			r.edit(p, `"complete":true`, `"complete":false`)
			r.write("state/sandboxes/"+p.id+".json.lock", "")
			p.Unmount()
			r.must("DEL", r.pod("another", ""))
			r.valid() // a guest runs no binary
			r.must("GC", nil)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := r.mixed("p")
			r.add(p)
			r.configureAnew()
			test.remove(r, p)
			r.removedAsAdded(p)
		})
	}
}

// edit replaces a text in the record of a sandbox.
func (r *rig) edit(p *pod, old, replacement string) {
	r.t.Helper()
	record := r.record(p)
	if !strings.Contains(record, old) {
		r.t.Fatalf("no %s in the record: %s", old, record)
	}
	r.write("state/sandboxes/"+p.id+".json", strings.ReplaceAll(record, old, replacement))
}

// record is the text of the record of a sandbox.
func (r *rig) record(p *pod) string {
	r.t.Helper()
	data, err := os.ReadFile(r.path("state/sandboxes", p.id+".json"))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// TestRecordedPathFirst: the plugin of the directory that the ADD found it in removes what it made;
// where that is gone, the one that the caller's path leads to.
func TestRecordedPathFirst(t *testing.T) {
	t.Parallel()
	for _, moved := range []bool{false, true} {
		r := newRig(t)
		p := r.mixed("p")
		r.add(p)
		if moved {
			if err := os.Rename(r.path("bin"), r.path("old")); err != nil {
				t.Fatal(err)
			}
		}
		r.calls()
		made, err := os.ReadFile(r.path(map[bool]string{false: "bin", true: "old"}[moved], "one"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(r.path("new"), 0o700); err != nil {
			t.Fatal(err)
		}
		err = os.WriteFile(r.path("new/one"),
			[]byte(strings.Replace(string(made), "kind=one", "kind=new", 1)), 0o700)
		if err != nil {
			t.Fatal(err)
		}
		r.conf["binDir"] = r.path("none")
		r.must("DEL", p, "CNI_PATH="+r.path("new"))
		want := map[bool]string{false: "one DEL net2", true: "new DEL net2"}[moved]
		same(t, "ran", r.calls(), []string{want})
		kind := strings.Fields(want)[0]
		same(t, "CNI_PATH", r.environment(kind, "DEL", p, "net2")["CNI_PATH"],
			strings.Join([]string{r.path("bin"), pluginDir(t), r.path("new"), r.path("none")}, ":"))
		r.clean(p)
	}
}

// TestNetworkRemembersPath: the plugins of a network that no pod has any more are asked for GC
// where its last pod had them.
func TestNetworkRemembersPath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.mixed("p")
	r.add(p)
	r.must("DEL", p)
	r.configureAnew()
	r.calls()
	r.valid()
	r.must("GC", nil)
	same(t, "ran", r.calls(), []string{"one GC"})
	r.clean(p)
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
			r := newRig(t)
			r.nad("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+nic+`","mode":"bridge",
				"ipam":{"type":"static","addresses":[{"address":"10.11.0.5/24"}]}}`)
			r.fake("macvlan",
				giving(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x"}],"ips":[]}`))
			r.fake("static", giving(`{"cniVersion":"1.0.0","ips":[{"address":"10.11.0.5/24"}]}`))
			p := r.pod("p", "a")
			r.execs(test.then...)
			r.add(p)
			r.calls()
			r.execs(test.now...)
			r.must("CHECK", p)
			r.must("DEL", p)
			same(t, "ran", r.calls(), test.calls)
			r.clean(p)
		})
	}
}

// TestRecordedExecEndsWithTheSandbox: an ADD that clears what a killed one left runs plugins as the
// node is configured.
func TestRecordedExecEndsWithTheSandbox(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", `{"cniVersion":"1.0.0","type":"macvlan","master":"`+nic+`","mode":"bridge"}`)
	r.fake("macvlan",
		giving(`{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":"x"}],"ips":[]}`))
	p := r.pod("p", "a")
	r.execs("macvlan")
	r.add(p)
	r.edit(p, `"complete":true`, `"complete":false`)
	r.execs()
	r.calls()
	r.add(p)
	same(t, "ran", r.calls(), []string{"macvlan DEL net1"})
	r.has(p, "eth0", "net1")
	r.must("DEL", p)
	r.clean(p)
}
