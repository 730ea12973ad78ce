package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nodenet"
	"github.com/braid-cni/braid/pkg/nodenet/ask"
	"github.com/braid-cni/braid/pkg/nodenet/keeper"
)

const (
	// interfacesFile is what the node's interfaces are read from, beside the configuration, and in the
	// state directory where it is remembered what was set.
	interfacesFile = "node-interfaces.json"
	// maxInterfaces is more than a ConfigMap holds, in bytes.
	maxInterfaces = 2 << 20
	maxBootID     = 128
	// noteInterfaces is what the condition's message calls them.
	noteInterfaces = "node interfaces"
)

// interfaceKeeper keeps the node's interfaces in a network namespace.
func (a *daemon) interfaceKeeper(ns *netns.NS) (*keeper.Keeper, error) {
	boot, err := hostfile.Read("/proc/sys/kernel/random/boot_id", maxBootID)
	if err != nil {
		return nil, fmt.Errorf("read boot ID: %w", err)
	}
	namespace, err := ns.Identity() // that of a node that is a container is another after its restart
	if err != nil {
		return nil, err
	}
	return &keeper.Keeper{
		NS: ns, Node: a.o.nodeName,
		File:          filepath.Join(a.o.stateDir, interfacesFile),
		Boot:          strings.TrimSpace(string(boot)) + " " + namespace,
		Configuration: a.interfaces(), Network: &ask.Network{NS: ns, Node: a.o.nodeName},
		Report: a.interfacesAre, Tell: a.tell, Log: a.log,
	}, nil
}

// keepInterfaces keeps the node's interfaces until ctx is done. Pods get their other networks
// without them, so that a failure is told and ends nothing else.
func (a *daemon) keepInterfaces(ctx context.Context) {
	err := a.withInterfaces(func(k *keeper.Keeper) error { return k.Run(ctx) })
	if err != nil && ctx.Err() == nil {
		a.log.ErrorContext(ctx, "the node's interfaces are not kept", "error", err)
		a.health.Note(noteInterfaces, err.Error())
		a.tell(keeper.ReasonFailed, err.Error())
	}
}

// takeBackInterfaces takes all that was set off the node's interfaces.
func (a *daemon) takeBackInterfaces(ctx context.Context) error {
	return a.withInterfaces(func(k *keeper.Keeper) error { return k.TakeBack(ctx) })
}

// withInterfaces calls do with a keeper of the agent's own network namespace, which is the node's.
func (a *daemon) withInterfaces(do func(*keeper.Keeper) error) error {
	ns, err := netns.Open(a.o.netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	k, err := a.interfaceKeeper(ns)
	if err != nil {
		return err
	}
	return do(k)
}

// interfaces returns what reads the operator's file: a text that is the former one is not parsed
// again.
func (a *daemon) interfaces() func() ([]nodenet.Interface, error) {
	var text string
	var parsed []nodenet.Interface
	return func() ([]nodenet.Interface, error) {
		if a.o.config == "" {
			return nil, nil
		}
		dir := filepath.Dir(a.o.config)
		raw, err := hostfile.ReadLinked(filepath.Join(dir, interfacesFile), maxInterfaces)
		if errors.Is(err, fs.ErrNotExist) {
			_, err = os.Stat(dir) // without the directory it is not known what the operator wants
			raw = nil
		}
		if err != nil {
			return nil, a.wrongKey(nodenet.Field, err.Error(), "see that the ConfigMap is mounted there")
		}
		if raw == nil || string(raw) == text {
			if raw == nil {
				text, parsed = "", nil
			}
			return parsed, nil
		}
		interfaces, err := nodenet.Parse(raw)
		if err != nil {
			return nil, err
		}
		text, parsed = string(raw), interfaces
		return parsed, nil
	}
}

// interfacesAre publishes how the interfaces are.
func (a *daemon) interfacesAre(states []nodenet.State, err error) {
	var all []nodev1.Interface
	var notes []string
	if err != nil {
		all = []nodev1.Interface{{State: nodev1.InterfacesInvalid, Message: err.Error()}}
		notes = []string{err.Error()}
	}
	for _, s := range states {
		one := nodev1.Interface{
			Network: s.Network, Type: string(s.Type), Interface: s.NIC,
			MAC: s.MAC, State: string(s.Condition),
		}
		for _, addr := range s.Addresses {
			one.Addresses = append(one.Addresses, addr.String())
		}
		words := append([]string{s.Network, string(s.Condition), s.NIC}, one.Addresses...)
		note := strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")
		if s.Err != nil {
			one.Message = s.Err.Error()
			note += ": " + one.Message
		}
		all, notes = append(all, one), append(notes, note)
	}
	if a.health.Note(noteInterfaces, strings.Join(notes, ", ")) {
		select {
		case a.interfacesChanged <- struct{}{}:
		default: // they are looked at soon
		}
	}
	a.health.Update(func(report *nodev1.Report) { report.Interfaces = all })
}
