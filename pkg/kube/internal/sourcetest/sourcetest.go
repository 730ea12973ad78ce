// Package sourcetest is what every source of pkg/kube has to do, as tests. A source that passes can
// take the place of any other.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// Source is the interface under test, as pkg/engine consumes it.
type Source interface {
	Pod(ctx context.Context, namespace, name string) (*podv1.Pod, error)
	NAD(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error)
	PublishStatus(ctx context.Context, pod *metav1.ObjectMeta, annotation string) error
	Event(ctx context.Context, pod *metav1.ObjectMeta, eventType, reason, message string) error
}

// Event is what the test looks at of an event.
type Event struct {
	Type, Reason, Message, Component, UID string
}

// Backend is what lies behind a source: the test sets it up and looks at it without the source.
type Backend interface {
	// CreatePod and CreateNAD create objects in a namespace, which is made with them.
	CreatePod(t *testing.T, namespace, name string, annotations map[string]string)
	CreateNAD(t *testing.T, namespace, name, config string)
	// ReplacePod deletes a pod and creates another of that name, without annotations.
	ReplacePod(t *testing.T, namespace, name string)
	DeletePod(t *testing.T, namespace, name string)
	// Events returns those of a pod, in any order.
	Events(t *testing.T, namespace, name string) []Event
}

// Run tests a source. Each test has a namespace of its own.
func Run(t *testing.T, src Source, back Backend) {
	for name, test := range map[string]func(*testing.T, Source, Backend, string){
		"Pod":                 testPod,
		"NAD":                 testNAD,
		"NotFound":            testNotFound,
		"BadNames":            testBadNames,
		"ConcurrentNADs":      testConcurrentNADs,
		"PublishThenRead":     testPublish,
		"PublishKeepsOthers":  testPublishKeepsOthers,
		"PublishAgain":        testPublishAgain,
		"PublishOver":         testPublishOver,
		"PublishBeside":       testPublishBeside,
		"ConflictOnReplaced":  testReplaced,
		"PublishDeleted":      testDeleted,
		"PublishWithoutUID":   testWithoutUID,
		"ConcurrentPublishes": testConcurrentPublishes,
		"Event":               testEvent,
		"EventRepeated":       testEventRepeated,
		"EventLong":           testEventLong,
		"Cancelled":           testCancelled,
	} {
		t.Run(name, func(t *testing.T) { test(t, src, back, "contract-"+strings.ToLower(name)) })
	}
}

func mustPod(t *testing.T, src Source, namespace, name string) *metav1.ObjectMeta {
	t.Helper()
	pod, err := src.Pod(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return pod.Meta()
}

// A pod comes with its annotations as they were written, and a uid that stays.
func testPod(t *testing.T, src Source, back Backend, ns string) {
	networks := `[{"name": "a", "interface": "n€t0"}]`
	back.CreatePod(t, ns, "p", map[string]string{nadv1.NetworksAnnotation: networks, "other": ""})
	back.CreatePod(t, ns, "q.with.dots", nil)
	pod := mustPod(t, src, ns, "p")
	if pod.Name != "p" || pod.Namespace != ns || pod.UID == "" {
		t.Errorf("pod is %q of namespace %q, uid %q", pod.Name, pod.Namespace, pod.UID)
	}
	if got := pod.Annotations[nadv1.NetworksAnnotation]; got != networks {
		t.Errorf("annotation is %q, want %q", got, networks)
	}
	if again := mustPod(t, src, ns, "p"); again.UID != pod.UID {
		t.Errorf("uid is %q at first and then %q", pod.UID, again.UID)
	}
	if other := mustPod(t, src, ns, "q.with.dots"); other.UID == pod.UID {
		t.Errorf("two pods have uid %q", other.UID)
	}
}

// A NAD's configuration comes byte for byte: numbers stay as long as they are.
func testNAD(t *testing.T, src Source, back Backend, ns string) {
	config := `{"cniVersion": "1.0.0", "name": "x", "plugins": [` +
		`{"type": "macvlan", "big": 12345678901234567890, "s": "é\n"}]}`
	back.CreateNAD(t, ns, "a", config)
	back.CreateNAD(t, ns, "empty", "")
	nad, err := src.NAD(t.Context(), ns, "a")
	if err != nil {
		t.Fatal(err)
	}
	if nad.Spec.Config != config || nad.Name != "a" || nad.Namespace != ns {
		t.Errorf("got %s/%s with config %q, want %s/a with %q",
			nad.Namespace, nad.Name, nad.Spec.Config, ns, config)
	}
	if nad, err = src.NAD(t.Context(), ns, "empty"); err != nil || nad.Spec.Config != "" {
		t.Errorf("got config %q, %v, want an empty one", nad.Spec.Config, err)
	}
}

// A name is looked for among the objects of its kind and namespace alone.
func testNotFound(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "only-a-pod", nil)
	back.CreateNAD(t, ns, "only-a-nad", "{}")
	for _, name := range []string{"nothing", "only-a-nad"} {
		if _, err := src.Pod(t.Context(), ns, name); !apierrors.IsNotFound(err) {
			t.Errorf("pod %s: got error %v, want not found", name, err)
		}
	}
	for _, name := range []string{"nothing", "only-a-pod"} {
		if _, err := src.NAD(t.Context(), ns, name); !apierrors.IsNotFound(err) {
			t.Errorf("NAD %s: got error %v, want not found", name, err)
		}
	}
	if _, err := src.Pod(t.Context(), "no-such-namespace", "only-a-pod"); !apierrors.IsNotFound(err) {
		t.Errorf("namespace: got error %v, want not found", err)
	}
}

// A name that is none is refused by each call, before it becomes a path or a URL.
func testBadNames(t *testing.T, src Source, _ Backend, ns string) {
	for _, name := range []string{
		"", ".", "..", "../x", "a/b", "a_b", "A", "a\x00", "a?b", "a%2fb", strings.Repeat("a", 254),
	} {
		if _, err := src.Pod(t.Context(), ns, name); !apierrors.IsBadRequest(err) {
			t.Errorf("pod %q: got error %v, want bad request", name, err)
		}
		if _, err := src.NAD(t.Context(), ns, name); !apierrors.IsBadRequest(err) {
			t.Errorf("NAD %q: got error %v, want bad request", name, err)
		}
		if _, err := src.NAD(t.Context(), name, "a"); !apierrors.IsBadRequest(err) {
			t.Errorf("namespace %q: got error %v, want bad request", name, err)
		}
		pod := &metav1.ObjectMeta{Namespace: ns, Name: name, UID: "u"}
		if err := src.PublishStatus(t.Context(), pod, "[]"); !apierrors.IsBadRequest(err) {
			t.Errorf("publish of pod %q: got error %v, want bad request", name, err)
		}
		if err := src.Event(t.Context(), pod, "Normal", "R", "m"); !apierrors.IsBadRequest(err) {
			t.Errorf("event of pod %q: got error %v, want bad request", name, err)
		}
	}
}

// One source serves several callers at the same time.
func testConcurrentNADs(t *testing.T, src Source, back Backend, ns string) {
	const n = 16
	for i := range n {
		back.CreateNAD(t, ns, fmt.Sprintf("n%d", i), fmt.Sprintf(`{"i": %d}`, i))
	}
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			nad, err := src.NAD(t.Context(), ns, fmt.Sprintf("n%d", i))
			if err != nil {
				t.Error(err)
			} else if want := fmt.Sprintf(`{"i": %d}`, i); nad.Spec.Config != want {
				t.Errorf("config is %q, want %q", nad.Spec.Config, want)
			}
		})
	}
	all.Wait()
}

// The network-status comes back as it was published, of the same pod.
func testPublish(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	pod := mustPod(t, src, ns, "p")
	status := "[{\n    \"name\": \"default/a\",\n    \"ips\": [\"10.0.0.1\"], \"x\": \"<&>é\"\n}]"
	if err := src.PublishStatus(t.Context(), pod, status); err != nil {
		t.Fatal(err)
	}
	got := mustPod(t, src, ns, "p")
	if got.Annotations[nadv1.StatusAnnotation] != status || got.UID != pod.UID {
		t.Errorf("read back %q of uid %s, want %q of %s",
			got.Annotations[nadv1.StatusAnnotation], got.UID, status, pod.UID)
	}
}

// To publish changes one annotation of one pod.
func testPublishKeepsOthers(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", map[string]string{"a": "1", nadv1.NetworksAnnotation: "x"})
	back.CreatePod(t, ns, "bystander", map[string]string{nadv1.StatusAnnotation: "mine"})
	if err := src.PublishStatus(t.Context(), mustPod(t, src, ns, "p"), "[]"); err != nil {
		t.Fatal(err)
	}
	got := mustPod(t, src, ns, "p").Annotations
	if got["a"] != "1" || got[nadv1.NetworksAnnotation] != "x" || got[nadv1.StatusAnnotation] != "[]" {
		t.Errorf("annotations are %v", got)
	}
	if got := mustPod(t, src, ns, "bystander").Annotations[nadv1.StatusAnnotation]; got != "mine" {
		t.Errorf("another pod's status is %q now", got)
	}
}

// wantConflict fails the test unless the source has said that somebody else was faster.
func wantConflict(t *testing.T, what string, err error) {
	t.Helper()
	if !apierrors.IsConflict(err) {
		t.Errorf("%s: got error %v, want conflict", what, err)
	}
}

// Each publish is of the pod as it was read last; what was read before is a conflict.
func testPublishAgain(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	pod := mustPod(t, src, ns, "p")
	for _, status := range []string{"[1]", "[1]", "", "[\"<é>\"]", "[2]"} {
		if err := src.PublishStatus(t.Context(), pod, status); err != nil {
			t.Fatal(err)
		}
		before := pod
		pod = mustPod(t, src, ns, "p")
		if got, there := pod.Annotations[nadv1.StatusAnnotation]; got != status || !there {
			t.Errorf("status is %q, %v, want %q", got, there, status)
		}
		if status == before.Annotations[nadv1.StatusAnnotation] {
			continue
		}
		// What was true of the pod before is not now.
		wantConflict(t, fmt.Sprintf("after status %q", status),
			src.PublishStatus(t.Context(), before, "[late]"))
	}
}

// A pod that was without annotations has another by now: Calico, for one, writes some while it
// attaches the pod.
func testPublishBeside(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", map[string]string{"a": "1"})
	pod := mustPod(t, src, ns, "p")
	pod.Annotations = nil
	if err := src.PublishStatus(t.Context(), pod, "[1]"); err != nil {
		t.Fatal(err)
	}
	got := mustPod(t, src, ns, "p").Annotations
	if got[nadv1.StatusAnnotation] != "[1]" || got["a"] != "1" {
		t.Errorf("the pod has annotations %v", got)
	}
}

// A pod's network-status is replaced by who knows it, be it the only annotation or one of several.
func testPublishOver(t *testing.T, src Source, back Backend, ns string) {
	annotations := map[string]map[string]string{
		"none": nil, "others": {"a": "1"}, "only": {nadv1.StatusAnnotation: "[0]"},
		"empty": {nadv1.StatusAnnotation: "", "a": "1"},
	}
	for name, has := range annotations {
		back.CreatePod(t, ns, name, has)
		pod := mustPod(t, src, ns, name)
		status, there := has[nadv1.StatusAnnotation]
		for other, known := range annotations {
			if thought, ok := known[nadv1.StatusAnnotation]; thought == status && ok == there {
				continue // whether there are others need not be noticed
			}
			wrong := *pod
			wrong.Annotations = known
			wantConflict(t, "pod "+name+" taken for "+other,
				src.PublishStatus(t.Context(), &wrong, "[late]"))
		}
		if err := src.PublishStatus(t.Context(), pod, "[1]"); err != nil {
			t.Errorf("pod %s: %v", name, err)
		}
		got := mustPod(t, src, ns, name).Annotations
		if got[nadv1.StatusAnnotation] != "[1]" || got["a"] != has["a"] {
			t.Errorf("pod %s has annotations %v", name, got)
		}
	}
}

// A pod of the same name is another one: it neither has nor gets the status of the first.
func testReplaced(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	old := mustPod(t, src, ns, "p")
	if err := src.PublishStatus(t.Context(), old, "[old]"); err != nil {
		t.Fatal(err)
	}
	back.ReplacePod(t, ns, "p")
	replaced := mustPod(t, src, ns, "p")
	if replaced.UID == old.UID {
		t.Fatalf("both pods have uid %s", old.UID)
	}
	if got, there := replaced.Annotations[nadv1.StatusAnnotation]; there {
		t.Errorf("the new pod has the old one's status %q", got)
	}
	wantConflict(t, "status of the old pod", src.PublishStatus(t.Context(), old, "[late]"))
	if got, there := mustPod(t, src, ns, "p").Annotations[nadv1.StatusAnnotation]; there {
		t.Errorf("the new pod has status %q after a conflict", got)
	}
	if err := src.PublishStatus(t.Context(), replaced, "[new]"); err != nil {
		t.Error(err)
	}
	if got := mustPod(t, src, ns, "p").Annotations[nadv1.StatusAnnotation]; got != "[new]" {
		t.Errorf("the new pod has status %q", got)
	}
}

// A pod that is gone gets no status.
func testDeleted(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	pod := mustPod(t, src, ns, "p")
	back.DeletePod(t, ns, "p")
	if err := src.PublishStatus(t.Context(), pod, "[]"); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
}

// Without a uid nobody knows which pod of the name is meant.
func testWithoutUID(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	err := src.PublishStatus(t.Context(), &metav1.ObjectMeta{Namespace: ns, Name: "p"}, "[]")
	if !apierrors.IsBadRequest(err) {
		t.Errorf("got error %v, want bad request", err)
	}
	if got, there := mustPod(t, src, ns, "p").Annotations[nadv1.StatusAnnotation]; there {
		t.Errorf("status is %q", got)
	}
}

// Of those who publish for the same pod one is the first; the same event from all of them is one.
func testConcurrentPublishes(t *testing.T, src Source, back Backend, ns string) {
	const n = 8
	var all sync.WaitGroup
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		back.CreatePod(t, ns, name, nil)
		pod := mustPod(t, src, ns, name)
		for range 4 {
			all.Go(func() {
				// One is the first, and the others find that out.
				if err := src.PublishStatus(t.Context(), pod, name); err != nil && !apierrors.IsConflict(err) {
					t.Error(err)
				}
				if err := src.Event(t.Context(), pod, "Normal", "AddedInterface", name); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		if got := mustPod(t, src, ns, name).Annotations[nadv1.StatusAnnotation]; got != name {
			t.Errorf("status of %s is %q", name, got)
		}
		if got := back.Events(t, ns, name); len(got) != 1 || got[0].Message != name {
			t.Errorf("events of %s are %v", name, got)
		}
	}
}

// An event comes with its words, on the pod that it is about.
func testEvent(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	pod := mustPod(t, src, ns, "p")
	want := map[Event]bool{
		{
			Type: "Normal", Reason: "AddedInterface", Message: `net1 "x" [10.0.0.1/24]`, Component: "braid",
			UID: string(pod.UID),
		}: true,
		{
			Type: "Warning", Reason: "NADNotFound", Message: "é\n\ttab", Component: "braid",
			UID: string(pod.UID),
		}: true,
	}
	for e := range want {
		if err := src.Event(t.Context(), pod, e.Type, e.Reason, e.Message); err != nil {
			t.Fatal(err)
		}
	}
	got := back.Events(t, ns, "p")
	for _, e := range got {
		if !want[e] {
			t.Errorf("unexpected event %+v", e)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d events, want %d", len(got), len(want))
	}
	if err := src.Event(t.Context(), pod, "Error", "R", "m"); !apierrors.IsBadRequest(err) {
		t.Errorf("unknown type: got error %v, want bad request", err)
	}
}

// The same event again changes nothing; on another pod of the name it is another one.
func testEventRepeated(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	pod := mustPod(t, src, ns, "p")
	for range 3 {
		if err := src.Event(t.Context(), pod, "Warning", "PluginFailed", "no luck"); err != nil {
			t.Fatal(err)
		}
	}
	if got := back.Events(t, ns, "p"); len(got) != 1 {
		t.Errorf("events are %v, want one", got)
	}
	back.ReplacePod(t, ns, "p")
	replaced := mustPod(t, src, ns, "p")
	if err := src.Event(t.Context(), replaced, "Warning", "PluginFailed", "no luck"); err != nil {
		t.Fatal(err)
	}
	if got := back.Events(t, ns, "p"); len(got) != 2 || got[0].UID == got[1].UID {
		t.Errorf("events are %v, want one of each pod", got)
	}
}

// A message is cut to what the API server takes, between two letters.
func testEventLong(t *testing.T, src Source, back Backend, ns string) {
	name := strings.Repeat("p", 60) + strings.Repeat(".pod", 30) // 180 bytes
	back.CreatePod(t, ns, name, nil)
	err := src.Event(t.Context(), mustPod(t, src, ns, name), "Warning", "PluginFailed",
		"x\xff"+strings.Repeat("é", 5000))
	if err != nil {
		t.Fatal(err)
	}
	got := back.Events(t, ns, name)
	if len(got) != 1 || len(got[0].Message) > 1024 || len(got[0].Message) < 1000 ||
		!strings.HasSuffix(got[0].Message, "é…") {
		t.Errorf("events are %v", got)
	}
}

// A call whose context has ended changes nothing, and ends at once.
func testCancelled(t *testing.T, src Source, back Backend, ns string) {
	back.CreatePod(t, ns, "p", nil)
	back.CreateNAD(t, ns, "a", "{}")
	pod := mustPod(t, src, ns, "p")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	start := time.Now()
	_, podErr := src.Pod(ctx, ns, "p")
	_, nadErr := src.NAD(ctx, ns, "a")
	for call, err := range map[string]error{
		"Pod": podErr, "NAD": nadErr,
		"PublishStatus": src.PublishStatus(ctx, pod, "[]"),
		"Event":         src.Event(ctx, pod, "Normal", "R", "m"),
	} {
		if !errors.Is(err, context.Canceled) || failure.ReasonOf(err) != failure.TimedOut {
			t.Errorf("%s: got error %v of class %q, want context canceled of class TimedOut",
				call, err, failure.ReasonOf(err))
		}
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
	if got := mustPod(t, src, ns, "p").Annotations; got[nadv1.StatusAnnotation] != "" {
		t.Errorf("annotations are %v", got)
	}
	if got := back.Events(t, ns, "p"); len(got) > 0 {
		t.Errorf("events are %v", got)
	}
}
