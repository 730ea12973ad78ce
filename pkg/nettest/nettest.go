// Package nettest makes network namespaces, links, addresses and routes for tests, and turns their
// state into text to compare.
//
// It is support for tests only; nothing else imports it. Every function fails the test when it
// cannot do its work. What a test makes is gone when the test ends, also when it failed, and if it
// was killed, when the next one begins. Nothing touches the namespace that the test runs in.
package nettest

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// root is where the namespaces are mounted: a directory as runtimes use, on tmpfs, and not theirs.
const root = "/run/braid-test/netns"

// NeedsRoot skips the test unless it runs as root.
func NeedsRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root")
	}
}

// Namespace is a network namespace of a test.
type Namespace struct {
	// Path is where it is mounted, as a runtime would pass it in CNI_NETNS.
	Path string

	tb testing.TB
	nl *netlink.Handle
}

// New makes an empty namespace with its loopback link up and the kernel's own parameters, whatever
// the machine's are, and removes it when the test ends. It needs root, and skips the test without.
func New(tb testing.TB) *Namespace {
	tb.Helper()
	NeedsRoot(tb)
	n := &Namespace{Path: mountPoint(tb), tb: tb}
	tb.Cleanup(n.remove)

	// The thread that enters the new namespace ends with the call.
	must(tb, netns.Guard(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := setDefaults(); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", n.Path, "", unix.MS_BIND, "")
	}))
	n.nl = n.handle()
	tb.Cleanup(n.nl.Close)
	n.Up("lo")
	return n
}

// mountPoint makes an empty file to mount a namespace on.
func mountPoint(tb testing.TB) string {
	tb.Helper()
	for {
		err := os.MkdirAll(root, 0o755)
		if err == nil {
			sweep()
			var f *os.File
			if f, err = os.CreateTemp(root, fmt.Sprintf("ns-%d-*", os.Getpid())); err == nil {
				must(tb, f.Close())
				return f.Name()
			}
		}
		// The test of another process may have removed the directories that it left empty, at any moment.
		if !errors.Is(err, fs.ErrNotExist) {
			must(tb, err)
		}
	}
}

// sweep removes what tests left that were killed. Another process may do the same.
func sweep() {
	entries, _ := os.ReadDir(root)
	for _, e := range entries {
		var pid int
		_, err := fmt.Sscanf(e.Name(), "ns-%d-", &pid)
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			unix.Unmount(filepath.Join(root, e.Name()), unix.MNT_DETACH)
			os.Remove(filepath.Join(root, e.Name()))
		}
	}
}

// Inode returns the namespace's identity.
func (n *Namespace) Inode() uint64 {
	n.tb.Helper()
	var st unix.Stat_t
	must(n.tb, unix.Stat(n.Path, &st))
	return st.Ino
}

// Unmount removes the namespace before the test ends, as a runtime does before it repeats a DEL.
// Handles that are open, that of this package included, keep it alive.
func (n *Namespace) Unmount() {
	n.tb.Helper()
	n.nl.Close()
	n.remove()
}

// remove unmounts the namespace and removes its file. The kernel removes the namespace with the
// last process and descriptor in it.
func (n *Namespace) remove() {
	err := unix.Unmount(n.Path, unix.MNT_DETACH)
	if err != nil && err != unix.EINVAL && err != unix.ENOENT {
		n.tb.Errorf("unmount %s: %v", n.Path, err)
	}
	if err := os.Remove(n.Path); err != nil && !os.IsNotExist(err) {
		n.tb.Errorf("remove namespace: %v", err)
	}
	// They go with the last namespace.
	os.Remove(root)
	os.Remove(filepath.Dir(root))
}

// Run calls fn on a thread that is in the namespace, and returns its error. fn must not end the
// test (FailNow, Fatal) itself. Goroutines that it starts are not in the namespace; processes are.
func (n *Namespace) Run(fn func() error) error {
	return netns.Guard(func() error {
		ns, err := netns.Open(n.Path)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(ns.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", n.Path, err)
		}
		return fn()
	})
}

// Netlink returns a handle bound to the namespace, for what this package has no function for. It
// lives as long as the test.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

// handle opens a netlink handle, from a thread that is in the namespace no longer than that.
func (n *Namespace) handle() *netlink.Handle {
	n.tb.Helper()
	var h *netlink.Handle
	must(n.tb, netns.Guard(func() error {
		ns, err := netns.Open(n.Path)
		if err != nil {
			return err
		}
		defer ns.Close()
		h, err = netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
		return err
	}))
	return h
}

// Link finds a link.
func (n *Namespace) Link(name string) netlink.Link {
	n.tb.Helper()
	l, err := n.nl.LinkByName(name)
	if err != nil {
		n.tb.Fatalf("nettest: link %s: %v", name, err)
	}
	return l
}

// HasLink reports whether there is such a link.
func (n *Namespace) HasLink(name string) bool {
	n.tb.Helper()
	_, err := n.nl.LinkByName(name)
	if _, missing := err.(netlink.LinkNotFoundError); missing { //nolint:errorlint // returned bare
		return false
	}
	must(n.tb, err)
	return true
}

// Veth makes a pair of links, the other end in peer (which may be n), and sets both up.
func (n *Namespace) Veth(name string, peer *Namespace, peerName string) {
	n.tb.Helper()
	other, err := netns.Open(peer.Path)
	must(n.tb, err)
	defer other.Close()
	veth := &netlink.Veth{
		LinkAttrs: attrs(name), PeerName: peerName,
		PeerNamespace: netlink.NsFd(other.Fd()),
	}
	n.Add(veth)
	n.Up(name)
	peer.Up(peerName)
}

// Bridge makes a bridge and sets it up.
func (n *Namespace) Bridge(name string) {
	n.tb.Helper()
	n.Add(&netlink.Bridge{LinkAttrs: attrs(name)})
	n.Up(name)
}

// Dummy makes a dummy link, where the kernel has them, and sets it up.
func (n *Namespace) Dummy(name string) {
	n.tb.Helper()
	NeedsLink(n.tb, "dummy")
	n.Add(&netlink.Dummy{LinkAttrs: attrs(name)})
	n.Up(name)
}

// Up sets a link up.
func (n *Namespace) Up(name string) {
	n.tb.Helper()
	must(n.tb, n.nl.LinkSetUp(n.Link(name)))
}

// Down sets a link down.
func (n *Namespace) Down(name string) {
	n.tb.Helper()
	must(n.tb, n.nl.LinkSetDown(n.Link(name)))
}

// Rename renames a link, which is down then.
func (n *Namespace) Rename(name, to string) {
	n.tb.Helper()
	n.Down(name)
	must(n.tb, n.nl.LinkSetName(n.Link(name), to))
}

// Master puts a link into a bridge.
func (n *Namespace) Master(name, bridge string) {
	n.tb.Helper()
	must(n.tb, n.nl.LinkSetMaster(n.Link(name), n.Link(bridge)))
}

// Addr gives addresses, each with its prefix length, to a link. IPv6 ones are usable at once:
// without duplicate address detection.
func (n *Namespace) Addr(name string, cidrs ...string) {
	n.tb.Helper()
	link := n.Link(name)
	for _, cidr := range cidrs {
		a, err := netlink.ParseAddr(cidr)
		must(n.tb, err)
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		must(n.tb, n.nl.AddrAdd(link, a))
		if a.IP.To4() == nil && link.Attrs().Flags&net.FlagUp != 0 {
			n.awaitLocal(a.IP)
		}
	}
}

// awaitLocal waits for the local route of an IPv6 address, which the kernel makes a moment later.
func (n *Namespace) awaitLocal(ip net.IP) {
	n.tb.Helper()
	want := fmt.Sprintf("local %s/128", ip)
	end := time.Now().Add(30 * time.Second)
	for ; !strings.Contains(n.Routes(), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			n.tb.Fatalf("nettest: no route %q", want)
		}
	}
}

// Route adds a route of the main table via a link, behind those that are there (`ip route append`).
// to is a CIDR, or "default" with a gateway; without one the route is link-scope. Metric 0 means
// the kernel's default.
func (n *Namespace) Route(to, gateway, name string, metric int) {
	n.tb.Helper()
	r := &netlink.Route{
		LinkIndex: n.Link(name).Attrs().Index, Priority: metric, Gw: net.ParseIP(gateway),
	}
	if gateway == "" {
		r.Scope = netlink.SCOPE_LINK
	}
	if to != "default" {
		_, dst, err := net.ParseCIDR(to)
		must(n.tb, err)
		r.Dst = dst
	}
	if err := n.nl.RouteAppend(r); err != nil {
		n.tb.Fatalf("nettest: route %s via %s dev %s: %v", to, gateway, name, err)
	}
}

// Add makes any link, and leaves it down.
func (n *Namespace) Add(l netlink.Link) {
	n.tb.Helper()
	if err := n.nl.LinkAdd(l); err != nil {
		n.tb.Fatalf("nettest: add %s link %s: %v", l.Type(), l.Attrs().Name, err)
	}
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("nettest: %v", err)
	}
}
