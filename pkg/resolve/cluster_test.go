package resolve_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/resolve"
)

// memory is a Source, which stays as it is while it is asked.
type memory struct {
	pods map[string]*podv1.Pod
	nads map[string]*nadv1.NetworkAttachmentDefinition
	// namespaces have labels; namespaceErr, if set, is the answer to questions about them.
	namespaces   map[string]map[string]string
	namespaceErr error
	// node has labels.
	node map[string]string
	// err, if set, is the answer to every question.
	err error

	mu    sync.Mutex
	asked []string
}

func (m *memory) ask(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, what)
	return m.err
}

func (m *memory) Pod(_ context.Context, namespace, name string) (*podv1.Pod, error) {
	if err := m.ask("pod " + namespace + "/" + name); err != nil {
		return nil, err
	}
	if pod := m.pods[namespace+"/"+name]; pod != nil {
		return pod, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
}

func (m *memory) NAD(
	_ context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if err := m.ask("NAD " + namespace + "/" + name); err != nil {
		return nil, err
	}
	if nad := m.nads[namespace+"/"+name]; nad != nil {
		return nad, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{
		Group: nadv1.GroupName, Resource: nadv1.Resource,
	}, name)
}

func (m *memory) Namespace(_ context.Context, name string) (*metav1.ObjectMeta, error) {
	if err := m.ask("namespace " + name); err != nil {
		return nil, err
	}
	if m.namespaceErr != nil {
		return nil, m.namespaceErr
	}
	if labels, ok := m.namespaces[name]; ok {
		return &metav1.ObjectMeta{Name: name, Labels: labels}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, name)
}

func (m *memory) ThisNode(context.Context) (*metav1.ObjectMeta, error) {
	if err := m.ask("node n"); err != nil {
		return nil, err
	}
	return &metav1.ObjectMeta{Name: "n", Labels: m.node}, nil
}

// cluster has one node, whose objects are in memory and are manifests, too.
type cluster struct {
	t    *testing.T
	dir  string
	cfg  *conf.Config
	objs memory
}

// newCluster has a default network "pods" on the node's disk, and the NADs web/a and web/b. The
// test fails if any of them has changed when it ends.
func newCluster(t *testing.T, keys string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), objs: memory{
		pods: map[string]*podv1.Pod{}, nads: map[string]*nadv1.NetworkAttachmentDefinition{},
	}}
	c.write("net/pods.conf", `{"cniVersion":"1.0.0","name":"pods","type":"bridge"}`)
	c.nad("web/a", `{"cniVersion":"1.0.0","name":"na","type":"macvlan","capabilities":{"ips":true}}`)
	c.nad("web/b", `{"cniVersion":"1.0.0","name":"nb","type":"ipvlan"}`)
	if !strings.Contains(keys, "clusterNetwork") && !strings.Contains(keys, "delegates") {
		keys += `,"clusterNetwork":"pods"`
	}
	cfg, err := conf.Load([]byte(`{"name":"braid","cniVersion":"1.0.0","confDir":"` + c.dir + `/net"` +
		strings.ReplaceAll(keys, "DIR", c.dir) + `}`))
	if err != nil {
		t.Fatal(err)
	}
	c.cfg = cfg
	return c
}

func (c *cluster) write(name, text string) {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) nad(ref, config string) *nadv1.NetworkAttachmentDefinition {
	namespace, name, _ := strings.Cut(ref, "/")
	nad := &nadv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	c.objs.nads[ref] = nad
	return nad
}

// pod is a pod that asks for networks; of an empty name it is none.
func (c *cluster) pod(ref, networks string) *podv1.Pod {
	if ref == "" {
		return nil
	}
	namespace, name, _ := strings.Cut(ref, "/")
	pod := &podv1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID("uid-" + name),
		Annotations: map[string]string{nadv1.NetworksAnnotation: networks},
	}}
	c.objs.pods[ref] = pod
	return pod
}

// each runs a test with every source that has the cluster's objects. It fails if the test changes
// anything.
func (c *cluster) each(do func(t *testing.T, source resolve.Source)) {
	c.t.Helper()
	c.manifests()
	directory, err := manifests.New(filepath.Join(c.dir, "manifests"))
	if err != nil {
		c.t.Fatal(err)
	}
	for name, source := range map[string]resolve.Source{"memory": &c.objs, "manifests": directory} {
		c.t.Run(name, func(t *testing.T) {
			before := c.state()
			do(t, source)
			if diff := cmp.Diff(before, c.state()); diff != "" {
				t.Errorf("it has changed (-before +after):\n%s", diff)
			}
		})
	}
}

// manifests writes the objects in memory as files.
func (c *cluster) manifests() {
	c.t.Helper()
	put := func(file, apiVersion, kind string, meta metav1.ObjectMeta, spec any) {
		object, err := json.Marshal(map[string]any{
			"apiVersion": apiVersion, "kind": kind, "metadata": meta, "spec": spec,
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.write("manifests/"+file+".json", string(object))
	}
	for _, nad := range c.objs.nads {
		put("nad-"+nad.Namespace+"-"+nad.Name, nadv1.GroupName+"/"+nadv1.Version, nadv1.Kind,
			nad.ObjectMeta, nad.Spec)
	}
	for _, pod := range c.objs.pods {
		requests := map[string]int{}
		for _, resource := range pod.Requested {
			requests[resource] = 1
		}
		put("pod-"+pod.Namespace+"-"+pod.Name, "v1", "Pod", pod.ObjectMeta, map[string]any{
			"containers": []any{
				map[string]any{"name": "c", "resources": map[string]any{"requests": requests}},
			},
		})
	}
}

// state is all that a resolver can reach: files with their times, and objects.
func (c *cluster) state() map[string]string {
	c.t.Helper()
	state := map[string]string{}
	err := filepath.WalkDir(c.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		state[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	for name, object := range map[string]any{
		"pods": c.objs.pods, "NADs": c.objs.nads, "configuration": c.cfg,
	} {
		text, err := json.Marshal(object)
		if err != nil {
			c.t.Fatal(err)
		}
		state[name] = string(text)
	}
	return state
}

// devices are those of every pod, and the resources that the node has.
type devices struct {
	pod  map[string][]string
	node []string
	err  error
}

func (d devices) Devices(context.Context, *podv1.Pod) (map[string][]string, error) {
	return d.pod, d.err
}

func (d devices) Has(_ context.Context, resource string) bool {
	for _, r := range d.node {
		if r == resource {
			return true
		}
	}
	return false
}

// summary is an attachment in short: interface, name, network, types.
func summary(attachments []plan.Attachment) []string {
	var short []string
	for _, a := range attachments {
		var list struct{ Plugins []struct{ Type string } }
		if err := json.Unmarshal(a.Conf, &list); err != nil {
			return []string{err.Error()}
		}
		text := a.IfName + " " + a.Name + " " + a.Network
		for _, p := range list.Plugins {
			text += " " + p.Type
		}
		short = append(short, text)
	}
	return short
}

// fails is a *failure.Error of a class, about a network, with words in it.
func fails(t *testing.T, err error, reason failure.Reason, network string, words ...string) {
	t.Helper()
	fe, ok := err.(*failure.Error) //nolint:errorlint // the outermost names the network
	if !ok {
		t.Fatalf("got %T %v, want a *failure.Error", err, err)
	}
	if fe.Reason != reason || fe.NAD != network {
		t.Errorf("got %s of network %q, want %s of %q: %v", fe.Reason, fe.NAD, reason, network, err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (c *cluster) resolver(source resolve.Source, devices resolve.Devices) *resolve.Resolver {
	return &resolve.Resolver{
		Node: &c.cfg.Node, Policy: &c.cfg.Policy, Source: source, Devices: devices,
	}
}
