// Package agent is what Braid's agent does on a node beside the operations of the CNI protocol: it
// says how the node is, and does now and then what no operation came by to do.
//
// Contract: every loop ends with its context, starts no goroutine, and goes on past errors.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube"
)

const (
	// Heartbeat is how often the node's condition is written where nothing changes. Each time is a
	// write of a large object that many watch.
	Heartbeat = 5 * time.Minute
	// TaintedHeartbeat is how often it is written while the node has the start-up taint. The
	// controller takes that away when the agent was heard of after it came: what was said before
	// may be of before a boot.
	TaintedHeartbeat = 10 * time.Second
	// taintLook is how often a node is looked at for the taint.
	taintLook = time.Minute
	// Stale is the age at which a condition says nothing any more.
	Stale = 3 * Heartbeat
	// firstPause and lastPause bound the pauses between tries that failed.
	firstPause = time.Second
	lastPause  = time.Minute
)

// The condition's reasons, unless the failure of a part has one.
const (
	reasonReady    = "Ready"
	reasonStarting = "Starting"
	reasonFailed   = "Failed"
)

// Health is how the parts of an agent are. It is safe for concurrent use; NewHealth makes one.
type Health struct {
	mu      sync.Mutex
	parts   map[string]error
	unheard map[string]bool
	notes   map[string]string
	warned  map[string][]string
	report  nodev1.Report
	changed chan struct{}
}

// NewHealth returns the health of an agent with these parts, which have not said anything yet.
func NewHealth(version string, parts ...string) *Health {
	h := &Health{
		parts: map[string]error{}, unheard: map[string]bool{}, notes: map[string]string{},
		warned: map[string][]string{}, report: nodev1.Report{Version: version},
		changed: make(chan struct{}, 1),
	}
	for _, part := range parts {
		h.unheard[part] = true
	}
	return h
}

// Set says how a part is: nil is well.
func (h *Health) Set(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.status()
	delete(h.unheard, part)
	if h.parts[part] = err; err == nil {
		delete(h.parts, part)
	}
	if h.status() != before {
		h.wake()
	}
}

// Note adds to the condition's message what decides nothing about the condition; an empty text
// takes it out again. It reports whether that is new.
func (h *Health) Note(about, text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.notes[about] == text {
		return false
	}
	if h.notes[about] = text; text == "" {
		delete(h.notes, about)
	}
	h.wake()
	return true
}

// Warn adds to the report what an operator should see to and what decides nothing about the
// condition; without texts it takes that out again. It reports whether that is new.
func (h *Health) Warn(about string, texts ...string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Equal(h.warned[about], texts) {
		return false
	}
	h.warned[about] = texts
	h.wake()
	return true
}

// Update changes the node's report.
func (h *Health) Update(change func(*nodev1.Report)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.report
	change(&h.report)
	if !reflect.DeepEqual(before, h.report) {
		h.wake()
	}
}

func (h *Health) wake() {
	select {
	case h.changed <- struct{}{}:
	default: // it is awake already
	}
}

// status is the condition without its times.
func (h *Health) status() nodev1.Condition {
	c := nodev1.Condition{Type: nodev1.Ready, Status: metav1.ConditionFalse}
	var texts []string
	for _, part := range slices.Sorted(maps.Keys(h.parts)) {
		if c.Reason == "" {
			c.Reason = string(failure.ReasonOf(h.parts[part]))
		}
		texts = append(texts, fmt.Sprintf("%s: %v", part, h.parts[part]))
	}
	switch waiting := slices.Sorted(maps.Keys(h.unheard)); {
	case len(texts) > 0 && c.Reason == "":
		c.Reason = reasonFailed
	case len(texts) > 0:
	case len(waiting) > 0:
		c.Reason = reasonStarting
		texts = append(texts, "waiting for "+strings.Join(waiting, ", "))
	default:
		c.Status, c.Reason = metav1.ConditionTrue, reasonReady
		texts = append(texts, "pods of this node get their networks")
	}
	for _, about := range slices.Sorted(maps.Keys(h.notes)) {
		texts = append(texts, about+": "+h.notes[about])
	}
	c.Message = strings.Join(texts, "; ")
	return c
}

// Ready reports whether pods get their networks, as far as the agent knows.
func (h *Health) Ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status().Status == metav1.ConditionTrue
}

// current returns what there is to report.
func (h *Health) current() (nodev1.Condition, nodev1.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	report := h.report
	report.Before = slices.Clone(report.Before)
	report.Unattached = slices.Clone(report.Unattached)
	report.Others = maps.Clone(report.Others)
	report.Interfaces = slices.Clone(report.Interfaces)
	report.Fallbacks = maps.Clone(report.Fallbacks)
	for _, about := range slices.Sorted(maps.Keys(h.warned)) {
		report.Warnings = append(report.Warnings, h.warned[about]...)
	}
	return h.status(), report
}

// Node is where a node's health is kept.
type Node interface {
	// NodeReport returns what was reported last.
	NodeReport(ctx context.Context, name string) (kube.NodeReport, error)
	ReportNode(
		ctx context.Context, name string, condition nodev1.Condition, report nodev1.Report,
	) error
}

// Publish writes the health into the Node object of that name whenever it changes, and at each
// Heartbeat, until ctx is done. On a node with the start-up taint that is each TaintedHeartbeat.
func (h *Health) Publish(ctx context.Context, node Node, name string, log *slog.Logger) {
	var last *nodev1.Condition
	pause := firstPause
	for ctx.Err() == nil {
		written, err := h.publish(ctx, node, name, last)
		if err != nil {
			log.WarnContext(ctx, "node's condition not written", "node", name, "error", err)
			h.await(ctx, pause, nil)
			pause = min(2*pause, lastPause)
			continue
		}
		last, pause = written, firstPause
		h.rest(ctx, node, name)
	}
}

// rest returns when there is something to tell: a change, or that the agent is still there.
func (h *Health) rest(ctx context.Context, node Node, name string) {
	wait := TaintedHeartbeat
	for end := time.Now().Add(Heartbeat); time.Now().Before(end); wait = taintLook {
		if !h.await(ctx, min(wait, time.Until(end)), h.changed) {
			return
		}
		if report, err := node.NodeReport(ctx, name); err == nil && report.StartupTaint {
			return
		}
	}
}

// await reports whether the time has passed without a change, and before the end of ctx. A nil
// changed is for no change.
func (h *Health) await(ctx context.Context, wait time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
		return true
	}
	return false
}

func (h *Health) publish(
	ctx context.Context, node Node, name string, last *nodev1.Condition,
) (*nodev1.Condition, error) {
	if last == nil { // of the agent before this one
		before, err := node.NodeReport(ctx, name)
		if err != nil {
			return nil, err
		}
		last = before.Condition
	}
	condition, report := h.current()
	condition.LastHeartbeatTime = metav1.Now()
	condition.LastTransitionTime = condition.LastHeartbeatTime
	if last != nil && last.Status == condition.Status {
		condition.LastTransitionTime = last.LastTransitionTime
	}
	return &condition, node.ReportNode(ctx, name, condition, report)
}

// Every calls do at once and then every so often, until ctx is done.
func Every(ctx context.Context, interval time.Duration, do func(context.Context)) {
	timer := time.NewTicker(interval)
	defer timer.Stop()
	for ctx.Err() == nil {
		do(ctx)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
}
