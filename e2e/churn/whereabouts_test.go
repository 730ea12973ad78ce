package churn_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/reap"
)

const (
	// oldRange has so many addresses for pods. whereabouts has given so many of them.
	oldRange, oldUsable, oldPods = "10.60.0.0/26", 62, 20
	// adoptWithin is how long braid-controller may take.
	adoptWithin = time.Minute
)

// A range that whereabouts itself has given addresses of is taken over: the audit knows what it
// recorded, no address of a pod that is there is given again, all others are, and those of pods
// that go come back.
func TestFromWhereabouts(t *testing.T) {
	api := newAPI(t, 1)
	r := newCRI(t, api)
	old := newReference(t, api, r)
	apply(t, api, fmt.Sprintf(`{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"name":"old","namespace":"default"},
		"spec":{"config":%q}}`, fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"whereabouts","range":%q}}`, oldRange)))
	recorded := map[netip.Addr]bool{}
	for i := range oldPods {
		createPod(t, api, i, "")
		recorded[old.add(i)] = true
	}
	if len(recorded) != oldPods {
		t.Fatalf("whereabouts gave %d addresses to %d pods", len(recorded), oldPods)
	}
	expect(t, old.audit(), reap.OK, slices.Collect(maps.Keys(recorded)))

	startController(t, api, r)
	r.adopted(api, recorded)
	given := map[netip.Addr]int{}
	next := oldPods
	giveAll := func(n int) {
		for ; n > 0; n-- {
			createPod(t, api, next, "old")
			addr := r.attach(next)
			j, twice := given[addr]
			if twice || recorded[addr] || !netip.MustParsePrefix(oldRange).Contains(addr) {
				t.Fatalf("pod %d has address %v, which is that of pod %d or was recorded by whereabouts (%v)",
					next, addr, j, recorded[addr])
			}
			given[addr] = next
			next++
		}
	}
	giveAll(oldUsable - oldPods)
	createPod(t, api, next, "old")
	err := r.call("ADD", next, nettest.New(t).Path)
	if err == nil || !strings.Contains(err.Error(), "no address is free") {
		t.Fatalf("one too many: %v", err)
	}
	next++

	// Half of the pods go as pods go, the other half while whereabouts is not there any more.
	for i := range oldPods {
		if i < oldPods/2 {
			old.del(i)
		}
		deletePod(t, api, i)
	}
	left := slices.DeleteFunc(slices.Collect(maps.Keys(recorded)), func(a netip.Addr) bool {
		return old.deleted[a]
	})
	if len(left) != oldPods/2 {
		t.Fatalf("whereabouts gave %d addresses back", oldPods-len(left))
	}
	expect(t, old.audit(), reap.Orphan, left)
	clear(recorded)
	giveAll(oldPods)
}

// reference is the reference's whereabouts, called as an interface plugin does.
type reference struct {
	t             *testing.T
	bin           string
	config        []byte
	braidctl, api string
	netns         string
	has           map[int]netip.Addr
	deleted       map[netip.Addr]bool
}

func newReference(t *testing.T, api *lab.API, r *cri) *reference {
	t.Helper()
	crds, err := filepath.Glob(os.Getenv("BRAID_WHEREABOUTS_CRDS") + "/whereabouts.cni.cncf.io_*.yaml")
	if err != nil || len(crds) == 0 {
		t.Fatalf("no CRDs of whereabouts: %v", err)
	}
	for _, path := range crds {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, api, string(data))
	}
	flat := r.path("whereabouts.conf")
	err = os.WriteFile(flat, fmt.Appendf(nil,
		`{"datastore":"kubernetes","kubernetes":{"kubeconfig":%q}}`, kubeconfig(t, api)), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return &reference{
		t: t, bin: os.Getenv("BRAID_WHEREABOUTS"), braidctl: filepath.Join(r.bin, "braidctl"),
		api: kubeconfig(t, api),
		config: fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":"old","type":"macvlan",`+
			`"ipam":{"type":"whereabouts","range":%q,"configuration_path":%q}}`, oldRange, flat),
		netns: nettest.New(t).Path, // where the links would be
		has:   map[int]netip.Addr{}, deleted: map[netip.Addr]bool{},
	}
}

func (o *reference) call(command string, i int) []byte {
	o.t.Helper()
	cmd := exec.Command(o.bin)
	cmd.Stdin = bytes.NewReader(o.config)
	cmd.Env = []string{
		"CNI_COMMAND=" + command, fmt.Sprintf("CNI_CONTAINERID=container-%d", i), "CNI_NETNS=" + o.netns,
		"CNI_IFNAME=net1", "CNI_PATH=/nowhere",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + podName(i),
	}
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("whereabouts %s of pod %d: %v: %s", command, i, err, out)
	}
	return out
}

func (o *reference) add(i int) netip.Addr {
	o.t.Helper()
	result, err := types100.NewResult(o.call("ADD", i))
	if err != nil {
		o.t.Fatal(err)
	}
	o.has[i] = address(o.t, result)
	return o.has[i]
}

func (o *reference) del(i int) {
	o.t.Helper()
	o.call("DEL", i)
	o.deleted[o.has[i]] = true
}

// audit is what braidctl says.
func (o *reference) audit() (entries []reap.Entry) {
	o.t.Helper()
	// its code is 0 if all is well
	out, err := exec.Command(o.braidctl, "ipam", "audit", "-o", "json", "--kubeconfig", o.api).Output()
	if jerr := json.Unmarshal(out, &entries); jerr != nil {
		o.t.Fatalf("audit: %v: %s", err, out)
	}
	return entries
}

// expect wants the audit to say of exactly these addresses that they are in that state, each in the
// pool and in the reservation.
func expect(t *testing.T, entries []reap.Entry, state reap.State, addrs []netip.Addr) {
	t.Helper()
	said := map[netip.Addr]bool{}
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Address)
		if err != nil || e.State != state {
			t.Errorf("the audit says %+v", e)
		}
		said[a] = true
	}
	for _, a := range addrs {
		if !said[a] {
			t.Errorf("the audit does not say that %v is %s", a, state)
		}
		delete(said, a)
	}
	if len(said) > 0 {
		t.Errorf("the audit says of %v that they are %s", said, state)
	}
}

func address(t *testing.T, result types.Result) netip.Addr {
	t.Helper()
	r, ok := result.(*types100.Result)
	if !ok || len(r.IPs) != 1 {
		t.Fatalf("result %v has not one address", result)
	}
	a, _ := netip.AddrFromSlice(r.IPs[0].Address.IP)
	return a.Unmap()
}

func apply(t *testing.T, api *lab.API, manifest string) {
	t.Helper()
	if err := api.Apply(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
}

func createPod(t *testing.T, api *lab.API, i int, networks string) {
	t.Helper()
	pod := lab.Pod("default", podName(i), map[string]string{nadv1.NetworksAnnotation: networks})
	if networks == "" {
		pod.Annotations = nil
	}
	_, err := api.Client().CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func deletePod(t *testing.T, api *lab.API, i int) {
	t.Helper()
	now := int64(0)
	err := api.Client().CoreV1().Pods("default").
		Delete(t.Context(), podName(i), metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil {
		t.Fatal(err)
	}
}

// attach is an ADD as the kubelet has it made, again until it succeeds. It returns the address of
// net1.
func (r *cri) attach(i int) netip.Addr {
	r.t.Helper()
	netns := nettest.New(r.t)
	for start := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		err := r.call("ADD", i, netns.Path)
		if err == nil {
			break
		}
		if time.Since(start) > adoptWithin {
			r.t.Fatalf("ADD of pod %d: %v", i, err)
		}
		if err := r.call("DEL", i, netns.Path); err != nil {
			r.t.Fatal(err)
		}
	}
	for line := range strings.Lines(netns.Addrs()) {
		if f := strings.Fields(line); f[1] == "net1" && strings.HasPrefix(f[2], "10.") {
			return netip.MustParsePrefix(f[2]).Addr()
		}
	}
	r.t.Fatalf("pod %d has no address on net1:\n%s", i, netns.Addrs())
	return netip.Addr{}
}

func startController(t *testing.T, api *lab.API, r *cri) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, filepath.Join(r.bin, "braid-controller"),
		"--kubeconfig="+kubeconfig(t, api), "--interval=200ms", "--grace=1s")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		cmd.Wait() //nolint:errcheck // it was killed
		if t.Failed() {
			t.Logf("braid-controller:\n%s", out.String())
		}
	})
}

// adopted waits until blocks say of all these addresses that they are taken.
func (r *cri) adopted(api *lab.API, addrs map[netip.Addr]bool) {
	r.t.Helper()
	source := objects(r.t, api)
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		blocks, err := source.Blocks(r.t.Context(), metav1.ListOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
		taken := 0
		for _, b := range blocks {
			for _, e := range b.Spec.Allocations {
				if a, err := netip.ParseAddr(e.Address); err == nil && addrs[a] {
					taken++
				}
			}
		}
		if taken == len(addrs) {
			return
		}
		if time.Since(start) > adoptWithin {
			r.t.Fatalf("%d of %d addresses are adopted: %+v", taken, len(addrs), blocks)
		}
	}
}
