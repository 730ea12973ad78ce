package memory_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/plugin/memory"
)

// recorder is a plugin that writes down what it gets, as "COMMAND container configuration".
type recorder struct {
	t    *testing.T
	m    memory.Memory
	got  []string
	fail error
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{t: t, m: memory.Memory{Dir: filepath.Join(t.TempDir(), "standalone")}}
}

func (r *recorder) call(kind, command, container, config string) error {
	c := &memory.Call{
		Kind: kind, Command: command, ContainerID: container, IfName: "net1", Stdin: []byte(config),
		Environ: []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + container},
	}
	_, err := r.m.Operate(r.t.Context(), c,
		func(_ context.Context, environ []string, stdin []byte) ([]byte, error) {
			last := func(name string) (value string) {
				for _, e := range environ {
					if v, ok := strings.CutPrefix(e, name+"="); ok {
						value = v
					}
				}
				return value
			}
			r.got = append(r.got, fmt.Sprintf("%s %s %s",
				last("CNI_COMMAND"), last("CNI_CONTAINERID"), stdin))
			return nil, r.fail
		})
	return err
}

// want fails the test unless the plugin got this since the last call.
func (r *recorder) want(calls ...string) {
	r.t.Helper()
	if diff := cmp.Diff(calls, r.got); diff != "" {
		r.t.Errorf("the plugin got, -want +got:\n%s", diff)
	}
	r.got = nil
}

// saved is the number of configurations that are kept.
func (r *recorder) saved() int {
	entries, err := os.ReadDir(r.m.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return len(entries)
}

var errPlugin = errors.New("the plugin's own")

func TestDel(t *testing.T) {
	r := newRecorder(t)
	if err := r.call("bridge", "ADD", "a", `{"name":"net","mtu":1}`); err != nil {
		t.Fatal(err)
	}
	r.want(`ADD a {"name":"net","mtu":1}`)
	now := `{"name":"net","cniVersion":"1.0.0","mtu":2,"prevResult":{}}`
	r.fail = errPlugin
	if err := r.call("bridge", "DEL", "a", now); err != errPlugin { //nolint:errorlint // as it is
		t.Errorf("DEL: %v", err)
	}
	r.fail = nil
	for _, call := range []struct{ kind, id string }{
		{"macvlan", "a"}, {"bridge", "b"}, {"bridge", "a"}, {"bridge", "a"},
	} {
		if err := r.call(call.kind, "DEL", call.id, now); err != nil {
			t.Error(err)
		}
	}
	then := `DEL a {"cniVersion":"1.0.0","mtu":1,"name":"net","prevResult":{}}`
	r.want(then, "DEL a "+now, "DEL b "+now, then, "DEL a "+now)
	if r.saved() != 0 {
		t.Error("something is kept")
	}
}

func TestAddThatFails(t *testing.T) {
	r := newRecorder(t)
	r.fail = errPlugin
	if err := r.call("bridge", "ADD", "a", `{"name":"net"}`); err != errPlugin || r.saved() != 0 { //nolint:errorlint // as it is
		t.Errorf("ADD: %v, %d kept", err, r.saved())
	}
	r.fail = nil
	if err := r.call("bridge", "ADD", "a", `{"name":"net"}`); err != nil {
		t.Fatal(err)
	}
	r.fail = errPlugin
	if err := r.call("bridge", "ADD", "a", `{"name":"net"}`); err == nil || r.saved() != 1 {
		t.Errorf("a second ADD: %v, %d kept of the first", err, r.saved())
	}
}

func TestGC(t *testing.T) {
	r := newRecorder(t)
	for _, c := range []struct{ kind, id, network string }{
		{"bridge", "a", "net"}, {"bridge", "b", "net"}, {"bridge", "a", "other"}, {"macvlan", "a", "net"},
	} {
		if err := r.call(c.kind, "ADD", c.id, fmt.Sprintf(`{"name":%q,"mtu":1}`, c.network)); err != nil {
			t.Fatal(err)
		}
	}
	r.got = nil
	gc := `{"name":"net","cni.dev/valid-attachments":[{"containerID":"b","ifname":"net1"}]}`
	for range 2 {
		if err := r.call("bridge", "GC", "", gc); err != nil {
			t.Fatal(err)
		}
	}
	r.want(`DEL a {"mtu":1,"name":"net"}`, "GC  "+gc, "GC  "+gc)
	if r.saved() != 3 {
		t.Errorf("%d are kept, want 3", r.saved())
	}
}

// An ADD that is killed before or while it saves has changed nothing.
func TestKilled(t *testing.T) {
	r := newRecorder(t)
	if err := r.call("bridge", "ADD", "a", `{"name":"net","mtu":1}`); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(r.m.Dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.Rename(files[0], files[0]+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := r.call("bridge", "DEL", "a", `{"name":"net","mtu":2}`); err != nil || r.saved() != 0 {
		t.Errorf("DEL: %v, %d kept", err, r.saved())
	}
	if !slices.Contains(r.got, `DEL a {"name":"net","mtu":2}`) {
		t.Errorf("the plugin got %q", r.got)
	}
}

// What nodes have is read by name and content: neither may change.
func TestSavedStays(t *testing.T) {
	r := newRecorder(t)
	if err := r.call("macvlan", "ADD", "c", `{"name":"net"}`); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(r.m.Dir, "b0f1d47a6b880e9034802fba2e221686-0000-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	want := `{"kind":"macvlan","network":"net","containerID":"c","ifName":"net1",` +
		`"config":{"name":"net"}}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}
