package install_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/internal/killtest"
)

// workOnce is what is killed: the work on the node of the options in args.
func workOnce(args []string, step func(string) error) error {
	var o options
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return err
	}
	i := newInstaller(o)
	i.Step, i.Store.Step = step, step
	return work(context.Background(), i, o)
}

// killed runs work in a process that is killed at its n-th change, and reports whether it was.
func (h *host) killed(n int, o options) bool {
	h.t.Helper()
	o.Root = h.o.Root
	raw, err := json.Marshal(o)
	must(h.t, err)
	return killtest.Run(h.t, n, string(raw))
}

// Binaries come first, then the kubeconfig, then the configuration.
func TestOrder(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	must(t, h.Store.Remove(t.Context(), h.Kubeconfig))
	h.notReady("kubeconfig")
	h.has(h.Place.Bin, "braid", "braid-full")
	h.has(h.Place.Conf, "10-flannel.conflist")
	must(t, h.kubeconfig())
	out := h.apply()
	if out.Configuration != h.conf("00-braid.conflist") || out.Network.Name != "cbr0" ||
		!slices.Equal(out.Changed, []string{out.Configuration}) {
		t.Errorf("outcome is %+v", out)
	}
	h.has(h.Place.Conf, "00-braid.conflist", "10-flannel.conflist")
	h.refersTo("00-braid.conflist", h.conf("10-flannel.conflist"))
	if out := h.apply(); len(out.Changed) > 0 {
		t.Errorf("changed again: %q", out.Changed)
	}
}

// Without a default network the installer waits, and what there is stays.
func TestNoDefaultNetwork(t *testing.T) {
	h := newHost(t, options{})
	h.notReady("no default network")
	h.has(h.Place.Conf)
	h.write("87-podman.conflist",
		`{"name":"podman","cniVersion":"1.0.0","plugins":[{"type":"bridge","bridge":"cni-podman0"}]}`)
	h.notReady("87-podman.conflist is podman's own")
	h.write("10-flannel.conflist", flannel)
	h.apply()
	// being rewritten, with another that could be taken for it
	for _, content := range []string{`{"name":"cb`, ""} {
		h.write("10-flannel.conflist", content)
		h.write("20-calico.conflist", calico)
		h.Installer = newInstaller(h.o) // also by an agent that starts anew
		h.notReady("10-flannel.conflist")
		h.refersTo("00-braid.conflist", h.conf("10-flannel.conflist"))
	}
	must(t, os.Remove(h.conf("10-flannel.conflist")))
	h.apply()
	h.refersTo("00-braid.conflist", h.conf("20-calico.conflist"))
}

func TestNamed(t *testing.T) {
	h := newHost(t, options{Named: "k8s-pod-network"}, "10-flannel.conflist", flannel)
	h.notReady(`no network "k8s-pod-network"`)
	h.write("20-calico.conflist", calico)
	h.apply()
	h.refersTo("00-braid.conflist", h.conf("20-calico.conflist"))
	// itself
	for _, braid := range []string{"braid", "00-braid.conflist", h.conf("00-braid.conflist")} {
		h.Named = braid
		_, err := h.Apply(t.Context())
		if failure.ReasonOf(err) != failure.InvalidConfig ||
			!strings.Contains(err.Error(), "meta plugin braid") {
			t.Errorf("named %s: error is %v", braid, err)
		}
		h.refersTo("00-braid.conflist", h.conf("20-calico.conflist"))
	}
}

// A file of others that has the name of ours is not replaced.
func TestForeignFiles(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel, "00-braid.conflist", multus)
	_, err := h.Apply(t.Context())
	if failure.ReasonOf(err) != failure.FileInTheWay {
		t.Errorf("error is %v", err)
	}
	must(t, os.Remove(h.conf("00-braid.conflist")))
	must(t, os.WriteFile(filepath.Join(h.Place.Bin, "braid"), []byte("braid"), 0o755))
	h.apply()
	h = newHost(t, options{}, "10-flannel.conflist", flannel)
	must(t, os.MkdirAll(h.Place.Bin, 0o755))
	must(t, os.WriteFile(filepath.Join(h.Place.Bin, "braid-full"), []byte("another"), 0o755))
	_, err = h.Apply(t.Context())
	if failure.ReasonOf(err) != failure.FileInTheWay || !strings.Contains(err.Error(), "braid-full") {
		t.Errorf("error is %v", err)
	}
	h.has(h.Place.Conf, "10-flannel.conflist")
}

// What others have before it is passed, but for another meta plugin: that is wanted.
func TestPreempted(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	h.apply()
	h.write("00-aaa.conf", calico)
	h.apply()
	h.has(h.Place.Conf, "0-braid.conflist", "00-aaa.conf", "10-flannel.conflist")
	h.refersTo("0-braid.conflist", h.conf("00-aaa.conf"))
	h.write("0-bbb.conf", "{")
	h.apply()
	h.has(h.Place.Conf, "0--braid.conflist", "0-bbb.conf", "00-aaa.conf", "10-flannel.conflist")
	must(t, os.Remove(h.conf("0-bbb.conf")))
	must(t, os.Remove(h.conf("00-aaa.conf")))
	h.apply()
	h.has(h.Place.Conf, "00-braid.conflist", "10-flannel.conflist")
	h.write("00-a-multus.conf", multus)
	h.apply()
	h.has(h.Place.Conf, "00-a-multus.conf", "00-braid.conflist", "10-flannel.conflist")
	drifts, err := h.Inspect(t.Context())
	if err != nil || len(drifts) != 1 || drifts[0].Cause != install.Preempted ||
		!strings.Contains(drifts[0].By, "00-a-multus.conf") {
		t.Errorf("drifts are %v, %v", drifts, err)
	}
}

// The default network's files get a directory of their own, also when they come again.
func TestMove(t *testing.T) {
	h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel, "87.conflist",
		`{"name":"crio","cniVersion":"1.0.0","plugins":[{"type":"bridge","bridge":"cni0"}]}`)
	private := func(name string) string { return filepath.Join(h.Place.Private, name) }
	h.apply()
	h.has(h.Place.Conf, "00-braid.conflist", "87.conflist")
	h.has(h.Place.Private, "10-flannel.conflist")
	h.refersTo("00-braid.conflist", private("10-flannel.conflist"))
	if out := h.apply(); len(out.Changed) > 0 {
		t.Errorf("changed again: %q", out.Changed)
	}
	newer := strings.Replace(flannel, `"flannel"`, `"flannel","new":true`, 1)
	h.write("10-flannel.conflist", newer)
	drifts, err := h.Inspect(t.Context())
	if err != nil || len(drifts) != 1 || drifts[0].Cause != install.Returned {
		t.Errorf("drifts are %v, %v", drifts, err)
	}
	h.apply()
	h.has(h.Place.Conf, "00-braid.conflist", "87.conflist")
	content, err := os.ReadFile(private("10-flannel.conflist"))
	if err != nil || string(content) != newer {
		t.Errorf("followed is %s, %v", content, err)
	}
	h.write("05-calico.conflist", calico) // another network comes
	h.apply()
	h.has(h.Place.Conf, "00-braid.conflist", "87.conflist")
	h.refersTo("00-braid.conflist", private("05-calico.conflist"))
}

// A network that the operator removes from the private directory is told of once, and then
// forgotten.
func TestMovedNetworkRemoved(t *testing.T) {
	h := newHost(t, options{Move: true}, "05-calico.conflist", calico, "10-flannel.conflist", flannel)
	h.apply()
	must(t, os.Remove(filepath.Join(h.Place.Private, "05-calico.conflist")))
	drifts, err := h.Inspect(t.Context())
	if err != nil || len(drifts) != 1 || drifts[0].Cause != install.Deleted {
		t.Errorf("drifts are %v, %v", drifts, err)
	}
	h.apply()
	h.refersTo("00-braid.conflist", filepath.Join(h.Place.Private, "10-flannel.conflist"))
	if drifts, err := h.Inspect(t.Context()); err != nil || len(drifts) > 0 {
		t.Errorf("drifts are %v, %v", drifts, err)
	}
	must(t, os.Remove(filepath.Join(h.Place.Private, "10-flannel.conflist")))
	h.notReady("no default network") // as long as there is none, what there is stays
	h.refersTo("00-braid.conflist", filepath.Join(h.Place.Private, "10-flannel.conflist"))
	h.write("10-flannel.conflist", flannel)
	h.apply()
	h.has(h.Place.Conf, "00-braid.conflist")
}

// What became of a file is told by the file itself, and not by what is left of an earlier time.
func TestCauseIsNotOfBefore(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	cause := func(want install.Cause, by string) {
		t.Helper()
		drifts, err := h.Inspect(t.Context())
		if err != nil || len(drifts) != 1 || drifts[0].Cause != want ||
			!strings.Contains(drifts[0].By, by) {
			t.Errorf("drifts are %v, %v, want %s by %q", drifts, err, want, by)
		}
	}
	h.apply()
	must(t, os.Rename(h.conf("00-braid.conflist"), h.conf("00-braid.conflist.cilium_bak")))
	cause(install.Renamed, "cilium")
	h.apply()
	must(t, os.Remove(h.conf("00-braid.conflist")))
	cause(install.Deleted, "")
	h.apply()
	must(t, os.Rename(h.conf("00-braid.conflist"), h.conf("00-braid.conflist.old")))
	cause(install.Renamed, "00-braid.conflist.old")
	h.Installer = newInstaller(h.o) // an agent that starts anew cannot know
	cause(install.Renamed, "cilium")
}

func TestMoveRefuses(t *testing.T) {
	h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel)
	must(t, os.Mkdir(h.conf("cbr0"), 0o755))
	_, err := h.Apply(t.Context())
	if failure.ReasonOf(err) != failure.InvalidConfig ||
		!strings.Contains(err.Error(), "further plugins") {
		t.Errorf("error is %v", err)
	}
	must(t, os.Remove(h.conf("cbr0")))
	must(t, os.Mkdir(h.Place.Private, 0o755))
	must(t, os.WriteFile(filepath.Join(h.Place.Private, "10-flannel.conflist"), []byte(calico), 0o600))
	if _, err := h.Apply(t.Context()); failure.ReasonOf(err) != failure.FileInTheWay {
		t.Errorf("error is %v", err)
	}
	h.has(h.Place.Conf, "10-flannel.conflist")
}

// Whatever the file's owner writes while it is moved is not lost.
func TestMoveRace(t *testing.T) {
	newer := strings.Replace(flannel, `"flannel"`, `"flannel","new":true`, 1)
	for _, before := range []bool{true, false} {
		h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel)
		h.Step = func(change string) error {
			if strings.HasPrefix(change, "take ") == before {
				h.write("10-flannel.conflist", newer)
			}
			return nil
		}
		h.apply()
		h.Step = nil
		h.apply()
		h.has(h.Place.Conf, "00-braid.conflist")
		content, err := os.ReadFile(filepath.Join(h.Place.Private, "10-flannel.conflist"))
		if err != nil || string(content) != newer {
			t.Errorf("before %v: kept is %s, %v", before, content, err)
		}
	}
}

// A kill at any change leaves a node on which pods start, with what was before or with what is to
// come; the next run finishes.
func TestKilledAtEachStep(t *testing.T) {
	for name, test := range map[string]struct {
		first bool // nothing is installed before
		next  options
		steps int
		files []string // in the runtime's directory, in the end
	}{
		"install": {
			first: true, next: options{}, steps: 40,
			files: []string{"00-braid.conflist", "10-flannel.conflist"},
		},
		"install, moving": {
			first: true, next: options{Move: true}, steps: 50,
			files: []string{"00-braid.conflist"},
		},
		"upgrade": {
			next: options{Version: "2"}, steps: 30,
			files: []string{"00-braid.conflist", "10-flannel.conflist"},
		},
		"begin to move": {next: options{Move: true}, steps: 25, files: []string{"00-braid.conflist"}},
		"uninstall": {
			next: options{Uninstall: true}, steps: 25,
			files: []string{"10-flannel.conflist"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 0; ; n++ {
				h := newHost(t, options{}, "10-flannel.conflist", flannel)
				if !test.first {
					h.apply()
				}
				more := h.killed(n, test.next)
				first, err := h.works()
				if err != nil || first == "" {
					t.Errorf("step %d: the runtime has %q, %v", n, first, err)
				}
				if !more {
					if n < test.steps {
						t.Errorf("only %d steps", n)
					}
					break
				}
				if h.killed(1<<30, test.next) {
					t.Fatal("killed")
				}
				h.has(h.Place.Conf, test.files...)
				if first, err := h.works(); err != nil || (first == "braid") == test.next.Uninstall {
					t.Errorf("step %d, repeated: the runtime has %q, %v", n, first, err)
				}
				for _, dir := range []string{h.Place.Bin, h.Place.Private, h.Store.Dir} {
					for _, file := range names(t, dir) {
						if strings.HasPrefix(file, ".") {
							t.Errorf("step %d: left is %s", n, file)
						}
					}
				}
			}
		})
	}
}

func TestUninstall(t *testing.T) {
	h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel)
	h.apply()
	must(t, os.Rename(h.conf("00-braid.conflist"), h.conf("00-braid.conflist.cilium_bak")))
	h.apply()
	sandboxes := 2
	removal := install.Removal{Files: true, Records: func(context.Context) (int, error) {
		return sandboxes, nil
	}}
	for range 2 { // pods are alive: what their DEL needs stays
		_, err := h.Uninstall(t.Context(), removal)
		if failure.ReasonOf(err) != failure.Busy || !strings.Contains(err.Error(), "2 sandboxes") {
			t.Errorf("error is %v", err)
		}
		h.has(h.Place.Conf, "10-flannel.conflist")
		h.has(h.Place.Bin, "braid", "braid-full")
	}
	// An agent that comes up now does not install it again.
	if _, ok := errors.AsType[*own.RetiredError](newInstaller(h.o).Store.Claim(t.Context())); !ok {
		t.Error("the agent came back")
	}
	sandboxes = 0
	for range 2 {
		_, err := h.Uninstall(t.Context(), removal)
		must(t, err)
		h.has(h.Place.Conf, "10-flannel.conflist")
		h.has(h.Place.Bin)
		h.has(h.Place.Private)
		h.has(h.Store.Dir, "installed.json", "lock")
	}
}

// The configuration alone goes where nothing else is asked for.
func TestUninstallConfiguration(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	h.apply()
	_, err := h.Uninstall(t.Context(), install.Removal{})
	must(t, err)
	h.has(h.Place.Conf, "10-flannel.conflist")
	h.has(h.Place.Bin, "braid", "braid-full")
	h.has(h.Store.Dir, "installed.json", "kubeconfig", "lock")
}

// The former meta plugin comes back before Braid goes, so that there is always one of them.
func TestRestore(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	h.apply()
	saved := filepath.Join(t.TempDir(), "00-multus.conf.saved")
	must(t, os.WriteFile(saved, []byte(multus), 0o600))
	var order []string
	h.Store.Step = func(change string) error {
		if strings.HasPrefix(change, "rename "+h.Place.Conf) ||
			strings.HasPrefix(change, "remove "+h.Place.Conf) {
			order = append(order, strings.ReplaceAll(change, h.Place.Conf+"/", ""))
		}
		return nil
	}
	for range 2 {
		_, err := h.Uninstall(t.Context(), install.Removal{Restore: saved})
		must(t, err)
	}
	want := []string{"rename 00-multus.conf", "remove 00-braid.conflist"}
	if !slices.Equal(order, want) {
		t.Errorf("order is %q, want %q", order, want)
	}
	h.has(h.Place.Conf, "00-multus.conf", "10-flannel.conflist")
	if first, err := h.works(); err != nil || first != "multus00-multus.conf" {
		t.Errorf("the runtime has %q, %v", first, err)
	}
}

// The name is that which the file had, or which it is given; one that no runtime reads is refused.
func TestRestoreName(t *testing.T) {
	for _, test := range []struct{ file, as, want string }{
		{"00-multus.conf", "", "00-multus.conf"},
		{"00-multus.conf.bak", "", "00-multus.conf"},
		{"00-multus.conflist.cilium_bak", "", "00-multus.conflist"},
		{"saved", "00-multus.conf", "00-multus.conf"},
		{"saved", "", ""},
		{"saved", "../00-multus.conf", ""},
		{"saved.conf", "x", ""},
		{"00-braid.conflist.bak", "", ""}, // the name is in use
	} {
		h := newHost(t, options{}, "10-flannel.conflist", flannel)
		h.apply()
		saved := filepath.Join(t.TempDir(), test.file)
		must(t, os.WriteFile(saved, []byte(multus), 0o600))
		_, err := h.Uninstall(t.Context(), install.Removal{Restore: saved, RestoreAs: test.as})
		if test.want == "" {
			if failure.FixOf(err) == "" {
				t.Errorf("%+v: error is %v", test, err)
			}
			h.has(h.Place.Conf, "00-braid.conflist", "10-flannel.conflist")
			continue
		}
		must(t, err)
		h.has(h.Place.Conf, test.want, "10-flannel.conflist")
	}
}

// What cannot be restored keeps Braid on the node.
func TestRestoreRefuses(t *testing.T) {
	for content, reason := range map[string]failure.Reason{
		"": failure.InvalidConfig, "{}": failure.InvalidConfig, "{": failure.InvalidConfig,
		"absent": failure.InvalidConfig, multus: failure.FileInTheWay,
	} {
		h := newHost(t, options{}, "10-flannel.conflist", flannel, "20.conf", calico)
		h.apply()
		saved := filepath.Join(t.TempDir(), "20.conf")
		if content != "absent" {
			must(t, os.WriteFile(saved, []byte(content), 0o600))
		}
		_, err := h.Uninstall(t.Context(), install.Removal{Restore: saved, Files: true})
		if failure.ReasonOf(err) != reason || failure.FixOf(err) == "" {
			t.Errorf("%q: error is %v", content, err)
		}
		if first, err := h.works(); err != nil || first != "braid" {
			t.Errorf("%q: the runtime has %q, %v", content, first, err)
		}
	}
}
