package admit_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/braid-cni/braid/pkg/admit"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// expression is one of node affinity.
func expression(
	key string, operator corev1.NodeSelectorOperator, values ...string,
) corev1.NodeSelectorRequirement {
	return corev1.NodeSelectorRequirement{Key: key, Operator: operator, Values: values}
}

func affinity(terms ...corev1.NodeSelectorTerm) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
	}}
}

func term(all ...corev1.NodeSelectorRequirement) corev1.NodeSelectorTerm {
	return corev1.NodeSelectorTerm{MatchExpressions: all}
}

// A pod gets what its NADs select: equality as nodeSelector, the rest in every term of its
// affinity; what it has itself stays.
func TestU10PodsAreSentToTheirNodes(t *testing.T) {
	t.Parallel()
	in := corev1.NodeSelectorOpIn
	daemon := corev1.NodeSelectorTerm{
		MatchFields: []corev1.NodeSelectorRequirement{expression("metadata.name", in, "n")},
	}
	for name, test := range map[string]sentPod{
		"none": {selectors: []string{""}},
		"equality": {
			selectors: []string{"pool=data,zone==a,disk in (ssd)"},
			selector:  map[string]string{"pool": "data", "zone": "a", "disk": "ssd"},
		},
		"beside its own": {
			selectors: []string{"pool=data"},
			before:    corev1.PodSpec{NodeSelector: map[string]string{"own": "x"}},
			selector:  map[string]string{"pool": "data", "own": "x"},
		},
		"two": {
			selectors: []string{"pool=data", "zone=a,pool=data"},
			selector:  map[string]string{"pool": "data", "zone": "a"},
		},
		"the rest": {
			selectors: []string{
				"!spot,cores>4,cores<9,gpu,pool=data,tier!=low,zone in (b,a),zone notin (c)",
			}, selector: map[string]string{"pool": "data"},
			affinity: affinity(term(
				expression("cores", "Lt", "9"), expression("cores", "Gt", "4"), expression("gpu", "Exists"),
				expression("spot", "DoesNotExist"),
				expression("tier", "NotIn", "low"), expression("zone", "In", "a", "b"),
				expression("zone", "NotIn", "c"))),
		},
		"every term": {
			selectors: []string{"zone in (a,b)"},
			before:    corev1.PodSpec{Affinity: affinity(term(expression("x", in, "1")), term(), daemon)},
			affinity: affinity(
				term(expression("x", in, "1"), expression("zone", in, "a", "b")), term(),
				corev1.NodeSelectorTerm{
					MatchFields:      daemon.MatchFields,
					MatchExpressions: []corev1.NodeSelectorRequirement{expression("zone", in, "a", "b")},
				}),
		},
		"there already": {
			selectors: []string{"zone in (a,b),pool=data"},
			before: corev1.PodSpec{
				NodeSelector: map[string]string{"pool": "data"},
				Affinity:     affinity(term(expression("zone", in, "a", "b"))),
			},
			selector: map[string]string{"pool": "data"},
			affinity: affinity(term(expression("zone", in, "a", "b"))),
		},
		"of a DaemonSet": {
			selectors: []string{"pool=data"}, before: corev1.PodSpec{Affinity: affinity(daemon)},
			selector: map[string]string{"pool": "data"}, affinity: affinity(daemon),
		},
		"one term is possible": {
			selectors: []string{"pool=data"},
			before: corev1.PodSpec{
				Affinity: affinity(term(expression("pool", in, "other")), term(expression("pool", in, "data"))),
			},
			selector: map[string]string{"pool": "data"},
			affinity: affinity(term(expression("pool", in, "other")), term(expression("pool", in, "data"))),
		},
	} {
		t.Run(name, test.test)
	}
}

// sentPod is a pod with networks of some nodes, and the nodes that it may go to.
type sentPod struct {
	selectors []string
	before    corev1.PodSpec
	selector  map[string]string
	affinity  *corev1.Affinity
}

// podSelecting makes a NAD with each selector, and returns a pod that asks for all of them beside
// its own selection, and the NADs' names.
func (c *cluster) podSelecting(
	selectors []string, own *corev1.PodSpec,
) (p *corev1.Pod, networks []string) {
	for i, selector := range selectors {
		ref := fmt.Sprintf("web/n%d", i)
		c.selecting(ref, selector)
		networks = append(networks, ref)
	}
	p = pod(strings.Join(networks, ","))
	p.Spec.NodeSelector, p.Spec.Affinity = own.NodeSelector, own.Affinity
	return p, networks
}

func (test sentPod) test(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	p, _ := c.podSelecting(test.selectors, &test.before)
	got, v := c.create(p)
	if got == nil {
		t.Fatal(v.Denied, v.Unknown)
	}
	if diff := cmp.Diff(test.selector, got.Spec.NodeSelector); diff != "" {
		t.Errorf("nodeSelector (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(sorted(test.affinity), sorted(got.Spec.Affinity)); diff != "" {
		t.Errorf("affinity (-want +got):\n%s", diff)
	}
	if again, v := c.create(got); len(v.Patch) > 0 {
		t.Errorf("judged again it is changed again: %s, %+v", v.Patch, again)
	}
}

// Selectors that exclude each other are denied by the names of both, and what the remedy says is
// admitted: one of the two NADs, or another selection of the pod.
func TestU10SelectorsThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	in := corev1.NodeSelectorOpIn
	for name, test := range map[string]struct {
		selectors []string
		own       corev1.PodSpec
		words     []string
	}{
		"two NADs": {
			selectors: []string{"pool=data", "pool=other"},
			words:     []string{"NAD web/n0 (pool=data)", "NAD web/n1 (pool=other)"},
		},
		"exists and not": {selectors: []string{"pool", "!pool"}, words: []string{"web/n0", "web/n1"}},
		"value excluded": {
			selectors: []string{"zone in (a,b)", "zone notin (a,b,c)"},
			words:     []string{"web/n0", "web/n1"},
		},
		"no number": {
			selectors: []string{"cores>4", "cores<5"},
			words:     []string{"web/n0", "web/n1"},
		},
		"number of a set": {
			selectors: []string{"cores>4", "cores in (1,x)"},
			words:     []string{"web/n0", "web/n1"},
		},
		"three together": {
			selectors: []string{"zone in (a,b)", "zone in (b,c)", "zone in (a,c)"},
			words:     []string{"web/n0", "web/n1", "web/n2"},
		},
		"the pod's nodeSelector": {
			selectors: []string{"pool=data"},
			own:       corev1.PodSpec{NodeSelector: map[string]string{"pool": "other"}},
			words:     []string{"NAD web/n0 (pool=data)", "the pod's nodeSelector (pool=other)"},
		},
		"every term of its affinity": {
			selectors: []string{"pool=data"},
			own: corev1.PodSpec{
				Affinity: affinity(term(expression("pool", in, "x")), term(expression("pool", "DoesNotExist"))),
			},
			words: []string{"NAD web/n0 (pool=data)", "the pod's affinity"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "")
			p, networks := c.podSelecting(test.selectors, &test.own)
			_, v := c.create(p)
			denied(t, name, v, failure.NodeNotSelected, test.words...)
			p.Annotations[nadv1.NetworksAnnotation] = networks[0]
			p.Spec.NodeSelector, p.Spec.Affinity = nil, nil
			if got, v := c.create(p); got == nil {
				t.Errorf("after the remedy: %v", v.Denied)
			}
		})
	}
}

// A pod that is bound to a node from the start is compared with that node, as no scheduler does it.
func TestU10PresetNodeName(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.selecting("web/n", "pool=data")
	c.nodes = map[string]map[string]string{"in": {"pool": "data"}, "out": {"pool": "other"}}
	p := pod("n")
	p.Spec.NodeName = "out"
	_, v := c.create(p)
	denied(t, "out", v, failure.NodeNotSelected, "web/n", "node out",
		"kubectl label nodes out --overwrite pool=data")
	c.nodes["out"]["pool"] = "data" // the remedy
	for _, name := range []string{"in", "out"} {
		p.Spec.NodeName = name
		if got, v := c.create(p); got == nil {
			t.Errorf("%s: %v", name, v.Denied)
		}
	}
	p.Spec.NodeName = "none"
	if got, v := c.create(p); got == nil || !warned(v, "none", "no node") {
		t.Errorf("a node that is not there: %+v", v)
	}
	c.err = errors.New("down")
	if _, v := c.create(p); v.Unknown == nil || v.Reason() != "Unknown" {
		t.Errorf("a node that cannot be asked for: %+v", v)
	}
}

// A hundred requirements are as good as one, whatever their kind. A selector that nobody can read or
// meet is a denial until it is mended.
func TestU10LargeAndBrokenSelectors(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	var parts []string
	for i := range 100 {
		parts = append(parts, fmt.Sprintf("k%d=v%d", i, i))
	}
	c.selecting("web/many", strings.Join(parts, ","))
	c.selecting("web/broken", "a=b=c")
	c.selecting("web/never", "a=1,a=2")
	got, v := c.create(pod("many"))
	if got == nil || len(got.Spec.NodeSelector) != 100 {
		t.Errorf("a hundred: %+v", v)
	}
	parts = nil
	for i := range 50 {
		parts = append(parts, fmt.Sprintf("s%d in (a,b)", i), fmt.Sprintf("s%d notin (b,c)", i))
	}
	c.selecting("web/sets", strings.Join(parts, ","))
	got, v = c.create(pod("sets,many"))
	if got == nil {
		t.Fatalf("a hundred of sets: %+v", v)
	}
	terms := got.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 || len(terms[0].MatchExpressions) != 100 || len(got.Spec.NodeSelector) != 100 {
		t.Errorf("a hundred of sets: %+v", got.Spec)
	}
	c.selecting("web/against", strings.Join(append(parts, "s49=c"), ","))
	_, v = c.create(pod("against"))
	denied(t, "one of a hundred", v, failure.NADInvalid, "web/against", "s49")
	for name, mended := range map[string]string{"broken": "a=b", "never": "a=1"} {
		_, v := c.create(pod("a," + name))
		denied(t, name, v, failure.NADInvalid, "web/"+name, "nodeSelector")
		c.selecting("web/"+name, mended)
		if got, v := c.create(pod("a," + name)); got == nil {
			t.Errorf("%s, after the remedy: %v", name, v.Denied)
		}
	}
}

// What an ADD would refuse is denied, with its remedies; each of them applied, it is admitted.
func TestPodsThatWouldNotStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keys, networks string
		reason         failure.Reason
		words          []string
		// remedied are other networks of the pod; mend changes what is around it.
		remedied string
		mend     func(*cluster)
	}{
		"annotation": {
			networks: `[{"nme": "a"}]`, reason: failure.InvalidAnnotation,
			words: []string{"networks[0]"}, remedied: `[{"name": "a"}]`,
		},
		"NAD missing": {
			networks: "a,none", reason: failure.NADNotFound,
			words: []string{"none", "net-attach-def -n web", "create it"}, remedied: "a",
			mend: func(c *cluster) { c.nad("web/none") },
		},
		"isolation": {
			networks: "other/theirs", reason: failure.NADForbidden, words: []string{
				"other/theirs", "namespace web", "add other to globalNamespaces",
			}, remedied: "default/shared",
			mend: func(c *cluster) { c.configure(`,"globalNamespaces": "default,other"`) },
		},
		"policy": {
			keys: `,"braid": {"policyDefault": "enforce"}`, networks: "web/b", reason: failure.PolicyRefused,
			words: []string{"master"}, remedied: "default/shared",
			mend: func(c *cluster) {
				c.configure(`,"braid": {"policyDefault": "enforce", "policy": [{"namespaces": ["web"], ` +
					`"masters": ["eth1"]}]}`)
			},
		},
		"interface twice": {networks: "a@x,b@x", reason: failure.InvalidAnnotation, remedied: "a@x,b@y"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, test.keys)
			_, v := c.create(pod(test.networks))
			denied(t, name, v, test.reason, test.words...)
			if got, v := c.create(pod(test.remedied)); got == nil {
				t.Errorf("after the remedy: %v", v.Denied)
			}
			if test.mend == nil {
				return
			}
			test.mend(c)
			if got, v := c.create(pod(test.networks)); got == nil {
				t.Errorf("after the other remedy: %v", v.Denied)
			}
		})
	}
}

// U13: the isolation of namespaces is the node's, with its configuration.
func TestU13IsolationAtAdmission(t *testing.T) {
	t.Parallel()
	for keys, allowed := range map[string]bool{
		"": false, `,"namespaceIsolation": false`: true, `,"globalNamespaces": "other"`: true,
		`,"globalNamespaces": "default"`: false,
	} {
		c := newCluster(t, keys)
		if got, v := c.create(pod("other/theirs")); (got != nil) != allowed {
			t.Errorf("%s: %v", keys, v.Denied)
		}
	}
}

// An API server that cannot be asked denies nothing: it is not known.
func TestUnknownIsNoDenial(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.err = errors.New("connection refused")
	v := c.review("Pod", admissionv1.Create, pod("none"), nil)
	response := v.Response(&admissionv1.AdmissionRequest{})
	if v.Denied != nil || v.Unknown == nil || response.Allowed || response.Result.Code != 503 {
		t.Errorf("%+v, %+v", v, response.Result)
	}
}

// Devices of resourceName are requested where they are not yet.
func TestResources(t *testing.T) {
	t.Parallel()
	quantities := func(amounts ...string) []corev1.Container {
		var all []corev1.Container
		for i, amount := range amounts {
			c := corev1.Container{Name: fmt.Sprint("c", i)}
			if amount != "" {
				list := corev1.ResourceList{"v.com/nic": resource.MustParse(amount)}
				c.Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
			}
			all = append(all, c)
		}
		return all
	}
	for name, test := range map[string]requestedDevices{
		"first": {
			networks: "nic", before: quantities("", ""),
			want: quantities("1", ""),
		},
		"one for each": {
			networks: "nic,nic,a", before: quantities("", ""),
			want: quantities("2", ""),
		},
		"requested": {
			networks: "nic", before: quantities("", "1"),
			want: quantities("", "1"),
		},
		"more requested": {
			networks: "nic", before: quantities("", "4"),
			want: quantities("", "4"),
		},
		"some requested": {
			networks: "nic,nic", before: quantities("1", ""),
			want: quantities("1", "1"),
		},
		"all request some": {
			networks: "nic,nic,nic", before: quantities("1", "1"),
			want: quantities("2", "1"),
		},
		"init container": {
			networks: "nic", init: quantities("1"), before: quantities(""),
			want: quantities("1"),
		},
		"sidecar": {
			networks: "nic", init: quantities("1"), sidecar: true,
			before: quantities(""), want: quantities(""),
		},
		"claims": {
			networks: "nic", claims: true, before: quantities(""),
			want: quantities(""), warns: "resource claims",
		},
		"claims beside its own": {
			networks: "nic", claims: true, before: quantities("1"),
			want: quantities("1"),
		},
		"no name of a resource": {
			networks: "odd", before: quantities(""), want: quantities(""),
			warns: "no name of an extended resource",
		},
		"a network without device": {networks: "a", before: quantities(""), want: quantities("")},
	} {
		t.Run(name, test.test)
	}
}

// requestedDevices is a pod with networks of devices, and its containers once it is admitted.
type requestedDevices struct {
	networks           string
	init, before, want []corev1.Container
	sidecar, claims    bool
	warns              string
}

func (test requestedDevices) test(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.nad("web/nic", nadv1.ResourceNameAnnotation, "v.com/nic")
	c.nad("web/odd", nadv1.ResourceNameAnnotation, "nic")
	p := pod(test.networks)
	always := corev1.ContainerRestartPolicyAlways
	p.Spec.Containers, p.Spec.InitContainers = test.before, test.init
	for i := range p.Spec.InitContainers {
		p.Spec.InitContainers[i].Name = "i"
		if test.sidecar {
			p.Spec.InitContainers[i].RestartPolicy = &always
		}
	}
	if test.claims {
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
	}
	got, v := c.create(p)
	if got == nil {
		t.Fatal(v.Denied, v.Unknown)
	}
	if diff := cmp.Diff(test.want, got.Spec.Containers); diff != "" {
		t.Errorf("containers (-want +got):\n%s", diff)
	}
	if test.warns != "" && !warned(v, test.warns) || test.warns == "" && len(v.Warnings) > 0 {
		t.Errorf("warnings: %v", v.Warnings)
	}
}

// On request the pod's network-status is mounted; what the pod has at that place stays.
func TestPodInfo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	p := pod("a")
	p.Annotations[admit.PodInfoAnnotation] = "true"
	p.Spec.InitContainers = []corev1.Container{
		{Name: "i", VolumeMounts: []corev1.VolumeMount{{Name: "own", MountPath: admit.PodInfoPath}}},
	}
	got, v := c.create(p)
	if got == nil {
		t.Fatal(v.Denied)
	}
	if len(got.Spec.Volumes) != 1 || got.Spec.Volumes[0].DownwardAPI == nil ||
		len(got.Spec.Volumes[0].DownwardAPI.Items) != 3 {
		t.Errorf("volumes %+v", got.Spec.Volumes)
	}
	for _, c := range append(got.Spec.Containers, got.Spec.InitContainers...) {
		if len(c.VolumeMounts) != 1 || c.VolumeMounts[0].MountPath != admit.PodInfoPath ||
			(c.Name != "i") != (c.VolumeMounts[0].Name == "podnetinfo") {
			t.Errorf("container %s mounts %+v", c.Name, c.VolumeMounts)
		}
	}
	if _, v := c.create(got); len(v.Patch) > 0 {
		t.Errorf("judged again it is changed again: %s", v.Patch)
	}
	p.Annotations[admit.PodInfoAnnotation] = "yes"
	_, v = c.create(p)
	denied(t, "yes", v, failure.InvalidAnnotation, admit.PodInfoAnnotation, `make it "true"`)
	p.Annotations[admit.PodInfoAnnotation] = "true"
	if got, v := c.create(p); got == nil || len(got.Spec.Volumes) != 1 {
		t.Errorf("after the remedy: %+v", v)
	}
}

// Fields that this program does not know stay.
func TestUnknownFieldsStay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.selecting("web/n", "pool=data,zone in (a,b)")
	v := c.review("Pod", admissionv1.Create, `{"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "n"}},
		"spec": {"new": {"big": 12345678901234567890, "list": [{"x": 1.0}]}, "containers": [{"name": "c", "newer": true}]}}`, nil)
	if v.Denied != nil || len(v.Patch) == 0 {
		t.Fatalf("%+v", v)
	}
	for _, word := range []string{"new", "newer", "remove", "replace"} {
		if strings.Contains(string(v.Patch), `"`+word) || strings.Contains(string(v.Patch), "/"+word) {
			t.Errorf("the patch touches more than it has to: %s", v.Patch)
		}
	}
}

func sorted(a *corev1.Affinity) *corev1.Affinity {
	if a == nil {
		return nil
	}
	a = a.DeepCopy()
	for i := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		all := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms[i].MatchExpressions
		for j := range all {
			for k := range all[:j] {
				if fmt.Sprint(all[j]) < fmt.Sprint(all[k]) {
					all[j], all[k] = all[k], all[j]
				}
			}
		}
	}
	return a
}
