package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// ErrNoNetfilter means that the kernel has no netfilter netlink at all.
var ErrNoNetfilter = errors.New("the kernel has no netfilter netlink (CONFIG_NETFILTER_NETLINK)")

// batchRoom is the size in bytes of a batch that the socket takes: thousands of rules.
const batchRoom = 16 << 20

// Netfilter talks to the kernel's packet filter and connection tracking in one network namespace.
// Use it from one goroutine at a time.
type Netfilter struct {
	ns   *netns.NS
	conn *conn
}

// NetfilterMessage is a request of netfilter's netlink (linux/netfilter/nfnetlink.h).
type NetfilterMessage struct {
	// Type is subsystem<<8 | message. Flags are those of linux/netlink.h, beside the ones that the
	// method sets.
	Type, Flags uint16
	// Family is one of NFPROTO_*.
	Family byte
	// Attrs are attributes, as AppendAttr makes them.
	Attrs []byte
}

// AppendAttr appends a netlink attribute with its padding.
func AppendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&(unix.NLA_ALIGNTO-1))...)
}

// Attrs goes over netlink attributes, each with its kind, flags included, and its value, up to what
// is none.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
			if length < unix.SizeofNlAttr || length > len(b) || !yield(kind, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(len(b), (length+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
		}
	}
}

// OpenNetfilter makes a socket in ns, which must stay open as long.
func OpenNetfilter(ns *netns.NS) (*Netfilter, error) {
	c, err := dial(ns, unix.NETLINK_NETFILTER)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		err = ErrNoNetfilter
	}
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket in network namespace %q: %w", ns.Path(), err)
	}
	// Without the privilege for it, a batch is limited to the system's default.
	//nolint:errcheck // a batch that is too large fails, and says so
	unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, batchRoom)
	return &Netfilter{ns, c}, nil
}

// Close lets go of the socket.
func (n *Netfilter) Close() { n.conn.close() }

// Do makes one request, which asks for an object, or for an acknowledgement by its flags. It
// returns the answer without its netlink header: the family, three further bytes, and attributes.
func (n *Netfilter) Do(ctx context.Context, m NetfilterMessage) (answer []byte, err error) {
	err = n.conn.one(ctx, m.request(0), func(b []byte) { answer = b })
	return answer, err
}

// Dump lists objects, each as Do returns it. EINTR says that changes of others disturbed it every
// time.
func (n *Netfilter) Dump(ctx context.Context, m NetfilterMessage) ([][]byte, error) {
	return n.conn.dump(ctx, m.request(0))
}

// request returns the message as it is sent. resource is the subsystem at the ends of a batch, and
// 0 in all other messages (nfgenmsg of linux/netfilter/nfnetlink.h).
func (m NetfilterMessage) request(resource uint16) request {
	body := append(make([]byte, 0, 4+len(m.Attrs)), m.Family, unix.NFNETLINK_V0)
	return request{m.Type, m.Flags, append(binary.BigEndian.AppendUint16(body, resource), m.Attrs...)}
}

// nfnlBatchGenID is NFNL_BATCH_GENID of linux/netfilter/nfnetlink.h.
const nfnlBatchGenID = 1

// Batch makes all of the requests of a subsystem or none. generation is that of the state which
// they were made for: the kernel refuses them, with ERESTART, where it has changed since; 0 does
// not ask for that. Where an error is a certain request's, failed is its index, otherwise -1. A
// batch of none waits for those of others that are being carried out.
func (n *Netfilter) Batch(
	ctx context.Context, subsystem uint16, generation uint32, messages []NetfilterMessage,
) (failed int, err error) {
	if err := ctx.Err(); err != nil {
		return -1, err
	}
	count := uint32(len(messages))
	// The beginning has the number first, message i first+1+i, the end the one after.
	first := n.conn.seq + 1
	n.conn.seq += count + 2
	begin := NetfilterMessage{Type: unix.NFNL_MSG_BATCH_BEGIN}
	if generation != 0 {
		begin.Attrs = AppendAttr(nil, nfnlBatchGenID, binary.BigEndian.AppendUint32(nil, generation))
	}
	batch := begin.request(subsystem).appendTo(nil, first)
	for i, m := range messages {
		if i == len(messages)-1 {
			m.Flags |= unix.NLM_F_ACK
		}
		batch = m.request(0).appendTo(batch, first+1+uint32(i))
	}
	batch = NetfilterMessage{Type: unix.NFNL_MSG_BATCH_END}.request(subsystem).
		appendTo(batch, first+1+count)
	// The kernel does what it is asked for before the call returns.
	if err := n.conn.send(batch); err != nil || count == 0 {
		return -1, err
	}
	return n.conn.outcome(first, count)
}

// outcome reads what became of a batch. The kernel tells every message's error, in order, and the
// success of the last one, which alone asks for it; or one error for the whole batch, which has the
// number of its beginning.
func (c *conn) outcome(first, count uint32) (failed int, err error) {
	b := batch{first: first, count: count, failed: -1}
	for {
		answers, err := c.receive()
		if err != nil {
			return -1, err
		}
		for _, a := range answers {
			if b.take(a) {
				return b.failed, b.err
			}
		}
	}
}

// batch is what is known so far of what became of a batch.
type batch struct {
	// first is the number of its beginning, which count messages follow.
	first, count uint32
	// failed is the index of the first message that failed, and err its error; -1 if it is the
	// batch's.
	failed int
	err    error
}

// take takes in an answer, and reports whether it is the last one.
func (b *batch) take(a syscall.NetlinkMessage) (ended bool) {
	if a.Header.Type != unix.NLMSG_ERROR || len(a.Data) < 4 {
		return false
	}
	_, err := verdict(a)
	if a.Header.Seq == b.first {
		if err != nil {
			b.failed, b.err = -1, err
		}
		return err != nil
	}
	index := a.Header.Seq - b.first - 1
	if index >= b.count {
		return false // what is left of a request before that failed
	}
	if err != nil && b.err == nil {
		b.failed, b.err = int(index), err
	}
	return index == b.count-1
}
