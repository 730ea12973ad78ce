package main

import (
	"context"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/record"
)

const (
	// aboutLost is what warnings about pods without an interface are called.
	aboutLost = "interfaces"
	// reasonLost is the reason of a pod's event.
	reasonLost = "InterfaceLost"
	// maxLostEvents bounds the events of one look. The next look raises the others.
	maxLostEvents = 32
)

// lookLost tells of interfaces of pods that went with their masters: at the start, every now and
// then, and when an interface of the node has changed that the agent keeps, until ctx is done.
func (a *daemon) lookLost(ctx context.Context) {
	timer := time.NewTicker(lookEvery)
	defer timer.Stop()
	told := map[string]bool{}
	for {
		a.tellLost(ctx, told)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-a.interfacesChanged:
		}
	}
}

// tellLost raises an event on each pod that has lost an interface, unless told has its sandbox.
func (a *daemon) tellLost(ctx context.Context, told map[string]bool) {
	lost, err := lostInterfaces(ctx, record.New(*a.nodeState.Load()))
	if err != nil {
		a.log.WarnContext(ctx, "records of the node are not known", "error", err)
		return
	}
	var texts []string
	if text := agent.LostText(lost); text != "" {
		texts = append(texts, text)
	}
	a.warn(aboutLost, texts...)
	are, events := map[string]bool{}, 0
	for _, l := range lost {
		are[l.ContainerID] = true
		if told[l.ContainerID] || l.Pod.Name == "" || events == maxLostEvents {
			continue
		}
		of := &metav1.ObjectMeta{
			Namespace: l.Pod.Namespace, Name: l.Pod.Name, UID: types.UID(l.Pod.UID),
		}
		if err := a.api.Event(ctx, of, "Warning", reasonLost, l.String()); err != nil {
			a.log.WarnContext(ctx, "event not raised", "pod", l.Pod, "reason", reasonLost, "error", err)
			break
		}
		told[l.ContainerID] = true
		events++
	}
	for id := range told {
		if !are[id] {
			delete(told, id)
		}
	}
}

// lostInterfaces returns the interfaces that are gone from pods. A sandbox that an operation is at
// work on, or has removed meanwhile, has lost nothing: a DEL removes the links before the record.
func lostInterfaces(ctx context.Context, store *record.Store) ([]agent.Lost, error) {
	records, err := store.Read()
	if err != nil {
		return nil, err
	}
	lost := agent.LostInterfaces(records, func(path string) (map[string]int, error) {
		return node.Links(ctx, path)
	})
	if len(lost) == 0 {
		return nil, nil
	}
	busy, err := store.Unfinished()
	if err != nil {
		return nil, err
	}
	there, err := store.List() // in this order: what was at work may have ended by now
	return slices.DeleteFunc(lost, func(l agent.Lost) bool {
		return slices.Contains(busy, l.ContainerID) || !slices.Contains(there, l.ContainerID)
	}), err
}
