package plugins_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// state is what a node and a pod are, as sorted lines. What differs by chance is replaced: MACs
// that the kernel chose, random names, paths, link-local addresses. The sysctl trees, a thousand
// files, and nftables are part of it where deep says so.
func state(t *testing.T, p *plugintest.Pod, deep depth) []string {
	t.Helper()
	var lines []string
	for _, place := range []struct {
		name string
		ns   *nettest.Namespace
	}{{"node", p.Node.Host}, {"pod", p.Namespace}} {
		if _, err := os.Stat(place.ns.Path); errors.Is(err, fs.ErrNotExist) {
			continue // gone, and all that was in it
		}
		all := slices.Concat(snapshot(place.ns), links(t, place.ns))
		if deep == everything || deep == podOnly && place.ns == p.Namespace {
			all = slices.Concat(all, ruleset(t, place.ns))
			for _, line := range sysctls(t, place.ns) {
				lines = append(lines, place.name+" "+line)
			}
		}
		for _, line := range all {
			lines = append(lines, place.name+" "+normal(p, line))
		}
	}
	for _, line := range files(t, p.Node.Dir) {
		lines = append(lines, "file "+normal(p, line))
	}
	slices.Sort(lines)
	return lines
}

// depth names the namespaces whose sysctl trees and nftables are part of a state.
type depth int

const (
	shallow depth = iota
	podOnly
	everything
)

var (
	macs     = regexp.MustCompile(`\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b`)
	veths    = regexp.MustCompile(`\bveth[0-9a-f]{8}\b`)
	indexes  = regexp.MustCompile(`@if\d+`)
	fixedMAC = "02:00:00:" // what configurations ask for begins like that
)

func normal(p *plugintest.Pod, line string) string {
	line = strings.NewReplacer(p.Path, "NETNS", p.Node.Dir, "DIR").Replace(line)
	line = macs.ReplaceAllStringFunc(line, func(mac string) string {
		if strings.HasPrefix(mac, fixedMAC) {
			return mac
		}
		return "MAC"
	})
	return indexes.ReplaceAllString(veths.ReplaceAllString(line, "vethN"), "")
}

func snapshot(n *nettest.Namespace) []string {
	return strings.Split(strings.TrimSpace(n.Snapshot()), "\n")
}

// links are the attributes of links that nettest.Snapshot does not have.
func links(t *testing.T, n *nettest.Namespace) []string {
	t.Helper()
	list, err := n.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range list {
		a := l.Attrs()
		line := fmt.Sprintf("attrs %s mac %s txqlen %d allmulti %v",
			a.Name, a.HardwareAddr, a.TxQLen, a.Allmulti != 0)
		switch l := l.(type) {
		case *netlink.Macvlan:
			line += fmt.Sprintf(" mode %d queue %d", l.Mode, l.BCQueueLen)
		case *netlink.IPVlan:
			line += fmt.Sprintf(" mode %d", l.Mode)
		case *netlink.Bridge:
			line += fmt.Sprintf(" vlan-filtering %v", l.VlanFiltering != nil && *l.VlanFiltering)
		}
		if a.Slave != nil || a.MasterIndex != 0 {
			if port, err := n.Netlink().LinkGetProtinfo(l); err == nil {
				line += fmt.Sprintf(" port %s isolated %v", port.String(), port.Isolated)
			}
		}
		lines = append(lines, line)
	}
	if vlans, err := n.Netlink().BridgeVlanList(); err == nil {
		for _, l := range list {
			for _, v := range vlans[int32(l.Attrs().Index)] {
				lines = append(lines, fmt.Sprintf("vlan %s %d flags %#x", l.Attrs().Name, v.Vid, v.Flags))
			}
		}
	}
	neighbours, err := n.Netlink().NeighList(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, neigh := range neighbours {
		if neigh.State == netlink.NUD_PERMANENT && !neigh.IP.IsMulticast() {
			lines = append(lines, fmt.Sprintf("neighbour %s %s", neigh.IP, neigh.HardwareAddr))
		}
	}
	return lines
}

// secret is a parameter that is different in each namespace.
const secret = "stable_secret"

// sysctls are those of IPv4 and IPv6, of all interfaces: a thousand small files. Much of the
// tests' time goes into reading them.
func sysctls(t *testing.T, n *nettest.Namespace) []string {
	t.Helper()
	var lines []string
	var buffer [256]byte
	read := func(dir, name, as string) {
		if value, ok := parameter(dir+"/"+name, buffer[:]); ok && name != secret {
			lines = append(lines, "sysctl "+as+"/"+name+" = "+value)
		}
	}
	err := n.Run(func() error {
		for _, family := range []string{"net/ipv4", "net/ipv6"} {
			err := entries("/proc/sys/"+family, func(name string) error {
				if strings.Contains(name, "forward") {
					read("/proc/sys/"+family, name, family)
				}
				return nil
			})
			for _, group := range []string{family + "/conf", family + "/neigh"} {
				err = errors.Join(err, entries("/proc/sys/"+group, func(link string) error {
					dir, as := "/proc/sys/"+group+"/"+link, group+"/"+veths.ReplaceAllString(link, "vethN")
					return entries(dir, func(name string) error { read(dir, name, as); return nil })
				}))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// entries calls each with the names of what is in a directory; nothing is in one that has gone.
func entries(dir string, each func(name string) error) error {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range list {
		if err := each(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// parameter reads a file that may not be readable, as some are not.
func parameter(path string, buffer []byte) (string, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd) //nolint:errcheck // only read
	size, err := unix.Read(fd, buffer)
	if err != nil {
		return "", false
	}
	return string(bytes.TrimSpace(buffer[:size])), true
}

// ruleset are the nftables rules, those of iptables-nft included.
func ruleset(t *testing.T, n *nettest.Namespace) []string {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		return nil
	}
	var out []byte
	err = n.Run(func() (err error) {
		out, err = exec.CommandContext(t.Context(), nft, "list", "ruleset").CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft list ruleset: %v: %s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && line != "}" {
			lines = append(lines, "nft "+line)
		}
	}
	return lines
}

// files are those below the node's directory, with their contents.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path, filepath.Join(dir, "bin")) {
			return err
		}
		data, err := os.ReadFile(path)
		lines = append(lines, fmt.Sprintf("%s %q", path, data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// outcome is what a command printed, as lines: a result key by key, or that it failed.
func outcome(t *testing.T, p *plugintest.Pod, command string, out []byte, err error) []string {
	t.Helper()
	if err != nil {
		return []string{fmt.Sprintf("%s fails with code %d", command, plugintest.Code(err))}
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return []string{command + " succeeds"}
	}
	var result map[string]any
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatalf("%s printed %s: %v", command, out, err)
	}
	var lines []string
	for key, value := range result {
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, normal(p, fmt.Sprintf("%s gives %s %s", command, key, text)))
	}
	slices.Sort(lines)
	return lines
}
