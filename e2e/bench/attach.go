package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// braidLeases is where Braid lets networks have leases, of whatever version it is.
const braidLeases = "/run/cni/leases-braid"

// bridge is the default network, and macvlan the i-th of the others. Each way of attaching has
// leases of its own.
func bridge(leases string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.1.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}]}`, leases)
}

func macvlan(i int, leases string) string {
	return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"n%d","plugins":[{"type":"macvlan","master":"nic0","mode":"bridge",
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/16"}}]}`, i, leases, 10+i)
}

// chains attaches a pod as a runtime would that had all its networks in its own configuration.
type chains struct {
	cni   *libcni.CNIConfig
	lists []*libcni.NetworkConfigList
	pod   libcni.RuntimeConf
}

func (b *bench) newChains(n int, id, netns string) (*chains, error) {
	leases := filepath.Join(b.work, "leases-chains")
	c := &chains{
		cni: libcni.NewCNIConfigWithCacheDir([]string{b.plugins}, filepath.Join(b.work, "cache"), nil),
		pod: libcni.RuntimeConf{ContainerID: id, NetNS: netns},
	}
	for i := range n + 1 {
		text := bridge(leases)
		if i > 0 {
			text = macvlan(i, leases)
		}
		list, err := libcni.ConfListFromBytes([]byte(text))
		if err != nil {
			return nil, err
		}
		c.lists = append(c.lists, list)
	}
	return c, nil
}

func (c *chains) of(i int) *libcni.RuntimeConf {
	rt := c.pod
	rt.IfName = "eth0"
	if i > 0 {
		rt.IfName = fmt.Sprintf("net%d", i)
	}
	return &rt
}

func (c *chains) add(ctx context.Context) error {
	for i, list := range c.lists {
		if _, err := c.cni.AddNetworkList(ctx, list, c.of(i)); err != nil {
			return err
		}
	}
	return nil
}

func (c *chains) del(ctx context.Context) error {
	for i := len(c.lists) - 1; i >= 0; i-- {
		if err := c.cni.DelNetworkList(ctx, c.lists[i], c.of(i)); err != nil {
			return err
		}
	}
	return nil
}

// meta is a meta-plugin: what to call it in the report, its binary, where its delegates are, its
// configuration, the UIDs of pods by their names, and their networks if the runtime passes on what
// annotations a pod has.
type meta struct {
	name, binary, path string
	config             map[string]any
	networks, uids     map[string]string
}

// call calls it as a runtime does.
func (m *meta) call(ctx context.Context, command, pod, id, netns string) error {
	config := maps.Clone(m.config)
	if m.networks != nil {
		config["runtimeConfig"] = map[string]any{
			"io.kubernetes.cri.pod-annotations": map[string]string{
				nadv1.NetworksAnnotation: m.networks[pod],
			},
		}
	}
	stdin, err := json.Marshal(config)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, m.binary)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0",
		"CNI_PATH=" + m.path,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + pod + ";K8S_POD_UID=" +
			m.uids[pod],
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s %s",
			filepath.Base(m.binary), command, err, stdout.String(), stderr.String())
	}
	return nil
}

// confDir is where the operator's files are, which networks may name.
func (b *bench) confDir() string { return filepath.Join(b.work, "net.d") }

// newBraid is Braid, by that name in the report. exec are the types that it execs from the
// directory bin instead of doing it itself.
func (b *bench) newBraid(name, bin string, exec ...string) (*meta, error) {
	kubeconfig, err := b.api.Kubeconfig(lab.UserBraid)
	if err != nil {
		return nil, err
	}
	config := map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "kubeconfig": kubeconfig,
		"logFile": b.log, "confDir": b.confDir(),
		"braid":     map[string]any{"nodeName": nodeName(0), "exec": exec},
		"delegates": []json.RawMessage{json.RawMessage(bridge(braidLeases))},
	}
	return &meta{name, filepath.Join(b.bin, "braid"), bin, config, b.networks, b.uids}, nil
}

// newReference is what Braid is compared with: Multus where somebody has given its binary, which no
// script here can get; else Braid, which execs the reference's plugins as Multus does.
func (b *bench) newReference(bin string) (*meta, error) {
	multus := os.Getenv("BRAID_MULTUS")
	if multus == "" {
		return b.newBraid("Braid with the reference's plugins", bin, "bridge", "macvlan", "host-local",
			"whereabouts")
	}
	kubeconfig, err := b.api.Kubeconfig(lab.UserAdmin)
	if err != nil {
		return nil, err
	}
	config := map[string]any{
		"cniVersion": "1.0.0", "name": "multus", "type": "multus", "kubeconfig": kubeconfig,
		"cniDir":    filepath.Join(b.work, "multus"),
		"delegates": []json.RawMessage{json.RawMessage(bridge(filepath.Join(b.work, "leases-multus")))},
	}
	return &meta{"Multus with the reference's plugins", multus, bin, config, nil, b.uids}, nil
}

// oldPlugins makes a directory of the reference's plugins and its whereabouts, and a flat file for
// that one, and serves its objects.
func (b *bench) oldPlugins(ctx context.Context) (bin, flat string, err error) {
	bin, flat = filepath.Join(b.work, "reference"), filepath.Join(b.confDir(), "whereabouts.conf")
	err = errors.Join(os.Mkdir(bin, 0o700), os.Mkdir(b.confDir(), 0o700))
	for _, name := range []string{"bridge", "macvlan", "host-local"} {
		err = errors.Join(err, os.Symlink(filepath.Join(b.plugins, name), filepath.Join(bin, name)))
	}
	err = errors.Join(err, os.Symlink(os.Getenv("BRAID_WHEREABOUTS"),
		filepath.Join(bin, "whereabouts")))
	kubeconfig, kerr := b.api.Kubeconfig(lab.UserAdmin)
	if err = errors.Join(err, kerr); err != nil {
		return "", "", err
	}
	if err := os.WriteFile(flat,
		fmt.Appendf(nil, `{"datastore":"kubernetes","kubernetes":{"kubeconfig":%q}}`, kubeconfig),
		0o600); err != nil {
		return "", "", err
	}
	crds, err := filepath.Glob(os.Getenv("BRAID_WHEREABOUTS_CRDS") + "/whereabouts.cni.cncf.io_*.yaml")
	for _, crd := range crds {
		data, rerr := os.ReadFile(crd)
		err = errors.Join(err, rerr, b.api.Apply(ctx, string(data)))
	}
	return bin, flat, err
}

// settles is for how long the kernel may be at work on what was made or removed, in the background:
// whoever removes a link meanwhile waits for that, as both wait for all callbacks of RCU.
const settles = 60 * time.Millisecond

// inNetns calls fn with a new, empty network namespace.
func inNetns(fn func(path string) error) (err error) {
	path := "/run/bench/pod"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if out, err := exec.Command("unshare", "--net="+path, "ip", "link", "set", "lo", "up").
		CombinedOutput(); err != nil {
		return fmt.Errorf("make a network namespace: %w: %s", err, out)
	}
	defer func() {
		err = errors.Join(err, unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
		time.Sleep(settles)
	}()
	return fn(path)
}

// usedCPU is the CPU time of this process, which starts plugins and waits for them as Braid does,
// and of all that it has waited for.
func usedCPU() (time.Duration, error) {
	var used time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		if err := unix.Getrusage(who, &usage); err != nil {
			return 0, err
		}
		used += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return used, nil
}
