package warm

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/engine"
)

// raised notes events.
type raised struct {
	engine.Reporter
	reasons []string
}

func (r *raised) Event(_ context.Context, _ *metav1.ObjectMeta, _, reason, _ string) error {
	r.reasons = append(r.reasons, reason)
	return nil
}

// TestEventsAfterTheCall: no event is sent before the call has ended, whose PATCH would wait for
// it; those of no call are sent at once.
func TestEventsAfterTheCall(t *testing.T) {
	var w Engines
	r := &raised{}
	reporter := &later{r, w.queue(), slog.New(slog.DiscardHandler)}
	event := func(ctx context.Context, reason string) {
		t.Helper()
		if err := reporter.Event(ctx, &metav1.ObjectMeta{}, "Normal", reason, ""); err != nil {
			t.Error(err)
		}
	}
	sent := func() []string {
		for len(w.queue()) > 0 {
			(<-w.queue())(t.Context())
		}
		return r.reasons
	}
	call := &held{}
	ctx := withHeld(t.Context(), call)
	event(ctx, "a")
	event(t.Context(), "b")
	event(ctx, "c")
	if got := sent(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("before the end of the call %q are sent", got)
	}
	call.release()
	call.release()
	if got := sent(); !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Errorf("after it %q are sent", got)
	}
}
