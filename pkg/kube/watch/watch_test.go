package watch

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/kube"
)

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// nad makes a NAD.
func nad(t *testing.T, server *lab.API, name string) {
	t.Helper()
	must(t, server.Apply(t.Context(), fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": %q, "namespace": "default"}, "spec": {"config": "{\"type\": \"macvlan\"}"}}`, name)))
}

// memory is a Cluster twice: all asks the API server, and mine asks one that is away, so it returns
// only what is in memory.
type memory struct {
	t         *testing.T
	server    *lab.API
	all, mine *Cluster
}

func newMemory(t *testing.T) *memory {
	t.Helper()
	server := cluster.Get(t)
	kinds, err := os.ReadFile("../../../conf/crd/network-attachment-definition.yaml")
	must(t, err)
	must(t, server.Apply(t.Context(), string(kinds)))
	admin, err := server.Kubeconfig(lab.UserAdmin)
	must(t, err)
	api, err := kube.NewAPI(kube.APIOptions{Kubeconfig: admin})
	must(t, err)
	t.Cleanup(api.Close)
	all, err := New(api, nil)
	must(t, err)
	away, err := kube.NewAPI(kube.APIOptions{
		ServiceAccount: t.TempDir(), Server: "https://127.0.0.1:1", Timeout: 50 * time.Millisecond,
	})
	must(t, err)
	return &memory{t, server, all, all.With(away)}
}

// asks wants something to be asked of the API server, which is away.
func (m *memory) asks(what string, err error) {
	m.t.Helper()
	if err == nil || apierrors.IsNotFound(err) {
		m.t.Errorf("%s: %v, and the API server was not asked", what, err)
	}
}

func (m *memory) nad(name string) error {
	found, err := m.mine.NAD(m.t.Context(), "default", name)
	if err == nil && (found.Name != name || found.Spec.Config != `{"type": "macvlan"}`) {
		m.t.Errorf("NAD %s is %+v", name, found)
	}
	return err
}

// TestCluster: what is known costs no request. What is not known yet is asked for, and is never
// "not found".
func TestCluster(t *testing.T) {
	m := newMemory(t)
	nad(t, m.server, "early")
	m.asks("a NAD before the start", m.nad("early"))
	_, err := m.mine.Namespace(t.Context(), "default")
	m.asks("a namespace before the start", err)
	_, err = m.mine.NADs(t.Context())
	m.asks("all NADs before the start", err)

	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { m.all.Run(ctx, slog.New(slog.DiscardHandler)); close(ended) }()
	await(t, "synced", m.all.Fresh)
	must(t, m.nad("early"))
	m.asks("a NAD that is not there", m.nad("late"))
	_, err = m.all.NAD(t.Context(), "default", "late")
	if !apierrors.IsNotFound(err) {
		t.Errorf("the API server says of it %v", err)
	}
	nad(t, m.server, "late")
	_, err = m.all.NAD(t.Context(), "default", "late") // of a moment ago
	must(t, err)
	await(t, "the new NAD is known", func() bool { return m.nad("late") == nil })
	_, err = m.server.Client().CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: "team", Labels: map[string]string{"a": "b"}},
		}, metav1.CreateOptions{})
	must(t, err)
	await(t, "the namespace is known", func() bool {
		team, err := m.mine.Namespace(t.Context(), "team")
		return err == nil && team.Labels["a"] == "b"
	})
	end()
	<-ended
}

// TestSilence: what the API server has said nothing of for MaxAge is asked for anew.
func TestSilence(t *testing.T) {
	m := newMemory(t)
	nad(t, m.server, "early")
	go m.all.Run(t.Context(), slog.New(slog.DiscardHandler))
	await(t, "synced", m.all.Fresh)
	must(t, m.nad("early"))
	m.all.nads.heard.Store(new(time.Now().Add(-MaxAge)))
	m.asks("a NAD after a silence", m.nad("early"))
	nad(t, m.server, "sign-of-life")
	await(t, "fresh again", func() bool { return m.nad("early") == nil })
}

// TestHear: events are signs of life, errors are none, and a watch that is stopped ends although
// nobody reads it.
func TestHear(t *testing.T) {
	m := &seen{}
	source := apiwatch.NewFake()
	h := &hearing{Interface: source, out: make(chan apiwatch.Event), stopped: make(chan struct{})}
	ended := make(chan struct{})
	go func() { h.pass(m); close(ended) }()
	long := time.Now().Add(-time.Hour)
	m.heard.Store(&long)
	go source.Action(apiwatch.Bookmark, &metav1.PartialObjectMetadata{})
	if event := <-h.ResultChan(); event.Type != apiwatch.Bookmark {
		t.Errorf("the first event is %v", event)
	}
	if time.Since(*m.heard.Load()) > time.Minute {
		t.Error("a bookmark is no sign of life")
	}
	m.heard.Store(&long)
	source.Action(apiwatch.Error, &metav1.Status{})
	h.Stop()
	<-ended
	if !m.heard.Load().Equal(long) {
		t.Error("an error is a sign of life")
	}
}
