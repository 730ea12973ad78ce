package main

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/capacity"
)

// hookedAPI is an API server with the webhooks of conf/deploy. A relay stands in for the Service:
// it connects to an instance that listens.
type hookedAPI struct {
	*lab.API

	t          *testing.T
	namespace  string
	kubeconfig string
	// binary is started in place of the test's own; empty for that.
	binary string
	relay  net.Listener
	client *http.Client
	ports  *atomic.Pointer[[]int]
}

// admissionCluster is an API server of its own: the webhooks are for all of it.
var admissionCluster = lab.NewShared(lab.NewAPI)

func newHookedAPI(t *testing.T, namespace string) *hookedAPI {
	t.Helper()
	h := &hookedAPI{
		API: admissionCluster.Get(t), t: t, namespace: namespace, ports: &atomic.Pointer[[]int]{},
	}
	h.ports.Store(new([]int))
	var err error
	if h.relay, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.relay.Close() }) //nolint:errcheck // a test's listener
	go h.relayAll()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(h.CA())
	h.client = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 50},
	}
	for _, path := range []string{
		"crd/network-attachment-definition.yaml", "crd/ipblocks.yaml", "crd/ipam-claim.yaml",
		"rbac/controller.yaml", "rbac/controller-admission.yaml",
	} {
		h.apply(h.conf(path))
	}
	h.webhooks()
	t.Cleanup(func() {
		h.unhooked()
		h.ask(http.MethodDelete, "/api/v1/namespaces/kube-system/secrets/braid-controller-tls", "")
	})
	h.apply("{apiVersion: v1, kind: Namespace, metadata: {name: " + namespace + "}}")
	if h.kubeconfig, err = h.Kubeconfig(
		"system:serviceaccount:kube-system:braid-controller"); err != nil {
		t.Fatal(err)
	}
	return h
}

// webhooks has the API server ask the relay.
func (h *hookedAPI) webhooks() {
	h.t.Helper()
	service := regexp.MustCompile(`service: \{[^}]*\}`)
	url := fmt.Sprintf("url: https://%s/review", h.relay.Addr())
	h.apply(service.ReplaceAllString(h.conf("deploy/webhook.yaml"), url))
}

// unhooked has it ask nobody.
func (h *hookedAPI) unhooked() {
	h.t.Helper()
	for _, kind := range []string{"mutating", "validating"} {
		h.ask(http.MethodDelete, "/apis/admissionregistration.k8s.io/v1/"+kind+
			"webhookconfigurations/braid-controller", "")
	}
}

func (h *hookedAPI) conf(path string) string {
	h.t.Helper()
	data, err := os.ReadFile(filepath.Join("../../conf", path))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

func (h *hookedAPI) apply(manifests string) {
	h.t.Helper()
	if err := h.Apply(h.t.Context(), manifests); err != nil {
		h.t.Fatal(err)
	}
}

// relayAll connects the API server with the first instance that listens.
func (h *hookedAPI) relayAll() {
	for {
		near, err := h.relay.Accept()
		if err != nil {
			return
		}
		go func() {
			defer near.Close() //nolint:errcheck // a test's connection
			for _, port := range *h.ports.Load() {
				far, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
				if err != nil {
					continue
				}
				defer far.Close() //nolint:errcheck // a test's connection
				var both sync.WaitGroup
				pass := func(to, from net.Conn) {
					io.Copy(to, from) //nolint:errcheck // ends with one of the two
					to.Close()        //nolint:errcheck // likewise
				}
				both.Go(func() { pass(far, near) })
				both.Go(func() { pass(near, far) })
				both.Wait()
				return
			}
		}()
	}
}

// start starts an instance and waits until it is ready.
func (h *hookedAPI) start(args ...string) *instance {
	h.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(h.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	listener.Close() //nolint:errcheck // its port is what is wanted
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	i := startBinary(h.t, cmp.Or(h.binary, os.Args[0]), append([]string{
		"--kubeconfig", h.kubeconfig, "--admission", "--admission-address", address, "--admission-host",
		"127.0.0.1", "--certificate-interval", "200ms",
	}, args...)...)
	insecure := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
	} //nolint:gosec // as a kubelet's probe
	eventually(h.t, "it is ready", func() bool {
		answer, err := insecure.Get("https://" + address + "/readyz")
		if err != nil {
			return false
		}
		answer.Body.Close() //nolint:errcheck // there is nothing in it
		return answer.StatusCode == http.StatusOK
	})
	insecure.CloseIdleConnections()
	ports := append(slices.Clone(*h.ports.Load()), port)
	h.ports.Store(&ports)
	// The API server sees a moment later what it is to trust.
	probe := `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", ` +
		`"metadata": {"name": "probe"}, "spec": {"config": "{\"type\": \"macvlan\"}"}}`
	eventually(h.t, "it is asked", func() bool {
		return h.ask(http.MethodPost, "/apis/k8s.cni.cncf.io/v1/namespaces/"+h.namespace+
			"/network-attachment-definitions?dryRun=All", probe).code == http.StatusCreated
	})
	return i
}

// answer is what a client sees.
type answer struct {
	code     int
	text     string
	warnings []string
	body     []byte
}

// ask makes a request as an administrator.
func (h *hookedAPI) ask(method, path, body string) answer {
	h.t.Helper()
	host, port := h.Address()
	request, err := http.NewRequest(method, "https://"+net.JoinHostPort(host, strconv.Itoa(port))+path,
		strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+h.Token(lab.UserAdmin))
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := h.client.Do(request)
	if err != nil {
		h.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	a := answer{code: response.StatusCode, warnings: response.Header.Values("Warning")}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		h.t.Fatal(err)
	}
	var status metav1.Status
	if json.Unmarshal(a.body, &status) == nil && status.Kind == "Status" {
		a.text = status.Message
	}
	return a
}

// says checks an answer: its code, and words of its text.
func (a answer) says(t *testing.T, what string, code int, words ...string) {
	t.Helper()
	if a.code != code {
		t.Errorf("%s: %d %s, want %d", what, a.code, a.text, code)
	}
	for _, word := range words {
		if !strings.Contains(a.text, word) {
			t.Errorf("%s: %q does not say %q", what, a.text, word)
		}
	}
}

// nad makes or changes a NAD.
func (h *hookedAPI) nad(name, config, selector string) answer {
	h.t.Helper()
	nad := map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": nadv1.Kind,
		"metadata": map[string]any{"name": name, "annotations": map[string]any{}},
		"spec":     map[string]any{"config": config},
	}
	if selector != "" {
		nad["metadata"].(map[string]any)["annotations"] = map[string]any{
			nadv1.NodeSelectorAnnotation: selector,
		}
	}
	text, err := json.Marshal(nad)
	if err != nil {
		h.t.Fatal(err)
	}
	path := "/apis/k8s.cni.cncf.io/v1/namespaces/" + h.namespace + "/network-attachment-definitions"
	if a := h.ask(http.MethodPost, path, string(text)); a.code != http.StatusConflict {
		return a
	}
	return h.ask(http.MethodPatch, path+"/"+name, string(text))
}

// pod makes a pod; keys are more of its spec.
func (h *hookedAPI) pod(name, networks, keys string) (answer, *corev1.Pod) {
	h.t.Helper()
	annotations, err := json.Marshal(map[string]string{nadv1.NetworksAnnotation: networks})
	if err != nil {
		h.t.Fatal(err)
	}
	if networks == "" {
		annotations = []byte("{}")
	}
	body := fmt.Sprintf(`{"metadata": {"name": %q, "annotations": %s}, `+
		`"spec": {"containers": [{"name": "c", "image": "none"}]%s}}`, name, annotations, keys)
	a := h.ask(http.MethodPost, "/api/v1/namespaces/"+h.namespace+"/pods", body)
	pod := &corev1.Pod{}
	if a.code == http.StatusCreated {
		if err := json.Unmarshal(a.body, pod); err != nil {
			h.t.Fatal(err)
		}
	}
	return a, pod
}

const plainNAD = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}`

// A client of a real API server sees what is denied and why, warnings, and pods that are sent to
// their nodes; what each remedy says is admitted.
func TestU10AdmissionOfAnAPIServer(t *testing.T) {
	h := newHookedAPI(t, "u10")
	h.start()
	h.nad("data", plainNAD, "pool=data").says(t, "a NAD", 201)
	h.nad("other", plainNAD, "pool=other").says(t, "another", 201)
	_, pod := h.pod("sent", "data", "")
	if pod.Spec.NodeSelector["pool"] != "data" {
		t.Errorf("nodeSelector %v", pod.Spec.NodeSelector)
	}
	a, _ := h.pod("both", "data,other", "")
	a.says(t, "both", 403, "pods.admission.braid-cni.io", "u10/both", "NAD u10/data (pool=data)",
		"NAD u10/other (pool=other)", "change the nodeSelector")
	h.nad("other", plainNAD, "zone").says(t, "the remedy", 200)
	eventually(t, "the remedy is known", func() bool {
		a, _ := h.pod("both", "data,other", "")
		return a.code == 201
	})
	a, _ = h.pod("missing", "none", "")
	a.says(t, "missing", 403, "none", "create it")
	h.nad("none", plainNAD, "").says(t, "the remedy", 201)
	a, _ = h.pod("missing", "none", "") // at once, whatever the informer has seen
	a.says(t, "missing, after the remedy", 201)
	a, _ = h.pod("annotation", `[{"nam": "data"}]`, "")
	a.says(t, "annotation", 403, "networks")
	a, _ = h.pod("annotation", `[{"name": "data"}]`, "")
	a.says(t, "annotation, after the remedy", 201)

	h.apply("{apiVersion: v1, kind: Node, metadata: {name: u10-node, labels: {pool: x}}}")
	a, _ = h.pod("bound", "data", `, "nodeName": "u10-node"`)
	a.says(t, "bound", 403, "u10/data", "node u10-node",
		"kubectl label nodes u10-node --overwrite pool=data")
	h.ask(http.MethodPatch, "/api/v1/nodes/u10-node", `{"metadata": {"labels": {"pool": "data"}}}`).
		says(t, "the remedy", 200)
	a, _ = h.pod("bound", "data", `, "nodeName": "u10-node"`)
	a.says(t, "bound, after the remedy", 201)

	h.nad("broken", `{"type": "macvlan" # why
}`, "").says(t, "broken", 403, "nads.admission.braid-cni.io", "u10/broken", "comment", "remove")
	a = h.nad("data", plainNAD+" ", "pool=data")
	if a.code != 200 || !strings.Contains(strings.Join(a.warnings, "\n"), "use this NAD") {
		t.Errorf("a NAD in use: %d %s, warnings %q", a.code, a.text, a.warnings)
	}
	a = h.ask(http.MethodPost, "/apis/apps/v1/namespaces/u10/deployments", `{"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
		"template": {"metadata": {"labels": {"a": "b"}, "annotations": {"k8s.v1.cni.cncf.io/networks": "nowhere"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}}}}`)
	if a.code != 201 || !strings.Contains(strings.Join(a.warnings, "\n"), "nowhere") {
		t.Errorf("a Deployment: %d %s, warnings %q", a.code, a.text, a.warnings)
	}
	if a := h.ask(http.MethodDelete,
		"/apis/k8s.cni.cncf.io/v1/namespaces/u10/network-attachment-definitions/data",
		""); a.code != 200 ||
		!strings.Contains(strings.Join(a.warnings, "\n"), "use this NAD") {
		t.Errorf("a NAD that is deleted: %d, warnings %q", a.code, a.warnings)
	}
}

// TestU10CapacityOfAnAPIServer: a real API server takes what admission requests for a network's
// capacity, and shows who writes the NAD what is wrong with its annotation.
func TestU10CapacityOfAnAPIServer(t *testing.T) {
	h := newHookedAPI(t, "room")
	h.start()
	const nads = "/apis/k8s.cni.cncf.io/v1/namespaces/room/network-attachment-definitions"
	nad := func(schedule string) string {
		return fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": %q, "metadata": {"name": "data",
			"annotations": {%q: %q}}, "spec": {"config": %q}}`, nadv1.Kind, capacity.ScheduleAnnotation, schedule, plainNAD)
	}
	h.ask(http.MethodPost, nads, nad("yes")).
		says(t, "yes", 403, capacity.ScheduleAnnotation, `make it "true"`)
	h.ask(http.MethodPost, nads, nad("true")).says(t, "the remedy", 201)
	a, pod := h.pod("two", "data,data", "")
	a.says(t, "a pod", 201)
	const room = "braid-cni.io/room.data"
	for what, list := range map[string]corev1.ResourceList{
		"requests": pod.Spec.Containers[0].Resources.Requests,
		"limits":   pod.Spec.Containers[0].Resources.Limits,
	} {
		if q := list[room]; q.Value() != 2 {
			t.Errorf("%s %v, want 2 of %s", what, list, room)
		}
	}
	a = h.ask(http.MethodPatch, nads+"/data", nad("false"))
	if a.code != 200 || !strings.Contains(strings.Join(a.warnings, "\n"), room) {
		t.Errorf("taken away: %d %s, warnings %q", a.code, a.text, a.warnings)
	}
	eventually(t, "pods request nothing", func() bool {
		a, pod := h.pod("none", "data", "")
		if a.code == 201 && len(pod.Spec.Containers[0].Resources.Requests) > 0 {
			h.ask(http.MethodDelete, "/api/v1/namespaces/room/pods/none?gracePeriodSeconds=0", "")
			return false
		}
		return a.code == 201
	})
}

// Without the controller all goes on but pods with networks and NADs: the rest costs no call of it.
// Once the webhooks are gone, nothing is held up.
func TestControllerDown(t *testing.T) {
	h := newHookedAPI(t, "down")
	for name, networks := range map[string]string{"plain": "", "host": "data"} {
		keys := ""
		if networks != "" {
			keys = `, "hostNetwork": true`
		}
		a, _ := h.pod(name, networks, keys)
		a.says(t, name, 201)
	}
	a, _ := h.pod("held", "data", "")
	a.says(t, "a pod with networks", 500, "failed calling webhook", "pods.admission.braid-cni.io")
	h.nad("held", plainNAD, "").says(t, "a NAD", 500, "failed calling webhook")
	a = h.ask(http.MethodPost, "/apis/batch/v1/namespaces/down/jobs", `{"metadata": {"name": "j"}, "spec": {"template": {
		"metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "data"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}}}}`)
	a.says(t, "a Job", 201)
	h.ask(http.MethodDelete,
		"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/braid-controller", "").
		says(t, "the remedy", 200)
	eventually(t, "nothing is held up", func() bool {
		a, _ := h.pod("held", "data", "")
		return a.code == 201
	})
}

// A certificate that is expired, foreign or none is replaced, and what the API server trusts is put
// right, while requests come.
func TestCertificateOfAnAPIServer(t *testing.T) {
	h := newHookedAPI(t, "cert")
	h.start()
	h.nad("data", plainNAD, "").says(t, "a NAD", 201)
	made := 0
	admitted := func(what string) {
		t.Helper()
		eventually(t, what, func() bool {
			made++
			a, _ := h.pod(fmt.Sprint("p", made), "data", "")
			return a.code == 201
		})
	}
	admitted("at first")
	const secret = "/api/v1/namespaces/kube-system/secrets/braid-controller-tls"
	first := h.ask(http.MethodGet, secret, "").body
	garbage := base64.StdEncoding.EncodeToString([]byte("garbage"))
	h.ask(http.MethodPatch, secret, `{"data": {"tls.crt": "`+garbage+`"}}`).says(t, "garbage", 200)
	eventually(t, "it is replaced", func() bool {
		now := h.ask(http.MethodGet, secret, "").body
		return !bytes.Contains(now, []byte(garbage)) && !bytes.Equal(now, first)
	})
	admitted("with another certificate")
	config := "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/braid-controller"
	var webhooks struct{ Webhooks []map[string]any }
	if err := json.Unmarshal(h.ask(http.MethodGet, config, "").body, &webhooks); err != nil {
		t.Fatal(err)
	}
	client := webhooks.Webhooks[0]["clientConfig"].(map[string]any)
	client["caBundle"] = base64.StdEncoding.EncodeToString(h.CA()) // a foreign one
	text, err := json.Marshal(map[string]any{"webhooks": webhooks.Webhooks})
	if err != nil {
		t.Fatal(err)
	}
	h.ask(http.MethodPatch, config, string(text)).says(t, "a foreign authority", 200)
	admitted("with a foreign authority")
}

// U14: the GKE profile's policy, at admission as on the node: its nine plugins and no other, at
// every depth, for everybody.
func TestU14ProfileAtAdmission(t *testing.T) {
	h := newHookedAPI(t, "u14")
	var list struct{ Plugins []map[string]json.RawMessage }
	if err := json.Unmarshal([]byte(h.conf("gke/00-braid.conflist")), &list); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.json")
	text, err := json.Marshal(map[string]json.RawMessage{"braid": list.Plugins[0]["braid"]})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start("--config", file)
	for _, path := range []string{
		"gke-network-1", "gke-network-1-static", "node-pool", "plugins", "routes",
	} {
		for document := range strings.SplitSeq(h.conf("gke/"+path+".yaml"), "\n---\n") {
			var nad nadv1.NetworkAttachmentDefinition
			if err := yaml.Unmarshal([]byte(document), &nad); err != nil {
				t.Fatal(err)
			}
			if nad.Kind != nadv1.Kind {
				continue
			}
			name := "x-" + path + "-" + nad.Name
			a := h.nad(name, nad.Spec.Config, nad.Annotations[nadv1.NodeSelectorAnnotation])
			if a.code != 201 {
				t.Errorf("%s of %s: %d %s", nad.Name, path, a.code, a.text)
			}
			a, _ = h.pod(name, name, "")
			a.says(t, name, 201)
		}
	}
	for name, config := range map[string]string{
		"interface": `{"cniVersion": "1.0.0", "type": "ptp", "ipam": {"type": "host-local", ` +
			`"subnet": "10.0.0.0/24"}}`,
		"meta": `{"cniVersion": "1.0.0", "plugins": [{"type": "macvlan", "master": "eth1"}, ` +
			`{"type": "bandwidth"}]}`,
		"ipam": `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", "ipam": {"type": "dhcp"}}`,
	} {
		h.nad(name, config, "").says(t, name, 403, "u14/"+name, "policy[0]")
	}
}

// 2,000 pods at a hundred a second while one of two instances is killed: none without its selector,
// none denied. By default there are fewer; BRAID_ADMISSION_PODS says how many.
func TestU10OneInstanceIsKilled(t *testing.T) {
	h := newHookedAPI(t, "burst")
	first, _ := h.start(), h.start()
	h.nad("data", plainNAD, "pool=data").says(t, "a NAD", 201)
	pods, err := strconv.Atoi(cmp.Or(os.Getenv("BRAID_ADMISSION_PODS"), "100"))
	if err != nil {
		t.Fatal(err)
	}
	var wrong, again atomic.Int64
	var work sync.WaitGroup
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for i := range pods {
		<-ticker.C
		if i == pods/2 {
			if err := first.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		work.Go(func() {
			for {
				a, pod := h.pod(fmt.Sprint("p", i), "data", "")
				switch {
				case a.code == http.StatusInternalServerError: // as a controller of Kubernetes, it tries again
					again.Add(1)
					time.Sleep(100 * time.Millisecond)
					continue
				case a.code != http.StatusCreated || pod.Spec.NodeSelector["pool"] != "data":
					wrong.Add(1)
					t.Errorf("pod %d: %d %s, nodeSelector %v", i, a.code, a.text, pod.Spec.NodeSelector)
				}
				return
			}
		})
	}
	work.Wait()
	t.Logf("%d pods, %d requests were repeated", pods, again.Load())
}
