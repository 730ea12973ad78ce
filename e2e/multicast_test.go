package e2e_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inPod calls fn on a thread in the network namespace of a pod, and waits for it. Sockets that it
// makes stay there.
func (w *workspace) inPod(pod string, fn func() error) {
	w.t.Helper()
	path, err := w.node.PodNetns(w.ctx, w.namespace, pod)
	w.must(err)
	w.must(inNamespace(path, fn))
}

// inNamespace calls fn on a thread in a network namespace.
func inNamespace(path string, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		f, err := os.Open(path)
		if err == nil {
			err = os.NewSyscallError("setns", unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
			f.Close()
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

// receiveMulticast joins a group on one interface of a pod. The channel has the first datagram,
// or "" after two seconds without any.
func (w *workspace) receiveMulticast(pod, ifname string, group *net.UDPAddr) <-chan string {
	w.t.Helper()
	var conn *net.UDPConn
	w.inPod(pod, func() error {
		iface, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		if conn, err = net.ListenMulticastUDP("udp4", iface, group); err != nil {
			return err
		}
		// Else a socket also gets what other sockets joined for, on other interfaces.
		return control(conn, func(fd int) error {
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0)
		})
	})
	got := make(chan string, 1)
	go func() {
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		buffer := make([]byte, 100)
		n, _, _ := conn.ReadFromUDP(buffer)
		got <- string(buffer[:n])
	}()
	return got
}

func (w *workspace) sendMulticast(pod, ifname string, group *net.UDPAddr, text string) {
	w.t.Helper()
	w.inPod(pod, func() error {
		iface, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		conn, err := net.DialUDP("udp4", nil, group)
		if err != nil {
			return err
		}
		defer conn.Close()
		err = control(conn, func(fd int) error {
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF,
				&unix.IPMreqn{Ifindex: int32(iface.Index)})
		})
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte(text))
		return err
	})
}

func control(conn syscall.Conn, set func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = set(int(fd)) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("set socket option: %w", failed)
	}
	return nil
}
