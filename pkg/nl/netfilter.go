package nl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"

	vnl "github.com/vishvananda/netlink/nl"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// ErrNoNetfilter is that the kernel has no netfilter netlink at all.
var ErrNoNetfilter = errors.New("the kernel has no netfilter netlink (CONFIG_NETFILTER_NETLINK)")

// batchRoom is the size in bytes of a batch that the socket takes: thousands of rules.
const batchRoom = 16 << 20

// Netfilter talks to the kernel's packet filter and connection tracking in one network namespace. Use it from one goroutine at a time.
type Netfilter struct {
	ns      *netns.NS
	sockets map[int]*vnl.SocketHandle
}

// NetfilterMessage is a request of netfilter's netlink (linux/netfilter/nfnetlink.h).
type NetfilterMessage struct {
	// Type is subsystem<<8 | message. Flags are those of linux/netlink.h, beside the ones that the method sets.
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

// Attrs goes over netlink attributes, each with its kind, flags included, and its value, up to what is none.
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
	var socket *vnl.NetlinkSocket
	err := ns.Do(func() (err error) {
		socket, err = vnl.GetNetlinkSocketAt(vnetns.None(), vnetns.None(), unix.NETLINK_NETFILTER)
		return err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		err = ErrNoNetfilter
	}
	if err != nil {
		return nil, fmt.Errorf("open netfilter socket in network namespace %q: %w", ns.Path(), err)
	}
	// Without the privilege for it, a batch is limited to the system's default.
	_ = unix.SetsockoptInt(socket.GetFd(), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, batchRoom)
	return &Netfilter{ns, map[int]*vnl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}}, nil
}

// Close lets go of the socket.
func (n *Netfilter) Close() {
	for _, s := range n.sockets {
		s.Close()
	}
	n.sockets = nil
}

// Do makes one request, which asks for an object, or for an acknowledgement by its flags. It gives the answer without its netlink
// header: the family, three further bytes, and attributes.
func (n *Netfilter) Do(ctx context.Context, m NetfilterMessage) (answer []byte, err error) {
	err = n.execute(ctx, m, func(b []byte) { answer = b })
	return answer, err
}

// Dump lists objects, each as Do gives one. EINTR says that changes of others disturbed it every time.
func (n *Netfilter) Dump(ctx context.Context, m NetfilterMessage) ([][]byte, error) {
	m.Flags |= unix.NLM_F_DUMP
	for range dumpTries {
		var list [][]byte
		err := n.execute(ctx, m, func(b []byte) { list = append(list, b) })
		if err == nil {
			return list, nil
		}
		if !errors.Is(err, vnl.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
	return nil, unix.EINTR
}

func (n *Netfilter) execute(ctx context.Context, m NetfilterMessage, each func([]byte)) error {
	return execute(ctx, n.sockets, unix.NETLINK_NETFILTER, int(m.Type), int(m.Flags), []vnl.NetlinkRequestData{encoded(m.body(0))}, each)
}

// body is the message without its netlink header.
func (m NetfilterMessage) body(resource uint16) []byte {
	b := append(make([]byte, 0, 4+len(m.Attrs)), m.Family, unix.NFNETLINK_V0)
	return append(binary.BigEndian.AppendUint16(b, resource), m.Attrs...)
}

// encoded is a part of a request that is bytes already.
type encoded []byte

func (e encoded) Len() int          { return len(e) }
func (e encoded) Serialize() []byte { return e }

// nfnlBatchGenID is NFNL_BATCH_GENID of linux/netfilter/nfnetlink.h.
const nfnlBatchGenID = 1

// Batch makes all of the requests of a subsystem or none. generation is that of the state which they were made for: the kernel refuses
// them, with ERESTART, where it has changed since; 0 does not ask for that. Where an error is a certain request's, failed is its index,
// otherwise -1. A batch of none waits for those of others that are being carried out.
func (n *Netfilter) Batch(ctx context.Context, subsystem uint16, generation uint32, messages []NetfilterMessage) (failed int, err error) {
	handle, err := ready(ctx, n.sockets, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, err
	}
	count := uint32(len(messages))
	// The beginning has the number first, message i first+1+i, the end the one after.
	first := atomic.AddUint32(&handle.Seq, count+2) - count - 1
	begin := NetfilterMessage{Type: unix.NFNL_MSG_BATCH_BEGIN}
	if generation != 0 {
		begin.Attrs = AppendAttr(nil, nfnlBatchGenID, binary.BigEndian.AppendUint32(nil, generation))
	}
	request := begin.appendTo(nil, first, subsystem)
	for i, m := range messages {
		if i == len(messages)-1 {
			m.Flags |= unix.NLM_F_ACK
		}
		request = m.appendTo(request, first+1+uint32(i), 0)
	}
	request = NetfilterMessage{Type: unix.NFNL_MSG_BATCH_END}.appendTo(request, first+1+count, subsystem)
	// The kernel does what it is asked for before the call returns.
	err = unix.Sendto(handle.Socket.GetFd(), request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err != nil || count == 0 {
		return -1, err
	}
	return outcome(handle.Socket, first, count)
}

func (m NetfilterMessage) appendTo(b []byte, seq uint32, resource uint16) []byte {
	body := m.body(resource)
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, m.Type)
	b = binary.NativeEndian.AppendUint16(b, m.Flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, body...)
}

// outcome reads what became of a batch. The kernel tells every message's error, in order, and the success of the last one, which alone asks
// for it; or one error for the whole batch, which has the number of its beginning.
func outcome(socket *vnl.NetlinkSocket, first, count uint32) (failed int, err error) {
	failed = -1
	for {
		answers, _, rerr := socket.Receive()
		if rerr != nil {
			return -1, rerr
		}
		for _, a := range answers {
			// What is left of a request before that failed has another number.
			index := a.Header.Seq - first - 1
			whole := a.Header.Seq == first
			if a.Header.Type != unix.NLMSG_ERROR || len(a.Data) < 4 || index >= count && !whole {
				continue
			}
			errno := unix.Errno(-int32(binary.NativeEndian.Uint32(a.Data)))
			if whole && errno != 0 {
				return -1, errno
			}
			if errno != 0 && err == nil {
				failed, err = int(index), errno
			}
			if index == count-1 {
				return failed, err
			}
		}
	}
}
