package nettest_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/pkg/nettest"
)

func TestSnapshot(t *testing.T) {
	a, b := nettest.New(t), nettest.New(t)
	empty := a.Snapshot()
	a.Veth("net1", b, "peer")
	a.Addr("net1", "10.0.0.2/24", "fd00::2/64")
	a.Route("default", "10.0.0.1", "net1", 0)
	a.Route("192.168.0.0/16", "", "net1", 5)
	rule := netlink.NewRule()
	rule.Priority, rule.Table, rule.Family = 100, 200, netlink.FAMILY_V4
	if err := a.Netlink().RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	got := a.Snapshot()
	for _, want := range []string{
		"link net1 veth mtu 1500 up\n", "addr net1 10.0.0.2/24\n", "addr net1 fd00::2/64\n",
		"route4 table main default via 10.0.0.1 dev net1\n",
		"route4 table main 192.168.0.0/16 dev net1 scope link metric 5\n",
		"route6 table local local fd00::2/128 dev net1 proto kernel\n",
		"rule4 100: from all table 200\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	if err := errors.Join(a.Netlink().RuleDel(rule), a.Netlink().LinkDel(a.Link("net1"))); err != nil {
		t.Fatal(err)
	}
	if after := a.Snapshot(); after != empty {
		t.Errorf("after removal:\n%s\nwant:\n%s", after, empty)
	}
	if b.HasLink("peer") {
		t.Error("the peer is still there")
	}
}

func TestRunIsInside(t *testing.T) {
	n := nettest.New(t)
	n.Bridge("only-here")
	want := errors.New("this one")
	err := n.Run(func() error {
		out, err := exec.CommandContext(t.Context(), "cat", "/proc/net/dev").Output()
		if err != nil || !strings.Contains(string(out), "only-here") {
			t.Errorf("a process sees %s, %v", out, err)
		}
		return want
	})
	if !errors.Is(err, want) {
		t.Errorf("Run = %v, want %v", err, want)
	}
	nettest.NoThreadIn(t, n)
}

func TestCleanup(t *testing.T) {
	var n *nettest.Namespace
	t.Run("user", func(t *testing.T) { n = nettest.New(t) })
	if _, err := os.Stat(n.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", n.Path, err)
	}
}

// What a test left that was killed, the next one removes.
func TestRemovesWhatKilledTestsLeft(t *testing.T) {
	if dir := os.Getenv("BRAID_NETTEST_VICTIM"); dir != "" {
		n := nettest.New(t)
		if err := os.WriteFile(filepath.Join(dir, "path"), []byte(n.Path), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	dir := t.TempDir()
	victim := exec.CommandContext(t.Context(), os.Args[0],
		"-test.run=^TestRemovesWhatKilledTestsLeft$")
	victim.Env = append(os.Environ(), "BRAID_NETTEST_VICTIM="+dir)
	out, err := victim.CombinedOutput()
	left, missing := os.ReadFile(filepath.Join(dir, "path"))
	if err == nil || missing != nil {
		t.Fatalf("the victim: %v, %v, %s", err, missing, out)
	}
	nettest.New(t)
	if _, err := os.Lstat(string(left)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left: %v", left, err)
	}
}

// Each kind is made here or in the user-mode kernel.
func TestNeedsLink(t *testing.T) {
	for _, kind := range []string{
		"ipvlan", "macvlan", "vlan", "dummy", "vrf", "bond", "bridge", "bridge-vlan", "veth", "vxlan",
	} {
		t.Run(kind, func(t *testing.T) { nettest.NeedsLink(t, kind) })
	}
}

// Namespaces have the kernel's parameters also where the machine has others. Only the user-mode
// kernel is the test's to configure.
func TestDefaults(t *testing.T) {
	if os.Getenv(nettest.UML) != "1" {
		nettest.MissingKernel(t, "a-machine-of-its-own")
	}
	machine := map[string]string{
		"core/devconf_inherit_init_net": "1", "ipv4/ip_forward": "1", "ipv4/conf/all/rp_filter": "1",
		"ipv4/conf/default/rp_filter": "2",
		"ipv4/conf/all/arp_ignore":    "1", "ipv4/conf/default/arp_ignore": "1",
		"ipv6/conf/all/forwarding": "1", "ipv6/conf/default/accept_ra": "2",
		"ipv6/conf/all/disable_ipv6": "1",
	}
	pristine := sysctls(t, nettest.New(t))
	for key, value := range machine {
		path := "/proc/sys/net/" + key
		before, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(value), 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(path, before, 0); err != nil {
				t.Error(err)
			}
		})
	}
	now := sysctls(t, nettest.New(t))
	for key, want := range pristine {
		if got := now[key]; got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

// sysctls are the parameters of a namespace for links.
func sysctls(t *testing.T, n *nettest.Namespace) map[string]string {
	t.Helper()
	values := map[string]string{}
	err := n.Run(func() error {
		for _, pattern := range []string{"ipv4/ip_forward", "ipv4/conf/*/*", "ipv6/conf/*/*"} {
			files, err := filepath.Glob("/proc/sys/net/" + pattern)
			if err != nil {
				return err
			}
			for _, file := range files {
				if value, err := os.ReadFile(file); err == nil { // stable_secret is not set
					values[file] = strings.TrimSpace(string(value))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}
