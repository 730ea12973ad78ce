package reap_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	wbv1 "github.com/braid-cni/braid/pkg/api/whereabouts/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/reap"
)

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// source is all that a Reaper asks.
type source interface {
	reap.Blocks
	reap.Cluster
	reap.Whereabouts
}

// world is a cluster, as its users and its other controllers change it.
type world interface {
	source() source
	// addNode makes a Node object, with taints, and returns its uid.
	addNode(name string, taints ...string) types.UID
	deleteNode(name string)
	// taint makes these the taints of a node.
	taint(name string, taints ...string)
	// addPod makes a pod, which may be bound to a node, and returns its uid.
	addPod(p pod) types.UID
	deletePod(namespace, name string)
	addClaim(namespace, name string) types.UID
	deleteClaim(namespace, name string)
	// setPool makes or replaces an IPPool in kube-system; no allocations at all delete it.
	setPool(name, cidr string, allocations map[string]wbv1.IPAllocation)
	setReservation(name string, spec *wbv1.OverlappingRangeIPReservationSpec)
}

type pod struct {
	namespace, name, node string
	host                  bool
	annotations           map[string]string
}

// account is who the controller is: the roles of conf/rbac/controller.yaml, and no others, are what
// it may do in these tests.
const account = "system:serviceaccount:kube-system:braid-controller"

// whereaboutsCRDs serve the kinds of whereabouts, with as much of a schema as it takes.
const whereaboutsCRDs = `
{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "%[1]s.whereabouts.cni.cncf.io"},
 "spec": {"group": "whereabouts.cni.cncf.io", "scope": "Namespaced", "names": {"kind": "%[2]s", "listKind": "%[2]sList", "plural": "%[1]s", "singular": "%[3]s"},
  "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
   "type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}}
`

// server is a world of a kube-apiserver.
type server struct {
	t *testing.T
	*lab.API
	src *kube.API
}

func newServer(t *testing.T) *server {
	t.Helper()
	api := cluster.Get(t)
	for _, path := range []string{"crd/ipblocks.yaml", "crd/ipam-claim.yaml", "rbac/controller.yaml"} {
		manifests, err := os.ReadFile("../../conf/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := api.Apply(t.Context(), string(manifests)); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	for _, kind := range []string{wbv1.PoolKind, wbv1.ReservationKind} {
		err := api.Apply(t.Context(),
			fmt.Sprintf(whereaboutsCRDs, strings.ToLower(kind)+"s", kind, strings.ToLower(kind)))
		if err != nil {
			t.Fatal(err)
		}
	}
	config, err := api.Kubeconfig(account)
	if err != nil {
		t.Fatal(err)
	}
	src, err := kube.NewAPI(kube.APIOptions{Kubeconfig: config, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.Close)
	s := &server{t, api, src}
	s.clear()
	t.Cleanup(s.clear)
	return s
}

// clear removes what the test before has left.
func (s *server) clear() {
	ctx := context.WithoutCancel(s.t.Context())
	blocks, err := s.src.Blocks(ctx, metav1.ListOptions{})
	for i := range blocks {
		err = errors.Join(err, s.src.DeleteBlock(ctx, &blocks[i]))
	}
	nodes, lerr := s.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	for i := range nodes.Items {
		err = errors.Join(err, s.Client().CoreV1().Nodes().
			Delete(ctx, nodes.Items[i].Name, metav1.DeleteOptions{}))
	}
	pods, perr := s.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	for i := range pods.Items {
		err = errors.Join(err, s.remove("/api/v1/namespaces/"+pods.Items[i].Namespace+"/pods",
			pods.Items[i].Name))
	}
	pools, werr := s.src.IPPools(ctx)
	for i := range pools {
		err = errors.Join(err, s.remove(wbPath(wbv1.PoolResource), pools[i].Name))
	}
	reservations, rerr := s.src.Reservations(ctx)
	for i := range reservations {
		err = errors.Join(err, s.remove(wbPath(wbv1.ReservationResource), reservations[i].Name))
	}
	if err = errors.Join(err, lerr, perr, werr, rerr); err != nil {
		s.t.Error(err)
	}
}

func (s *server) remove(path, name string) error {
	zero := int64(0)
	return s.Client().CoreV1().RESTClient().Delete().AbsPath(path, name).
		Body(&metav1.DeleteOptions{GracePeriodSeconds: &zero}).
		Do(context.WithoutCancel(s.t.Context())).Error()
}

func (s *server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// put makes an object and returns its uid.
func (s *server) put(path, apiVersion, kind, name string, spec any) types.UID {
	s.t.Helper()
	body, err := json.Marshal(map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	})
	s.must(err)
	answer, err := s.Client().CoreV1().RESTClient().Post().AbsPath(path).Body(body).
		Do(s.t.Context()).Raw()
	s.must(err)
	var made metav1.PartialObjectMetadata
	s.must(json.Unmarshal(answer, &made))
	return made.UID
}

func (s *server) namespace(name string) {
	s.t.Helper()
	_, err := s.Client().CoreV1().Namespaces().
		Create(s.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		s.must(err)
	}
}

func (s *server) source() source { return s.src }

func (s *server) addNode(name string, taints ...string) types.UID {
	s.t.Helper()
	made, err := s.Client().CoreV1().Nodes().
		Create(s.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{})
	s.must(err)
	s.taint(name, taints...)
	return made.UID
}

func (s *server) deleteNode(name string) {
	s.must(s.Client().CoreV1().Nodes().Delete(s.t.Context(), name, metav1.DeleteOptions{}))
}

func (s *server) taint(name string, taints ...string) {
	s.t.Helper()
	node, err := s.Client().CoreV1().Nodes().Get(s.t.Context(), name, metav1.GetOptions{})
	s.must(err)
	node.Spec.Taints = nil
	for _, t := range taints {
		node.Spec.Taints = append(node.Spec.Taints,
			corev1.Taint{Key: t, Effect: corev1.TaintEffectNoExecute})
	}
	_, err = s.Client().CoreV1().Nodes().Update(s.t.Context(), node, metav1.UpdateOptions{})
	s.must(err)
}

func (s *server) addPod(p pod) types.UID {
	s.t.Helper()
	s.namespace(p.namespace)
	made, err := s.Client().CoreV1().Pods(p.namespace).Create(s.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Annotations: p.annotations},
		Spec: corev1.PodSpec{
			NodeName: p.node, HostNetwork: p.host,
			Containers: []corev1.Container{{Name: "c", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	s.must(err)
	return made.UID
}

func (s *server) deletePod(namespace, name string) {
	s.must(s.remove("/api/v1/namespaces/"+namespace+"/pods", name))
}

func claimPath(namespace string) string {
	return "/apis/" + claimv1.GroupName + "/" + claimv1.Version + "/namespaces/" + namespace + "/" +
		claimv1.Resource
}

func (s *server) addClaim(namespace, name string) types.UID {
	s.t.Helper()
	s.namespace(namespace)
	return s.put(claimPath(namespace), claimv1.GroupName+"/"+claimv1.Version, claimv1.Kind, name,
		claimv1.IPAMClaimSpec{Network: "n", Interface: "net1"})
}

func (s *server) deleteClaim(namespace, name string) {
	s.must(s.remove(claimPath(namespace), name))
}

func wbPath(resource string) string {
	return "/apis/" + wbv1.GroupName + "/" + wbv1.Version + "/namespaces/kube-system/" + resource
}

func (s *server) setPool(name, cidr string, allocations map[string]wbv1.IPAllocation) {
	s.t.Helper()
	if err := s.remove(wbPath(wbv1.PoolResource), name); !apierrors.IsNotFound(err) {
		s.must(err)
	}
	if allocations != nil {
		s.put(wbPath(wbv1.PoolResource), wbv1.GroupName+"/"+wbv1.Version, wbv1.PoolKind, name,
			wbv1.IPPoolSpec{Range: cidr, Allocations: allocations})
	}
}

func (s *server) setReservation(name string, spec *wbv1.OverlappingRangeIPReservationSpec) {
	s.t.Helper()
	if spec == nil {
		s.must(s.remove(wbPath(wbv1.ReservationResource), name))
		return
	}
	s.put(wbPath(wbv1.ReservationResource), wbv1.GroupName+"/"+wbv1.Version, wbv1.ReservationKind,
		name, spec)
}

// fake is a world in memory.
type fake struct {
	*blocktest.Fake
	n        int
	nodes    map[string]node
	pods     map[string]fakePod
	claims   map[string]types.UID
	deleting map[types.UID]*metav1.Time
	pools    map[string]wbv1.IPPool
	reserved map[string]wbv1.OverlappingRangeIPReservation
	// unserved says that whereabouts' kinds are not there.
	unserved bool
	// fail, if set, may fail each request before and after it takes effect.
	fail func(when, verb string) error
}

type node struct {
	uid    types.UID
	taints []string
}

type fakePod struct {
	pod
	uid types.UID
}

func newFake() *fake {
	f := &fake{
		Fake: blocktest.New(), nodes: map[string]node{}, pods: map[string]fakePod{},
		claims: map[string]types.UID{},
		pools:  map[string]wbv1.IPPool{}, reserved: map[string]wbv1.OverlappingRangeIPReservation{},
	}
	f.Fault = func(when, verb string) error {
		if f.fail == nil {
			return nil
		}
		return f.fail(when, verb)
	}
	return f
}

func (f *fake) uid() types.UID {
	f.n++
	return types.UID(fmt.Sprint("fake-", f.n))
}

func (f *fake) source() source { return f }

func (f *fake) addNode(name string, taints ...string) types.UID {
	uid := f.uid()
	f.nodes[name] = node{uid, taints}
	f.AddNode(name, uid)
	return uid
}

func (f *fake) taint(name string, taints ...string) {
	f.nodes[name] = node{f.nodes[name].uid, taints}
}

func (f *fake) deleteNode(name string) {
	delete(f.nodes, name)
	f.DeleteNode(name)
}

func (f *fake) addPod(p pod) types.UID {
	uid := f.uid()
	f.pods[p.namespace+"/"+p.name] = fakePod{p, uid}
	return uid
}

func (f *fake) deletePod(namespace, name string) { delete(f.pods, namespace+"/"+name) }

func (f *fake) addClaim(namespace, name string) types.UID {
	uid := f.uid()
	f.claims[namespace+"/"+name] = uid
	return uid
}

func (f *fake) deleteClaim(namespace, name string) { delete(f.claims, namespace+"/"+name) }

func (f *fake) setPool(name, cidr string, allocations map[string]wbv1.IPAllocation) {
	delete(f.pools, name)
	if allocations != nil {
		f.pools[name] = wbv1.IPPool{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name},
			Spec:       wbv1.IPPoolSpec{Range: cidr, Allocations: allocations},
		}
	}
}

func (f *fake) setReservation(name string, spec *wbv1.OverlappingRangeIPReservationSpec) {
	delete(f.reserved, name)
	if spec != nil {
		f.reserved[name] = wbv1.OverlappingRangeIPReservation{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name}, Spec: *spec,
		}
	}
}

func (f *fake) EachNode(_ context.Context, do func(*metav1.ObjectMeta, []string)) error {
	if err := f.Fault("before", "nodes"); err != nil {
		return err
	}
	for name, n := range f.nodes {
		do(&metav1.ObjectMeta{Name: name, UID: n.uid}, n.taints)
	}
	return nil
}

func (f *fake) PodsOn(_ context.Context, node string) ([]metav1.ObjectMeta, error) {
	return f.podsWhere("pods of node", func(p fakePod) bool { return p.node == node && !p.host })
}

func (f *fake) Pods(_ context.Context, namespace string) ([]metav1.ObjectMeta, error) {
	return f.podsWhere("pods", func(p fakePod) bool {
		return namespace == "" || p.namespace == namespace
	})
}

func (f *fake) podsWhere(verb string, is func(fakePod) bool) (list []metav1.ObjectMeta, err error) {
	for _, key := range slices.Sorted(maps.Keys(f.pods)) {
		if p := f.pods[key]; is(p) {
			list = append(list, metav1.ObjectMeta{
				Namespace: p.namespace, Name: p.name, UID: p.uid, Annotations: p.annotations,
			})
		}
	}
	return list, f.Fault("before", verb)
}

func (f *fake) IPAMClaims(context.Context) (list []metav1.ObjectMeta, err error) {
	for _, uid := range f.claims {
		list = append(list, metav1.ObjectMeta{UID: uid, DeletionTimestamp: f.deleting[uid]})
	}
	return list, f.Fault("before", "claims")
}

func (f *fake) IPPools(context.Context) ([]wbv1.IPPool, error) {
	if f.unserved {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: wbv1.PoolResource}, "")
	}
	return slices.Collect(maps.Values(f.pools)), f.Fault("before", "pools")
}

func (f *fake) Reservations(context.Context) ([]wbv1.OverlappingRangeIPReservation, error) {
	return slices.Collect(maps.Values(f.reserved)), f.Fault("before", "reservations")
}

// controller is a Reaper with its world and a clock.
type controller struct {
	t *testing.T
	world
	*reap.Reaper
	src   source
	clock time.Time
}

func newController(t *testing.T, w world) *controller {
	c := &controller{t: t, world: w, src: w.source(), clock: time.Unix(1e9, 0)}
	c.Reaper = c.reaper()
	return c
}

// reaper is one that knows nothing yet.
func (c *controller) reaper() *reap.Reaper {
	return &reap.Reaper{
		Blocks: c.src, Cluster: c.src, Whereabouts: c.src,
		Log: slog.New(slog.NewTextHandler(testWriter{c.t}, nil)),
		Now: func() time.Time { return c.clock },
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// both runs a test in memory and on a kube-apiserver.
func both(t *testing.T, test func(*controller)) {
	t.Run("fake", func(t *testing.T) { test(newController(t, newFake())) })
	t.Run("server", func(t *testing.T) { test(newController(t, newServer(t))) })
}

// pass makes a pass after that time.
func (c *controller) pass(after time.Duration) {
	c.t.Helper()
	c.clock = c.clock.Add(after)
	if err := c.Pass(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// block makes one of a space, which is also its name's beginning.
func (c *controller) block(
	space, cidr string, owner *v1alpha1.Node, allocations ...v1alpha1.Allocation,
) string {
	c.t.Helper()
	name := space + "-" + strings.NewReplacer(".", "-", "/", "-").Replace(cidr)
	_, err := c.src.CreateBlock(c.t.Context(), &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.IPBlockSpec{
			Space: space, CIDR: cidr, Owner: owner, Allocations: allocations,
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return name
}

// blocks are those that there are, each as "name owner" or "name address=holder ...".
func (c *controller) blocks() []string {
	c.t.Helper()
	list, err := c.src.Blocks(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var texts []string
	for _, b := range list {
		text := b.Name
		if b.Spec.Owner != nil {
			text += " " + b.Spec.Owner.NodeName
		}
		if b.Spec.Recall != nil {
			text += " recalled by " + b.Spec.Recall.By
		}
		for _, e := range b.Spec.Allocations {
			text += " " + e.Address + "=" + e.Pod
			if e.Claim != nil {
				text += "+" + e.Claim.Name
			}
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	return texts
}

func (c *controller) want(what string, blocks ...string) {
	c.t.Helper()
	blocks = slices.Sorted(slices.Values(blocks))
	if got := c.blocks(); !slices.Equal(got, blocks) {
		c.t.Errorf("%s: blocks are\n%s\nwant\n%s",
			what, strings.Join(got, "\n"), strings.Join(blocks, "\n"))
	}
}

func owner(name string, uid types.UID) *v1alpha1.Node {
	return &v1alpha1.Node{NodeName: name, NodeUID: uid, BootID: "boot"}
}

// use is an address that a pod uses on a node.
func use(address, pod string, node *v1alpha1.Node, claim *v1alpha1.Claim) v1alpha1.Allocation {
	a := v1alpha1.Allocation{Address: address, Claim: claim}
	if pod != "" {
		a.Network, a.ContainerID, a.IfName, a.Pod, a.Node = "net", "c-"+
			strings.ReplaceAll(pod, "/", "-"), "net1", pod, node
	}
	return a
}

func claim(namespace, name string, uid types.UID) *v1alpha1.Claim {
	return &v1alpha1.Claim{Namespace: namespace, Name: name, UID: uid}
}

func given(pod, container string) wbv1.IPAllocation {
	return wbv1.IPAllocation{ContainerID: container, PodRef: pod, IfName: "net1"}
}

func status(ips string) map[string]string {
	return map[string]string{
		nadv1.StatusAnnotation: `[{"name":"cbr0","interface":"eth0","ips":["10.9.0.99"],` +
			`"default":true},{"name":"default/a","interface":"net1","ips":[` + ips + `]}]`,
	}
}
