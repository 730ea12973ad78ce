// Package nl is Braid's only user of rtnetlink and of netfilter's netlink: what it asks of, and
// does to, the links, addresses, routes and rules of a network namespace, and its packet filter and
// connection tracking.
//
// Contract: a Handle is bound to one namespace when it is opened and works there from whatever
// thread calls it; nothing here enters a namespace otherwise. Dumps are consistent: one that the
// kernel interrupted because something changed meanwhile is repeated. A link is found by its name,
// and known by its index from then on. What takes something away may be repeated, as may
// MoveDefaultRoute; what adds something says where it exists, by an error that is fs.ErrExist.
// Errors name what was asked for and keep the kernel's number. A context that has ended stops a
// method between two requests; the kernel answers a single one without waiting for anything but its
// own lock.
package nl

import (
	"context"
	"fmt"
	"slices"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// Handle talks to the kernel about one network namespace. Safe for concurrent use, except Close.
type Handle struct{ conn *conn }

// Open makes a handle for ns. The handle stays valid after ns is closed, and keeps the namespace
// alive until it is closed itself.
func Open(ns *netns.NS) (*Handle, error) {
	c, err := dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket in network namespace %q: %w", ns.Path(), err)
	}
	return &Handle{c}, nil
}

// Close lets go of the socket.
func (h *Handle) Close() { h.conn.close() }

// Change is something to change in a namespace.
type Change struct {
	what string
	request
}

// together bounds how many changes are sent at once. What the kernel has to say of all of them, the
// socket has room for.
const together = 64

// Apply makes changes in their order, as one request as far as possible: some of those that come
// after one that fails may be made, too. The error is that of the first that fails.
func (h *Handle) Apply(ctx context.Context, changes ...Change) error {
	for some := range slices.Chunk(changes, together) {
		requests := make([]request, len(some))
		for i, c := range some {
			requests[i] = c.request
		}
		requests[len(some)-1].flags |= unix.NLM_F_ACK
		if failed, err := h.conn.exchange(ctx, requests, func([]byte) {}); err != nil {
			return fmt.Errorf("%s: %w", some[failed].what, err)
		}
	}
	return nil
}

// do makes one request and waits for its acknowledgement.
func (h *Handle) do(
	ctx context.Context, kind, flags uint16, parts ...vnl.NetlinkRequestData,
) error {
	return h.conn.one(ctx, newRequest(kind, flags|unix.NLM_F_ACK, parts...), func([]byte) {})
}

// get asks for one object; the answer is without its netlink header.
func (h *Handle) get(
	ctx context.Context, kind uint16, parts ...vnl.NetlinkRequestData,
) (answer []byte, err error) {
	err = h.conn.one(ctx, newRequest(kind, 0, parts...), func(m []byte) { answer = m })
	return answer, err
}

// dump lists objects, each as get returns it.
func (h *Handle) dump(
	ctx context.Context, kind uint16, parts ...vnl.NetlinkRequestData,
) ([][]byte, error) {
	return h.conn.dump(ctx, newRequest(kind, 0, parts...))
}
