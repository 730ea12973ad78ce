// Package nl is Braid's only user of rtnetlink and of netfilter's netlink: what it asks of, and does to, the links, addresses, routes and
// rules of a network namespace, and its packet filter and connection tracking.
//
// Contract: a Handle is bound to one namespace when it is opened and works there from whatever thread calls it; nothing here enters a
// namespace otherwise. Dumps are consistent: one that the kernel interrupted because something changed meanwhile is repeated. A link is
// found by its name, and known by its index from then on. What takes something away may be repeated, as may MoveDefaultRoute; what adds
// something says where it exists, by an error that is fs.ErrExist. Errors name what was asked for and keep the kernel's number. A context
// that has ended stops a method between two requests; the kernel answers a single one without waiting for anything but its own lock.
package nl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// answerWithin bounds the wait for an answer where the context has no earlier deadline. The kernel answers before the request's system
// call returns, so it only keeps a defect from becoming a hang.
const answerWithin = 10 * time.Second

// dumpTries bounds the repetition of interrupted dumps. In a pod's namespace, where links come one at a time, two tries are rare.
const dumpTries = 20

// Handle talks to the kernel about one network namespace. Safe for concurrent use, except Close.
type Handle struct {
	// sockets serve the requests that the library has no function for, lib all others.
	sockets map[int]*vnl.SocketHandle
	lib     *netlink.Handle
}

// Open makes a handle for ns. The handle stays valid after ns is closed, and keeps the namespace alive until it is closed itself.
func Open(ns *netns.NS) (*Handle, error) {
	h := &Handle{}
	err := ns.Do(func() (err error) {
		socket, err := vnl.GetNetlinkSocketAt(vnetns.None(), vnetns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		h.sockets = map[int]*vnl.SocketHandle{unix.NETLINK_ROUTE: {Socket: socket}}
		// The kernel then says in words what it refuses ("Nexthop has invalid gateway"). One that is too old for it says nothing.
		_ = socket.SetExtAck(true)
		if h.lib, err = netlink.NewHandleAt(vnetns.None(), unix.NETLINK_ROUTE); err != nil {
			socket.Close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in network namespace %q: %w", ns.Path(), err)
	}
	return h, nil
}

// Close lets go of the sockets.
func (h *Handle) Close() {
	for _, s := range h.sockets {
		s.Close()
	}
	if h.lib != nil {
		h.lib.Close()
	}
	h.sockets, h.lib = nil, nil
}

// call makes one request through the library, and again while the kernel says that a dump was interrupted.
func call[T any](ctx context.Context, request func() (T, error)) (value T, err error) {
	for range dumpTries {
		if err := ctx.Err(); err != nil {
			return value, err
		}
		value, err = request()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return value, err
}

// do makes one request and waits for its acknowledgement.
func (h *Handle) do(ctx context.Context, kind, flags int, parts ...vnl.NetlinkRequestData) error {
	return h.execute(ctx, kind, flags|unix.NLM_F_ACK, parts, func([]byte) {})
}

// dump collects the messages of a dump, each without its netlink header.
func (h *Handle) dump(ctx context.Context, kind int, parts ...vnl.NetlinkRequestData) ([][]byte, error) {
	var err error
	for range dumpTries {
		var messages [][]byte
		err = h.execute(ctx, kind, unix.NLM_F_DUMP, parts, func(m []byte) { messages = append(messages, m) })
		if err == nil {
			return messages, nil
		}
		if !errors.Is(err, vnl.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	return nil, err
}

func (h *Handle) execute(ctx context.Context, kind, flags int, parts []vnl.NetlinkRequestData, each func([]byte)) error {
	return execute(ctx, h.sockets, unix.NETLINK_ROUTE, kind, flags, parts, each)
}

var errClosed = errors.New("netlink handle is closed")

// execute makes one request on the socket of a netlink protocol, and calls each for every message of the answer.
func execute(
	ctx context.Context, sockets map[int]*vnl.SocketHandle, protocol, kind, flags int, parts []vnl.NetlinkRequestData, each func([]byte),
) error {
	if _, err := ready(ctx, sockets, protocol); err != nil {
		return err
	}
	req := vnl.NewNetlinkRequest(kind, flags)
	req.Sockets = sockets
	for _, part := range parts {
		req.AddData(part)
	}
	return req.ExecuteIter(protocol, 0, func(m []byte) bool {
		each(m)
		return true
	})
}

// ready is the socket of a netlink protocol, which waits for an answer as long as ctx lets it.
func ready(ctx context.Context, sockets map[int]*vnl.SocketHandle, protocol int) (*vnl.SocketHandle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	socket, ok := sockets[protocol]
	if !ok {
		return nil, errClosed
	}
	wait := answerWithin
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, max(time.Until(end), time.Millisecond))
	}
	limit := unix.NsecToTimeval(wait.Nanoseconds())
	return socket, socket.Socket.SetReceiveTimeout(&limit)
}
