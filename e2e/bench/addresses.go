package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube"
)

const (
	// clusterNodes fill a /16.
	clusterNodes = 256
	// manyInUse is how many addresses one node has in use for the second of two times.
	manyInUse = 60000
	// atOnce is how many Adds one node does at a time, burstOf how many in all.
	atOnce, burstOf = 64, 4096
	// oldRounds are enough for the reference: each takes a second.
	oldRounds = 10
)

// The targets for cluster-wide addresses.
const (
	maxFour     = 1.3  // ADD of a pod with four networks, of that with host-local
	minFaster   = 10.0 // that with the reference's plugins and addresses, of that
	maxOwn      = 1.0  // an address of a block that the node owns, of a bare binary's start
	maxGrowth   = 1.5  // that, with 60,000 addresses in use, of that with none
	minParallel = 0.5  // Adds a second with 64 at a time, of those one at a time
	// addresses a second in a cluster, of those of as many blocks as are created in a second when
	// nothing else is done
	minOfFloor = 0.3
	maxStored  = 0.5 // bytes of an address in the API, of an entry in the reference's pool
)

// wherePod has four networks with addresses of the cluster, oldPod four with those of the
// reference.
func wherePod() string { return "bench-addresses" }
func oldPod() string   { return "bench-reference" }

// whereManifests are the networks and the pods that use cluster-wide addresses, and the nodes. flat
// is the reference's flat file, which Braid lets no network name.
func (b *bench) whereManifests(flat string) string {
	var out strings.Builder
	for i, pod := range []string{wherePod(), oldPod()} {
		var names []string
		for net := range 4 {
			name := fmt.Sprintf("%s-%d", pod, net)
			names = append(names, name)
			file := ""
			if pod == oldPod() {
				file = fmt.Sprintf(`,"configuration_path":%q`, flat)
			}
			config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":%q,"plugins":[{"type":"macvlan","master":"nic0","mode":"bridge",
				"ipam":{"type":"whereabouts","range":"10.%d.0.0/16"%s}}]}`, name, 30+10*i+net, file)
			fmt.Fprintf(&out, "apiVersion: k8s.cni.cncf.io/v1\nkind: "+
				"NetworkAttachmentDefinition\nmetadata: {name: %s, namespace: default}\nspec: {config: "+
				"%q}\n---\n",
				name, config)
		}
		out.WriteString(b.pod(pod, names))
	}
	for i := range clusterNodes {
		fmt.Fprintf(&out, "apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n---\n", nodeName(i))
	}
	return out.String()
}

func nodeName(i int) string { return fmt.Sprintf("bench-node-%03d", i) }

// addresses measures the cluster-wide IPAM: a pod's ADD with four such networks, beside the same
// with the reference's plugins, and the allocator by itself against the API server.
func (b *bench) addresses(ctx context.Context, rounds int) (string, error) {
	if err := b.addressRounds(ctx, rounds); err != nil {
		return "", err
	}
	p, err := b.newIPAM()
	if err != nil {
		return "", err
	}
	r, err := p.measure(ctx)
	if err != nil {
		return "", err
	}
	return b.ofAddresses(r), nil
}

// addressRounds times ADD and DEL of a pod with four such networks, and of one with the reference's.
func (b *bench) addressRounds(ctx context.Context, rounds int) error {
	for round := range warmUps + rounds {
		if round == warmUps {
			maps.DeleteFunc(b.times, func(name string, _ []time.Duration) bool {
				return strings.HasSuffix(name, " addresses") || strings.HasSuffix(name, " reference")
			})
		}
		if err := b.fourNetworks(ctx, "addresses", b.braid, wherePod()); err != nil {
			return err
		}
		if round > warmUps+oldRounds {
			continue
		}
		if err := b.fourNetworks(ctx, "reference", b.reference, oldPod()); err != nil {
			return err
		}
	}
	return nil
}

// measure measures the allocator. What fills a range comes first: the other blocks are no part of
// it.
func (p *ipam) measure(ctx context.Context) (r *rates, err error) {
	r = &rates{}
	progress(fmt.Sprintf("%d nodes fill a /16", clusterNodes))
	if r.fill, r.stored, err = p.fill(ctx); err != nil {
		return nil, err
	}
	progress("the API server's own rate")
	if r.floor, err = p.floor(ctx); err != nil {
		return nil, err
	}
	progress("one node, addresses of its own blocks")
	if r.parallel, err = p.parallel(ctx); err != nil {
		return nil, err
	}
	r.alone, r.few, r.many, err = p.growth(ctx)
	return r, err
}

// rates are what was measured of the allocator by itself: addresses a second, bytes that the API
// server keeps for one, and milliseconds for one of an own block with few and with many in use.
type rates struct{ fill, stored, floor, parallel, alone, few, many float64 }

// ofAddresses says it.
func (b *bench) ofAddresses(r *rates) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\nCluster-wide addresses (whereabouts), real API server.\n\n")
	fmt.Fprintf(&out, "ADD and DEL of a pod with four such networks: %.1f and %.1f ms; %s: %.1f and "+
		"%.1f ms\n",
		b.median("ADD addresses"), b.median("DEL addresses"), b.reference.name, b.median("ADD reference"),
		b.median("DEL reference"))
	fmt.Fprintf(&out, "An address of an own block, none and 60,000 in use: %.2f and %.2f ms; 64 at "+
		"a time: %.0f/s; 256 nodes fill a /16: %.0f/s; bytes for each: %.0f\n\n",
		r.few, r.many, r.parallel, r.fill, r.stored)
	bare := b.median("VERSION bare")
	out.WriteString(verdicts([]verdict{
		{
			"ADD with 4 networks, of that with host-local",
			b.median("ADD addresses") / b.median(key("ADD", "braid", 4)), maxFour, false,
		},
		{
			b.reference.name + ", of that", b.median("ADD reference") / b.median("ADD addresses"),
			minFaster, true,
		},
		{"address of an own block, of a bare binary's start", r.few / bare, maxOwn, false},
		{"60,000 in use, of none", r.many / r.few, maxGrowth, false},
		{"rate of 64 at a time, of one at a time", r.parallel / r.alone, minParallel, true},
		{"rate of 256 nodes, of creating their blocks alone", r.fill / r.floor, minOfFloor, true},
		{"bytes of an address in the API, of whereabouts' entry", r.stored / entrySize(), maxStored, false},
	}))
	return out.String()
}

// entrySize is how many bytes an address takes in the reference's pool, which is one object.
func entrySize() float64 {
	return float64(len(fmt.Sprintf(`"%d":{"id":"%064d","ifname":"net1","podref":"default/pod-%d"},`,
		manyInUse, manyInUse, manyInUse)))
}

// fourNetworks times ADD and DEL of a pod, and the CPU time of both.
func (b *bench) fourNetworks(ctx context.Context, name string, by *meta, pod string) error {
	if err := b.fresh(ctx, pod); err != nil {
		return err
	}
	return inNetns(func(netns string) error {
		before, err := usedCPU()
		for _, command := range []string{"ADD", "DEL"} {
			err = errors.Join(err, b.timed(command+" "+name, func() error {
				return by.call(ctx, command, pod, "bench", netns)
			}))
		}
		after, uerr := usedCPU()
		b.times["CPU "+name] = append(b.times["CPU "+name], after-before)
		return errors.Join(err, uerr)
	})
}

// ipam is a cluster's allocators in this process.
type ipam struct {
	work string
	api  *kube.API
}

// newIPAM connects to the API server with Braid's own rights.
func (b *bench) newIPAM() (*ipam, error) {
	kubeconfig, err := b.api.Kubeconfig("braid")
	if err != nil {
		return nil, err
	}
	api, err := kube.NewAPI(kube.APIOptions{Kubeconfig: kubeconfig, Version: "bench"})
	return &ipam{filepath.Join(b.work, "ipam"), api}, err
}

// node returns the allocator of a node, by number.
func (p *ipam) node(i int) *block.Manager {
	return &block.Manager{
		Store: p.api, Nodes: p.api, Dir: filepath.Join(p.work, nodeName(i)), NodeName: nodeName(i),
		Log:  slog.New(slog.DiscardHandler),
		Boot: func() (string, error) { return "bench", nil },
	}
}

// bigWish returns a wish for any address of a range.
func bigWish(space, cidr string) (block.Wish, error) {
	w, err := alloc.NewWindow(netip.MustParsePrefix(cidr), netip.Addr{}, netip.Addr{}, nil, nil)
	return block.Wish{Space: block.SpaceOf(space, ""), Window: w}, err
}

// take takes an address for container number i.
func take(ctx context.Context, m *block.Manager, w block.Wish, i int) error {
	h := block.Holder{
		ID: attachment.ID{
			Network: "bench", ContainerID: fmt.Sprintf("container-%064d", i), IfName: "net1",
		}, Pod: fmt.Sprintf("default/pod-%d", i),
	}
	_, err := m.Add(ctx, h, []block.Wish{w}, nil)
	return err
}

// growth is how many addresses a second a node gives one at a time, new blocks included; and how
// long an address takes where none and where many are in use, in ms, medians.
func (p *ipam) growth(ctx context.Context) (alone, few, many float64, err error) {
	m := p.node(0)
	w, err := bigWish("growth", "10.0.0.0/14")
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	var times []time.Duration
	for i := range manyInUse + 1000 {
		start := time.Now()
		if err := take(ctx, m, w, i); err != nil {
			return 0, 0, 0, err
		}
		if i == 999 {
			alone = 1000 / time.Since(began).Seconds()
		}
		if i < 1000 || i >= manyInUse {
			times = append(times, time.Since(start))
		}
		if i%5000 == 0 {
			progress(fmt.Sprintf("one node, %d addresses in use", i))
		}
	}
	median := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)/2]) / float64(time.Millisecond)
	}
	return alone, median(times[:1000]), median(times[1000:]), nil
}

// parallel is how many addresses one node gives in a second.
func (p *ipam) parallel(ctx context.Context) (float64, error) {
	m := p.node(1)
	w, err := bigWish("parallel", "10.4.0.0/14")
	if err != nil {
		return 0, err
	}
	start := time.Now()
	err = together(atOnce, burstOf, func(i int) error { return take(ctx, m, w, i) })
	return burstOf / time.Since(start).Seconds(), err
}

// floor is of how many addresses blocks are created in a second if nothing else is done.
func (p *ipam) floor(ctx context.Context) (float64, error) {
	w, err := bigWish("floor", "10.16.0.0/16")
	if err != nil {
		return 0, err
	}
	blocks := slices.Collect(w.Window.Blocks(28))
	start := time.Now()
	err = together(atOnce, len(blocks), func(i int) error {
		object := &v1alpha1.IPBlock{
			Spec: v1alpha1.IPBlockSpec{
				Space: w.Space, CIDR: blocks[i].String(),
				Owner: &v1alpha1.Node{NodeName: nodeName(0), NodeUID: "bench"},
			},
		}
		object.Name = block.NameOf(w.Space, blocks[i])
		_, err := p.api.CreateBlock(ctx, object)
		return err
	})
	return float64(len(blocks)*block.Size) / time.Since(start).Seconds(), err
}

// fill is how many addresses all nodes together give in a second, until none is left, and how many
// bytes of blocks each takes.
func (p *ipam) fill(ctx context.Context) (rate, stored float64, err error) {
	w, err := bigWish("fill", "10.8.0.0/16")
	if err != nil {
		return 0, 0, err
	}
	var nodes []*block.Manager
	for i := range clusterNodes {
		nodes = append(nodes, p.node(i))
	}
	// This process stands for those of many nodes, none of which lives long enough to collect
	// garbage.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	total := int(w.Window.Size()) / clusterNodes * clusterNodes //nolint:gosec // 65,534
	var done atomic.Int64
	start := time.Now()
	err = together(clusterNodes, total, func(i int) error {
		if n := done.Add(1); n%5000 == 0 {
			progress(fmt.Sprintf("%d nodes, %d addresses in use", clusterNodes, n))
		}
		return take(ctx, nodes[i%clusterNodes], w, i)
	})
	if err != nil {
		return 0, 0, err
	}
	rate = float64(total) / time.Since(start).Seconds()
	stored, err = p.stored(ctx, "fill")
	return rate, stored, err
}

// stored returns how many bytes of a space's blocks an address takes.
func (p *ipam) stored(ctx context.Context, space string) (float64, error) {
	blocks, err := p.api.Blocks(ctx, metav1.ListOptions{FieldSelector: "spec.space=" + space})
	if err != nil {
		return 0, err
	}
	size := 0
	for _, b := range blocks {
		data, err := json.Marshal(b)
		if err != nil {
			return 0, err
		}
		size += len(data)
	}
	return float64(size) / float64(len(blocks)*block.Size), nil
}

// together runs fn for 0 to n-1, at most so many at a time.
func together(workers, n int, fn func(int) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, workers)
	for worker := range workers {
		wg.Go(func() {
			for i := worker; i < n; i += workers {
				if err := fn(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}
