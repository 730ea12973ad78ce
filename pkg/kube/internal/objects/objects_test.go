package objects_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// TestHostileNames: nothing that leaves a URL's or a path's element is the name of an object.
func TestHostileNames(t *testing.T) {
	for _, bad := range []string{
		"", ".", "..", "../x", "a/b", "a%2fb", "a b", "A", "a_b", "a\n", "a\x00", "-a", "a-", "ａ",
		strings.Repeat("a", 254),
	} {
		err := objects.CheckNames("default", bad)
		if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "names no object") ||
			len(err.Error()) > 500 {
			t.Errorf("name %q: %v", bad, err)
		}
		if err := objects.CheckNames(bad, "x"); !apierrors.IsBadRequest(err) ||
			!strings.Contains(err.Error(), "names no namespace") {
			t.Errorf("namespace %q: %v", bad, err)
		}
	}
	if err := objects.CheckNames("a.b", "x"); !apierrors.IsBadRequest(err) {
		t.Errorf("a namespace with a dot: %v", err)
	}
	if err := objects.CheckNames("team-a", "a.b-c"); err != nil {
		t.Error(err)
	}
}

// TestWrongEvents: what an API server would refuse is refused before it is asked.
func TestWrongEvents(t *testing.T) {
	for says, e := range map[string]struct{ name, eventType, reason string }{
		`"../x" names no object`:                    {"../x", "Warning", "Reason"},
		`event type is "warning", want Normal or`:   {"p", "warning", "Reason"},
		`event reason is "", want 1 to 128 bytes`:   {"p", "Normal", ""},
		`event reason is "rrrrrrrrrrrrrrrrrrrrrrrr`: {"p", "Normal", strings.Repeat("r", 129)},
	} {
		_, err := objects.NewEvent(objects.KindPod,
			&metav1.ObjectMeta{Namespace: "default", Name: e.name}, e.eventType, e.reason, "m", "n")
		if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %s", err, says)
		}
	}
}

// TestEventsFitAndRepeat: a message of any bytes becomes one that an event can hold. The same words
// about the same object are the same event, and other words another one.
func TestEventsFitAndRepeat(t *testing.T) {
	event := func(name string, uid types.UID, message string) *objects.Event {
		t.Helper()
		of := &metav1.ObjectMeta{Namespace: "default", Name: name, UID: uid}
		e, err := objects.NewEvent(objects.KindPod, of, "Warning", "Reason", message, "node")
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	for message, least := range map[string]int{
		strings.Repeat("ü", 2000):               objects.MaxMessage - 5,
		"x" + strings.Repeat("ü", 2000):         objects.MaxMessage - 5,
		strings.Repeat("\xff", 2000):            1,
		"\xe4":                                  1,
		strings.Repeat("m", objects.MaxMessage): objects.MaxMessage,
	} {
		got := event("p", "u", message).Message
		if len(got) > objects.MaxMessage || len(got) < least || !utf8.ValidString(got) {
			t.Errorf("%.10q... of %d bytes becomes %d bytes", message, len(message), len(got))
		}
	}
	first := event("p", "u", "m").Metadata.Name
	if again := event("p", "u", "m").Metadata.Name; again != first {
		t.Errorf("the same event has the names %s and %s", first, again)
	}
	for what, e := range map[string]*objects.Event{
		"another message": event("p", "u", "n"), "another pod of the name": event("p", "other", "m"),
	} {
		if e.Metadata.Name == first {
			t.Errorf("%s has the same name", what)
		}
	}
	long := event(strings.Repeat("a", 235)+"."+strings.Repeat("b", 17), "u", "m").Metadata
	if err := objects.CheckNames(long.Namespace, long.Name); err != nil {
		t.Errorf("the event of a long name: %v", err)
	}
	if objects.Answered(errors.New("connection refused")) {
		t.Error("an error that is no answer is taken for one")
	}
}
