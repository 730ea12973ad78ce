package main

import (
	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent/room"
	"github.com/braid-cni/braid/pkg/kube/watch"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
)

// publisher has the Node say what it can take of the networks whose NADs ask for that.
func (a *daemon) publisher() *room.Publisher {
	p := room.New()
	p.API, p.Node, p.Every = a.api, a.o.nodeName, a.capacityEvery
	p.Observe, p.Log = a.meters.Room, a.log
	p.Records = func() ([]*record.Record, error) { return record.New(*a.nodeState.Load()).Read() }
	p.Open = func(thisNode resolve.ThisNode, blocks *watch.Blocks) (room.Rooms, error) {
		return a.rooms(p.NADs, thisNode, blocks)
	}
	return p
}

// rooms are the rooms of this node, by the installed configuration.
func (a *daemon) rooms(
	memory *watch.Cluster, thisNode resolve.ThisNode, blocks *watch.Blocks,
) (room.Rooms, error) {
	cfg := a.installedConfig()
	if cfg == nil {
		return nil, room.ErrNotYet
	}
	source, err := a.openWith(memory)(&cfg.Node)
	if err != nil {
		return nil, err
	}
	addresses := &node.Addresses{
		Source: node.Only(blocks), Name: a.o.nodeName, StateDir: cfg.StateDir, Log: a.log,
	}
	return &opened{source, &node.Rooms{
		Config: cfg, Source: source, ThisNode: thisNode, Addresses: addresses, NetNS: a.o.netns,
		Log: a.log,
	}}, nil
}

// opened are rooms with the source that they are found out from.
type opened struct {
	source node.Source
	*node.Rooms
}

// Close closes the source.
func (o *opened) Close() {
	if closer, ok := o.source.(interface{ Close() }); ok {
		closer.Close()
	}
}
