package engine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/plan"
)

// goodEntry is the entry of net1 of the container c1 in the network n, as libcni writes it.
func goodEntry() cnicache.Entry {
	return cnicache.Entry{
		Kind: "cniCacheV1", ContainerID: "c1", NetworkName: "n", IfName: "net1", NetNS: "/run/netns/x",
		Config: []byte(`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"macvlan",` +
			`"big":12345678901234567890}]}`),
		CNIArgs:        [][2]string{{"IgnoreUnknown", "1"}},
		CapabilityArgs: json.RawMessage(`{"CNIDeviceInfoFile":"/run/info","mac":"02:00:00:00:00:01"}`),
	}
}

// readEntry has write make the entry's file, and reads it as that of net1 of c1.
func readEntry(t *testing.T, write func(path string) error) (plan.Attachment, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "n-c1-net1")
	if err := write(path); err != nil {
		t.Fatal(err)
	}
	a := plan.Attachment{Name: "n", Network: "n", IfName: "net1"}
	err := readCached(path, "c1", &a)
	return a, err
}

// entry writes an entry that differs from the good one.
func entry(change func(*cnicache.Entry)) func(path string) error {
	return func(path string) error {
		e := goodEntry()
		change(&e)
		data, err := json.Marshal(e)
		return errors.Join(err, os.WriteFile(path, data, 0o600))
	}
}

func TestReadCached(t *testing.T) {
	t.Parallel()
	good := goodEntry()
	want := plan.Attachment{
		Name: "n", Network: "n", IfName: "net1", Conf: good.Config, Args: good.CNIArgs, DeviceInfo: true,
		RuntimeConfig: map[string]json.RawMessage{
			"CNIDeviceInfoFile": json.RawMessage(`"/run/info"`),
			"mac":               json.RawMessage(`"02:00:00:00:00:01"`),
		},
	}
	got, err := readEntry(t, entry(func(*cnicache.Entry) {}))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	want.RuntimeConfig, want.DeviceInfo = nil, false
	got, err = readEntry(t, entry(func(e *cnicache.Entry) { e.CapabilityArgs = nil }))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("without capabilities: %v, -want +got:\n%s", err, diff)
	}
}

// Of what is refused nothing is taken.
func TestReadCachedRefuses(t *testing.T) {
	t.Parallel()
	config := func(text string) func(string) error {
		return entry(func(e *cnicache.Entry) { e.Config = []byte(text) })
	}
	text := func(text string) func(string) error {
		return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	good := entry(func(*cnicache.Entry) {})
	for name, write := range map[string]func(path string) error{
		"no file": func(string) error { return nil },
		"link": func(path string) error {
			return errors.Join(good(path+".good"), os.Symlink(path+".good", path))
		},
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"too large": func(path string) error {
			return errors.Join(good(path), os.Truncate(path, cnicache.MaxEntry+1))
		},
		"cut off": func(path string) error {
			return errors.Join(good(path), os.Truncate(path, 100))
		},
		"empty": text(""),
		"null":  text("null"),
		"list":  text("[]"),
		"config object": text(`{"kind":"cniCacheV1","containerId":"c1","networkName":"n",` +
			`"ifName":"net1","config":{}}`),

		"other kind":        entry(func(e *cnicache.Entry) { e.Kind = "cniCacheV2" }),
		"other container":   entry(func(e *cnicache.Entry) { e.ContainerID = "c2" }),
		"other network":     entry(func(e *cnicache.Entry) { e.NetworkName = "m" }),
		"other interface":   entry(func(e *cnicache.Entry) { e.IfName = "net2" }),
		"no config":         config(""),
		"config of another": config(`{"cniVersion":"1.0.0","name":"m","plugins":[{"type":"macvlan"}]}`),
		"config out of place": config(
			`{"cniVersion":"1.0.0","name":"../n","plugins":[{"type":"macvlan"}]}`),
		"plugin by path": config(
			`{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"../../bin/sh"}]}`),
		"no plugins": config(`{"cniVersion":"1.0.0","name":"n","plugins":[]}`),
		"no version": config(`{"name":"n","plugins":[{"type":"macvlan"}]}`),
		"capabilities a list": entry(func(e *cnicache.Entry) {
			e.CapabilityArgs = json.RawMessage(`["mac"]`)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readEntry(t, write)
			if err == nil || errors.Is(err, errOther) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(plan.Attachment{Name: "n", Network: "n", IfName: "net1"}, got); diff != "" {
				t.Errorf("attachment, -want +got:\n%s", diff)
			}
		})
	}
}

// An entry that is whole and of another container, whose ID holds this one's, is not a damaged one
// of ours.
func TestReadCachedTellsOtherContainers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "n-c1-c1-net1")
	if err := entry(func(e *cnicache.Entry) { e.ContainerID = "c1-c1" })(path); err != nil {
		t.Fatal(err)
	}
	a := plan.Attachment{Name: "n", Network: "n", IfName: "c1-net1"}
	if err := readCached(path, "c1", &a); !errors.Is(err, errOther) {
		t.Errorf("error %v", err)
	}
}
