package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const (
	// patience is for what takes a second or two on an idle machine; other tests may be compiling on
	// the same cores.
	patience = 3 * time.Minute
	// tidying is how long the runtime may take for a sandbox's last traces after its pod is gone.
	tidying = time.Minute
)

// workspace is a Kubernetes namespace of the cluster, which one test has to itself.
type workspace struct {
	t         *testing.T
	ctx       context.Context
	cluster   *lab.Cluster
	node      *lab.Node
	namespace string
	apiDown   bool // the API server is stopped
}

// newWorkspace makes the test's namespace. When the test ends, its pods are deleted, and the test
// fails if anything of them is left.
func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	return newWorkspaceFor(t, patience)
}

// newWorkspaceFor is newWorkspace for a test that may take that long.
func newWorkspaceFor(t *testing.T, d time.Duration) *workspace {
	t.Helper()
	w := &workspace{t: t, cluster: shared.Get(t)}
	w.node = w.cluster.Nodes()[0]
	ctx, cancel := context.WithTimeout(context.Background(), d)
	w.ctx = ctx
	w.namespace = w.newNamespace(strings.TrimPrefix(t.Name(), "Test"))
	t.Cleanup(func() {
		cancel()
		w.cleanUp()
	})
	return w
}

// newNamespace makes a namespace, and waits for the account that no pod is admitted without.
func (w *workspace) newNamespace(name string) string {
	w.t.Helper()
	name = strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(name))
	client := w.cluster.Client().CoreV1()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.Namespaces().Create(w.ctx, namespace, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the service account of namespace "+name, func() error {
		_, err := client.ServiceAccounts(name).Get(w.ctx, "default", metav1.GetOptions{})
		return err
	})
	return name
}

func (w *workspace) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if w.t.Failed() {
		w.dump(ctx)
	}
	namespaces, err := w.cluster.Client().CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		w.t.Error(err)
		return
	}
	for _, namespace := range namespaces.Items {
		if err := deletePods(ctx, w.cluster, namespace.Name); err != nil {
			w.t.Errorf("delete pods: %v", err)
		}
	}
	ctx, cancel = context.WithTimeout(context.Background(), tidying)
	defer cancel()
	if err := waitClean(ctx, w.node); err != nil {
		w.t.Error(err)
		w.dump(context.Background())
		// One failure is enough: later tests are judged by what they leave themselves.
		if left, err := leftovers(context.Background(), w.node); err == nil {
			clean = left
		}
	}
}

// dump shows what a failed test left; the lab adds the ends of its own logs.
func (w *workspace) dump(ctx context.Context) {
	events, err := w.cluster.Kubectl(ctx, "get", "pods,events", "--namespace="+w.namespace,
		"--output=wide")
	w.t.Logf("pods and events of %s (%v):\n%s", w.namespace, err, lastLines(events, 60))
	text, err := os.ReadFile(w.node.Path(logFile))
	w.t.Logf("%s ends (%v):\n%s", logFile, err, lastLines(string(text), 60))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// deletePods deletes all pods of a namespace and waits until they are gone.
func deletePods(ctx context.Context, cluster *lab.Cluster, namespace string) error {
	pods := cluster.Client().CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, pod := range list.Items {
		err := pods.Delete(ctx, pod.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	for _, pod := range list.Items {
		if err := cluster.WaitPodGone(ctx, namespace, pod.Name); err != nil {
			return err
		}
	}
	return nil
}

// eventually repeats a check until it returns no error.
func (w *workspace) eventually(what string, check func() error) {
	w.t.Helper()
	w.within(patience, what, check)
}

func (w *workspace) within(d time.Duration, what string, check func() error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, d)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s: %v, and it does not change", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *workspace) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// nad makes a NAD of the test's namespace, or of that which the name has; annotations are keys and
// values in turn.
func (w *workspace) nad(name, config string, annotations ...string) {
	w.t.Helper()
	namespace, bare, ok := strings.Cut(name, "/")
	if !ok {
		namespace, bare = w.namespace, name
	}
	object := &nadv1.NetworkAttachmentDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: nadv1.GroupName + "/" + nadv1.Version, Kind: nadv1.Kind},
		ObjectMeta: metav1.ObjectMeta{Name: bare, Namespace: namespace, Annotations: map[string]string{}},
		Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	for pair := range slices.Chunk(annotations, 2) {
		object.Annotations[pair[0]] = pair[1]
	}
	data, err := json.Marshal(object)
	w.must(err)
	path := fmt.Sprintf("/apis/%s/%s/namespaces/%s/%s",
		nadv1.GroupName, nadv1.Version, namespace, nadv1.Resource)
	w.must(w.cluster.Client().CoreV1().RESTClient().Post().AbsPath(path).Body(data).Do(w.ctx).Error())
}

// macvlan is the configuration of a NAD over eth1 with host-local addresses.
func macvlan(subnet string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1",
		"ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]]}}`, subnet)
}

// pod is a pod of the test's namespace that asks for networks; none if that is empty.
func (w *workspace) pod(name, networks string) *corev1.Pod {
	annotations := map[string]string{}
	if networks != "" {
		annotations[nadv1.NetworksAnnotation] = networks
	}
	return lab.Pod(w.namespace, name, annotations)
}

// create makes pods and does not wait.
func (w *workspace) create(pods ...*corev1.Pod) {
	w.t.Helper()
	for _, pod := range pods {
		_, err := w.cluster.Client().CoreV1().Pods(pod.Namespace).
			Create(w.ctx, pod, metav1.CreateOptions{})
		w.must(err)
	}
}

// run makes a pod and waits until it runs.
func (w *workspace) run(pod *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	w.create(pod)
	return w.running(pod.Namespace, pod.Name)
}

func (w *workspace) running(namespace, name string) *corev1.Pod {
	w.t.Helper()
	pod, err := w.cluster.WaitPodRunning(w.ctx, namespace, name)
	w.must(err)
	return pod
}

// delete deletes a pod and waits until it is gone.
func (w *workspace) delete(name string) {
	w.t.Helper()
	w.must(w.cluster.Client().CoreV1().Pods(w.namespace).Delete(w.ctx, name, metav1.DeleteOptions{}))
	w.must(w.cluster.WaitPodGone(w.ctx, w.namespace, name))
}

// clean fails the test unless soon nothing of any pod is on the node.
func (w *workspace) clean() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, tidying)
	defer cancel()
	if err := waitClean(ctx, w.node); err != nil {
		w.t.Error(err)
	}
}

// apply applies a file of conf, as it is but for what this node lacks: its images are not here, nor
// are ipvlan and the interfaces of other nodes. Of a file with several objects keep names those
// that count; none: all.
func (w *workspace) apply(file string, keep ...string) {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(root(), "conf", file))
	w.must(err)
	var objects []string
	for object := range strings.SplitSeq(string(data), "\n---\n") {
		if len(keep) == 0 || slices.ContainsFunc(keep, func(name string) bool {
			return strings.Contains(object, "\n  name: "+name+"\n")
		}) {
			objects = append(objects, object)
		}
	}
	adapted := strings.NewReplacer(
		"image: nginx", "image: "+lab.ToolImage+"\n    imagePullPolicy: Never",
		`"type": "ipvlan"`, `"type": "macvlan"`, `"mode": "l2"`, `"mode": "bridge"`, "ens224", "eth1",
		"namespace: default", "namespace: "+w.namespace, "networks: default/",
		"networks: "+w.namespace+"/",
	).Replace(strings.Join(objects, "\n---\n"))
	path := filepath.Join(w.t.TempDir(), "objects.yaml")
	w.must(os.WriteFile(path, []byte(adapted), 0o600))
	_, err = w.cluster.Kubectl(w.ctx, "apply", "--namespace="+w.namespace, "--filename="+path)
	w.must(err)
}

// ip runs ip in the network namespace of a pod, and returns the lines that it prints.
func (w *workspace) ip(pod, args string) []string {
	w.t.Helper()
	out, err := w.node.PodRun(w.ctx, w.namespace, pod,
		append([]string{"ip"}, strings.Fields(args)...)...)
	w.must(err)
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// link is an interface as `ip -json address` has it.
type link struct {
	Name      string `json:"ifname"`
	MAC       string `json:"address"`
	Kind      string `json:"link_type"`
	MTU       int    `json:"mtu"`
	State     string `json:"operstate"`
	Addresses []struct {
		Local     string `json:"local"`
		PrefixLen int    `json:"prefixlen"`
		Scope     string `json:"scope"`
	} `json:"addr_info"`
}

// global are the addresses that were given on purpose, with their prefix length.
func (l link) global() []string {
	var out []string
	for _, a := range l.Addresses {
		if a.Scope == "global" {
			out = append(out, fmt.Sprintf("%s/%d", a.Local, a.PrefixLen))
		}
	}
	return out
}

func parseLinks(text string) ([]link, error) {
	var links []link
	if err := json.Unmarshal([]byte(text), &links); err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return links, nil
}

// links are a pod's interfaces but lo, by name.
func (w *workspace) links(pod string) map[string]link {
	w.t.Helper()
	out, err := w.node.PodRun(w.ctx, w.namespace, pod, "ip", "-json", "address")
	w.must(err)
	byName, err := linksByName(out)
	w.must(err)
	return byName
}

// linksByName reads what `ip -json address` prints of a pod: its interfaces but lo, by name.
func linksByName(out string) (map[string]link, error) {
	links, err := parseLinks(out)
	byName := map[string]link{}
	for _, l := range links {
		if l.Name != "lo" {
			byName[l.Name] = l
		}
	}
	return byName, err
}

// addressIn is the only address of a link, without prefix length. The test fails where it is not in
// the subnet.
func (w *workspace) addressIn(l link, subnet string) string {
	w.t.Helper()
	addresses := l.global()
	if len(addresses) != 1 {
		w.t.Fatalf("%s has addresses %q, want one of %s", l.Name, addresses, subnet)
	}
	prefix, err := netip.ParsePrefix(addresses[0])
	w.must(err)
	if want := netip.MustParsePrefix(subnet); prefix.Masked() != want {
		w.t.Errorf("%s has address %s, want one of %s", l.Name, prefix, want)
	}
	return prefix.Addr().String()
}

// hasLinks fails the test unless the pod has exactly these interfaces, each with one address of the
// subnet: "net1 10.1.0.0/24". eth0, which every pod has, need not be named.
func (w *workspace) hasLinks(pod string, want ...string) map[string]link {
	w.t.Helper()
	links := w.links(pod)
	for _, item := range append([]string{"eth0 10.244.0.0/16"}, want...) {
		name, subnet, _ := strings.Cut(item, " ")
		l, ok := links[name]
		if !ok {
			w.t.Errorf("pod %s has no %s", pod, name)
			continue
		}
		if l.State != "UP" {
			w.t.Errorf("%s of pod %s is %s, want UP", name, pod, l.State)
		}
		w.addressIn(l, subnet)
	}
	if len(links) != len(want)+1 {
		w.t.Errorf("pod %s has interfaces %v, want eth0 and %q", pod, links, want)
	}
	return links
}

// status is the network-status annotation of a pod.
func (w *workspace) status(pod string) []nadv1.NetworkStatus {
	w.t.Helper()
	var list []nadv1.NetworkStatus
	if err := json.Unmarshal([]byte(w.statusText(pod)), &list); err != nil {
		w.t.Fatalf("network-status of pod %s: %v", pod, err)
	}
	return list
}

func (w *workspace) statusText(pod string) string {
	w.t.Helper()
	object, err := w.cluster.Client().CoreV1().Pods(w.namespace).Get(w.ctx, pod, metav1.GetOptions{})
	w.must(err)
	return object.Annotations[nadv1.StatusAnnotation]
}

// logLines are the lines of Braid's log that have all the words.
func (w *workspace) logLines(words ...string) []string {
	w.t.Helper()
	text, err := os.ReadFile(w.node.Path(logFile))
	w.must(err)
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
			lines = append(lines, line)
		}
	}
	return lines
}

// refused waits for a pod's Warning event of a reason, and returns its message. The pod must not
// run.
func (w *workspace) refused(pod, reason string) string {
	w.t.Helper()
	message := w.warned(pod, reason)
	object, err := w.cluster.Client().CoreV1().Pods(w.namespace).Get(w.ctx, pod, metav1.GetOptions{})
	w.must(err)
	if object.Status.Phase != corev1.PodPending || object.Annotations[nadv1.StatusAnnotation] != "" {
		w.t.Errorf("pod %s is %s, with network-status %q; it must not start",
			pod, object.Status.Phase, object.Annotations[nadv1.StatusAnnotation])
	}
	return message
}

// warned waits for a Warning event of the pod and returns its message.
func (w *workspace) warned(pod, reason string) string {
	w.t.Helper()
	var message string
	w.within(time.Minute, "event "+reason+" of pod "+pod, func() error {
		events, err := w.cluster.Client().CoreV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{
			FieldSelector: "involvedObject.name=" + pod + ",reason=" + reason + ",type=Warning",
		})
		if err != nil {
			return err
		}
		if len(events.Items) == 0 {
			return errors.New("there is none")
		}
		message = events.Items[0].Message
		return nil
	})
	return message
}

// sameLines fails the test unless both have the same lines, in whatever order.
func sameLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	equalLines(t, what, slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want)))
}

// equalLines fails the test unless both have the same lines.
func equalLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
