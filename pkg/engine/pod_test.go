package engine_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/engine"
)

// annotated has the runtime pass on these annotations.
func (n *node) annotated(annotations any) {
	n.conf["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": annotations}
}

// networks are annotations that ask for networks, as a kubelet has them.
func networks(text string) map[string]string {
	annotations := map[string]string{
		"kubernetes.io/config.source": "api", "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
	}
	if text != "" {
		annotations[nadv1.NetworksAnnotation] = text
	}
	return annotations
}

// known is a request of a runtime that knows the pod's uid.
func (n *node) known(p *pod, uid string) *engine.Request {
	n.t.Helper()
	req := n.request(p)
	req.Args = append(req.Args, [2]string{"K8S_POD_UID", uid})
	return req
}

// uid is that of a pod.
func (n *node) uid(p *pod) string {
	n.t.Helper()
	object, err := n.source.Directory.Pod(n.t.Context(), "default", p.name)
	n.must(err)
	return string(object.UID)
}

// The runtime's word is as good as a GET: the pod is not fetched, and one without networks asks
// nothing at all.
func TestAnnotationsOfTheRuntimeAreBelieved(t *testing.T) {
	for name, test := range map[string]struct {
		passed      any
		calls       []string
		attachments []string
	}{
		"networks": {
			networks("b,b"),
			[]string{"get NAD b", "publish status of p"},
			[]string{"pods eth0", "b net1", "b net2"},
		},
		"no networks":                 {networks(""), nil, []string{"pods eth0"}},
		"of no kubelet":               {map[string]string{}, nil, []string{"pods eth0"}},
		"empty, as gRPC carries them": {nil, nil, []string{"pods eth0"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.nads("a", "b")
			p := n.pod("p", "a") // which the API server says; it is not asked
			n.annotated(test.passed)
			_, err := n.engine.Add(t.Context(), n.known(p, n.uid(p)))
			n.must(err)
			same(t, "calls", n.source.called(), test.calls)
			n.left([]*pod{p}, p.whole(test.attachments...)...)
		})
	}
}

// Where the runtime does not say enough, or the pod is one that the API server knows otherwise, it
// is fetched.
func TestAnnotationsOfTheRuntimeAreNotEnough(t *testing.T) {
	static := networks("b")
	static["kubernetes.io/config.source"] = "file"
	for name, change := range map[string]func(*node, *engine.Request){
		"not passed": func(_ *node, req *engine.Request) {
			delete(req.Call.RuntimeConfig, "io.kubernetes.cri.pod-annotations")
		},
		"no uid":           func(_ *node, req *engine.Request) { req.Args = req.Args[:len(req.Args)-1] },
		"static pod":       func(n *node, req *engine.Request) { n.passed(req, static) },
		"no annotations":   func(n *node, req *engine.Request) { n.passed(req, []string{"a"}) },
		"strange to a pod": func(n *node, req *engine.Request) { n.passed(req, map[string]any{"a": 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.nads("a", "b")
			p := n.pod("p", "a")
			n.annotated(networks("b"))
			req := n.known(p, n.uid(p))
			change(n, req)
			_, err := n.engine.Add(t.Context(), req)
			n.must(err)
			same(t, "calls", n.source.called(), []string{"get NAD a", "get pod p", "publish status of p"})
			n.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
		})
	}
}

// passed replaces the annotations that the runtime passes.
func (n *node) passed(req *engine.Request, annotations any) {
	n.t.Helper()
	raw, err := json.Marshal(annotations)
	n.must(err)
	req.Call.RuntimeConfig["io.kubernetes.cri.pod-annotations"] = raw
}

// A node whose API server is away starts pods that need nothing of it, and takes them down, with
// and without a record.
func TestAPIAwayWithoutNetworks(t *testing.T) {
	n := newNode(t)
	p := n.pod("p", "")
	n.annotated(networks(""))
	n.source.away = true
	req := n.known(p, "u1")
	for range 2 {
		_, err := n.engine.Add(t.Context(), req)
		n.must(err)
		n.left([]*pod{p}, p.whole("pods eth0")...)
		n.must(n.engine.Del(t.Context(), req))
		n.left([]*pod{p})
		_, err = n.engine.Add(t.Context(), req)
		n.must(err)
		n.must(os.RemoveAll(n.path("state"))) // a reboot, or what looks like one
		n.must(n.engine.Del(t.Context(), req))
		n.left([]*pod{p})
	}
	same(t, "calls", n.source.called(), nil)
}

// What needs the API server is to be tried again when it is away: that a pod or NAD is gone it does
// not say.
func TestAPIAwayIsNotGone(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.annotated(networks("a"))
	req := n.known(p, n.uid(p))
	n.source.away = true
	_, err := n.engine.Add(t.Context(), req)
	n.fails(err, 11, "connection refused")
	n.left([]*pod{p})
	n.must(n.engine.Del(t.Context(), req)) // nothing was attached
	n.source.away = false
	_, err = n.engine.Add(t.Context(), req)
	n.must(err)
	n.must(os.RemoveAll(n.path("state")))
	n.source.away = true
	n.fails(n.engine.Del(t.Context(), req), 11, "connection refused")
	n.source.away = false
	n.must(n.engine.Del(t.Context(), req))
	n.left([]*pod{p})
	n.plugin.on("ADD net1", func(context.Context, *call) error { n.source.away = true; return nil })
	_, err = n.engine.Add(t.Context(), req)
	n.fails(err, 11, "connection refused", "network-status")
	n.left([]*pod{p})
}

// A pod that is gone, or replaced, shows when its status is written, and the ADD fails.
func TestAnnotationsOfTheRuntimeOfAPodThatIsGone(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*node)
		calls  []string
	}{
		"gone": {func(n *node) {
			n.must(os.Remove(n.path("manifests", "Pod-p.json")))
		}, []string{"get NAD a", "publish status of p"}},
		"replaced": {func(n *node) {
			n.must(os.WriteFile(n.path("manifests", "Pod-p.json"),
				[]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","uid":"u2"}}`), 0o600))
		}, []string{"get NAD a", "get pod p", "publish status of p"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.nads("a")
			p := n.pod("p", "a")
			n.annotated(networks("a"))
			req := n.known(p, n.uid(p))
			test.change(n)
			_, err := n.engine.Add(t.Context(), req)
			n.fails(err, 3, "pod default/p")
			same(t, "calls", n.source.called(), test.calls)
			same(t, "warnings", n.source.warnings(), nil)
			n.left([]*pod{p})
		})
	}
}

// What others wrote into the network-status since the runtime got the annotations is kept, at the
// price of a GET.
func TestAnnotationsOfTheRuntimeAreMergedAnew(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	uid := n.uid(p)
	theirs := func(name string) {
		n.t.Helper()
		object, err := n.source.Directory.Pod(t.Context(), "default", "p")
		n.must(err)
		n.must(n.source.Directory.PublishStatus(t.Context(), object.Meta(),
			`[{"name":"`+name+`","interface":"`+name+`"}]`))
	}
	theirs("old")
	annotations := networks("a")
	annotations[nadv1.StatusAnnotation] = `[{"name":"old","interface":"old"}]`
	n.annotated(annotations)
	theirs("new")
	_, err := n.engine.Add(t.Context(), n.known(p, uid))
	n.must(err)
	same(t, "calls", n.source.called(),
		[]string{"get NAD a", "get pod p", "publish status of p", "publish status of p"})
	same(t, "network-status", n.statusNames(p), []string{"pods", "default/a", "new"})
}

// The answer to a PATCH was lost, and the same sent again finds the status that it wrote itself.
func TestStatusWhoseAnswerWasLost(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.annotated(networks("a"))
	req := n.known(p, n.uid(p))
	lost := false
	n.source.publishing = func(ctx context.Context) {
		if !lost {
			lost = true
			object, err := n.source.Directory.Pod(ctx, "default", "p")
			n.must(err)
			n.must(n.source.Directory.PublishStatus(ctx, object.Meta(),
				`[{"name":"pods","interface":"eth0"},{"name":"default/a","interface":"net1"}]`))
		}
	}
	_, err := n.engine.Add(t.Context(), req)
	n.must(err)
	same(t, "calls", n.source.called(),
		[]string{"get NAD a", "get pod p", "publish status of p", "publish status of p"})
	same(t, "network-status", n.statusNames(p), []string{"pods", "default/a"})
}

// The runtime knows a static pod by another uid than the API server has for its mirror.
func TestStaticPod(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.object("v1", "Pod", "p", map[string]string{
		nadv1.NetworksAnnotation: "a", "kubernetes.io/config.mirror": "hash",
	}, map[string]any{})
	n.annotated(map[string]string{
		nadv1.NetworksAnnotation: "a", "kubernetes.io/config.source": "file",
	})
	_, err := n.engine.Add(t.Context(), n.known(p, "hash"))
	n.must(err)
	same(t, "calls", n.source.called(), []string{"get NAD a", "get pod p", "publish status of p"})
	n.must(n.engine.Del(t.Context(), n.known(p, "hash")))
	n.left([]*pod{p})
	_, err = n.engine.Add(t.Context(), n.known(p, "another"))
	n.fails(err, 3, "replaced")
	n.source.away = true
	_, err = n.engine.Add(t.Context(), n.known(p, "hash"))
	n.fails(err, 11, "connection refused")
	n.left([]*pod{p})
}

// Who writes the network-status all the time cannot be waited for: the ADD is to be tried again.
func TestAnnotationsOfTheRuntimeChangeAllTheTime(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.annotated(networks("a"))
	req := n.known(p, n.uid(p))
	size := 0
	n.source.publishing = func(ctx context.Context) {
		object, err := n.source.Directory.Pod(ctx, "default", "p")
		n.must(err)
		size++
		n.must(n.source.Directory.PublishStatus(ctx, object.Meta(),
			"[{}"+string(slices.Repeat([]byte(",{}"), size))+"]"))
	}
	_, err := n.engine.Add(t.Context(), req)
	n.fails(err, 11, "network-status")
	n.left([]*pod{p})
}

// statusNames are the names of the entries of a pod's network-status.
func (n *node) statusNames(p *pod) []string {
	n.t.Helper()
	data, err := os.ReadFile(n.path("manifests", "default_"+p.name+".network-status.json"))
	n.must(err)
	var list []nadv1.NetworkStatus
	n.must(json.Unmarshal(data, &list))
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}
