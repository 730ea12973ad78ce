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

// apiHost is a host whose pods and NADs are in an API server, in a namespace of the test's.
type apiHost struct {
	*host
	server    *lab.API
	namespace string
	proxy     net.Listener
	user      string
}

// newAPIHost has Braid use the account of conf/rbac/node.yaml, which may not read pods.
func newAPIHost(t *testing.T, namespace string) *apiHost {
	t.Helper()
	h := &apiHost{host: newHost(t), server: cluster.Get(t), namespace: namespace}
	h.applyConf("crd/network-attachment-definition.yaml", "rbac/node.yaml")
	h.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ` + namespace + `}}`)
	delete(h.conf["braid"].(map[string]any), "manifests")
	h.allow(map[string]any{"namespaces": []string{namespace}, "all": true})
	h.serve()
	h.as(braidAccount)
	return h
}

func (h *apiHost) apply(manifest string) {
	h.t.Helper()
	if err := h.server.Apply(h.t.Context(), manifest); err != nil {
		h.t.Fatalf("%v\n%s", err, manifest)
	}
}

// applyConf applies files of conf.
func (h *apiHost) applyConf(files ...string) {
	h.t.Helper()
	for _, file := range files {
		manifests, err := os.ReadFile("../../conf/" + file)
		if err != nil {
			h.t.Fatal(err)
		}
		h.apply(string(manifests))
	}
}

// serve makes the API server reachable from the node, at a port of its loopback address.
func (h *apiHost) serve() {
	h.t.Helper()
	h.node.Up("lo")
	var err error
	if rerr := h.node.Run(func() error {
		h.proxy, err = new(net.ListenConfig).Listen(h.t.Context(), "tcp", "127.0.0.1:0")
		return err
	}); rerr != nil {
		h.t.Fatal(rerr)
	}
	h.t.Cleanup(func() { h.proxy.Close() }) //nolint:errcheck // a test's listener
	host, port := h.server.Address()
	go func() {
		for {
			near, err := h.proxy.Accept()
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
func (h *host) allow(rules ...map[string]any) {
	braid := maps.Clone(h.conf["braid"].(map[string]any))
	if braid["policy"] = rules; len(rules) == 0 {
		delete(braid, "policy")
	}
	h.conf["braid"] = braid
}

// as makes Braid use the API server as this user.
func (h *apiHost) as(user string, groups ...string) {
	h.t.Helper()
	path, err := h.server.Kubeconfig(user, groups...)
	if err != nil {
		h.t.Fatal(err)
	}
	h.use(path, user)
}

// use has Braid use the kubeconfig of a user.
func (h *apiHost) use(path, user string) {
	h.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	host, port := h.server.Address()
	text := strings.ReplaceAll(string(data), net.JoinHostPort(host, fmt.Sprint(port)),
		h.proxy.Addr().String())
	h.write("kubeconfig", text)
	h.conf["kubeconfig"], h.user = h.path("kubeconfig"), user
}

// nad makes a NAD in the test's namespace.
func (h *apiHost) nad(name, config string, annotations ...string) {
	h.t.Helper()
	nad := nadv1.NetworkAttachmentDefinition{
		TypeMeta: metav1.TypeMeta{APIVersion: nadv1.GroupName + "/" + nadv1.Version, Kind: nadv1.Kind},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: h.namespace, Annotations: map[string]string{},
		},
		Spec: nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	for i := 0; i < len(annotations); i += 2 {
		nad.Annotations[annotations[i]] = annotations[i+1]
	}
	data, err := json.Marshal(nad)
	if err != nil {
		h.t.Fatal(err)
	}
	h.apply(string(data))
}

// apiPod is a pod of the API server with a sandbox.
type apiPod struct {
	*pod
	uid types.UID
}

// pod makes a pod that asks for networks; change may do more to it.
func (h *apiHost) pod(name, networks string, change ...func(*corev1.Pod)) *apiPod {
	h.t.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: h.namespace, Annotations: map[string]string{},
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
	created, err := h.server.Client().CoreV1().Pods(h.namespace).
		Create(h.t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	h.passed(created.Annotations)
	sandbox := h.host.pod(h.namespace+"/"+name, "") // its manifest is not looked at
	return &apiPod{pod: sandbox, uid: created.UID}
}

// passed has the runtime pass on annotations, with those that a kubelet adds.
func (h *apiHost) passed(annotations map[string]string) {
	all := map[string]string{
		"kubernetes.io/config.source": "api", "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
	}
	maps.Copy(all, annotations)
	h.conf["runtimeConfig"] = map[string]any{podAnnotations: all}
}

// args is CNI_ARGS with the pod's uid, as runtimes pass it.
func (p *apiPod) args() string {
	return fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_UID=%s",
		p.namespace, p.name, p.uid)
}

// calls counts Braid's requests while fn runs, by verb and resource.
func (h *apiHost) calls(fn func()) map[string]int {
	h.t.Helper()
	all, err := h.server.RequestsDuring(h.t.Context(), h.user, func() error { fn(); return nil })
	if err != nil {
		h.t.Fatal(err)
	}
	count := map[string]int{}
	for _, request := range all {
		count[strings.TrimRight(request.Verb+" "+request.Resource+"/"+request.Subresource, "/")]++
	}
	return count
}

// published is the network-status that the API server has.
func (h *apiHost) published(p *apiPod) string {
	h.t.Helper()
	object, err := h.server.Client().CoreV1().Pods(h.namespace).
		Get(h.t.Context(), p.name, metav1.GetOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	return object.Annotations[nadv1.StatusAnnotation]
}

// names are those of the entries of the network-status.
func (h *apiHost) names(p *apiPod) string {
	h.t.Helper()
	text := h.published(p)
	if text == "" {
		return ""
	}
	var list []nadv1.NetworkStatus
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		h.t.Fatalf("%v: %s", err, text)
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
	h := newAPIHost(t, "calls")
	for i, name := range []string{"a", "b", "c", "d"} {
		h.nad(name, h.macvlan(11+i, ""))
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
			p := h.pod(name, test.networks)
			same(t, "requests of an ADD", h.calls(func() { h.must("ADD", p.pod, p.args()) }), test.want)
			want := "pods"
			for n := range strings.SplitSeq(test.networks, ",") {
				want += " calls/" + n
			}
			if test.networks == "" {
				want = ""
			}
			same(t, "network-status", h.names(p), want)
			same(t, "requests of a DEL", h.calls(func() {
				h.must("DEL", p.pod, p.args())
			}), map[string]int{})
			h.clean(p.pod)
		})
	}
}

// TestM26TenantIsHeldToThePolicy: the label of a namespace decides, and is asked for once in
// LabelAge. What is audited is one event for each NAD in an hour.
func TestM26TenantIsHeldToThePolicy(t *testing.T) {
	h := newAPIHost(t, "tenants")
	h.allow()
	h.nad("uplink", h.macvlan(11, ""))
	h.nad("harmless", `{"cniVersion":"1.0.0","type":"bridge","bridge":"br-t",`+
		`"ipam":{"type":"host-local","subnet":"10.77.0.0/24","dataDir":"`+h.path("leases")+`"}}`)
	passed := time.Duration(0)
	add := func(name, networks string, want map[string]int, refused bool) string {
		t.Helper()
		p := h.pod(name, networks)
		h.env = []string{later + "=" + passed.String()}
		var err *cnitypes.Error
		made := h.calls(func() { _, err = h.call("ADD", p.pod, p.args()) })
		delete(made, "get nodes") // the upkeep of addresses, which is due when time has passed
		same(t, "requests of "+name, made, want)
		if (err != nil) != refused {
			t.Errorf("%s: %v", name, err)
		}
		h.must("DEL", p.pod, p.args())
		h.clean(p.pod)
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
	if log := h.log(); strings.Count(log, "PolicyAudited") != 2 {
		t.Errorf("the log does not name each audited ADD:\n%s", log)
	}
	passed = time.Hour
	add("an-hour-later", "uplink",
		map[string]int{getNAD: 1, getNamespace: 1, patchStatus: 1, createEvent: 3}, false)
	h.apply(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"tenants",` +
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
	log := h.log()
	if strings.Count(log, "refused by policy") != 1 || !strings.Contains(log, "key=masters") {
		t.Errorf("the log does not name the refusal once:\n%s", log)
	}
	counts := map[engine.Violation]uint64{
		{Key: "masters", Effect: policy.Audit}: 3, {Key: "masters", Effect: policy.Enforce}: 1,
	}
	if got := node.Violations(h.path("state")); !maps.Equal(got, counts) {
		t.Errorf("counted %v, want %v", got, counts)
	}
	h.allow(map[string]any{"namespaces": []string{"tenants"}, "masters": []string{"*"}})
	add("allowed", "uplink", map[string]int{getNAD: 1, patchStatus: 1, createEvent: 2}, false)
	h.allow(map[string]any{"namespaces": []string{"tenants"}, "master": []string{"*"}})
	says = add("broken", "uplink", map[string]int{getNAD: 1, createEvent: 1}, true)
	if !strings.Contains(says, "tenant's default") {
		t.Errorf("a rule that cannot be read: %s", says)
	}
}

// TestM28LabelledNamespacesKeepTheirBridges: where the label alone enforces, nobody joins the
// bridge of another tenant, nor sends with a MAC that is not the pod's.
func TestM28LabelledNamespacesKeepTheirBridges(t *testing.T) {
	bridge := func(h *apiHost) string {
		return `{"cniVersion":"1.0.0","type":"bridge","bridge":"br-t","ipam":{"type":"host-local",` +
			`"subnet":"10.77.0.0/24","dataDir":"` + h.path("leases") + `"}}`
	}
	h := newAPIHost(t, "tenant-b")
	h.allow()
	for _, namespace := range []string{"tenant-a", "tenant-b"} {
		h.apply(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + namespace +
			`","labels":{"braid-cni.io/tenant":"yes"}}}`)
		h.namespace = namespace
		h.nad("lan", bridge(h))
	}
	h.namespace = "tenant-a"
	a := h.pod("a", "lan")
	h.must("ADD", a.pod, a.args())
	if err := h.node.Run(func() error {
		rules, err := exec.CommandContext(t.Context(), "nft", "list", "ruleset").CombinedOutput()
		if !strings.Contains(string(rules), "braid_spoofcheck") {
			t.Errorf("no rule holds the pod to its MAC:\n%s", rules)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	h.namespace = "tenant-b"
	b := h.pod("b", "lan")
	_, err := h.call("ADD", b.pod, b.args())
	if err == nil || !strings.Contains(err.Msg,
		"br-t is none that networks of namespace tenant-b may use") {
		t.Errorf("another tenant's bridge: %v", err)
	}
	h.must("DEL", b.pod, b.args())
	h.namespace = "tenant-a"
	h.nad("spoofs", strings.Replace(bridge(h), `"type":"bridge",`,
		`"type":"bridge","macspoofchk":false,`, 1))
	s := h.pod("s", "spoofs")
	_, err = h.call("ADD", s.pod, s.args())
	if err == nil || !strings.Contains(err.Msg, `"spoofing": true`) {
		t.Errorf("macspoofchk false: %v", err)
	}
	h.must("DEL", s.pod, s.args())
	h.must("DEL", a.pod, a.args())
	h.clean(a.pod)
}

// A fault of the default network is the operator's: a pod without networks of its own is not told,
// one with networks is.
func TestAPICallsOfADDWithWarning(t *testing.T) {
	h := newAPIHost(t, "warnings")
	h.conf["delegates"] = []any{with(h.defaultNetwork(), "noSuchKey", true)}
	h.nad("a", h.macvlan(11, ""))
	for networks, want := range map[string]map[string]int{
		"": {}, "a": {getNAD: 1, patchStatus: 1, createEvent: 3},
	} {
		p := h.pod("p"+networks, networks)
		same(t, "requests for "+networks, h.calls(func() { h.must("ADD", p.pod, p.args()) }), want)
		if !strings.Contains(h.log(), "noSuchKey") {
			t.Errorf("the log does not name the key")
		}
		h.must("DEL", p.pod, p.args())
		h.clean(p.pod)
	}
}

// Where the runtime does not say enough, the pod is fetched.
func TestAnnotationsOfTheRuntimeMissing(t *testing.T) {
	h := newAPIHost(t, "not-passed")
	h.as("reader", "system:masters")
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	withStatic := func(p *apiPod) []string {
		h.conf["runtimeConfig"] = map[string]any{
			podAnnotations: map[string]string{
				"kubernetes.io/config.source": "file", nadv1.NetworksAnnotation: "b",
			},
		}
		return []string{p.args()}
	}
	for name, how := range map[string]func(*apiPod) []string{
		"static": withStatic,
		"no-capability": func(p *apiPod) []string {
			delete(h.conf, "runtimeConfig")
			return []string{p.args()}
		},
		"no-uid": func(*apiPod) []string { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := h.pod(name, "a")
			env := how(p)
			same(t, "requests", h.calls(func() {
				h.must("ADD", p.pod, env...)
			}), map[string]int{getPod: 1, getNAD: 1, patchStatus: 1, createEvent: 2})
			same(t, "network-status", h.names(p), "pods not-passed/a")
			h.must("DEL", p.pod, env...)
			h.clean(p.pod)
		})
	}
}

// A NAD with resourceName costs a GET of the pod, whose requests and claims are not in its
// annotations; claims cost more.
func TestAnnotationsOfTheRuntimeAndDevices(t *testing.T) {
	h := newAPIHost(t, "devices")
	h.applyConf("rbac/node-pods.yaml", "rbac/node-devices.yaml")
	h.fake("takes", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"takes"}`, nadv1.ResourceNameAnnotation, "example.com/vf")
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
			p := h.pod(name, "a", test.change)
			want := map[string]int{getNAD: 1, getPod: 1, patchStatus: 1, createEvent: 2}
			maps.Copy(want, test.more)
			same(t, "requests", h.calls(func() { h.must("ADD", p.pod, p.args()) }), want)
			h.must("DEL", p.pod, p.args())
			h.clean(p.pod)
		})
	}
}

// The PATCH finds out that the pod is gone, or another of the same name, or that others wrote its
// status: that costs a GET.
func TestAnnotationsOfTheRuntimeAreOld(t *testing.T) {
	h := newAPIHost(t, "old")
	h.as("writer", "system:masters")
	h.nad("a", h.macvlan(11, ""))
	pods := h.server.Client().CoreV1().Pods("old")
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
			h.again(p)
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
			p := h.pod(name, "a")
			test.change(p)
			h.passed(map[string]string{nadv1.NetworksAnnotation: "a"})
			made := h.calls(func() {
				_, err := h.call("ADD", p.pod, p.args())
				if err == nil && test.code != 0 || err != nil && err.Code != test.code {
					t.Errorf("got error %v, want code %d", err, test.code)
				}
			})
			same(t, "requests", made, test.want)
			if test.code == 0 {
				same(t, "network-status", h.names(p), test.status)
				h.must("DEL", p.pod, p.args())
			}
			h.clean(p.pod)
		})
	}
}

// again makes another pod of a name.
func (h *apiHost) again(p *apiPod) {
	h.t.Helper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Annotations: map[string]string{nadv1.NetworksAnnotation: "a"},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName, Containers: []corev1.Container{{Name: "c", Image: "none"}},
		},
	}
	_, err := h.server.Client().CoreV1().Pods(h.namespace).
		Create(h.t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
}

// A node whose API server is away starts and stops pods without networks; one with networks is to
// be tried again.
func TestAPIAwayWithoutNetworks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	braid := h.conf["braid"].(map[string]any)
	delete(braid, "manifests")
	braid["timeouts"] = map[string]any{"api": "1s"}
	h.conf["kubeconfig"] = h.path("kubeconfig")
	h.write("kubeconfig", `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"k","cluster":{"server":"https://127.0.0.1:1"}}],
		"users":[{"name":"u","user":{"token":"t0ken"}}],"contexts":[{"name":"c","context":{"cluster":"k","user":"u"}}]}`)
	p := h.pod("p", "")
	args := "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p;K8S_POD_UID=u1"
	for name, annotations := range map[string]any{
		"kubelet's": map[string]string{"kubernetes.io/config.source": "api"},
		"empty":     map[string]string{}, "null": nil,
	} {
		h.conf["runtimeConfig"] = map[string]any{podAnnotations: annotations}
		h.must("ADD", p, args)
		h.has(p, "eth0")
		h.must("CHECK", p, args)
		if name == "empty" {
			if err := os.RemoveAll(h.path("state")); err != nil { // as after a reboot
				t.Fatal(err)
			}
		}
		h.must("DEL", p, args)
		h.clean(p)
	}
	h.conf["runtimeConfig"] = map[string]any{
		podAnnotations: map[string]string{nadv1.NetworksAnnotation: "a"},
	}
	_, err := h.call("ADD", p, args)
	if err == nil || err.Code != 11 || !strings.Contains(err.Msg, "connection refused") {
		t.Errorf("with networks: got error %v, want code 11", err)
	}
	h.clean(p)
}
