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
func (r *rig) annotated(annotations any) {
	r.conf["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": annotations}
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
func (r *rig) known(p *pod, uid string) *engine.Request {
	r.t.Helper()
	req := r.request(p)
	req.Args = append(req.Args, [2]string{"K8S_POD_UID", uid})
	return req
}

// uid is that of a pod.
func (r *rig) uid(p *pod) string {
	r.t.Helper()
	object, err := r.source.Directory.Pod(r.t.Context(), "default", p.name)
	r.must(err)
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
			r := newRig(t)
			r.nads("a", "b")
			p := r.pod("p", "a") // which the API server says; it is not asked
			r.annotated(test.passed)
			_, err := r.engine.Add(t.Context(), r.known(p, r.uid(p)))
			r.must(err)
			same(t, "calls", r.source.called(), test.calls)
			r.left([]*pod{p}, p.whole(test.attachments...)...)
		})
	}
}

// Where the runtime does not say enough, or the pod is one that the API server knows otherwise, it
// is fetched.
func TestAnnotationsOfTheRuntimeAreNotEnough(t *testing.T) {
	static := networks("b")
	static["kubernetes.io/config.source"] = "file"
	for name, change := range map[string]func(*rig, *engine.Request){
		"not passed": func(_ *rig, req *engine.Request) {
			delete(req.Call.RuntimeConfig, "io.kubernetes.cri.pod-annotations")
		},
		"no uid":           func(_ *rig, req *engine.Request) { req.Args = req.Args[:len(req.Args)-1] },
		"static pod":       func(r *rig, req *engine.Request) { r.passed(req, static) },
		"no annotations":   func(r *rig, req *engine.Request) { r.passed(req, []string{"a"}) },
		"strange to a pod": func(r *rig, req *engine.Request) { r.passed(req, map[string]any{"a": 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.nads("a", "b")
			p := r.pod("p", "a")
			r.annotated(networks("b"))
			req := r.known(p, r.uid(p))
			change(r, req)
			_, err := r.engine.Add(t.Context(), req)
			r.must(err)
			same(t, "calls", r.source.called(), []string{"get NAD a", "get pod p", "publish status of p"})
			r.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
		})
	}
}

// passed replaces the annotations that the runtime passes.
func (r *rig) passed(req *engine.Request, annotations any) {
	r.t.Helper()
	raw, err := json.Marshal(annotations)
	r.must(err)
	req.Call.RuntimeConfig["io.kubernetes.cri.pod-annotations"] = raw
}

// A node whose API server is away starts pods that need nothing of it, and takes them down, with
// and without a record.
func TestAPIAwayWithoutNetworks(t *testing.T) {
	r := newRig(t)
	p := r.pod("p", "")
	r.annotated(networks(""))
	r.source.away = true
	req := r.known(p, "u1")
	for range 2 {
		_, err := r.engine.Add(t.Context(), req)
		r.must(err)
		r.left([]*pod{p}, p.whole("pods eth0")...)
		r.must(r.engine.Del(t.Context(), req))
		r.left([]*pod{p})
		_, err = r.engine.Add(t.Context(), req)
		r.must(err)
		r.must(os.RemoveAll(r.path("state"))) // a reboot, or what looks like one
		r.must(r.engine.Del(t.Context(), req))
		r.left([]*pod{p})
	}
	same(t, "calls", r.source.called(), nil)
}

// What needs the API server is to be tried again when it is away: that a pod or NAD is gone it does
// not say.
func TestAPIAwayIsNotGone(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.annotated(networks("a"))
	req := r.known(p, r.uid(p))
	r.source.away = true
	_, err := r.engine.Add(t.Context(), req)
	r.fails(err, 11, "connection refused")
	r.left([]*pod{p})
	r.must(r.engine.Del(t.Context(), req)) // nothing was attached
	r.source.away = false
	_, err = r.engine.Add(t.Context(), req)
	r.must(err)
	r.must(os.RemoveAll(r.path("state")))
	r.source.away = true
	r.fails(r.engine.Del(t.Context(), req), 11, "connection refused")
	r.source.away = false
	r.must(r.engine.Del(t.Context(), req))
	r.left([]*pod{p})
	r.plugin.on("ADD net1", func(context.Context, *call) error { r.source.away = true; return nil })
	_, err = r.engine.Add(t.Context(), req)
	r.fails(err, 11, "connection refused", "network-status")
	r.left([]*pod{p})
}

// A pod that is gone, or replaced, shows when its status is written, and the ADD fails.
func TestAnnotationsOfTheRuntimeOfAPodThatIsGone(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*rig)
		calls  []string
	}{
		"gone": {func(r *rig) {
			r.must(os.Remove(r.path("manifests", "Pod-p.json")))
		}, []string{"get NAD a", "publish status of p"}},
		"replaced": {func(r *rig) {
			r.must(os.WriteFile(r.path("manifests", "Pod-p.json"),
				[]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","uid":"u2"}}`), 0o600))
		}, []string{"get NAD a", "get pod p", "publish status of p"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.nads("a")
			p := r.pod("p", "a")
			r.annotated(networks("a"))
			req := r.known(p, r.uid(p))
			test.change(r)
			_, err := r.engine.Add(t.Context(), req)
			r.fails(err, 3, "pod default/p")
			same(t, "calls", r.source.called(), test.calls)
			same(t, "warnings", r.source.warnings(), nil)
			r.left([]*pod{p})
		})
	}
}

// What others wrote into the network-status since the runtime got the annotations is kept, at the
// price of a GET.
func TestAnnotationsOfTheRuntimeAreMergedAnew(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	uid := r.uid(p)
	theirs := func(name string) {
		r.t.Helper()
		object, err := r.source.Directory.Pod(t.Context(), "default", "p")
		r.must(err)
		r.must(r.source.Directory.PublishStatus(t.Context(), object.Meta(),
			`[{"name":"`+name+`","interface":"`+name+`"}]`))
	}
	theirs("old")
	annotations := networks("a")
	annotations[nadv1.StatusAnnotation] = `[{"name":"old","interface":"old"}]`
	r.annotated(annotations)
	theirs("new")
	_, err := r.engine.Add(t.Context(), r.known(p, uid))
	r.must(err)
	same(t, "calls", r.source.called(),
		[]string{"get NAD a", "get pod p", "publish status of p", "publish status of p"})
	same(t, "network-status", r.statusNames(p), []string{"pods", "default/a", "new"})
}

// The answer to a PATCH was lost, and the same sent again finds the status that it wrote itself.
func TestStatusWhoseAnswerWasLost(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.annotated(networks("a"))
	req := r.known(p, r.uid(p))
	lost := false
	r.source.publishing = func(ctx context.Context) {
		if !lost {
			lost = true
			object, err := r.source.Directory.Pod(ctx, "default", "p")
			r.must(err)
			r.must(r.source.Directory.PublishStatus(ctx, object.Meta(),
				`[{"name":"pods","interface":"eth0"},{"name":"default/a","interface":"net1"}]`))
		}
	}
	_, err := r.engine.Add(t.Context(), req)
	r.must(err)
	same(t, "calls", r.source.called(),
		[]string{"get NAD a", "get pod p", "publish status of p", "publish status of p"})
	same(t, "network-status", r.statusNames(p), []string{"pods", "default/a"})
}

// The runtime knows a static pod by another uid than the API server has for its mirror.
func TestStaticPod(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.object("v1", "Pod", "p", map[string]string{
		nadv1.NetworksAnnotation: "a", "kubernetes.io/config.mirror": "hash",
	}, map[string]any{})
	r.annotated(map[string]string{
		nadv1.NetworksAnnotation: "a", "kubernetes.io/config.source": "file",
	})
	_, err := r.engine.Add(t.Context(), r.known(p, "hash"))
	r.must(err)
	same(t, "calls", r.source.called(), []string{"get NAD a", "get pod p", "publish status of p"})
	r.must(r.engine.Del(t.Context(), r.known(p, "hash")))
	r.left([]*pod{p})
	_, err = r.engine.Add(t.Context(), r.known(p, "another"))
	r.fails(err, 3, "replaced")
	r.source.away = true
	_, err = r.engine.Add(t.Context(), r.known(p, "hash"))
	r.fails(err, 11, "connection refused")
	r.left([]*pod{p})
}

// Who writes the network-status all the time cannot be waited for: the ADD is to be tried again.
func TestAnnotationsOfTheRuntimeChangeAllTheTime(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.annotated(networks("a"))
	req := r.known(p, r.uid(p))
	n := 0
	r.source.publishing = func(ctx context.Context) {
		object, err := r.source.Directory.Pod(ctx, "default", "p")
		r.must(err)
		n++
		r.must(r.source.Directory.PublishStatus(ctx, object.Meta(),
			"[{}"+string(slices.Repeat([]byte(",{}"), n))+"]"))
	}
	_, err := r.engine.Add(t.Context(), req)
	r.fails(err, 11, "network-status")
	r.left([]*pod{p})
}

// statusNames are the names of the entries of a pod's network-status.
func (r *rig) statusNames(p *pod) []string {
	r.t.Helper()
	data, err := os.ReadFile(r.path("manifests", "default_"+p.name+".network-status.json"))
	r.must(err)
	var list []nadv1.NetworkStatus
	r.must(json.Unmarshal(data, &list))
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}
