package sbr_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/sbr"
)

// asPlugin is the environment variable that makes this program the plugin.
const asPlugin = "BRAID_TEST_AS_SBR"

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) == "" {
		os.Exit(m.Run())
	}
	stdin, err := io.ReadAll(os.Stdin)
	if err == nil {
		session := plugin.NewSession(plugin.HostNS)
		_, err = plugintest.Run(context.Background(), session.Bind(plugin.New(sbr.Plugin{})),
			&invoke.Call{Environ: os.Environ(), Stdin: stdin})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// Interfaces of one pod that are added by several processes at once get tables of their own. The
// reference is one of the processes: it takes the same lock.
func TestProcessesChooseDifferentTables(t *testing.T) {
	const interfaces = 12
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := plugintest.New(t, ours())
	p, router := n.Pod("a"), nettest.New(t)
	var commands []*exec.Cmd
	for i := range interfaces {
		name := fmt.Sprint("net", i)
		cidr := fmt.Sprintf("10.1.%d.2/24", i)
		p.Veth(name, router, "to"+name)
		p.Addr(name, cidr)
		stdin, err := json.Marshal(
			conf{"cniVersion": "1.1.0", "name": "net", "type": "sbr", "prevResult": conf{
				"cniVersion": "1.1.0", "interfaces": []conf{{"name": name, "sandbox": p.NetNS}},
				"ips": []conf{{"address": cidr, "gateway": fmt.Sprintf("10.1.%d.1", i), "interface": 0}},
			}})
		if err != nil {
			t.Fatal(err)
		}
		program := self
		if i%4 == 3 {
			program = plugintest.ReferenceDir(t) + "/sbr"
		}
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), asPlugin+"=1", "CNI_COMMAND=ADD", "CNI_CONTAINERID=a",
			"CNI_IFNAME="+name, "CNI_NETNS="+p.NetNS, "CNI_PATH=/")
		cmd.Stdin = bytes.NewReader(stdin)
		commands = append(commands, cmd)
	}
	var wg sync.WaitGroup
	for _, cmd := range commands {
		wg.Go(func() {
			if out, err := cmd.Output(); err != nil {
				t.Errorf("%s: %v: %s", cmd.Path, err, out)
			}
		})
	}
	wg.Wait()
	rules := p.Rules()
	for i := range interfaces {
		if want := fmt.Sprintf("table %d\n", 100+i); strings.Count(rules, want) != 1 {
			t.Errorf("not one rule with %q:\n%s", want, rules)
		}
		if want := fmt.Sprintf("route4 table main 10.1.%d.0/24", i); strings.Contains(p.Routes(), want) {
			t.Errorf("still there: %s", want)
		}
	}
}

// While another holds the lock, ADD waits until its time is up, and changes nothing.
func TestAddWaitsForOthers(t *testing.T) {
	p, good := pod(t, plugintest.New(t, ours()), "a", dual)
	before := p.Snapshot()
	f, err := os.Open(p.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p.Ctx = ctx
	if _, err := p.Add(good); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ADD: %v", err)
	}
	if p.Snapshot() != before {
		t.Error("ADD changed something")
	}
	p.Ctx = nil
	added := make(chan error)
	go func() {
		_, err := p.Add(good)
		added <- err
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if err := <-added; err != nil {
		t.Error(err)
	}
}

// The lock ends with the ADD, also with one that fails, and not with the operation on the sandbox,
// which may run other plugins.
func TestLockEndsWithAdd(t *testing.T) {
	for name, more := range map[string]conf{
		"success": {}, "failure": {"gateways": []string{"10.9.9.9"}},
	} {
		p, good := pod(t, plugintest.New(t, ours()), "a", dual)
		stdin, err := json.Marshal(conf{"cniVersion": "1.1.0", "name": "net"}.With(good).With(more))
		if err != nil {
			t.Fatal(err)
		}
		session := plugin.NewSession(plugin.HostNS)
		defer session.Close()
		_, err = plugintest.Run(t.Context(), session.Bind(plugin.New(sbr.Plugin{})), &invoke.Call{
			Environ: []string{"CNI_COMMAND=ADD", "CNI_IFNAME=net1", "CNI_NETNS=" + p.NetNS}, Stdin: stdin,
		})
		if (err != nil) != (name == "failure") {
			t.Errorf("%s: %v", name, err)
		}
		f, err := os.Open(p.NetNS)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Errorf("%s: still locked: %v", name, err)
		}
	}
}

// BenchmarkAdd is the ADD of an interface with an address of each family.
func BenchmarkAdd(b *testing.B) {
	p, conf := pod(b, plugintest.New(b, ours()), "a", dual, "172.16.0.0/12 via 10.1.0.1")
	for b.Loop() {
		if _, err := p.Add(conf); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := p.Del(conf); err != nil {
			b.Fatal(err)
		}
		// The kernel takes all routes away, and makes those of the addresses anew.
		p.Down("net1")
		p.Up("net1")
		p.Addr("net1", "fd00::2/64")
		p.Route("172.16.0.0/12", "10.1.0.1", "net1", 0)
		b.StartTimer()
	}
}
