package kube

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/sourcetest"
)

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// account is who Braid is on a node: the roles of conf/rbac/node*.yaml, and no other, are what the
// source may do in these tests.
const account = "system:serviceaccount:kube-system:braid"

// apiServer is the backend of an API: a kube-apiserver, used as administrator.
type apiServer struct {
	*lab.API
	client kubernetes.Interface
}

func startAPI(t *testing.T) (*apiServer, *API) {
	t.Helper()
	server := cluster.Get(t)
	for _, path := range []string{
		"crd/network-attachment-definition.yaml", "crd/ipblocks.yaml", "crd/ipam-claim.yaml",
		"rbac/node.yaml", "rbac/node-pods.yaml", "rbac/node-devices.yaml",
	} {
		manifests, err := os.ReadFile(filepath.Join("../../conf", path))
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Apply(t.Context(), string(manifests)); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	config, err := server.Kubeconfig(account)
	if err != nil {
		t.Fatal(err)
	}
	return &apiServer{
		server, server.Client(),
	}, newAPI(t, APIOptions{Kubeconfig: config, Version: "test", NodeName: "node-1"})
}

func (s *apiServer) namespace(t *testing.T, name string) {
	t.Helper()
	s.createNamespace(t, name, nil)
}

func (s *apiServer) createNamespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err := s.client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

func (s *apiServer) CreatePod(t *testing.T, namespace, name string, annotations map[string]string) {
	t.Helper()
	s.namespace(t, namespace)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	_, err := s.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *apiServer) DeletePod(t *testing.T, namespace, name string) {
	t.Helper()
	err := s.client.CoreV1().Pods(namespace).
		Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *apiServer) ReplacePod(t *testing.T, namespace, name string) {
	t.Helper()
	s.DeletePod(t, namespace, name)
	s.CreatePod(t, namespace, name, nil)
}

func (s *apiServer) CreateNAD(t *testing.T, namespace, name, config string) {
	t.Helper()
	s.namespace(t, namespace)
	nad, err := json.Marshal(nadv1.NetworkAttachmentDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: nadv1.GroupName + "/" + nadv1.Version, Kind: nadv1.Kind},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := "/apis/" + nadv1.GroupName + "/" + nadv1.Version + "/namespaces/" + namespace + "/" +
		nadv1.Resource
	err = s.client.CoreV1().RESTClient().Post().AbsPath(path).Body(nad).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *apiServer) Events(t *testing.T, namespace, name string) []sourcetest.Event {
	t.Helper()
	list, err := s.client.CoreV1().Events(namespace).
		List(t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + name,
		})
	if err != nil {
		t.Fatal(err)
	}
	var events []sourcetest.Event
	for _, e := range list.Items {
		if e.Source.Host != "node-1" {
			t.Errorf("event's host is %q", e.Source.Host)
		}
		events = append(events, sourcetest.Event{
			Type: e.Type, Reason: e.Reason, Message: e.Message, Component: e.Source.Component,
			UID: string(e.InvolvedObject.UID),
		})
	}
	return events
}

func TestAPIContract(t *testing.T) {
	server, src := startAPI(t)
	sourcetest.Run(t, src, server)
	t.Run("Namespaces", func(t *testing.T) {
		sourcetest.RunNamespaces(t, src, server.createNamespace)
	})
}

// What an ADD asks of the API server: one request a call, and little of it.
func TestAPIServerRequests(t *testing.T) {
	server, src := startAPI(t)
	server.CreatePod(t, "requests", "p", nil)
	server.CreateNAD(t, "requests", "a", "{}")
	got, err := server.RequestsDuring(t.Context(), account, func() error {
		pod, err := src.Pod(t.Context(), "requests", "p")
		if err != nil {
			return err
		}
		_, nadErr := src.NAD(t.Context(), "requests", "a")
		return errors.Join(nadErr, src.PublishStatus(t.Context(), pod.Meta(), "[]"),
			src.Event(t.Context(), pod.Meta(), "Normal", "R", "m"))
	})
	if err != nil {
		t.Fatal(err)
	}
	var verbs []string
	for _, r := range got {
		verbs = append(verbs, strings.TrimRight(r.Verb+" "+r.Resource+"/"+r.Subresource, "/"))
		if r.UserAgent != "braid/test" || r.Code >= 300 {
			t.Errorf("request %+v", r)
		}
	}
	want := "get pods, get network-attachment-definitions, patch pods/status, create events"
	if strings.Join(verbs, ", ") != want {
		t.Errorf("requests are %v, want %s", verbs, want)
	}
}

// kubectl describe finds the events of a pod by this very search.
func TestAPIServerDescribe(t *testing.T) {
	server, src := startAPI(t)
	server.CreatePod(t, "describe", "p", nil)
	pod, err := src.Pod(t.Context(), "describe", "p")
	if err == nil {
		err = src.Event(t.Context(), pod.Meta(), "Warning", "NADNotFound", `there is no "a"`)
	}
	if err != nil {
		t.Fatal(err)
	}
	object, err := server.client.CoreV1().Pods("describe").Get(t.Context(), "p", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found, err := server.client.CoreV1().Events("describe").
		SearchWithContext(t.Context(), scheme.Scheme, object)
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Items) != 1 || found.Items[0].Reason != "NADNotFound" ||
		found.Items[0].Message != `there is no "a"` || found.Items[0].Source.Component != "braid" {
		t.Errorf("the events found are %+v", found.Items)
	}
}

func TestAPIServerForbidden(t *testing.T) {
	server, _ := startAPI(t)
	server.CreatePod(t, "forbidden", "p", nil)
	config, err := server.Kubeconfig("nobody", "nothing") // with a client certificate
	if err != nil {
		t.Fatal(err)
	}
	src := newAPI(t, APIOptions{Kubeconfig: config})
	_, err = src.Pod(t.Context(), "forbidden", "p")
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got error %v, want forbidden", err)
	}
}

// A call that begins while the server is away succeeds when it comes back, with the roles that are
// not in force at once after a start.
func TestAPIServerRestarts(t *testing.T) {
	server, _ := startAPI(t)
	server.CreatePod(t, "restart", "p", nil)
	config, err := server.Kubeconfig(account)
	if err != nil {
		t.Fatal(err)
	}
	src := newAPI(t, APIOptions{Kubeconfig: config})
	if _, err := src.Pod(t.Context(), "restart", "p"); err != nil {
		t.Fatal(err)
	}
	server.StopAPIServer()
	impatient := newAPI(t, APIOptions{Kubeconfig: config, Timeout: 200 * time.Millisecond})
	_, err = impatient.Pod(t.Context(), "restart", "p")
	if failure.ReasonOf(err) != failure.APIUnavailable {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
	patient := newAPI(t, APIOptions{Kubeconfig: config, Timeout: time.Minute})
	done := make(chan error, 1)
	go func() {
		_, err := patient.Pod(t.Context(), "restart", "p")
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.StartAPIServer(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := src.Pod(t.Context(), "restart", "p"); err != nil {
		t.Error(err)
	}
}
