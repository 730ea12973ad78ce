package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// formats are records of the pod of mixed as binaries of these formats wrote them, by version.
func formats(t *testing.T) map[int]string {
	t.Helper()
	files, err := filepath.Glob("testdata/records/format-*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	texts := map[int]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		version, err := strconv.Atoi(
			strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "format-"), ".json"))
		if err != nil {
			t.Fatal(err)
		}
		texts[version] = string(text)
	}
	return texts
}

// head is the beginning of a record.
type head struct {
	Version, OldestReader int

	NetNSID string
}

func headOf(t *testing.T, record string) (h head) {
	t.Helper()
	if err := json.Unmarshal([]byte(record), &h); err != nil {
		t.Fatal(err)
	}
	return h
}

// setRecord puts a text in the place of the record of a sandbox.
func (r *rig) setRecord(p *pod, text string) {
	r.t.Helper()
	r.write("state/sandboxes/"+p.id+".json", text)
}

// TestRecordFormats: what a binary of an older format has made is removed by its record.
func TestRecordFormats(t *testing.T) {
	t.Parallel()
	all := formats(t)
	for version, text := range all {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := r.mixed("p")
			r.add(p)
			now := headOf(t, r.record(p))
			if all[now.Version] == "" {
				t.Errorf("keep a record of format %d in testdata", now.Version)
			}
			r.setRecord(p, strings.NewReplacer("@DIR@", r.dir, "@NETNS@", p.Path, "@NETNSID@", now.NetNSID,
				"@PLUGINS@", pluginDir(t)).Replace(text))
			same(t, "format", headOf(t, r.record(p)).Version, version)
			r.must("DEL", p)
			r.removedAsAdded(p)
			r.clean(p)
		})
	}
}

// later is a record of a format that comes after the present one. oldest is its oldest reader.
func (r *rig) later(p *pod, oldest string) string {
	r.t.Helper()
	text := r.record(p)
	now := headOf(r.t, text)
	return strings.NewReplacer(
		fmt.Sprint(`"version":`, now.Version), `"version":99`,
		fmt.Sprint(`"oldestReader":`, now.OldestReader), `"oldestReader":`+oldest, `"ifName"`,
		`"shape":[{"x":1}],"ifName"`, `"pod"`, `"new":{},"pod"`,
	).Replace(text)
}

// TestRecordOfLaterBraid: a record that a later Braid says to be enough for this one is enough,
// whatever else it has.
func TestRecordOfLaterBraid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.mixed("p")
	r.add(p)
	r.setRecord(p, r.later(p, "1"))
	r.must("CHECK", p)
	r.must("DEL", p)
	r.removedAsAdded(p)
	r.clean(p)
}

// unknown makes a pod whose record is of a format that this Braid does not know, and returns that
// and the one that it was.
func (r *rig) unknown() (p *pod, later, was string) {
	r.t.Helper()
	p = r.mixed("p")
	r.add(p)
	was = r.record(p)
	later = strings.Replace(r.later(p, "99"), `"attachments"`, `"networks"`, 1)
	r.setRecord(p, later)
	return p, later, was
}

// onlyRecord fails the test unless a record, marked as unfinished, is all that is left of a pod.
func (r *rig) onlyRecord(p *pod, text string) {
	r.t.Helper()
	same(r.t, "record", r.record(p), text)
	same(r.t, "left", r.left(),
		[]string{"state/sandboxes/" + p.id + ".json", "state/sandboxes/" + p.id + ".json.lock"})
	r.has(p)
}

// TestRecordNotUnderstood: a pod of a later Braid can be deleted, by libcni's cache. Its record
// stays for that one, which may know more of it.
func TestRecordNotUnderstood(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		remove func(*rig, *pod)
	}{
		{"DEL", func(r *rig, p *pod) { r.must("DEL", p) }},
		{"DEL of a pod that is gone", func(r *rig, p *pod) {
			r.must("DEL", p)
			if err := os.Remove(r.path("manifests/Pod-default-p.yaml")); err != nil {
				r.t.Fatal(err)
			}
			r.must("DEL", p)
		}},
		{"GC", func(r *rig, p *pod) {
			r.valid()
			r.must("GC", nil)
		}},
		{"GC after DEL", func(r *rig, p *pod) {
			r.must("DEL", p)
			r.valid()
			r.must("GC", nil)
		}},
		{"DEL of another", func(r *rig, p *pod) {
			r.must("DEL", p)
			r.must("DEL", r.pod("another", ""))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p, later, was := r.unknown()
			r.fails("CHECK", p, 6, "later version", "install that version again")
			test.remove(r, p)
			r.onlyRecord(p, later)
			if r.stdin("one", "DEL", p, "net2")["prevResult"] == nil {
				t.Error("DEL without the result of the ADD")
			}
			r.fails("ADD", p, 6, "later version")
			r.onlyRecord(p, later)
			r.setRecord(p, was) // that Braid is back
			r.valid()
			r.must("GC", nil)
			r.clean(p)
		})
	}
}

// TestRecordNotUnderstoodAndCacheLost: where nothing tells what there is, DEL fails, and changes
// nothing, until somebody who knows is back.
func TestRecordNotUnderstoodAndCacheLost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p, later, was := r.unknown()
	for _, path := range []string{"state/cni", "manifests/Pod-default-p.yaml"} {
		if err := os.RemoveAll(r.path(path)); err != nil {
			t.Fatal(err)
		}
	}
	r.valid()
	for range 2 {
		r.fails("DEL", p, 6, "later version", "install that version again")
		if _, err := r.call("GC", nil); err == nil || !strings.Contains(err.Msg, "later version") {
			t.Errorf("GC: %v", err)
		}
		same(t, "record", r.record(p), later)
		r.has(p, "eth0", "net1")
	}
	r.setRecord(p, was)
	r.must("DEL", p)
	r.clean(p)
}

// TestNetworkOfLaterBraid: what a later Braid remembers of a network stays, and this one's GC says
// that it does without.
func TestNetworkOfLaterBraid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.mixed("p")
	r.add(p)
	r.must("DEL", p)
	files, err := filepath.Glob(r.path("state/networks/*.json"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	texts := map[string]string{}
	for _, file := range files {
		texts[file] = `{"version":99,"net":{}}`
		if err := os.WriteFile(file, []byte(texts[file]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.add(p)
	r.must("DEL", p)
	r.calls()
	r.valid()
	if _, err := r.call("GC", nil); err == nil || !strings.Contains(err.Msg, "later version") {
		t.Errorf("GC: %v", err)
	}
	same(t, "ran", r.calls(), nil)
	for file, want := range texts {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		same(t, file, string(got), want)
	}
	r.clean(p)
}
