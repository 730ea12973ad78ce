package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Component is the name that Braid goes by: of events, and of who manages a field.
const Component = "braid"

// MaxMessage is how many bytes the message of an event has at most, as events.k8s.io/v1 has it.
const MaxMessage = 1024

// maxReason is likewise of its reason.
const maxReason = 128

// The kinds of object that an event may be about.
const (
	KindPod  = "Pod"
	KindNode = "Node"
)

// Event is the part of core/v1 Event that is written. `kubectl describe pod` shows it.
type Event struct {
	metav1.TypeMeta `json:",inline"`

	Metadata            EventMetadata   `json:"metadata"`
	InvolvedObject      ObjectReference `json:"involvedObject"`
	Reason              string          `json:"reason"`
	Message             string          `json:"message"`
	Source              EventSource     `json:"source"`
	FirstTimestamp      metav1.Time     `json:"firstTimestamp"`
	LastTimestamp       metav1.Time     `json:"lastTimestamp"`
	Count               int             `json:"count"`
	Type                string          `json:"type"`
	ReportingController string          `json:"reportingComponent"`
	ReportingInstance   string          `json:"reportingInstance"`
}

// EventMetadata names an event.
type EventMetadata struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// ObjectReference names the object that an event is about.
type ObjectReference struct {
	Kind       string    `json:"kind"`
	Namespace  string    `json:"namespace"`
	Name       string    `json:"name"`
	UID        types.UID `json:"uid,omitempty"`
	APIVersion string    `json:"apiVersion"`
}

// EventSource is who reports an event, and on which node.
type EventSource struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

// NewEvent makes an event on a pod, or on a node, whose events are in the namespace "default". host
// is the node that reports it. The name follows from the object and the words. So the same event
// again changes nothing: a runtime that tries an ADD every few seconds does not fill etcd, and a
// POST may be repeated when its answer was lost.
func NewEvent(
	kind string, of *metav1.ObjectMeta, eventType, reason, message, host string,
) (*Event, error) {
	namespace := of.Namespace
	if kind == KindNode {
		namespace = metav1.NamespaceDefault
	}
	if err := CheckNames(namespace, of.Name); err != nil {
		return nil, err
	}
	if err := checkWords(eventType, reason); err != nil {
		return nil, err
	}
	message = boundMessage(message)
	now := metav1.NewTime(time.Now())
	return &Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		Metadata: EventMetadata{namespace, eventName(of, eventType, reason, message)},
		InvolvedObject: ObjectReference{
			APIVersion: "v1", Kind: kind, Namespace: of.Namespace, Name: of.Name, UID: of.UID,
		},
		Reason: reason, Message: message, Type: eventType, Count: 1, FirstTimestamp: now,
		LastTimestamp:       now,
		Source:              EventSource{Component: Component, Host: host},
		ReportingController: Component, ReportingInstance: host,
	}, nil
}

// checkWords refuses a type and a reason that the API server would.
func checkWords(eventType, reason string) error {
	if eventType != "Normal" && eventType != "Warning" {
		return apierrors.NewBadRequest(fmt.Sprintf("event type is %q, want Normal or Warning",
			eventType))
	}
	if reason == "" || len(reason) > maxReason {
		return apierrors.NewBadRequest(fmt.Sprintf("event reason is %.80q, want 1 to %d bytes",
			reason, maxReason))
	}
	return nil
}

// eventName returns the object's name, cut to leave room, and a hash.
func eventName(of *metav1.ObjectMeta, eventType, reason, message string) string {
	sum := sha256.Sum256([]byte(
		strings.Join([]string{string(of.UID), eventType, reason, message}, "\x00")))
	suffix := "." + hex.EncodeToString(sum[:8])
	name := of.Name[:min(len(of.Name), MaxName-len(suffix))]
	return strings.TrimRight(name, "-.") + suffix
}

// boundMessage makes a message valid UTF-8 and cuts it, between two characters, to what an event
// may hold.
func boundMessage(message string) string {
	const more = "…"
	message = strings.ToValidUTF8(message, "\uFFFD")
	if len(message) <= MaxMessage {
		return message
	}
	end := MaxMessage - len(more)
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + more
}
