package soak_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/netns"
)

// Where things are on the node: the defaults.
const (
	stateDir  = "/run/braid"
	netnsDir  = "/run/netns"
	leasesDir = "/var/lib/cni"
	bootID    = "/proc/sys/kernel/random/boot_id"
	// room is what the file systems of state and of leases have, so that they can be filled.
	room = "size=6m,nr_inodes=3000,mode=0700"
)

// node is a node with a NIC, and the cluster that it belongs to as files.
type node struct {
	t          *testing.T
	dir, braid string
	// plugins is where those are that are executed.
	plugins string
	execs   bool
	config  map[string]any
	boots   int
}

func newNode(t *testing.T, slots int, seed uint64) *node {
	t.Helper()
	n := &node{
		t: t, dir: t.TempDir(), braid: os.Getenv("BRAID_BINARY"), plugins: os.Getenv("BRAID_PLUGINS"),
	}
	if n.braid == "" {
		n.braid = filepath.Join(n.dir, "braid")
		out, err := exec.Command("go", "build", "-o", n.braid, "github.com/braid-cni/braid/cmd/braid").
			CombinedOutput()
		if err != nil {
			t.Fatalf("build braid: %v: %s", err, out)
		}
	}
	n.must(unix.Mount("tmpfs", filepath.Dir(leasesDir), "tmpfs", 0, "mode=0755"))
	n.must(os.Mkdir(leasesDir, 0o755))
	n.must(unix.Mount("tmpfs", leasesDir, "tmpfs", 0, room))
	n.boot()
	n.config = map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "logFile": n.path("braid.log"),
		"logLevel":     "verbose",
		"capabilities": map[string]bool{"portMappings": true},
	}
	own := map[string]any{
		"manifests": n.path("manifests"), "nodeName": "soak",
		"timeouts": map[string]any{"operation": "30s"},
	}
	// In every other run one plugin is a process of its own, which outlives Braid where that is
	// killed.
	if n.execs = n.plugins != "" && seed%2 == 1 && !without("exec"); n.execs {
		own["exec"] = []string{"tuning"}
	}
	n.config["braid"] = own
	n.must(os.Mkdir(n.path("manifests"), 0o700))
	n.must(unix.Mount("tmpfs", n.path("manifests"), "tmpfs", 0, room))
	t.Cleanup(func() { unix.Unmount(n.path("manifests"), unix.MNT_DETACH) })
	n.cluster(slots, false)
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// defaultNetwork is a bridge with masquerading and port mappings.
const defaultNetwork = `{"cniVersion":"1.0.0","name":"pods","plugins":[
	{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"ipam":{"type":"host-local","subnet":"10.1.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}},
	{"type":"portmap","capabilities":{"portMappings":true}}]}`

// networks are the others: cluster-wide addresses of both families with routing by source, leases
// of the node, and a small cluster-wide range with tuning.
func networks() map[string]string {
	return map[string]string{
		"a": `{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"macvlan","master":"nic0","mode":"bridge","ipam":{"type":"whereabouts",
			"range":"10.20.0.0/24","gateway":"10.20.0.1","ipRanges":[{"range":"fd20::/64"}]}},{"type":"sbr"}]}`,
		"b": `{"cniVersion":"1.0.0","name":"b","type":"macvlan","master":"nic0","mode":"bridge",` +
			`"ipam":{"type":"host-local","subnet":"10.30.0.0/25"}}`,
		"c": `{"cniVersion":"0.3.1","name":"c","plugins":[{"type":"macvlan","master":"nic0","mode":"bridge","ipam":{"type":"whereabouts",
			"range":"` + smallRange + `"}},{"type":"tuning","mtu":1400,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}]}`,
	}
}

// plainNetwork and plainNetworks are the same after an administrator has taken out of them what can
// be taken out.
const plainNetwork = `{"cniVersion":"1.0.0","name":"pods","type":"bridge","bridge":"cni0",` +
	`"isGateway":true,"ipam":{"type":"host-local","subnet":"10.1.0.0/24"}}`

func plainNetworks() map[string]string {
	return map[string]string{
		"a": `{"cniVersion":"1.0.0","name":"a","type":"macvlan","master":"nic0","mode":"bridge","ipam":{"type":"whereabouts",
			"range":"10.20.0.0/24","gateway":"10.20.0.1","ipRanges":[{"range":"fd20::/64"}]}}`,
		"b": networks()["b"],
		"c": `{"cniVersion":"0.3.1","name":"c","type":"macvlan","master":"nic0","mode":"bridge",` +
			`"ipam":{"type":"whereabouts","range":"` + smallRange + `"}}`,
	}
}

// smallRange is a range for which the test knows in the end whether each address can be given.
const (
	smallRange = "10.40.0.0/27" // so small that its blocks are shared by nodes
	smallSize  = 30
	// fillers are how many take its addresses at a time.
	fillers = 4
)

// cluster writes the networks and the pods. Where the networks are plain, they are without their
// auxiliary plugins.
func (n *node) cluster(slots int, plain bool) {
	var b strings.Builder
	object := func(apiVersion, kind, name string, spec, annotations any) {
		data, err := json.Marshal(map[string]any{
			"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{
				"name": name, "namespace": "default", "annotations": annotations,
			}, "spec": spec,
		})
		n.must(err)
		b.Write(append(data, "\n---\n"...))
	}
	text, list := defaultNetwork, networks()
	if plain {
		text, list = plainNetwork, plainNetworks()
	}
	n.config["delegates"] = []any{json.RawMessage(text)}
	for name, config := range list {
		object("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", name,
			map[string]any{"config": config}, nil)
	}
	for i := range slots {
		object("v1", "Pod", podName(i), map[string]any{},
			map[string]string{"k8s.v1.cni.cncf.io/networks": "a,b,c"})
	}
	for i := range fillers {
		object("v1", "Pod", fmt.Sprint("small-", i), map[string]any{},
			map[string]string{"k8s.v1.cni.cncf.io/networks": "c"})
	}
	n.must(os.WriteFile(n.path("manifests/all.yaml"), []byte(b.String()), 0o600))
}

func podName(i int) string { return fmt.Sprintf("pod-%02d", i) }

// boot starts the node: its memory is empty, and the kernel has nothing but the NIC. The leases are
// on its disk.
func (n *node) boot() {
	n.t.Helper()
	n.boots++
	for _, dir := range []string{stateDir, "/run"} {
		if n.boots > 1 {
			n.must(unix.Unmount(dir, unix.MNT_DETACH))
		}
	}
	n.must(unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"))
	n.must(os.Mkdir(netnsDir, 0o755))
	n.must(os.Mkdir(stateDir, 0o755))
	n.must(unix.Mount("tmpfs", stateDir, "tmpfs", 0, room))
	id := n.path("boot_id")
	n.must(os.WriteFile(id, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", n.boots), 0o600))
	if n.boots == 1 {
		n.must(unix.Mount(id, bootID, "", unix.MS_BIND, ""))
	}
	for _, l := range n.nodeLinks() {
		if name := l.Attrs().Name; name != "lo" && name != "wire" {
			n.must(gone(netlink.LinkDel(l)))
		}
	}
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		n.t.Fatalf("nft: %v: %s", err, out)
	}
	n.must(netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "nic0", Flags: net.FlagUp}, PeerName: "wire",
	}))
}

// nodeLinks are the node's own links.
func (n *node) nodeLinks() (links []netlink.Link) {
	n.t.Helper()
	var err error
	for range 50 {
		if links, err = netlink.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	n.must(err)
	return links
}

// gone takes an error for none where a link went with another.
func gone(err error) error {
	if err == unix.ENODEV || err == unix.EINVAL { //nolint:errorlint // bare
		return nil
	}
	return err
}

// mounts are the mount points where Braid may make some.
func (n *node) mounts() []string {
	n.t.Helper()
	points, err := mountsBelow("/run", leasesDir)
	n.must(err)
	return points
}

// space is what a network namespace has.
type space struct {
	inode uint64
	// links are its links but lo, and addrs the addresses of those but link-local ones, as "net1
	// 10.0.0.2".
	links, addrs []string
	// mtu is that of net3.
	mtu int
	// rules are those of policy routing that the kernel has not made.
	rules int
}

// makeNetns makes an empty network namespace at a path.
func makeNetns(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	return netns.Guard(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
		if err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})
}

// removeNetns ends the namespace at a path. Who has it open keeps it.
func removeNetns(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Remove(path)
}

// look reads a network namespace; nil if there is none.
func look(path string) (s *space, err error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, nil //nolint:nilerr // there is none
	}
	defer ns.Close()
	var h *netlink.Handle
	err = netns.Guard(func() error {
		h, err = netlink.NewHandleAt(vnetns.NsHandle(ns.Fd()), unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for range 20 {
		if s, err = read(h); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", path, err)
	}
	s.inode = ns.Inode()
	return s, nil
}

func read(h *netlink.Handle) (*space, error) {
	s := &space{}
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" {
			continue
		}
		names[a.Index] = a.Name
		s.links = append(s.links, a.Name)
		if a.Name == "net3" {
			s.mtu = a.MTU
		}
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	for _, addr := range addrs {
		if name := names[addr.LinkIndex]; name != "" && !addr.IP.IsLinkLocalUnicast() {
			s.addrs = append(s.addrs, name+" "+addr.IP.String())
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := h.RuleList(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rules {
			if r.Src != nil {
				s.rules++
			}
		}
	}
	slices.Sort(s.links)
	slices.Sort(s.addrs)
	return s, nil
}
