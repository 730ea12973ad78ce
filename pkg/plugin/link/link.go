// Package link holds what plugins share whose interface is a link in the pod: bridge, ipvlan,
// macvlan.
//
// A plugin makes the link, calls Adopt in the next line, and Configure with the result of the IPAM
// plugin. Check compares the link with a result, Detach removes it. Masters are the operations of
// a plugin whose link is made on another one.
//
// Contract: that of a plugin, see package plugin. What a function makes is on the undo stack of the
// request.
package link

import (
	"context"
	"errors"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Group is the link group of the links that plugins make in a pod: a DEL of the sandbox removes
// them in one step. The number is arbitrary ("brai"); 0 is the kernel's default group.
const Group uint32 = 0x62726169

// Adopt looks up the link that was just made for the pod, and returns it as a result describes it
// too. Its removal is put on the undo stack.
func Adopt(ctx context.Context, req *plugin.Request) (*nl.Link, *types100.Interface, error) {
	_, pod, err := req.Pod()
	if err != nil {
		return nil, nil, err
	}
	req.Undo.Push(func(ctx context.Context) error { return pod.DeleteLink(ctx, req.IfName) })
	link, err := pod.Link(ctx, req.IfName)
	if err != nil {
		return nil, nil, err
	}
	return link, &types100.Interface{
		Name: link.Name, Mac: link.MAC.String(), Sandbox: req.NetNS,
	}, nil
}

// Detach is the DEL of a plugin whose interface is a link in the pod: the link goes first, then the
// addresses go back to the IPAM plugin. While the link stays they do not: nobody else may get an
// address that is still on a link.
func Detach(ctx context.Context, req *plugin.Request, c *plugin.Common) error {
	if err := remove(ctx, req); err != nil {
		return err
	}
	return plugin.PassOn(ctx, req, c, "DEL")
}

// remove removes the pod's interface. One that is gone, alone or with the pod, is no error.
func remove(ctx context.Context, req *plugin.Request) error {
	_, pod, err := req.Pod()
	if errors.Is(err, plugin.ErrNoPod) {
		return nil
	}
	if err != nil {
		return err
	}
	return pod.DeleteLink(ctx, req.IfName)
}
