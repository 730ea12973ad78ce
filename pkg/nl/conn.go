package nl

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// answerWithin bounds the wait for an answer. The kernel answers before the request's system call
// returns, so it only keeps a defect from becoming a hang.
const answerWithin = 10 * time.Second

// dumpTries bounds the repetition of interrupted dumps. In a pod's namespace, where links come one
// at a time, two tries are rare.
const dumpTries = 20

// conn is a netlink socket in a network namespace. Its system calls block the thread, which is
// short: the kernel does what it is asked for before the call that asks returns. Go's poller would
// have nothing to wait for, and be woken by every request.
type conn struct {
	mu  sync.Mutex
	fd  int // -1 when it is closed
	seq uint32
}

// dial makes a socket of a netlink protocol in ns. It stays valid after ns is closed.
func dial(ns *netns.NS, protocol int) (*conn, error) {
	c := &conn{}
	err := ns.Do(func() (err error) {
		c.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		return err
	})
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(answerWithin.Nanoseconds())
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		c.close()
		return nil, err
	}
	// The kernel then says in words what it refuses ("Nexthop has invalid gateway").
	//nolint:errcheck // a kernel that is too old for it has no words
	unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	return c, nil
}

// close may be called twice.
func (c *conn) close() {
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	c.fd = -1
}

var errClosed = errors.New("netlink handle is closed")

// request is a message to the kernel: its type, its flags beside NLM_F_REQUEST, and what follows
// the header.
type request struct {
	kind, flags uint16
	body        []byte
}

// newRequest makes a request whose parts, a header and attributes, follow each other.
func newRequest(kind, flags uint16, parts ...vnl.NetlinkRequestData) request {
	r := request{kind: kind, flags: flags}
	for _, p := range parts {
		r.body = append(r.body, p.Serialize()...)
	}
	return r
}

// appendTo appends the request, padded, with its number.
func (r request) appendTo(b []byte, seq uint32) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(r.body)))
	b = binary.NativeEndian.AppendUint16(b, r.kind)
	b = binary.NativeEndian.AppendUint16(b, r.flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, r.body...)
	return append(b, make([]byte, aligned(len(r.body))-len(r.body))...)
}

// exchange sends requests, all in one system call, and calls each for every message of the answers.
// The kernel works on them in their order, and goes on past one that fails. The last one is a dump,
// or asks for an object or an acknowledgement: its answer ends the exchange. The error is that of
// the first request that failed, and failed its index.
func (c *conn) exchange(
	ctx context.Context, requests []request, each func([]byte),
) (failed int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	got := answers{first: c.seq + 1}
	var datagram []byte
	for _, r := range requests {
		c.seq++
		datagram = r.appendTo(datagram, c.seq)
	}
	if err := c.send(datagram); err != nil {
		return 0, err
	}
	for {
		messages, err := c.receive()
		if err != nil {
			return got.failed, cmp.Or(got.err, err)
		}
		for _, m := range messages {
			if got.take(m, requests, each) {
				return got.failed, got.err
			}
		}
	}
}

// answers are what has come so far of the answers to the requests of an exchange.
type answers struct {
	// first is the number of the first request; those of the others follow.
	first uint32
	// err is that of the first request that failed, and failed its index.
	failed int
	err    error
}

// take takes in a message, and reports whether it is the last one. What belongs to the exchange is
// passed with each call, as a field that holds each would have every closure allocated.
func (got *answers) take(
	m syscall.NetlinkMessage, requests []request, each func([]byte),
) (ended bool) {
	i := m.Header.Seq - got.first
	last := uint32(len(requests) - 1)
	if i > last {
		return false // what is left of an exchange that failed
	}
	ends, err := verdict(m)
	if err != nil && got.err == nil {
		got.failed, got.err = int(i), err
	}
	if !ends {
		each(m.Data)
		ends = (m.Header.Flags|requests[i].flags)&(unix.NLM_F_MULTI|unix.NLM_F_ACK) == 0
	}
	return ends && i == last
}

// one is exchange for a single request.
func (c *conn) one(ctx context.Context, r request, each func([]byte)) error {
	_, err := c.exchange(ctx, []request{r}, each)
	return err
}

// dump collects the messages of a dump, each without its netlink header. EINTR says that changes of
// others disturbed it every time.
func (c *conn) dump(ctx context.Context, r request) (messages [][]byte, err error) {
	r.flags |= unix.NLM_F_DUMP
	for range dumpTries {
		messages = nil
		if err = c.one(ctx, r, func(m []byte) {
			messages = append(messages, m)
		}); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return messages, err
}

// send hands requests to the kernel.
func (c *conn) send(datagram []byte) error {
	if c.fd < 0 {
		return errClosed
	}
	return unix.Sendto(c.fd, datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive waits for the kernel's next messages.
func (c *conn) receive() ([]syscall.NetlinkMessage, error) {
	for {
		size, _, err := unix.Recvfrom(c.fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		var from unix.Sockaddr
		messages := make([]byte, max(size, 0))
		if err == nil {
			size, from, err = unix.Recvfrom(c.fd, messages, 0)
		}
		if err != nil && err != unix.EINTR {
			return nil, err
		}
		if sender, ok := from.(*unix.SockaddrNetlink); ok && sender.Pid == 0 { // the kernel
			return syscall.ParseNetlinkMessage(messages[:size])
		}
	}
}

// verdict reports whether a message ends the answer to a request, and the error that it tells, with
// the kernel's words where it has some. A dump that changes of others disturbed is EINTR.
func verdict(m syscall.NetlinkMessage) (ends bool, err error) {
	if m.Header.Flags&unix.NLM_F_DUMP_INTR != 0 {
		err = unix.EINTR
	}
	if m.Header.Type != unix.NLMSG_ERROR && m.Header.Type != unix.NLMSG_DONE {
		return false, err
	}
	if len(m.Data) < 4 {
		return true, err
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
	if errno == 0 {
		return true, err
	}
	if words := wordsOf(m); words != nil {
		return true, fmt.Errorf("%w: %s", errno, unix.ByteSliceToString(words))
	}
	return true, errno
}

// wordsOf returns what the kernel says in words beside the number of an error; nil for nothing.
func wordsOf(m syscall.NetlinkMessage) []byte {
	said := m.Data[4:]
	if m.Header.Flags&unix.NLM_F_ACK_TLVS == 0 || len(said) < unix.SizeofNlMsghdr {
		return nil
	}
	if m.Header.Type == unix.NLMSG_ERROR { // the request comes first
		said = said[min(len(said), aligned(int(binary.NativeEndian.Uint32(said)))):]
	}
	return attr(said, vnl.NLMSGERR_ATTR_MSG)
}

// aligned is NLMSG_ALIGN of linux/netlink.h.
func aligned(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }
