package hostlocal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/ipam/hostlocal"
)

type (
	conf = plugintest.Conf
	list = []any
)

func ours(boot file.Boot) plugintest.Plugins {
	return plugintest.Plugins{"host-local": plugin.NewIPAM(hostlocal.Plugin{Boot: boot})}
}

func TestReadme(t *testing.T) {
	plugintest.Readme[hostlocal.Conf](t, plugin.NewIPAM(hostlocal.Plugin{}))
}

// node is a node whose plugins the runner runs.
type node struct {
	*plugintest.Node
	t     *testing.T
	netns string
	// data is the directory for leases.
	data string
}

func newNode(t *testing.T, runner plugintest.Runner) *node {
	t.Helper()
	n := &node{Node: plugintest.New(t, runner), t: t}
	n.netns, n.data = n.Node.Pod("").NetNS, filepath.Join(n.Dir, "leases")
	return n
}

// elsewhere is the node with a new directory for leases, for a part of the test.
func (n *node) elsewhere(t *testing.T) *node {
	t.Helper()
	return &node{Node: n.Node, t: t, netns: n.netns, data: filepath.Join(t.TempDir(), "leases")}
}

// pod is a pod for which the plugin needs no namespace of its own.
func (n *node) pod(id string) *plugintest.Pod {
	return &plugintest.Pod{Node: n.Node, ID: id, IfName: "net1", NetNS: n.netns}
}

func (n *node) dir() string { return n.data }

// conf is a configuration with these keys in "ipam".
func (n *node) conf(ipam conf) conf {
	return conf{
		"type": "host-local", "ipam": conf{"type": "host-local", "dataDir": n.dir()}.With(ipam),
	}
}

// leases are the files of the network, but for the index and the lock, with their contents.
func (n *node) leases() map[string]string {
	n.t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(n.dir() + "/net")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		n.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == ".braid" || e.Name() == "lock" {
			continue
		}
		data, err := os.ReadFile(n.dir() + "/net/" + e.Name())
		if err != nil {
			n.t.Fatal(err)
		}
		found[e.Name()] = string(data)
	}
	return found
}

// addresses are the leases alone.
func (n *node) addresses() map[string]string {
	n.t.Helper()
	found := n.leases()
	for name := range found {
		if strings.HasPrefix(name, "last_") {
			delete(found, name)
		}
	}
	return found
}

func (n *node) add(id string, c conf) json.RawMessage {
	n.t.Helper()
	p := n.pod(id)
	if _, err := p.Add(c); err != nil {
		n.t.Fatalf("ADD of %s: %v", id, err)
	}
	return p.Prev
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// fails wants an error of that code with these words in it.
func fails(t *testing.T, what string, err error, code uint, words ...string) {
	t.Helper()
	if plugintest.Code(err) != code {
		t.Errorf("%s: code %d, want %d: %v", what, plugintest.Code(err), code, err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %q does not say %q", what, err, w)
		}
	}
}
