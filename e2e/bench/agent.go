package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The targets for what the agent does.
const (
	// ADD through it, of a bare binary's start, its links by netlink, and one PATCH
	maxAgentFloor  = 2.0
	minAgentFaster = 25.0 // ADD with the reference's plugins and addresses, of that
	minAgentRate   = 25.0 // pods a second, 8 at a time, of those with the reference's
	maxAgentCPU    = 0.2  // CPU time of a pod, of that with the reference's
	maxClient      = 1.5  // the client's start to exit, of a bare binary's
	maxClientMB    = 3.0  // its size
)

const (
	// rateAtOnce pods of ratePods are attached at a time.
	rateAtOnce, ratePods = 8, 64
	oldRatePods          = 8
)

// startAgent starts an agent, and has b.agent be what runtimes call on its node.
func (b *bench) startAgent(ctx context.Context) (stop func() error, err error) {
	g, err := b.api.StartAgent(ctx, b.bin, filepath.Join(b.work, "agent"), nodeName(0))
	if err != nil {
		return nil, err
	}
	byAgent := *b.braid
	byAgent.binary = g.Client
	b.agent, b.agentPID = &byAgent, g.PID()
	return g.Stop, nil
}

// throughAgent measures the ADD and DEL of pods that the agent does, beside the CNI plugin alone,
// and beside the reference's plugins with their cluster-wide addresses.
func (b *bench) throughAgent(ctx context.Context, rounds int) (text string, err error) {
	stop, err := b.startAgent(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := b.agentRounds(ctx, rounds); err != nil {
		return "", err
	}
	if err := b.clientStarts(ctx); err != nil {
		return "", err
	}
	rate, err := b.rate(ctx, b.agent, wherePod(), ratePods)
	if err != nil {
		return "", err
	}
	oldRate, err := b.rate(ctx, b.reference, oldPod(), oldRatePods)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(filepath.Join(b.bin, "braid-client"))
	if err != nil {
		return "", err
	}
	return b.agentReport(rate, oldRate, float64(info.Size())/(1<<20)), nil
}

// agentRounds attaches the pods in all ways, round after round. Those that warm up do not count.
func (b *bench) agentRounds(ctx context.Context, rounds int) error {
	for round := range warmUps + rounds {
		if round == warmUps {
			maps.DeleteFunc(b.times, func(name string, _ []time.Duration) bool {
				return strings.Contains(name, " agent") || strings.Contains(name, " alone") ||
					strings.HasPrefix(name, "floor ") || strings.HasSuffix(name, " reference")
			})
		}
		err := b.agentRound(ctx)
		if err == nil && round <= warmUps+oldRounds {
			err = b.fourNetworks(ctx, "reference", b.reference, oldPod())
		}
		if err != nil {
			return fmt.Errorf("through the agent, round %d: %w", round, err)
		}
		progress(fmt.Sprintf("through the agent, round %d of %d", round+1, warmUps+rounds))
	}
	return nil
}

// clientStarts times the client's start to exit, beside that of a bare binary.
func (b *bench) clientStarts(ctx context.Context) error {
	for range starts {
		cmd := exec.CommandContext(ctx, filepath.Join(b.bin, "braid-client"), "--version")
		if err := b.timed("client", cmd.Run); err != nil {
			return err
		}
		if err := b.versions(ctx); err != nil {
			return err
		}
	}
	return nil
}

// agentRound attaches each pod alone and by the agent, and does what no ADD can do without.
func (b *bench) agentRound(ctx context.Context) error {
	for _, n := range networks() {
		for name, by := range map[string]*meta{"alone": b.braid, "agent": b.agent} {
			if err := b.measured(ctx, fmt.Sprint(name, " ", n), by, podName(n)); err != nil {
				return err
			}
		}
	}
	if err := b.measured(ctx, "agent addresses", b.agent, wherePod()); err != nil {
		return err
	}
	err := inNetns(func(path string) error {
		err := b.timed("floor netlink", func() error { return b.rawLinks(path, 4) })
		return errors.Join(err, b.timed("floor link", removeRaw))
	})
	return errors.Join(err, b.timed("floor patch", func() error { return b.patch(ctx) }))
}

// measured times ADD and DEL of a pod, and the CPU time of both, the agent's with it.
func (b *bench) measured(ctx context.Context, name string, by *meta, pod string) error {
	if err := b.fresh(ctx, pod); err != nil {
		return err
	}
	return inNetns(func(path string) error {
		before, err := b.usedWithAgent()
		for _, command := range []string{"ADD", "DEL"} {
			err = errors.Join(err, b.timed(command+" "+name, func() error {
				return by.call(ctx, command, pod, "bench", path)
			}))
			time.Sleep(settles) // a pod lives longer than that
		}
		after, uerr := b.usedWithAgent()
		b.times["CPU "+name] = append(b.times["CPU "+name], after-before)
		return errors.Join(err, uerr)
	})
}

// usedWithAgent is usedCPU with the agent's CPU time.
func (b *bench) usedWithAgent() (time.Duration, error) {
	const scheduled = 2 // the clock of all that a process has run
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^b.agentPID<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("read the agent's CPU time: %w", err)
	}
	used, err := usedCPU()
	return used + time.Duration(t.Nano()), err
}

// rawLink is the name of the node's end of the pair that rawLinks makes.
const rawLink = "bench0"

// removeRaw removes that pair by netlink alone.
func removeRaw() error {
	link, err := netlink.LinkByName(rawLink)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// rawLinks makes what a pod with n macvlan networks has: links with addresses, by netlink alone.
func (b *bench) rawLinks(path string, n int) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // opened for reading
	pod, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer pod.Close()
	bridge, err := netlink.LinkByName("cni0")
	if err != nil {
		return err
	}
	master, err := netlink.LinkByName("nic0")
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{
			Name: rawLink, MasterIndex: bridge.Attrs().Index, Flags: net.FlagUp,
		},
		PeerName: "eth0", PeerNamespace: netlink.NsFd(ns),
	}
	err = errors.Join(netlink.LinkAdd(veth), setUpRaw(pod, "eth0", 0))
	for i := 1; i <= n && err == nil; i++ {
		name := fmt.Sprint("net", i)
		attrs := netlink.LinkAttrs{
			Name: name, ParentIndex: master.Attrs().Index, Namespace: netlink.NsFd(ns),
		}
		err = netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
		err = errors.Join(err, setUpRaw(pod, name, i))
	}
	return err
}

// setUpRaw adds the address of link number i of a pod, and sets it up.
func setUpRaw(pod *netlink.Handle, name string, i int) error {
	link, err := pod.LinkByName(name)
	if err != nil {
		return err
	}
	address := &netlink.Addr{
		IPNet: &net.IPNet{IP: net.IPv4(10, byte(200+i), 0, 2), Mask: net.CIDRMask(16, 32)},
	} //nolint:gosec // a few
	return errors.Join(pod.AddrAdd(link, address), pod.LinkSetUp(link))
}

// patch makes the one call that no ADD with networks can do without, on a connection that is there.
func (b *bench) patch(ctx context.Context) error {
	if b.kept == nil {
		b.kept = b.transport()
	}
	return b.request(ctx, b.kept, http.MethodPatch,
		"/api/v1/namespaces/default/pods/"+podName(4)+"/status")
}

// rate is how many pods a second are attached, so many at a time.
func (b *bench) rate(ctx context.Context, by *meta, pod string, pods int) (float64, error) {
	same, err := b.copies(ctx, by, pod, pods)
	if err != nil {
		return 0, err
	}
	for i := range pods {
		if out, err := exec.CommandContext(ctx, "ip", "netns", "add", fmt.Sprint("rate-", i)).
			CombinedOutput(); err != nil {
			return 0, fmt.Errorf("make a network namespace: %w: %s", err, out)
		}
	}
	each := func(command string) error {
		return together(rateAtOnce, pods, func(i int) error {
			name := fmt.Sprintf("%s-rate-%d", pod, i)
			return same.call(ctx, command, name, "bench-"+name, fmt.Sprint("/run/netns/rate-", i))
		})
	}
	start := time.Now()
	err = each("ADD")
	took := time.Since(start)
	err = errors.Join(err, each("DEL"))
	for i := range pods {
		err = errors.Join(err, exec.CommandContext(ctx, "ip", "netns", "delete", fmt.Sprint("rate-", i)).
			Run())
	}
	return float64(pods) / took.Seconds(), err
}

// copies makes pods that ask for the same networks as one, and returns what attaches them.
func (b *bench) copies(ctx context.Context, by *meta, pod string, pods int) (*meta, error) {
	var manifests strings.Builder
	same := *by
	same.uids, same.path = map[string]string{}, by.path
	if by.networks != nil {
		same.networks = map[string]string{}
	}
	for i := range pods {
		name := fmt.Sprintf("%s-rate-%d", pod, i)
		manifests.WriteString(b.pod(name, strings.Split(b.networks[pod], ",")))
		if by.networks != nil {
			same.networks[name] = b.networks[pod]
		}
	}
	return &same, b.api.Apply(ctx, manifests.String())
}

// agentReport is the table of what the agent does. size is the client's, in MB.
func (b *bench) agentReport(rate, oldRate, size float64) string {
	var out strings.Builder
	out.WriteString("\nThrough the agent, and by the plugin alone; medians in ms; CPU: of ADD and " +
		"DEL, the agent's with it.\n\n")
	out.WriteString(" N |  ADD alone  agent  ratio |  DEL alone  agent  ratio |  CPU alone  agent  " +
		"ratio\n")
	out.WriteString(
		"---+--------------------------+--------------------------+-------------------------\n")
	for _, n := range networks() {
		fmt.Fprintf(&out, "%2d", n)
		for _, what := range []string{"ADD", "DEL", "CPU"} {
			alone, agent := b.median(fmt.Sprint(what, " alone ", n)), b.median(
				fmt.Sprint(what, " agent ", n))
			fmt.Fprintf(&out, " | %10.1f %6.1f %6.2f", alone, agent, agent/alone)
		}
		out.WriteString("\n")
	}
	bare, raw, patch := b.median("VERSION bare"), b.median("floor netlink"), b.median("floor patch")
	floor, add := bare+raw+patch, b.median("ADD agent addresses")
	fmt.Fprintf(&out, "\n4 networks with addresses of the cluster: ADD %.1f, DEL %.1f; floor: start "+
		"of a bare binary %.2f, links by netlink %.2f, one PATCH %.2f; a pair of links is removed in "+
		"%.1f\n", add, b.median("DEL agent addresses"), bare, raw, patch, b.median("floor link"))
	fmt.Fprintf(&out, "%d at a time: %.1f pods/s; %s: %.1f pods/s\n\n", rateAtOnce, rate,
		b.reference.name, oldRate)
	out.WriteString(verdicts([]verdict{
		{"ADD with 4 networks, of start + netlink + PATCH", add / floor, maxAgentFloor, false},
		{b.reference.name + ", of that", b.median("ADD reference") / add, minAgentFaster, true},
		{"pods a second, 8 at a time, of the reference's", rate / oldRate, minAgentRate, true},
		{
			"CPU of a pod, of the reference's", b.median("CPU agent addresses") / b.median("CPU reference"),
			maxAgentCPU, false,
		},
		{"the client's start to exit, of a bare binary's", b.median("client") / bare, maxClient, false},
		{"size of the client in MB", size, maxClientMB, false},
	}))
	return out.String()
}
