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

// world is a cluster, whose objects are manifests in a directory, and one node of it.
type world struct {
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

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), now: time.Now()}
	must(t, os.Mkdir(w.path("manifests"), 0o700))
	var err error
	w.manifests, err = manifests.New(w.path("manifests"))
	must(t, err)
	w.objects = w.manifests
	w.node = plugintest.New(t, w)
	return w
}

func (w *world) path(elements ...string) string {
	return filepath.Join(append([]string{w.dir}, elements...)...)
}

// Run makes the plugin anew for each command, as a process would.
func (w *world) Run(
	ctx context.Context, node *plugintest.Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	p := plugin.NewIPAM(whereabouts.Plugin{Open: w.open, Files: w.files, Trusting: true})
	return plugintest.Plugins{"whereabouts": p}.Run(ctx, node, kind, environ, stdin)
}

func (w *world) open(c *whereabouts.Conf) (*whereabouts.Addresses, error) {
	log := slog.New(slog.NewTextHandler(w, nil))
	m := &block.Manager{
		Store: w.objects, Nodes: w.objects, Dir: w.path("state"), NodeName: "n1", Boot: func() (string,
			error,
		) {
			return "boot", nil
		}, Log: log,
		Now: func() time.Time { return w.now }, Step: w.step,
	}
	return &whereabouts.Addresses{Manager: m, Claims: w.objects, Close: func() {
		log.Info("closed", "file", c.LogFile)
	}}, nil
}

// Write makes the log.
func (w *world) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(line)
}

func (w *world) write(name, text string) string {
	w.t.Helper()
	must(w.t, os.WriteFile(w.path(name), []byte(text), 0o600))
	return w.path(name)
}

// blocks are the addresses that are recorded in files, of the API and of the node.
func (w *world) state() string {
	w.t.Helper()
	var lines []string
	err := filepath.WalkDir(w.path("state"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "/held/") {
			return err
		}
		text, err := os.ReadFile(path)
		lines = append(lines, string(text))
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// files lists everything that there is of blocks.
func (w *world) anything() []string {
	w.t.Helper()
	var all []string
	for _, pattern := range []string{"state", "manifests/*"} {
		found, err := filepath.Glob(w.path(pattern))
		must(w.t, err)
		all = append(all, found...)
	}
	return all
}

// pod is one of namespace default.
func (w *world) pod(id string) *plugintest.Pod {
	p := &plugintest.Pod{Node: w.node, ID: id, IfName: "net1", NetNS: "/run/netns/none"}
	p.Args = fmt.Sprintf(
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=uid-%s", id, id)
	return p
}

// claim makes an IPAMClaim.
func (w *world) claim(name string, spec conf) {
	w.t.Helper()
	text, err := json.Marshal(conf{
		"apiVersion": claimv1.GroupName + "/" + claimv1.Version, "kind": claimv1.Kind, "spec": spec,
		"metadata": conf{"namespace": "default", "name": name, "uid": "claim-" + name},
	})
	must(w.t, err)
	w.write("manifests/"+name+".yaml", string(text))
}

func (w *world) claimed(name string) claimv1.IPAMClaimStatus {
	w.t.Helper()
	claim, err := w.manifests.IPAMClaim(w.t.Context(), "default", name)
	must(w.t, err)
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
