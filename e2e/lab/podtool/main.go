// Command podtool is the only program in the lab's container images: the pause of a pod sandbox,
// and what pods need in tests.
//
//	podtool [pause]                 waits until it is told to end, and reaps orphans
//	podtool addrs [NETNS]           prints the interfaces of the pod, or of the namespace at NETNS
//	podtool serve ADDR [TEXT]       answers TCP at ADDR ("[host]:port") with TEXT or the host name
//	podtool dial ADDR [LOCAL]       connects, from address LOCAL if given, and prints the answer
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	command := "pause"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	err := fmt.Errorf("no such command, or arguments missing: %s", command)
	switch {
	case command == "pause":
		err = pause()
	case command == "addrs":
		err = addrs(os.Stdout, args)
	case command == "serve" && len(args) > 0:
		err = serve(args[0], args[1:])
	case command == "dial" && len(args) > 0:
		err = dial(os.Stdout, args[0], args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "podtool:", err)
		return 1
	}
	return 0
}

// pause waits for a signal to end. As the first process of a sandbox it also reaps.
func pause() error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			break
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

// link is an interface as addrs prints it.
type link struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	MTU       int      `json:"mtu"`
	Up        bool     `json:"up"`
	Addresses []string `json:"addresses"` // with prefix length
}

// addrs prints the interfaces of a network namespace, by default the pod's own, as JSON.
func addrs(w io.Writer, netns []string) error {
	if len(netns) > 0 {
		if err := enterNetns(netns[0]); err != nil {
			return err
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return err
	}
	links := make([]link, len(interfaces))
	for i, iface := range interfaces {
		addresses, err := iface.Addrs()
		if err != nil {
			return err
		}
		links[i] = link{
			Name: iface.Name, MAC: iface.HardwareAddr.String(), MTU: iface.MTU,
			Up: iface.Flags&net.FlagUp != 0, Addresses: make([]string, len(addresses)),
		}
		for j, address := range addresses {
			links[i].Addresses[j] = address.String()
		}
	}
	return json.NewEncoder(w).Encode(links)
}

// enterNetns moves the calling goroutine, for good, into a network namespace.
func enterNetns(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	runtime.LockOSThread()
	return os.NewSyscallError("setns", unix.Setns(int(f.Fd()), unix.CLONE_NEWNET))
}

// serve answers each connection with one line, until it is killed.
func serve(address string, text []string) error {
	answer, err := os.Hostname()
	if err != nil {
		return err
	}
	if len(text) > 0 {
		answer = text[0]
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		fmt.Fprintln(conn, answer)
		conn.Close()
	}
}

// dial connects, and prints all that it is answered.
func dial(w io.Writer, address string, local []string) error {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if len(local) > 0 {
		ip := net.ParseIP(local[0])
		if ip == nil {
			return fmt.Errorf("not an IP address: %s", local[0])
		}
		dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(w, conn)
	return err
}
