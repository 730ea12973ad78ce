package kube

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

const (
	component       = "braid"
	maxEventMessage = 1024 // bytes, as events.k8s.io/v1 has it
	maxEventReason  = 128  // likewise
	maxObjectName   = 253

	kindPod, kindNode = "Pod", "Node"
)

// event is the part of core/v1 Event that is written. `kubectl describe pod` shows it.
type event struct {
	metav1.TypeMeta `json:",inline"`

	Metadata            eventMetadata   `json:"metadata"`
	InvolvedObject      objectReference `json:"involvedObject"`
	Reason              string          `json:"reason"`
	Message             string          `json:"message"`
	Source              eventSource     `json:"source"`
	FirstTimestamp      metav1.Time     `json:"firstTimestamp"`
	LastTimestamp       metav1.Time     `json:"lastTimestamp"`
	Count               int             `json:"count"`
	Type                string          `json:"type"`
	ReportingController string          `json:"reportingComponent"`
	ReportingInstance   string          `json:"reportingInstance"`
}

type eventMetadata struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type objectReference struct {
	Kind       string    `json:"kind"`
	Namespace  string    `json:"namespace"`
	Name       string    `json:"name"`
	UID        types.UID `json:"uid,omitempty"`
	APIVersion string    `json:"apiVersion"`
}

type eventSource struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

// newEvent makes an event on a pod, or on a node, whose events are in the namespace "default". Its
// name follows from what it says and of whom: saying it again changes nothing, so that a runtime
// that tries an ADD every few seconds does not fill etcd, and a POST may be repeated when its
// answer was lost.
func newEvent(
	kind string, of *metav1.ObjectMeta, eventType, reason, message, host string,
) (*event, error) {
	namespace := of.Namespace
	if kind == kindNode {
		namespace = metav1.NamespaceDefault
	}
	if err := CheckNames(namespace, of.Name); err != nil {
		return nil, err
	}
	if eventType != "Normal" && eventType != "Warning" {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("event type is %q, want Normal or Warning",
			eventType))
	}
	if reason == "" || len(reason) > maxEventReason {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("event reason is %.80q, want 1 to %d bytes",
			reason, maxEventReason))
	}
	message = boundMessage(message)
	now := metav1.NewTime(time.Now())
	return &event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		Metadata: eventMetadata{namespace, eventName(of, eventType, reason, message)},
		InvolvedObject: objectReference{
			APIVersion: "v1", Kind: kind, Namespace: of.Namespace, Name: of.Name, UID: of.UID,
		},
		Reason: reason, Message: message, Type: eventType, Count: 1, FirstTimestamp: now,
		LastTimestamp:       now,
		Source:              eventSource{Component: component, Host: host},
		ReportingController: component, ReportingInstance: host,
	}, nil
}

// eventName returns the object's name, cut to leave room, and a hash.
func eventName(of *metav1.ObjectMeta, eventType, reason, message string) string {
	sum := sha256.Sum256([]byte(
		strings.Join([]string{string(of.UID), eventType, reason, message}, "\x00")))
	suffix := "." + hex.EncodeToString(sum[:8])
	name := of.Name[:min(len(of.Name), maxObjectName-len(suffix))]
	return strings.TrimRight(name, "-.") + suffix
}

// boundMessage makes a message valid UTF-8 and cuts it, between two characters, to what an event
// may hold.
func boundMessage(message string) string {
	const more = "…"
	message = strings.ToValidUTF8(message, "\uFFFD")
	if len(message) <= maxEventMessage {
		return message
	}
	end := maxEventMessage - len(more)
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + more
}
