package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/lab"
)

// leftovers lists everything on a node that a pod's network can leave: links, addresses, routes,
// rules, packet filter, and files. What is there without any pod is in it too: compare with clean.
func leftovers(ctx context.Context, node *lab.Node) ([]string, error) {
	var left []string
	for _, collect := range []func(context.Context, *lab.Node) ([]string, error){
		linksLeft, rulesLeft,
		filterLeft, namespacesLeft, filesLeft, processesLeft,
	} {
		found, err := collect(ctx, node)
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	slices.Sort(left)
	return left, nil
}

// linksLeft are the links with their addresses. A link-local address of IPv6 comes and goes with
// the carrier.
func linksLeft(ctx context.Context, node *lab.Node) ([]string, error) {
	out, err := node.Run(ctx, "ip", "-json", "address")
	if err != nil {
		return nil, err
	}
	links, err := parseLinks(out)
	if err != nil {
		return nil, err
	}
	var left []string
	for _, link := range links {
		left = append(left, "link "+link.Name)
		for _, address := range link.global() {
			left = append(left, "address "+address+" of "+link.Name)
		}
	}
	return left, nil
}

func rulesLeft(ctx context.Context, node *lab.Node) ([]string, error) {
	var left []string
	for _, command := range []string{
		"ip -4 rule", "ip -6 rule", "ip -4 route", "ip -6 route show proto static",
	} {
		out, err := node.Run(ctx, strings.Fields(command)...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			// A bridge without ports has no carrier.
			left = append(left, command+": "+strings.TrimSpace(strings.ReplaceAll(line, "linkdown", "")))
		}
	}
	return left, nil
}

// filterLeft is all of the packet filter but the kubelet's own chains.
func filterLeft(ctx context.Context, node *lab.Node) ([]string, error) {
	out, err := node.Run(ctx, "nft", "--stateless", "list", "ruleset")
	if err != nil {
		return nil, err
	}
	var left []string
	table := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "table ") {
			table = line
		}
		if line == "" || line == "}" || strings.Contains(line, "KUBE-") || strings.HasPrefix(line, "#") {
			continue
		}
		left = append(left, "filter "+table+" "+line)
	}
	return left, nil
}

// namespacesLeft are the network namespaces of pods. A file that is none, or one without links, is
// no pod's: containerd, killed between making a namespace and noting it, leaves such behind, and no
// plugin was ever called for them.
func namespacesLeft(_ context.Context, node *lab.Node) ([]string, error) {
	entries, err := os.ReadDir(node.Path("/run/netns"))
	if err != nil {
		return nil, err
	}
	var left []string
	for _, entry := range entries {
		path := "/run/netns/" + entry.Name()
		var mounted unix.Statfs_t
		if unix.Statfs(node.Path(path), &mounted) != nil || mounted.Type != unix.NSFS_MAGIC {
			continue
		}
		var links []net.Interface
		err := inNamespace(node.Path(path), func() (err error) {
			links, err = net.Interfaces()
			return err
		})
		if err != nil || len(links) > 1 {
			left = append(left, "namespace "+path)
		}
	}
	return left, nil
}

// filesLeft are host-local's leases, records, and caches of results.
func filesLeft(_ context.Context, node *lab.Node) ([]string, error) {
	var left []string
	for _, pattern := range []string{
		stateDir + "/sandboxes/*", stateDir + "/cni/results/*", stateDir + "/ipam/held/*",
		runtimeCache,
		"/var/lib/cni/networks/*/*", "/run/k8s.cni.cncf.io/devinfo/*/*", dumpDir + "/*",
	} {
		found, err := filepath.Glob(node.Path(pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			switch base := filepath.Base(path); {
			// Of the network, not of a pod.
			case base == "lock", base == ".braid", strings.HasPrefix(base, "last_reserved_ip"):
			case pattern == runtimeCache && cutShort(path):
			default:
				left = append(left, "file "+strings.TrimPrefix(path, node.Path("/")))
			}
		}
	}
	return left, nil
}

// runtimeCache are the entries of libcni's cache that the runtime writes.
const runtimeCache = "/var/lib/cni/results/*"

// cutShort reports whether an entry of libcni's cache is not whole. A runtime that was killed while
// it wrote leaves it so; libcni takes it for no attachment, and its GC passes it over.
func cutShort(path string) bool {
	entry, err := os.ReadFile(path)
	return err == nil && !json.Valid(entry)
}

func processesLeft(_ context.Context, node *lab.Node) ([]string, error) {
	var left []string
	for _, pid := range braids(node) {
		left = append(left, "process braid "+pid)
	}
	return left, nil
}

// braids are the process IDs, as the node sees them, of all running braid commands.
func braids(node *lab.Node) []string {
	processes, _ := filepath.Glob(node.Path("/proc") + "/[0-9]*")
	var pids []string
	for _, process := range processes {
		// The link is read as text: what it says is true inside the node.
		exe, err := os.Readlink(filepath.Join(process, "exe"))
		if err == nil && exe == "/opt/cni/bin/braid" {
			pids = append(pids, filepath.Base(process))
		}
	}
	return pids
}

// waitClean waits until nothing of any pod is on the node: the runtime removes a sandbox's last
// traces after the pod's object is gone.
func waitClean(ctx context.Context, node *lab.Node) error {
	var more []string
	for {
		left, err := leftovers(ctx, node)
		if err == nil {
			if more = beyond(left, clean); len(more) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("left on the node:\n  %s", strings.Join(more, "\n  ")), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// beyond returns those of left that are not in clean, with regard to how often they are.
func beyond(left, clean []string) []string {
	count := map[string]int{}
	for _, item := range clean {
		count[item]++
	}
	var more []string
	for _, item := range left {
		if count[item]--; count[item] < 0 {
			more = append(more, item)
		}
	}
	return more
}

// record is what a test wants to know of a file in stateDir.
type record struct {
	ContainerID string
	NetNS       string `json:"netns"`
	Complete    bool   `json:"complete"`
	Pod         struct{ Namespace, Name, UID string }
}

// records are Braid's records of the sandboxes of one Kubernetes namespace.
func records(node *lab.Node, namespace string) ([]record, error) {
	files, err := filepath.Glob(node.Path(stateDir) + "/sandboxes/*.json")
	if err != nil {
		return nil, err
	}
	var all []record
	for _, file := range files {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if r.Pod.Namespace == namespace {
			all = append(all, r)
		}
	}
	return all, nil
}
