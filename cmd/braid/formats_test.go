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
func (h *host) setRecord(p *pod, text string) {
	h.t.Helper()
	h.write("state/sandboxes/"+p.id+".json", text)
}

// TestRecordFormats: what a binary of an older format has made is removed by its record.
func TestRecordFormats(t *testing.T) {
	t.Parallel()
	all := formats(t)
	for version, text := range all {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			p := h.mixed("p")
			h.add(p)
			now := headOf(t, h.record(p))
			if all[now.Version] == "" {
				t.Errorf("keep a record of format %d in testdata", now.Version)
			}
			h.setRecord(p, strings.NewReplacer("@DIR@", h.dir, "@NETNS@", p.Path, "@NETNSID@", now.NetNSID,
				"@PLUGINS@", pluginDir(t)).Replace(text))
			same(t, "format", headOf(t, h.record(p)).Version, version)
			h.must("DEL", p)
			h.removedAsAdded(p)
			h.clean(p)
		})
	}
}

// later is a record of a format that comes after the present one. oldest is its oldest reader.
func (h *host) later(p *pod, oldest string) string {
	h.t.Helper()
	text := h.record(p)
	now := headOf(h.t, text)
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
	h := newHost(t)
	p := h.mixed("p")
	h.add(p)
	h.setRecord(p, h.later(p, "1"))
	h.must("CHECK", p)
	h.must("DEL", p)
	h.removedAsAdded(p)
	h.clean(p)
}

// unknown makes a pod whose record is of a format that this Braid does not know, and returns that
// and the one that it was.
func (h *host) unknown() (p *pod, later, was string) {
	h.t.Helper()
	p = h.mixed("p")
	h.add(p)
	was = h.record(p)
	later = strings.Replace(h.later(p, "99"), `"attachments"`, `"networks"`, 1)
	h.setRecord(p, later)
	return p, later, was
}

// onlyRecord fails the test unless a record, marked as unfinished, is all that is left of a pod.
func (h *host) onlyRecord(p *pod, text string) {
	h.t.Helper()
	same(h.t, "record", h.record(p), text)
	same(h.t, "left", h.left(),
		[]string{"state/sandboxes/" + p.id + ".json", "state/sandboxes/" + p.id + ".json.lock"})
	h.has(p)
}

// TestRecordNotUnderstood: a pod of a later Braid can be deleted, by libcni's cache. Its record
// stays for that one, which may know more of it.
func TestRecordNotUnderstood(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		remove func(*host, *pod)
	}{
		{"DEL", func(h *host, p *pod) { h.must("DEL", p) }},
		{"DEL of a pod that is gone", func(h *host, p *pod) {
			h.must("DEL", p)
			if err := os.Remove(h.path("manifests/Pod-default-p.yaml")); err != nil {
				h.t.Fatal(err)
			}
			h.must("DEL", p)
		}},
		{"GC", func(h *host, p *pod) {
			h.valid()
			h.must("GC", nil)
		}},
		{"GC after DEL", func(h *host, p *pod) {
			h.must("DEL", p)
			h.valid()
			h.must("GC", nil)
		}},
		{"DEL of another", func(h *host, p *pod) {
			h.must("DEL", p)
			h.must("DEL", h.pod("another", ""))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			p, later, was := h.unknown()
			h.fails("CHECK", p, 6, "later version", "install that version again")
			test.remove(h, p)
			h.onlyRecord(p, later)
			if h.stdin("one", "DEL", p, "net2")["prevResult"] == nil {
				t.Error("DEL without the result of the ADD")
			}
			h.fails("ADD", p, 6, "later version")
			h.onlyRecord(p, later)
			h.setRecord(p, was) // that Braid is back
			h.valid()
			h.must("GC", nil)
			h.clean(p)
		})
	}
}

// TestRecordNotUnderstoodAndCacheLost: where nothing says what there is, DEL fails, and changes
// nothing, until somebody who knows is back.
func TestRecordNotUnderstoodAndCacheLost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p, later, was := h.unknown()
	for _, path := range []string{"state/cni", "manifests/Pod-default-p.yaml"} {
		if err := os.RemoveAll(h.path(path)); err != nil {
			t.Fatal(err)
		}
	}
	h.valid()
	for range 2 {
		h.fails("DEL", p, 6, "later version", "install that version again")
		if _, err := h.call("GC", nil); err == nil || !strings.Contains(err.Msg, "later version") {
			t.Errorf("GC: %v", err)
		}
		same(t, "record", h.record(p), later)
		h.has(p, "eth0", "net1")
	}
	h.setRecord(p, was)
	h.must("DEL", p)
	h.clean(p)
}

// TestNetworkOfLaterBraid: what a later Braid remembers of a network stays, and this one's GC says
// that it does without.
func TestNetworkOfLaterBraid(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.mixed("p")
	h.add(p)
	h.must("DEL", p)
	files, err := filepath.Glob(h.path("state/networks/*.json"))
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
	h.add(p)
	h.must("DEL", p)
	h.calls()
	h.valid()
	if _, err := h.call("GC", nil); err == nil || !strings.Contains(err.Msg, "later version") {
		t.Errorf("GC: %v", err)
	}
	same(t, "ran", h.calls(), nil)
	for file, want := range texts {
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		same(t, file, string(got), want)
	}
	h.clean(p)
}
