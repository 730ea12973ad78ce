package churn_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/nettest"
)

const (
	pods   = 1000
	atOnce = 32
)

// cri is what a container runtime does to Braid: it calls the binary.
type cri struct {
	t *testing.T
	// bin is where braid is.
	dir, bin string
	config   []byte

	mu sync.Mutex
	// has are the pods by their addresses.
	has map[string]int
	// refused are ADDs that failed: while the API server is away they do.
	refused, done atomic.Int64
}

// A thousand pods come and go, thirty-two at a time, while the API server is restarted twice. Each
// DEL succeeds, no two pods have an address in common, and nothing is left.
func TestThousandPods(t *testing.T) {
	api := newAPI(t, 1)
	r := newCRI(t, api)
	for i := range pods {
		pod := lab.Pod("default", podName(i), map[string]string{nadv1.NetworksAnnotation: "blue,green"})
		_, err := api.Client().CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < pods && !t.Failed(); i = int(next.Add(1)) - 1 {
				r.live(i)
			}
		})
	}
	for _, at := range []int64{pods / 3, pods * 2 / 3} {
		for r.done.Load() < at && !t.Failed() {
			time.Sleep(10 * time.Millisecond)
		}
		if err := api.Restart(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	t.Logf("%d pods in %v; %d ADDs were refused while the API server was away",
		r.done.Load(), time.Since(start).Round(time.Second), r.refused.Load())
	r.nothingLeft(api)
}

func podName(i int) string { return fmt.Sprintf("pod-%d", i) }

func newCRI(t *testing.T, api *lab.API) *cri {
	t.Helper()
	err := netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "nic0", Flags: net.FlagUp}, PeerName: "wire",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, name := range []string{"nic0", "cni0"} {
			if link, err := netlink.LinkByName(name); err == nil {
				netlink.LinkDel(link) //nolint:errcheck // the next test finds it
			}
		}
	})
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	r := &cri{t: t, dir: t.TempDir(), bin: bin, has: map[string]int{}}
	for i, nad := range []string{"blue", "green"} {
		config := fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0",`+
			`"ipam":{"type":"whereabouts","range":"10.%d.0.0/16"}}`, 20+i)
		err := api.Apply(t.Context(),
			fmt.Sprintf(`{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition",`+
				`"metadata":{"name":%q,"namespace":"default"},"spec":{"config":%q}}`, nad, config))
		if err != nil {
			t.Fatal(err)
		}
	}
	r.config, err = json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "braid", "type": "braid", "kubeconfig": kubeconfig(t, api),
		"logFile": r.path("braid.log"), "binDir": bin,
		"braid": map[string]any{
			"stateDir": r.path("state"), "nodeName": nodeName(0), "dataRoots": []string{r.dir},
		},
		"delegates": []any{map[string]any{
			"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "bridge": "cni0", "isGateway": true,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": r.path("leases"), "subnet": "10.1.0.0/16",
			},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *cri) path(name string) string { return filepath.Join(r.dir, name) }

// live is the life of a pod.
func (r *cri) live(i int) {
	netns := nettest.New(r.t)
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		err := r.call("ADD", i, netns.Path)
		if err == nil {
			break
		}
		r.refused.Add(1)
		if time.Since(start) > 2*time.Minute {
			r.t.Errorf("ADD of pod %d: %v", i, err)
			return
		}
		if err := r.call("DEL", i, netns.Path); err != nil {
			r.t.Errorf("DEL of pod %d, whose ADD was refused: %v", i, err)
		}
	}
	addrs := addresses(netns)
	if len(addrs) != 3 {
		r.t.Errorf("pod %d has addresses %v, want 3", i, addrs)
	}
	r.holds(i, addrs)
	time.Sleep(100 * time.Millisecond)
	r.lets(addrs)
	if err := r.call("DEL", i, netns.Path); err != nil {
		r.t.Errorf("DEL of pod %d: %v", i, err)
	}
	netns.Unmount()
	r.done.Add(1)
}

func (r *cri) holds(i int, addrs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addrs {
		if other, ok := r.has[a]; ok {
			r.t.Errorf("pods %d and %d have address %s", i, other, a)
		}
		r.has[a] = i
	}
}

func (r *cri) lets(addrs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range addrs {
		delete(r.has, a)
	}
}

// addresses are those of IPv4 that the pod has, but for the loopback's.
func addresses(netns *nettest.Namespace) (addrs []string) {
	for line := range strings.Lines(netns.Addrs()) {
		if f := strings.Fields(line); strings.HasPrefix(f[2], "10.") {
			addrs = append(addrs, f[2])
		}
	}
	return addrs
}

func (r *cri) call(command string, i int, netns string) error {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(r.bin, "braid"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(r.config), &stdout, &stderr
	cmd.Env = []string{
		"CNI_COMMAND=" + command, fmt.Sprintf("CNI_CONTAINERID=container-%d", i), "CNI_NETNS=" + netns,
		"CNI_IFNAME=eth0", "CNI_PATH=" + r.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + podName(i),
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s%s", err, stdout.String(), stderr.String())
	}
	return nil
}

// nothingLeft fails the test if the node, or after the idle time the API, has anything of the pods.
func (r *cri) nothingLeft(api *lab.API) {
	r.t.Helper()
	for _, pattern := range []string{
		"state/sandboxes/*", "state/cni/results/*", "state/ipam/held/*", "leases/pods/10.*",
	} {
		if left, err := filepath.Glob(r.path(pattern)); err != nil || len(left) > 0 {
			r.t.Errorf("left: %v %v", left, err)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; !slices.Contains([]string{"lo", "nic0", "wire", "cni0"}, name) {
			r.t.Errorf("link %s is left", name)
		}
	}
	source := objects(r.t, api)
	before, err := source.Blocks(r.t.Context(), metav1.ListOptions{})
	if err != nil || len(before) == 0 {
		r.t.Fatalf("no blocks were claimed: %v", err)
	}
	boot, _, _ := strings.Cut(before[0].Spec.Owner.BootID, "/") // the claim follows
	later := &block.Manager{
		Store: source, Nodes: source, Dir: r.path("state/ipam"), NodeName: nodeName(0),
		Log: slog.New(slog.DiscardHandler),
		Boot: func() (string, error) {
			return boot, nil
		}, Now: func() time.Time { return time.Unix(0, int64(now()+idle)) },
	}
	if err := later.Tend(r.t.Context()); err != nil {
		r.t.Error(err)
	}
	after, err := source.Blocks(r.t.Context(), metav1.ListOptions{})
	if err != nil || len(after) > 0 {
		r.t.Errorf("%d of %d blocks are left after the idle time: %v", len(after), len(before), err)
	}
}
