package whereabouts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

type (
	conf = plugintest.Conf
	list = []any
)

type objects interface {
	block.Store
	block.Nodes
	block.IPAMClaims
}

// rig is a cluster of manifests in a directory, and one node of it.
type rig struct {
	t         *testing.T
	manifests *manifests.Directory
	dir       string
	// objects is what the plugin gets; the manifests by default.
	objects objects
	// files are the places of the flat file.
	files []string
	node  *plugintest.Node
	now   time.Time
	step  func(string) error

	mu  sync.Mutex
	log bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), now: time.Now()}
	must(t, os.Mkdir(r.path("manifests"), 0o700))
	var err error
	r.manifests, err = manifests.New(r.path("manifests"))
	must(t, err)
	r.objects = r.manifests
	r.node = plugintest.New(t, r)
	return r
}

func (r *rig) path(elements ...string) string {
	return filepath.Join(append([]string{r.dir}, elements...)...)
}

// Run makes the plugin anew for each command, as a process would.
func (r *rig) Run(
	ctx context.Context, node *plugintest.Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	p := plugin.NewIPAM(whereabouts.Plugin{Open: r.open, Files: r.files, Trusting: true})
	return plugintest.Plugins{"whereabouts": p}.Run(ctx, node, kind, environ, stdin)
}

func (r *rig) open(c *whereabouts.Conf) (*whereabouts.Addresses, error) {
	log := slog.New(slog.NewTextHandler(r, nil))
	m := &block.Manager{
		Store: r.objects, Nodes: r.objects, Dir: r.path("state"), NodeName: "n1", Boot: func() (string,
			error,
		) {
			return "boot", nil
		}, Log: log,
		Now: func() time.Time { return r.now }, Step: r.step,
	}
	return &whereabouts.Addresses{Manager: m, Claims: r.objects, Close: func() {
		log.Info("closed", "file", c.LogFile)
	}}, nil
}

// Write makes the log.
func (r *rig) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(line)
}

func (r *rig) write(name, text string) string {
	r.t.Helper()
	must(r.t, os.WriteFile(r.path(name), []byte(text), 0o600))
	return r.path(name)
}

// blocks are the addresses that are recorded in files, of the API and of the node.
func (r *rig) state() string {
	r.t.Helper()
	var lines []string
	err := filepath.WalkDir(r.path("state"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "/held/") {
			return err
		}
		text, err := os.ReadFile(path)
		lines = append(lines, string(text))
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// files lists everything that there is of blocks.
func (r *rig) anything() []string {
	r.t.Helper()
	var all []string
	for _, pattern := range []string{"state", "manifests/*"} {
		found, err := filepath.Glob(r.path(pattern))
		must(r.t, err)
		all = append(all, found...)
	}
	return all
}

// pod is one of namespace default.
func (r *rig) pod(id string) *plugintest.Pod {
	p := &plugintest.Pod{Node: r.node, ID: id, IfName: "net1", NetNS: "/run/netns/none"}
	p.Args = fmt.Sprintf(
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=uid-%s", id, id)
	return p
}

// claim makes an IPAMClaim.
func (r *rig) claim(name string, spec conf) {
	r.t.Helper()
	text, err := json.Marshal(conf{
		"apiVersion": claimv1.GroupName + "/" + claimv1.Version, "kind": claimv1.Kind, "spec": spec,
		"metadata": conf{"namespace": "default", "name": name, "uid": "claim-" + name},
	})
	must(r.t, err)
	r.write("manifests/"+name+".yaml", string(text))
}

func (r *rig) claimed(name string) claimv1.IPAMClaimStatus {
	r.t.Helper()
	claim, err := r.manifests.IPAMClaim(r.t.Context(), "default", name)
	must(r.t, err)
	return claim.Status
}

func with(ipam conf) conf {
	return conf{"type": "whereabouts", "ipam": conf{"type": "whereabouts"}.With(ipam)}
}

// add is an ADD that has to succeed; it returns the addresses, "10.0.0.1/24 via 10.0.0.254".
func add(t *testing.T, p *plugintest.Pod, c conf) []string {
	t.Helper()
	result, err := p.Add(c)
	if err != nil {
		t.Fatalf("ADD of %s: %v", p.ID, err)
	}
	var got []string
	for _, ip := range result.IPs {
		text := ip.Address.String()
		if ip.Gateway != nil {
			text += " via " + ip.Gateway.String()
		}
		got = append(got, text)
	}
	return got
}

// addrs are the addresses of a result alone.
func addrs(t *testing.T, p *plugintest.Pod, c conf) []netip.Addr {
	t.Helper()
	var got []netip.Addr
	for _, text := range add(t, p, c) {
		text, _, _ := strings.Cut(text, " ")
		got = append(got, netip.MustParsePrefix(text).Addr())
	}
	return got
}

// fails is an error with that code which says all the words.
func fails(t *testing.T, err error, code uint, words ...string) {
	t.Helper()
	if plugintest.Code(err) != code {
		t.Errorf("code %d, want %d: %v", plugintest.Code(err), code, err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in: %v", word, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// broken are objects that fail one kind of call.
type broken struct {
	objects
	create, publish error
}

func (b *broken) CreateBlock(
	ctx context.Context, object *v1alpha1.IPBlock,
) (*v1alpha1.IPBlock, error) {
	if b.create != nil {
		return nil, b.create
	}
	return b.objects.CreateBlock(ctx, object)
}

func (b *broken) SetIPAMClaimIPs(
	ctx context.Context, claim *claimv1.IPAMClaim, ips []string,
) error {
	if b.publish != nil {
		return b.publish
	}
	return b.objects.SetIPAMClaimIPs(ctx, claim, ips)
}
