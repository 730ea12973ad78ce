package plan_test

import (
	"encoding/json"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// where says what a request asks for, without the parts that follow from it.
func where(r plan.Request) plan.Request {
	r.Ref, r.Selection = "", nil
	return r
}

// S38, "every pod gets the default network, first".
func TestS38DefaultFirst(t *testing.T) {
	first, second := json.RawMessage(`{"name":"one","type":"bridge"}`), json.RawMessage(
		`{"type":"bridge"}`)
	fromDelegates := plan.Request{Inline: first, Default: true}
	selected := plan.Request{Namespace: "web", Name: "a"}
	ofPod := plan.Request{Namespace: "kube-system", Name: "calico", Default: true}

	for name, tc := range map[string]defaultFirst{
		"delegates": {
			cfg:  conf.Config{Node: conf.Node{Delegates: []json.RawMessage{first, second}}},
			want: []plan.Request{fromDelegates, {Inline: second}, selected},
		},
		"clusterNetwork as NAD or CNI name": {
			cfg: conf.Config{Node: conf.Node{ClusterNetwork: "flannel"}},
			want: []plan.Request{
				{Namespace: "kube-system", Name: "flannel", OnDisk: true, Default: true}, selected,
			},
		},
		"clusterNetwork as file": {
			cfg:  conf.Config{Node: conf.Node{ClusterNetwork: "/etc/cni/net.d/10-x.conflist"}},
			want: []plan.Request{{File: "/etc/cni/net.d/10-x.conflist", Default: true}, selected},
		},
		"clusterNetwork before delegates": {
			cfg: conf.Config{
				Node: conf.Node{ClusterNetwork: "/d", Delegates: []json.RawMessage{first, second}},
			},
			want: []plan.Request{{File: "/d", Default: true}, selected},
		},
		"defaultNetworks": {
			cfg: conf.Config{
				Node: conf.Node{ClusterNetwork: "flannel", DefaultNetworks: []string{"x", "/etc/y.conf"}},
			},
			want: []plan.Request{
				{Namespace: "kube-system", Name: "flannel", OnDisk: true, Default: true},
				{Namespace: "kube-system", Name: "x", OnDisk: true},
				{File: "/etc/y.conf"},
				selected,
			},
		},
		"defaultNetworks not in a system namespace": {
			cfg:       conf.Config{Node: conf.Node{ClusterNetwork: "/d", DefaultNetworks: []string{"x"}}},
			namespace: "kube-system",
			want:      []plan.Request{{File: "/d", Default: true}, {Namespace: "kube-system", Name: "a"}},
		},
		"the pod's choice, bare": {
			cfg:        conf.Config{Node: conf.Node{Delegates: []json.RawMessage{first, second}}},
			annotation: " calico ",
			want:       []plan.Request{ofPod, {Inline: second}, selected},
		},
		"the pod's choice, qualified": {
			cfg:        conf.Config{Node: conf.Node{ClusterNetwork: "/d"}},
			annotation: "kube-system/calico", want: []plan.Request{ofPod, selected},
		},
		"the pod's choice, JSON": {
			cfg:        conf.Config{Node: conf.Node{ClusterNetwork: "/d"}},
			annotation: `[{"name": "calico"}]`, want: []plan.Request{ofPod, selected},
		},
		"the pod's choice in its own namespace": {
			cfg: conf.Config{
				Node: conf.Node{ClusterNetwork: "/d"}, Policy: conf.Policy{NamespaceIsolation: true},
			}, annotation: "web/mine",
			want: []plan.Request{{Namespace: "web", Name: "mine", Default: true}, selected},
		},
	} {
		t.Run(name, tc.test)
	}
}

// defaultFirst is a configuration and a pod, and the networks in their order.
type defaultFirst struct {
	cfg        conf.Config
	annotation string
	namespace  string
	want       []plan.Request
}

func (tc defaultFirst) test(t *testing.T) {
	s := newScenario("a")
	tc.cfg.MultusNamespace, tc.cfg.SystemNamespaces = "kube-system", []string{"kube-system"}
	if tc.namespace != "" {
		s.pod.Namespace = tc.namespace
	}
	if tc.annotation != "" {
		s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = tc.annotation
	}
	got, err := plan.Requests(&tc.cfg.Node, &tc.cfg.Policy, s.pod)
	if err != nil {
		t.Fatal(err)
	}
	last := got[len(got)-1]
	if last.Selection == nil || last.Selection.Name != "a" || last.Ref != last.Namespace+"/a" {
		t.Errorf("the selection is lost: %+v", last)
	}
	for i := range got {
		if got[i].Ref == "" {
			t.Errorf("request %d has no name for messages", i)
		}
		got[i] = where(got[i])
	}
	want(t, "requests", got, tc.want)
}

func TestS38WithoutPodOnlyClusterWideNetworks(t *testing.T) {
	s := newScenario("a")
	s.cfg.ClusterNetwork, s.cfg.DefaultNetworks, s.pod = "/d", []string{"x"}, nil
	got, err := plan.Requests(&s.cfg.Node, &s.cfg.Policy, nil)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "requests", len(got), 2)
}

func TestS38DefaultNetworkRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		annotation string
		reason     failure.Reason
		words      []string
	}{
		"two": {
			"x,y", failure.InvalidAnnotation,
			[]string{nadv1.DefaultNetworkAnnotation, `"x,y" names 2 networks`},
		},
		"none": {
			"", failure.InvalidAnnotation,
			[]string{nadv1.DefaultNetworkAnnotation, "names 0 networks", "remove the annotation"},
		},
		"no name": {"A_B", failure.InvalidAnnotation, []string{nadv1.DefaultNetworkAnnotation}},
		"another namespace": {
			"other/x", failure.NADForbidden,
			[]string{nadv1.DefaultNetworkAnnotation, "other/x", "web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario("")
			s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = tc.annotation
			s.refused(t, tc.reason, tc.words...)
		})
	}
}

func TestS38NoDefaultNetwork(t *testing.T) {
	s := newScenario("")
	s.cfg.Delegates = nil
	s.refused(t, failure.InvalidConfig, "clusterNetwork", "delegates")
}

func TestS38ClusterNetworkIsNameOrAbsolutePath(t *testing.T) {
	for _, value := range []string{"ns/name", "./x", "../etc/x", "x y", "-x", "..", "\x00"} {
		s := newScenario("")
		s.cfg.ClusterNetwork = value
		s.refused(t, failure.InvalidConfig, "clusterNetwork", "absolute path")
		s = newScenario("")
		s.cfg.ClusterNetwork, s.cfg.DefaultNetworks = "/d", []string{"ok", value}
		s.refused(t, failure.InvalidConfig, "defaultNetworks[1]")
	}
}

// S11, "JSON form: name required, empty namespace is the pod's".
func TestS11EmptyNamespaceIsPods(t *testing.T) {
	for _, annotation := range []string{`a`, `[{"name": "a"}]`, `[{"name": "a", "namespace": ""}]`} {
		got := newScenario(annotation).must(t)
		want(t, annotation, displayNames(got), []string{"cluster", "web/a"})
	}
}

func TestS38PodWithoutNamespaceIsRefused(t *testing.T) {
	s := newScenario("a")
	s.pod.Namespace = ""
	s.refused(t, failure.InvalidEnvironment, "K8S_POD_NAMESPACE")
}

// U9, "annotation: both forms, namespaces, repetition".
func TestU9Annotation(t *testing.T) {
	s := newScenario("default/shared, a,default/shared")
	s.nad("default/shared", `{"type": "macvlan"}`)
	got := s.must(t)
	want(t, "networks", displayNames(got),
		[]string{"cluster", "default/shared", "web/a", "default/shared"})
	want(t, "interfaces", ifNames(got), []string{"eth0", "net1", "net2", "net3"})
	for _, blank := range []string{"", " \n", "[]"} {
		want(t, "blank", len(newScenario(blank).must(t)), 1)
	}
}

// U13, "namespace isolation".
func TestU13Isolation(t *testing.T) {
	for name, tc := range map[string]struct {
		ref      string
		isolated bool
		global   []string
		allowed  bool
	}{
		"own namespace":            {"web/a", true, []string{"default"}, true},
		"default is for all":       {"default/x", true, []string{"default"}, true},
		"another namespace":        {"other/x", true, []string{"default"}, false},
		"the system's too":         {"kube-system/x", true, []string{"default"}, false},
		"globalNamespaces replace": {"default/x", true, []string{"other"}, false},
		"a global one":             {"other/x", true, []string{"other", "more"}, true},
		"no global one":            {"default/x", true, nil, false},
		"switched off":             {"other/x", false, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScenario(tc.ref)
			s.cfg.NamespaceIsolation, s.cfg.GlobalNamespaces = tc.isolated, tc.global
			s.nad(tc.ref, `{"type": "macvlan"}`)
			if tc.allowed {
				want(t, "networks", displayNames(s.must(t)), []string{"cluster", tc.ref})
				return
			}
			s.refused(t, failure.NADForbidden, "NAD "+tc.ref, "namespace web",
				"create the NAD in namespace web", "globalNamespaces")
		})
	}
}

// S44, "restrictions of a NAD fail the operation".
func TestS44RestrictionsFail(t *testing.T) {
	newScenario("a,other/x").refused(t, failure.NADForbidden, "NAD other/x")
}
