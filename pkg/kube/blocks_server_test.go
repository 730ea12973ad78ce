package kube

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/rest"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/kube/internal/sourcetest"
)

func (s *apiServer) CreateNode(t *testing.T, name string) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := s.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func claimsPath(namespace string) string {
	return "/apis/" + claimv1.GroupName + "/" + claimv1.Version + "/namespaces/" + namespace + "/" +
		claimv1.Resource
}

func (s *apiServer) CreateClaim(t *testing.T, namespace, name string) {
	t.Helper()
	s.namespace(t, namespace)
	claim, err := json.Marshal(map[string]any{
		"apiVersion": claimv1.GroupName + "/" + claimv1.Version, "kind": claimv1.Kind,
		"metadata": map[string]any{"name": name},
		"spec": claimv1.IPAMClaimSpec{
			Network: "net", Interface: "net1", IPRequests: []string{"10.0.0.7/28"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.client.CoreV1().RESTClient().Post().AbsPath(claimsPath(namespace)).Body(claim).
		Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *apiServer) ReplaceClaim(t *testing.T, namespace, name string) {
	t.Helper()
	s.DeleteClaim(t, namespace, name)
	s.CreateClaim(t, namespace, name)
}

func (s *apiServer) DeleteClaim(t *testing.T, namespace, name string) {
	t.Helper()
	err := s.client.CoreV1().RESTClient().Delete().AbsPath(claimsPath(namespace), name).
		Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAPIObjects(t *testing.T) {
	server, src := startAPI(t)
	sourcetest.RunBlocks(t, src)
	sourcetest.RunNodes(t, src, server.CreateNode)
	sourcetest.RunClaims(t, src, server)
}

// Not one of the nodes that there are.
func TestAPIServerNodeNotFound(t *testing.T) {
	_, src := startAPI(t)
	if node, err := src.Node(t.Context(), "nowhere"); !apierrors.IsNotFound(err) {
		t.Errorf("got %+v, %v, want not found", node, err)
	}
}

// lossy is a source whose API server answers each request, and whose answers get lost the first
// time.
func lossy(t *testing.T, server *apiServer) *API {
	t.Helper()
	kubeconfig, err := server.Kubeconfig(account)
	if err != nil {
		t.Fatal(err)
	}
	config, err := (&APIOptions{Kubeconfig: kubeconfig}).load()
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	to, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int32
	proxy := httptest.NewTLSServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: transport,
		ModifyResponse: func(*http.Response) error {
			if requests.Add(1)%2 == 1 {
				return errors.New("lost")
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	})
	t.Cleanup(proxy.Close)
	path := filepath.Join(t.TempDir(), "config")
	writeFile(t, path, testKubeconfig("insecure-skip-tls-verify: true, server: "+proxy.URL,
		"token: t"))
	return newAPI(t, APIOptions{Kubeconfig: path, Version: "test"})
}

// What was done although its answer was lost is done once, and the caller can tell.
func TestAPIServerLostAnswers(t *testing.T) {
	server, src := startAPI(t)
	bad := lossy(t, server)
	const name = "lost-10-0-0-0-28"
	given := aBlock(name)
	created, err := bad.CreateBlock(t.Context(), given)
	if err != nil || created.UID == "" || *created.Spec.Owner != *given.Spec.Owner {
		t.Fatalf("created %+v, %v", created, err)
	}
	other := aBlock(name)
	other.Spec.Owner.BootID += "2"
	if _, err := bad.CreateBlock(t.Context(), other); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create by another claim: got error %v, want already exists", err)
	}
	shared := aBlock(name)
	shared.Spec.Owner = nil
	if _, err := bad.CreateBlock(t.Context(), shared); !apierrors.IsAlreadyExists(err) {
		t.Errorf("create shared: got error %v, want already exists", err)
	}
	changed := created.DeepCopy()
	changed.Spec.Owner.NodeName = "other"
	if _, err := bad.UpdateBlock(t.Context(), changed); !apierrors.IsConflict(err) {
		t.Errorf("update: got error %v, want conflict", err)
	}
	updated, err := src.Block(t.Context(), name)
	if err != nil || updated.Spec.Owner.NodeName != "other" ||
		updated.Generation != created.Generation+1 {
		t.Fatalf("the block is %+v, %v", updated, err)
	}
	updated.Status = v1alpha1.IPBlockStatus{Used: 1, Free: 2}
	if err := bad.UpdateBlockStatus(t.Context(), updated); err != nil {
		t.Errorf("status: %v", err)
	}
	if updated, err = src.Block(t.Context(), name); err != nil || updated.Status.Used != 1 {
		t.Fatalf("the block is %+v, %v", updated, err)
	}
	list, err := bad.Blocks(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	if err != nil || len(list) != 1 {
		t.Errorf("list: %d blocks, %v", len(list), err)
	}
	if err := bad.DeleteBlock(t.Context(), updated); !apierrors.IsNotFound(err) {
		t.Errorf("delete: got error %v, want not found", err)
	}
	server.CreateClaim(t, "lost", "c")
	claim, err := bad.IPAMClaim(t.Context(), "lost", "c")
	if err == nil {
		err = bad.SetIPAMClaimIPs(t.Context(), claim, []string{"10.0.0.7/28"})
	}
	if err != nil {
		t.Error(err)
	}
	if claim, err = src.IPAMClaim(t.Context(), "lost", "c"); err != nil || len(claim.Status.IPs) != 1 {
		t.Errorf("the claim is %+v, %v", claim, err)
	}
}

// The blocks of 500,000 addresses, of 16 each, fit into 25 MB: one with its status is stored in 800
// bytes.
func TestAPIServerBlockSize(t *testing.T) {
	const most = 800
	server, src := startAPI(t)
	b := aBlock("default-10-200-255-240-28")
	b.Spec = v1alpha1.IPBlockSpec{
		Space: "default", CIDR: "10.200.255.240/28",
		Owner: &v1alpha1.Node{
			NodeName: "node-0000001", NodeUID: uuid.NewUUID(), BootID: string(uuid.NewUUID()),
		},
	}
	created, err := src.CreateBlock(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("created: %s", server.stored(t, b.Name))
	created.Status = v1alpha1.IPBlockStatus{Used: 10, Free: 6}
	if err := src.UpdateBlockStatus(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if stored := server.stored(t, b.Name); len(stored) > most {
		t.Errorf("it is stored in %d bytes, of at most %d:\n%s", len(stored), most, stored)
	} else {
		t.Logf("%d bytes: %s", len(stored), stored)
	}
}

// stored is a block as etcd has it: what the API server answers, but for the resourceVersion.
func (s *apiServer) stored(t *testing.T, name string) []byte {
	t.Helper()
	path := "/apis/" + v1alpha1.GroupName + "/" + v1alpha1.Version + "/" + v1alpha1.Resource
	body, err := s.client.CoreV1().RESTClient().Get().AbsPath(path, name).Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		t.Fatal(err)
	}
	delete(object["metadata"].(map[string]any), "resourceVersion")
	if body, err = json.Marshal(object); err != nil {
		t.Fatal(err)
	}
	return body
}

// One request a call, two to publish the addresses of a claim.
func TestAPIServerBlockRequests(t *testing.T) {
	server, src := startAPI(t)
	server.CreateClaim(t, "block-requests", "c")
	got, err := server.RequestsDuring(t.Context(), account, func() error {
		created, err := src.CreateBlock(t.Context(), aBlock("requests-10-0-0-0-28"))
		if err != nil {
			return err
		}
		_, list := src.Blocks(t.Context(), metav1.ListOptions{FieldSelector: "spec.space=s"})
		updated, err := src.UpdateBlock(t.Context(), created)
		if err != nil {
			return err
		}
		_, count := src.NodeCount(t.Context())
		claim, err := src.IPAMClaim(t.Context(), "block-requests", "c")
		if err != nil {
			return err
		}
		published := src.SetIPAMClaimIPs(t.Context(), claim, []string{"10.0.0.7/28"})
		return errors.Join(list, count, published, src.DeleteBlock(t.Context(), updated))
	})
	if err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for _, r := range got {
		verbs = append(verbs, strings.TrimRight(r.Verb+" "+r.Resource+"/"+r.Subresource, "/"))
	}
	want := "create ipblocks, list ipblocks, update ipblocks, list nodes, get ipamclaims, get " +
		"ipamclaims, patch ipamclaims/status, delete ipblocks"
	if strings.Join(verbs, ", ") != want {
		t.Errorf("requests are %s, want %s", strings.Join(verbs, ", "), want)
	}
}
