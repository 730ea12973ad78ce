package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/policy"
)

// cluster is a real API server.
var cluster = lab.NewShared(lab.NewAPI)

const (
	podAnnotations = "io.kubernetes.cri.pod-annotations"
	// braidAccount is who Braid is by the roles of conf/rbac.
	braidAccount = "system:serviceaccount:kube-system:braid"
	getPod       = "get pods"
	getNAD       = "get network-attachment-definitions"
	getNamespace = "get namespaces"
	patchStatus  = "patch pods/status"
	createEvent  = "create events"
)

// apiRig is a rig whose pods and NADs are in an API server, in a namespace of the test's.
type apiRig struct {
	*rig
	server    *lab.API
	namespace string
	proxy     net.Listener
	user      string
}

// newAPIRig gives Braid the account of conf/rbac/node.yaml, which may not read pods.
func newAPIRig(t *testing.T, namespace string) *apiRig {
	t.Helper()
	r := &apiRig{rig: newRig(t), server: cluster.Get(t), namespace: namespace}
	r.applyConf("crd/network-attachment-definition.yaml", "rbac/node.yaml")
	r.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ` + namespace + `}}`)
	delete(r.conf["braid"].(map[string]any), "manifests")
	r.allow(map[string]any{"namespaces": []string{namespace}, "all": true})
	r.serve()
	r.as(braidAccount)
	return r
}

func (r *apiRig) apply(manifest string) {
	r.t.Helper()
	if err := r.server.Apply(r.t.Context(), manifest); err != nil {
		r.t.Fatalf("%v\n%s", err, manifest)
	}
}

// applyConf applies files of conf.
func (r *apiRig) applyConf(files ...string) {
	r.t.Helper()
	for _, file := range files {
		manifests, err := os.ReadFile("../../conf/" + file)
		if err != nil {
			r.t.Fatal(err)
		}
		r.apply(string(manifests))
	}
}

// serve makes the API server reachable from the node, at a port of its loopback address.
func (r *apiRig) serve() {
	r.t.Helper()
	r.node.Up("lo")
	var err error
	if rerr := r.node.Run(func() error {
		r.proxy, err = new(net.ListenConfig).Listen(r.t.Context(), "tcp", "127.0.0.1:0")
		return err
	}); rerr != nil {
		r.t.Fatal(rerr)
	}
	r.t.Cleanup(func() { r.proxy.Close() }) //nolint:errcheck // a test's listener
	host, port := r.server.Address()
	go func() {
		for {
			near, err := r.proxy.Accept()
			if err != nil {
				return
			}
			go relay(near, net.JoinHostPort(host, fmt.Sprint(port)))
		}
	}()
}

// relay connects what is at hand with an address.
func relay(near net.Conn, address string) {
	defer near.Close() //nolint:errcheck // a test's connection
	far, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer far.Close()           //nolint:errcheck // a test's connection
	go io.Copy(far, near)       //nolint:errcheck // ends with the connection
	_, err = io.Copy(near, far) // ends with Braid
	if err != nil {
		return
	}
}

// allow makes these the rules of the policy.
func (r *rig) allow(rules ...map[string]any) {
	braid := maps.Clone(r.conf["braid"].(map[string]any))
	if braid["policy"] = rules; len(rules) == 0 {
		delete(braid, "policy")
	}
	r.conf["braid"] = braid
}

// as makes Braid use the API server as this user.
func (r *apiRig) as(user string, groups ...string) {
	r.t.Helper()
	path, err := r.server.Kubeconfig(user, groups...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.use(path, user)
}

// use gives Braid the kubeconfig of a user.
func (r *apiRig) use(path, user string) {
	r.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	host, port := r.server.Address()
	text := strings.ReplaceAll(string(data), net.JoinHostPort(host, fmt.Sprint(port)),
		r.proxy.Addr().String())
	r.write("kubeconfig", text)
	r.conf["kubeconfig"], r.user = r.path("kubeconfig"), user
}

// nad makes a NAD in the test's namespace.
func (r *apiRig) nad(name, config string, annotations ...string) {
	r.t.Helper()
	nad := nadv1.NetworkAttachmentDefinition{
		TypeMeta: metav1.TypeMeta{APIVersion: nadv1.GroupName + "/" + nadv1.Version, Kind: nadv1.Kind},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: r.namespace, Annotations: map[string]string{},
		},
		Spec: nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	for i := 0; i < len(annotations); i += 2 {
		nad.Annotations[annotations[i]] = annotations[i+1]
	}
	data, err := json.Marshal(nad)
	if err != nil {
		r.t.Fatal(err)
	}
	r.apply(string(data))
}

// apiPod is a pod of the API server with a sandbox.
type apiPod struct {
	*pod
	uid types.UID
}

// pod makes a pod that asks for networks; change may do more to it.
func (r *apiRig) pod(name, networks string, change ...func(*corev1.Pod)) *apiPod {
	r.t.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: r.namespace, Annotations: map[string]string{},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Image: "none"}},
		},
	}
	if networks != "" {
		object.Annotations[nadv1.NetworksAnnotation] = networks
	}
	for _, c := range change {
		c(object)
	}
	created, err := r.server.Client().CoreV1().Pods(r.namespace).
		Create(r.t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.passed(created.Annotations)
	sandbox := r.rig.pod(r.namespace+"/"+name, "") // its manifest is not looked at
	return &apiPod{pod: sandbox, uid: created.UID}
}

// passed has the runtime pass on annotations, with those that a kubelet adds.
func (r *apiRig) passed(annotations map[string]string) {
	all := map[string]string{
		"kubernetes.io/config.source": "api", "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
	}
	maps.Copy(all, annotations)
	r.conf["runtimeConfig"] = map[string]any{podAnnotations: all}
}

// args is CNI_ARGS with the pod's uid, as runtimes pass it.
func (p *apiPod) args() string {
	return fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s",
		p.namespace, p.name, p.uid)
}

// calls counts Braid's requests while fn runs, by verb and resource.
func (r *apiRig) calls(fn func()) map[string]int {
	r.t.Helper()
	all, err := r.server.RequestsDuring(r.t.Context(), r.user, func() error { fn(); return nil })
	if err != nil {
		r.t.Fatal(err)
	}
	count := map[string]int{}
	for _, request := range all {
		count[strings.TrimRight(request.Verb+" "+request.Resource+"/"+request.Subresource, "/")]++
	}
	return count
}

// published is the network-status that the API server has.
func (r *apiRig) published(p *apiPod) string {
	r.t.Helper()
	object, err := r.server.Client().CoreV1().Pods(r.namespace).
		Get(r.t.Context(), p.name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return object.Annotations[nadv1.StatusAnnotation]
}

// names are those of the entries of the network-status.
func (r *apiRig) names(p *apiPod) string {
	r.t.Helper()
	text := r.published(p)
	if text == "" {
		return ""
	}
	var list []nadv1.NetworkStatus
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		r.t.Fatalf("%v: %s", err, text)
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

// What an ADD costs the API server: nothing without networks, else the NADs, one PATCH and its
// events. An account that may not read pods does for that; a DEL needs none.
func TestAPICallsOfAnADD(t *testing.T) {
	r := newAPIRig(t, "calls")
	for i, name := range []string{"a", "b", "c", "d"} {
		r.nad(name, r.macvlan(11+i, ""))
	}
	for name, test := range map[string]struct {
		networks string
		want     map[string]int
	}{
		"none":  {"", map[string]int{}},
		"one":   {"a", map[string]int{getNAD: 1, patchStatus: 1, createEvent: 2}},
		"four":  {"a,b,c,d", map[string]int{getNAD: 4, patchStatus: 1, createEvent: 5}},
		"twice": {"a,a", map[string]int{getNAD: 1, patchStatus: 1, createEvent: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.pod(name, test.networks)
			same(t, "requests of an ADD", r.calls(func() { r.must("ADD", p.pod, p.args()) }), test.want)
			want := "pods"
			for n := range strings.SplitSeq(test.networks, ",") {
				want += " calls/" + n
			}
			if test.networks == "" {
				want = ""
			}
			same(t, "network-status", r.names(p), want)
			same(t, "requests of a DEL", r.calls(func() {
				r.must("DEL", p.pod, p.args())
			}), map[string]int{})
			r.clean(p.pod)
		})
	}
}

// TestM26TenantIsHeldToThePolicy: the label of a namespace decides, and is asked for once in
// LabelAge. What is audited is one event for each NAD in an hour.
func TestM26TenantIsHeldToThePolicy(t *testing.T) {
	r := newAPIRig(t, "tenants")
	r.allow()
	r.nad("uplink", r.macvlan(11, ""))
	r.nad("harmless", `{"cniVersion":"1.0.0","type":"bridge","bridge":"br-t",`+
		`"ipam":{"type":"host-local","subnet":"10.77.0.0/24","dataDir":"`+r.path("leases")+`"}}`)
	passed := time.Duration(0)
	add := func(name, networks string, want map[string]int, refused bool) string {
		t.Helper()
		p := r.pod(name, networks)
		r.env = []string{later + "=" + passed.String()}
		var err *cnitypes.Error
		made := r.calls(func() { _, err = r.call("ADD", p.pod, p.args()) })
		delete(made, "get nodes") // the upkeep of addresses, which is due when time has passed
		same(t, "requests of "+name, made, want)
		if (err != nil) != refused {
			t.Errorf("%s: %v", name, err)
		}
		r.must("DEL", p.pod, p.args())
		r.clean(p.pod)
		if err == nil {
			return ""
		}
		return err.Msg
	}
	steady := map[string]int{getNAD: 1, patchStatus: 1, createEvent: 2}
	add("harmless", "harmless",
		map[string]int{getNAD: 1, getNamespace: 1, patchStatus: 1, createEvent: 2}, false)
	add("audited", "uplink", map[string]int{getNAD: 1, patchStatus: 1, createEvent: 3}, false)
	add("audited-again", "uplink", steady, false)
	if log := r.log(); strings.Count(log, "PolicyAudited") != 2 {
		t.Errorf("the log does not name each audited ADD:\n%s", log)
	}
	passed = time.Hour
	add("an-hour-later", "uplink",
		map[string]int{getNAD: 1, getNamespace: 1, patchStatus: 1, createEvent: 3}, false)
	r.apply(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"tenants",` +
		`"labels":{"braid-cni.io/tenant":""}}}`)
	passed += node.LabelAge
	says := add("refused", "uplink", map[string]int{getNAD: 1, getNamespace: 1, createEvent: 1}, true)
	for _, part := range []string{
		"NAD tenants/uplink", "field plugins[0].master", "tenant's default",
		`{"namespaces": ["tenants"], "masters": [`,
	} {
		if !strings.Contains(says, part) {
			t.Errorf("%s: says nothing of %s", says, part)
		}
	}
	add("harmless-tenant", "harmless", steady, false)
	log := r.log()
	if strings.Count(log, "refused by policy") != 1 || !strings.Contains(log, "key=masters") {
		t.Errorf("the log does not name the refusal once:\n%s", log)
	}
	counts := map[engine.Violation]uint64{
		{Key: "masters", Effect: policy.Audit}: 3, {Key: "masters", Effect: policy.Enforce}: 1,
	}
	if got := node.Violations(r.path("state")); !maps.Equal(got, counts) {
		t.Errorf("counted %v, want %v", got, counts)
	}
	r.allow(map[string]any{"namespaces": []string{"tenants"}, "masters": []string{"*"}})
	add("allowed", "uplink", map[string]int{getNAD: 1, patchStatus: 1, createEvent: 2}, false)
	r.allow(map[string]any{"namespaces": []string{"tenants"}, "master": []string{"*"}})
	says = add("broken", "uplink", map[string]int{getNAD: 1, createEvent: 1}, true)
	if !strings.Contains(says, "tenant's default") {
		t.Errorf("a rule that cannot be read: %s", says)
	}
}

// TestM28LabelledNamespacesKeepTheirBridges: where the label alone enforces, nobody joins the
// bridge of another tenant, nor sends with a MAC that is not the pod's.
func TestM28LabelledNamespacesKeepTheirBridges(t *testing.T) {
	bridge := func(r *apiRig) string {
		return `{"cniVersion":"1.0.0","type":"bridge","bridge":"br-t","ipam":{"type":"host-local",` +
			`"subnet":"10.77.0.0/24","dataDir":"` + r.path("leases") + `"}}`
	}
	r := newAPIRig(t, "tenant-b")
	r.allow()
	for _, namespace := range []string{"tenant-a", "tenant-b"} {
		r.apply(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + namespace +
			`","labels":{"braid-cni.io/tenant":"yes"}}}`)
		r.namespace = namespace
		r.nad("lan", bridge(r))
	}
	r.namespace = "tenant-a"
	a := r.pod("a", "lan")
	r.must("ADD", a.pod, a.args())
	if err := r.node.Run(func() error {
		rules, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").CombinedOutput()
		if !strings.Contains(string(rules), "braid_spoofcheck") {
			t.Errorf("no rule holds the pod to its MAC:\n%s", rules)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	r.namespace = "tenant-b"
	b := r.pod("b", "lan")
	_, err := r.call("ADD", b.pod, b.args())
	if err == nil || !strings.Contains(err.Msg,
		"br-t is none that networks of namespace tenant-b may use") {
		t.Errorf("another tenant's bridge: %v", err)
	}
	r.must("DEL", b.pod, b.args())
	r.namespace = "tenant-a"
	r.nad("spoofs", strings.Replace(bridge(r), `"type":"bridge",`,
		`"type":"bridge","macspoofchk":false,`, 1))
	s := r.pod("s", "spoofs")
	_, err = r.call("ADD", s.pod, s.args())
	if err == nil || !strings.Contains(err.Msg, `"spoofing": true`) {
		t.Errorf("macspoofchk false: %v", err)
	}
	r.must("DEL", s.pod, s.args())
	r.must("DEL", a.pod, a.args())
	r.clean(a.pod)
}

// A fault of the default network is the operator's: a pod without networks of its own is not told,
// one with networks is.
func TestAPICallsOfADDWithWarning(t *testing.T) {
	r := newAPIRig(t, "warnings")
	r.conf["delegates"] = []any{with(r.defaultNetwork(), "noSuchKey", true)}
	r.nad("a", r.macvlan(11, ""))
	for networks, want := range map[string]map[string]int{
		"": {}, "a": {getNAD: 1, patchStatus: 1, createEvent: 3},
	} {
		p := r.pod("p"+networks, networks)
		same(t, "requests for "+networks, r.calls(func() { r.must("ADD", p.pod, p.args()) }), want)
		if !strings.Contains(r.log(), "noSuchKey") {
			t.Errorf("the log does not name the key")
		}
		r.must("DEL", p.pod, p.args())
		r.clean(p.pod)
	}
}

// Where the runtime does not say enough, the pod is fetched.
func TestAnnotationsOfTheRuntimeMissing(t *testing.T) {
	r := newAPIRig(t, "not-passed")
	r.as("reader", "system:masters")
	r.nad("a", r.macvlan(11, ""))
	r.nad("b", r.macvlan(12, ""))
	withStatic := func(p *apiPod) []string {
		r.conf["runtimeConfig"] = map[string]any{
			podAnnotations: map[string]string{
				"kubernetes.io/config.source": "file", nadv1.NetworksAnnotation: "b",
			},
		}
		return []string{p.args()}
	}
	for name, how := range map[string]func(*apiPod) []string{
		"static": withStatic,
		"no-capability": func(p *apiPod) []string {
			delete(r.conf, "runtimeConfig")
			return []string{p.args()}
		},
		"no-uid": func(*apiPod) []string { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := r.pod(name, "a")
			env := how(p)
			same(t, "requests", r.calls(func() {
				r.must("ADD", p.pod, env...)
			}), map[string]int{getPod: 1, getNAD: 1, patchStatus: 1, createEvent: 2})
			same(t, "network-status", r.names(p), "pods not-passed/a")
			r.must("DEL", p.pod, env...)
			r.clean(p.pod)
		})
	}
}

// A NAD with resourceName costs a GET of the pod, whose requests and claims are not in its
// annotations; claims cost more.
func TestAnnotationsOfTheRuntimeAndDevices(t *testing.T) {
	r := newAPIRig(t, "devices")
	r.applyConf("rbac/node-pods.yaml", "rbac/node-devices.yaml")
	r.fake("takes", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"takes"}`, nadv1.ResourceNameAnnotation, "example.com/vf")
	claim := "nics"
	for name, test := range map[string]struct {
		change func(*corev1.Pod)
		more   map[string]int
	}{
		"marker": {func(*corev1.Pod) {}, nil},
		"claim": {func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "nics", ResourceClaimName: &claim}}
		}, map[string]int{"get resourceclaims": 1}},
		"requested": {func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{
				"example.com/vf": resource.MustParse("1"),
			}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.pod(name, "a", test.change)
			want := map[string]int{getNAD: 1, getPod: 1, patchStatus: 1, createEvent: 2}
			maps.Copy(want, test.more)
			same(t, "requests", r.calls(func() { r.must("ADD", p.pod, p.args()) }), want)
			r.must("DEL", p.pod, p.args())
			r.clean(p.pod)
		})
	}
}

// The PATCH finds out that the pod is gone, or another of the same name, or that others wrote its
// status: that costs a GET.
func TestAnnotationsOfTheRuntimeAreOld(t *testing.T) {
	r := newAPIRig(t, "old")
	r.as("writer", "system:masters")
	r.nad("a", r.macvlan(11, ""))
	pods := r.server.Client().CoreV1().Pods("old")
	remove := func(p *apiPod) {
		err := pods.Delete(t.Context(), p.name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		change func(*apiPod)
		code   uint
		want   map[string]int
		status string
	}{
		"gone": {remove, 3, map[string]int{getNAD: 1, patchStatus: 1, createEvent: 2}, ""},
		"replaced": {func(p *apiPod) {
			remove(p)
			r.again(p)
		}, 3, map[string]int{getNAD: 1, patchStatus: 1, getPod: 1, createEvent: 2}, ""},
		"written": {func(p *apiPod) {
			patch := `{"metadata":{"annotations":{"` + nadv1.StatusAnnotation +
				`":"[{\"name\":\"theirs\",\"interface\":\"x<é>\"}]"}}}`
			_, err := pods.Patch(t.Context(), p.name, types.MergePatchType, []byte(patch),
				metav1.PatchOptions{})
			if err != nil {
				t.Fatal(err)
			}
		}, 0, map[string]int{getNAD: 1, patchStatus: 2, getPod: 1, createEvent: 2}, "pods old/a theirs"},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.pod(name, "a")
			test.change(p)
			r.passed(map[string]string{nadv1.NetworksAnnotation: "a"})
			made := r.calls(func() {
				_, err := r.call("ADD", p.pod, p.args())
				if err == nil && test.code != 0 || err != nil && err.Code != test.code {
					t.Errorf("got error %v, want code %d", err, test.code)
				}
			})
			same(t, "requests", made, test.want)
			if test.code == 0 {
				same(t, "network-status", r.names(p), test.status)
				r.must("DEL", p.pod, p.args())
			}
			r.clean(p.pod)
		})
	}
}

// again makes another pod of a name.
func (r *apiRig) again(p *apiPod) {
	r.t.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Annotations: map[string]string{nadv1.NetworksAnnotation: "a"},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Image: "none"}},
		},
	}
	_, err := r.server.Client().CoreV1().Pods(r.namespace).
		Create(r.t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
}

// A node whose API server is away starts and stops pods without networks; one with networks is to
// be tried again.
func TestAPIAwayWithoutNetworks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	braid := r.conf["braid"].(map[string]any)
	delete(braid, "manifests")
	braid["timeouts"] = map[string]any{"api": "1s"}
	r.conf["kubeconfig"] = r.path("kubeconfig")
	r.write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"https://127.0.0.1:1"}}],
		"users":[{"name":"u","user":{"token":"t0ken"}}],"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}]}`)
	p := r.pod("p", "")
	args := "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_UID=u1"
	for name, annotations := range map[string]any{
		"kubelet's": map[string]string{"kubernetes.io/config.source": "api"},
		"empty":     map[string]string{}, "null": nil,
	} {
		r.conf["runtimeConfig"] = map[string]any{podAnnotations: annotations}
		r.must("ADD", p, args)
		r.has(p, "eth0")
		r.must("CHECK", p, args)
		if name == "empty" {
			if err := os.RemoveAll(r.path("state")); err != nil { // as after a reboot
				t.Fatal(err)
			}
		}
		r.must("DEL", p, args)
		r.clean(p)
	}
	r.conf["runtimeConfig"] = map[string]any{
		podAnnotations: map[string]string{nadv1.NetworksAnnotation: "a"},
	}
	_, err := r.call("ADD", p, args)
	if err == nil || err.Code != 11 || !strings.Contains(err.Msg, "connection refused") {
		t.Errorf("with networks: got error %v, want code 11", err)
	}
	r.clean(p)
}
