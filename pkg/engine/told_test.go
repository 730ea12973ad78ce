package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/kube/manifests"
)

// source notes the events that it passes on.
type source struct {
	*manifests.Directory
	// away has every call fail as if there were no API server.
	away bool
	// asked is called in each look-up of a NAD, and may hold it up; publishing in each writing of a
	// network-status.
	asked, publishing func(context.Context)

	mu     sync.Mutex
	events []string
	calls  []string
}

// call notes a call, and is its error.
func (s *source) call(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
	if s.away {
		return errors.New("connection refused")
	}
	return nil
}

// called are the calls since the last time, but those of events, sorted.
func (s *source) called() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	slices.Sort(calls)
	return calls
}

func (s *source) Pod(ctx context.Context, namespace, name string) (*podv1.Pod, error) {
	if err := s.call("get pod " + name); err != nil {
		return nil, err
	}
	return s.Directory.Pod(ctx, namespace, name)
}

func (s *source) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if s.asked != nil {
		s.asked(ctx)
	}
	if err := s.call("get NAD " + name); err != nil {
		return nil, err
	}
	return s.Directory.NAD(ctx, namespace, name)
}

func (s *source) PublishStatus(
	ctx context.Context, pod *metav1.ObjectMeta, annotation string,
) error {
	if s.publishing != nil {
		s.publishing(ctx)
	}
	if err := s.call("publish status of " + pod.Name); err != nil {
		return err
	}
	return s.Directory.PublishStatus(ctx, pod, annotation)
}

func (s *source) Event(
	ctx context.Context, pod *metav1.ObjectMeta, eventType, reason, message string,
) error {
	s.mu.Lock()
	s.events = append(s.events, eventType+" "+reason+" "+message)
	s.mu.Unlock()
	return s.Directory.Event(ctx, pod, eventType, reason, message)
}

// said are the events since the last call.
func (s *source) said() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events
	s.events = nil
	return events
}

// warnings are the Warning events since the last call.
func (s *source) warnings() []string {
	var warnings []string
	for _, e := range s.said() {
		if text, ok := strings.CutPrefix(e, "Warning "); ok {
			warnings = append(warnings, text)
		}
	}
	return warnings
}

// logbook keeps the lines that are logged as errors, with their attributes.
type logbook struct {
	mu    sync.Mutex
	lines []map[string]string
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }

func (l *logbook) WithAttrs([]slog.Attr) slog.Handler { return l }

func (l *logbook) WithGroup(string) slog.Handler { return l }

func (l *logbook) Handle(_ context.Context, record slog.Record) error {
	if record.Level < slog.LevelError {
		return nil
	}
	line := map[string]string{"message": record.Message}
	record.Attrs(func(a slog.Attr) bool {
		if a.Key != "duration" {
			line[a.Key] = a.Value.String()
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// errors are the lines since the last call.
func (l *logbook) errors() []map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

// TestFailureIsToldOnce: one line of the log and, where there is a pod, one event; both say what
// the runtime is told.
func TestFailureIsToldOnce(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.plugin.fails("ADD net1", 111)
	told(n, "ADD failed", n.add(p), "111")
	n.plugin.on("ADD net1", nil)
	n.must(n.add(p))
	n.plugin.fails("CHECK net1", 112)
	told(n, "CHECK failed", n.check(p), "112")
	n.plugin.fails("DEL net1", 113)
	told(n, "DEL failed", n.del(p), "113")
	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	same(t, "errors of a success", n.log.errors(), nil)
	same(t, "warnings of a success", n.source.warnings(), nil)
}

// told fails the test unless an error of net1 is in one line and in one event.
func told(n *node, message string, err error, code string) {
	n.t.Helper()
	if err == nil {
		n.t.Fatal("it succeeded")
	}
	same(n.t, "log", n.log.errors(), []map[string]string{{
		"message": message, "pod": "default/p", "container": "id-p", "reason": "PluginFailed",
		"network":   "default/a",
		"interface": "net1", "plugin": pluginType, "code": code, "error": err.Error(),
	}})
	same(n.t, "warnings", n.source.warnings(), []string{"PluginFailed " + err.Error()})
}

// What is taken back, as a later attachment failed, is not told of as attached.
func TestOnlyWhatStaysIsTold(t *testing.T) {
	n := newNode(t)
	n.nads("a", "b")
	p := n.pod("p", "a,b")
	n.plugin.fails("ADD net2", 111)
	err := n.add(p)
	same(t, "events", n.source.said(), []string{"Warning PluginFailed " + err.Error()})
	n.plugin.on("ADD net2", nil)
	n.must(n.add(p))
	same(t, "number of events", len(n.source.said()), 3)
}

// A roll-back that fails is a failure of its own. The pod's one event says only that there is one.
func TestFailedRollBackIsToldBesideItsCause(t *testing.T) {
	n := newNode(t)
	p := n.pod("p", "")
	n.plugin.fails("ADD eth0", 111)
	n.plugin.fails("DEL eth0", 112)
	err := n.add(p)
	n.fails(err, 111, "roll-back is not complete")
	var messages []string
	for _, line := range n.log.errors() {
		messages = append(messages, line["message"])
	}
	same(t, "log", messages, []string{"roll-back left something for DEL", "ADD failed"})
	same(t, "warnings", n.source.warnings(), []string{"PluginFailed " + err.Error()})
}

// Nobody reads the events of a pod that is gone.
func TestFailureOfPodThatIsGoneIsOnlyLogged(t *testing.T) {
	n := newNode(t)
	p := n.sandbox("id-gone")
	p.name = "gone"
	n.fails(n.add(p), 3, "pod default/gone")
	same(t, "lines", len(n.log.errors()), 1)
	same(t, "warnings", n.source.warnings(), nil)
	n.left([]*pod{p})
}
