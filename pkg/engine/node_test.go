package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is an engine with real namespaces, a real journal and a directory of manifests. Its one
// delegate makes real links.
type node struct {
	t      *testing.T
	engine *engine.Engine
	source *source
	plugin *plugin
	log    *logbook
	dir    string
	// conf is Braid's configuration, to be changed before an operation.
	conf map[string]any
}

// namespaces joins the two packages that work in network namespaces, as the command does.
type namespaces struct{ nl.Sandbox }

func (namespaces) Identity(path string) (string, error) { return netns.Identity(path) }

func (namespaces) IsNode(path string) bool { return netns.IsNode(path) }

func (n namespaces) DeleteLinks(ctx context.Context, path string) error {
	return n.DeleteGroup(ctx, path, linkGroup)
}

func (namespaces) Scratch() (string, func(), error) { return netns.Scratch() }

// interiors is what the command has.
type interiors struct{ nl.Sandbox }

func (i interiors) DefaultRoutes(ctx context.Context, path string) (engine.DefaultRoutes, error) {
	return i.Sandbox.DefaultRoutes(ctx, path)
}

func newNode(t *testing.T) *node {
	t.Helper()
	nettest.NeedsRoot(t)
	n := &node{t: t, plugin: newPlugin(), log: &logbook{}, dir: t.TempDir()}
	directory, err := manifests.New(n.path("manifests"))
	n.must(err)
	n.must(os.Mkdir(n.path("manifests"), 0o700))
	n.source = &source{Directory: directory}
	log := slog.New(n.log)
	n.engine = &engine.Engine{
		Source: n.source, Reporter: n.source,
		Devices:    kubelet.NewDevices(kubelet.New(n.path("kubelet.sock")), directory),
		Namespaces: namespaces{}, Interiors: interiors{},
		Records: record.New(n.path("state")), Log: log,
		NewExec: func(lock *os.File) engine.Exec {
			return &invoke.Exec{Builtin: invoke.Registry{pluginType: n.plugin}, Inherit: lock, Log: log}
		},
	}
	n.conf = map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "binDir": n.path("bin"),
		"braid":     map[string]any{"stateDir": n.path("state"), "manifests": n.path("manifests")},
		"delegates": []any{network("pods")},
	}
	return n
}

// network is the configuration of a network of the node's plugin.
func network(name string) map[string]any {
	return map[string]any{"cniVersion": "1.1.0", "name": name, "type": pluginType}
}

func (n *node) path(elem ...string) string {
	return filepath.Join(append([]string{n.dir}, elem...)...)
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// timeout bounds an operation.
func (n *node) timeout(operation string) {
	n.conf["braid"].(map[string]any)["timeouts"] = map[string]any{"operation": operation}
}

// nads makes NADs in the namespace "default", each a network of the same name.
func (n *node) nads(names ...string) {
	n.t.Helper()
	for _, name := range names {
		config, err := json.Marshal(network(name))
		n.must(err)
		n.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{"config": string(config)})
	}
}

func (n *node) object(apiVersion, kind, name string, annotations map[string]string, spec any) {
	n.t.Helper()
	data, err := json.Marshal(map[string]any{
		"apiVersion": apiVersion, "kind": kind,
		"metadata": map[string]any{"name": name, "annotations": annotations}, "spec": spec,
	})
	n.must(err)
	n.must(os.WriteFile(n.path("manifests", kind+"-"+name+".json"), data, 0o600))
}

// pod is a sandbox and, unless its name is empty, the pod of the namespace "default" that it is of.
type pod struct {
	*nettest.Namespace
	id, name string
}

// pod makes a pod that asks for networks.
func (n *node) pod(name, networks string) *pod {
	n.t.Helper()
	annotations := map[string]string{}
	if networks != "" {
		annotations[nadv1.NetworksAnnotation] = networks
	}
	n.object("v1", "Pod", name, annotations, map[string]any{})
	p := n.sandbox("id-" + name)
	p.name = name
	return p
}

// sandbox makes a sandbox whose pod the runtime does not name.
func (n *node) sandbox(id string) *pod {
	n.t.Helper()
	p := &pod{Namespace: nettest.New(n.t), id: id}
	n.plugin.knows(p)
	return p
}

// request is what the runtime asks for; p is nil for GC and STATUS.
func (n *node) request(p *pod) *engine.Request {
	n.t.Helper()
	data, err := json.Marshal(n.conf)
	n.must(err)
	cfg, err := conf.Load(data)
	n.must(err)
	cfg.DeviceInfoDir = n.path("devinfo")
	n.engine.Node, n.engine.Policy = &cfg.Node, &cfg.Policy
	if p == nil {
		return &engine.Request{Call: &cfg.Call}
	}
	args := &skel.CmdArgs{ContainerID: p.id, Netns: p.Path, IfName: "eth0"}
	if p.name != "" {
		args.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.name
	}
	req, err := engine.NewRequest(args, &cfg.Call)
	n.must(err)
	return req
}

func (n *node) add(p *pod) error {
	n.t.Helper()
	_, err := n.engine.Add(n.t.Context(), n.request(p))
	return err
}

func (n *node) del(p *pod) error {
	n.t.Helper()
	return n.engine.Del(n.t.Context(), n.request(p))
}

func (n *node) check(p *pod) error {
	n.t.Helper()
	return n.engine.Check(n.t.Context(), n.request(p))
}

// gc runs a GC with the default networks of these pods as the runtime's list.
func (n *node) gc(live ...*pod) error {
	n.t.Helper()
	valid := []types.GCAttachment{}
	for _, p := range live {
		valid = append(valid, types.GCAttachment{ContainerID: p.id, IfName: "eth0"})
	}
	n.conf["cni.dev/valid-attachments"] = valid
	return n.engine.GC(n.t.Context(), n.request(nil))
}

// fails fails the test unless err has this CNI code and says all the words.
func (n *node) fails(err error, code uint, words ...string) {
	n.t.Helper()
	if err == nil {
		n.t.Fatal("it succeeded")
	}
	if got := failure.Code(err); got != code {
		n.t.Errorf("code %d, want %d: %v", got, code, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			n.t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

// left fails the test unless this is all that is left: links of the pods, records, lock files,
// libcni's cache.
func (n *node) left(pods []*pod, want ...string) {
	n.t.Helper()
	var got []string
	for _, p := range pods {
		for _, name := range p.interfaces() {
			got = append(got, p.id+" "+name)
		}
	}
	for _, dir := range []string{"state/sandboxes", "state/cni/results"} {
		entries, err := os.ReadDir(n.path(dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.t.Fatal(err)
		}
		for _, e := range entries {
			got = append(got, e.Name())
		}
	}
	same(n.t, "left", got, want)
}

// whole is what an attached pod has, in the order of left. The attachments are "network interface".
func (p *pod) whole(attachments ...string) []string {
	var links, cache []string
	for _, a := range attachments {
		network, ifname, _ := strings.Cut(a, " ")
		links, cache = append(links, p.id+" "+ifname), append(cache, network+"-"+p.id+"-"+ifname)
	}
	slices.Sort(links)
	slices.Sort(cache)
	return slices.Concat(links, []string{p.id + ".json"}, cache)
}

// interfaces are the pod's links but lo and the far ends, sorted.
func (p *pod) interfaces() []string {
	var names []string
	for line := range strings.Lines(p.Links()) {
		if name := strings.Fields(line)[1]; name != "lo" && !strings.HasSuffix(name, farEnd) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// same compares what a test got with what it wants; nil and empty are the same.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
}
