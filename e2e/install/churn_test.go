package install_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const (
	churnPrefix = "churn-"
	// churners is how many pods of each node come and go at a time, beside one that stays.
	churners = 2
	// churnedLife is how long a pod is left alone between its start and its end.
	churnedLife = time.Second
	look        = 100 * time.Millisecond
)

// churn creates and deletes pods with networks on all nodes while a test does something else. Each
// pod that runs must have its networks: in network-status and in its network namespace, with
// addresses that no other pod has. No pod may be stuck. One pod of each node stays from the
// beginning to the end.
//
//	c := r.churn()
//	... what the test is about, with c.more() where pods have to come and go after it ...
//	c.end()
//
// An API server that is away is waited for.
type churn struct {
	w *world
	// ctx outlives that of a test that has failed, so that its pods are deleted all the same.
	ctx  context.Context
	halt chan struct{}
	stop func()
	wg   sync.WaitGroup

	mu sync.Mutex
	// holders are pods by the addresses that they have.
	holders map[string]*churned
	starts  []podStart
	over    map[string]int // pods that came and went, by node
	away    int            // calls that the API server did not answer
}

// churned is one pod.
type churned struct {
	name  string
	node  *lab.Node
	addrs []string
}

// podStart is when a pod was created, and how long it took until it was ready.
type podStart struct {
	at   time.Time
	took time.Duration
}

// churn starts pods, and returns when one of each node is there.
func (w *world) churn() *churn {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), 3*patience)
	c := &churn{
		w: w, ctx: ctx, halt: make(chan struct{}), holders: map[string]*churned{}, over: map[string]int{},
	}
	c.stop = sync.OnceFunc(func() { close(c.halt); c.wg.Wait(); cancel() })
	w.t.Cleanup(c.stop)
	for _, n := range w.Nodes() {
		c.wg.Go(func() {
			c.live(&churned{name: churnPrefix + n.Name + "-stays", node: n}, func() { <-c.halt })
		})
		for i := range churners {
			c.wg.Go(func() {
				for j := 0; !c.halted() && c.ctx.Err() == nil; j++ {
					pod := &churned{name: fmt.Sprintf("%s%s-%d-%d", churnPrefix, n.Name, i, j), node: n}
					if !c.live(pod, func() { c.sleep(churnedLife) }) {
						return
					}
				}
			})
		}
	}
	c.more()
	return c
}

// end lets all pods go, and fails the test if anything of them is left on a node.
func (c *churn) end() {
	c.w.t.Helper()
	c.stop()
	for _, n := range c.w.Nodes() {
		c.w.eventually("nothing is left on "+n.Name, func() error { return nothingLeft(n) })
	}
	took := c.took(time.Time{}, time.Now())
	c.w.t.Logf("%d pods started meanwhile, in %v (median), %v (slowest); %d calls while the API "+
		"server was away",
		len(took), took[len(took)/2].Round(10*time.Millisecond),
		took[len(took)-1].Round(10*time.Millisecond), c.away)
}

// more returns when on each node further pods have been created, have run and are gone.
func (c *churn) more() {
	c.w.t.Helper()
	before := c.ended()
	c.w.eventually("pods come and go", func() error {
		now := c.ended()
		for _, n := range c.w.Nodes() {
			// Those that were there at the call do not count.
			if now[n.Name] < before[n.Name]+churners+1 {
				return fmt.Errorf("on %s %d did so", n.Name, now[n.Name]-before[n.Name])
			}
		}
		return nil
	})
}

func (c *churn) ended() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.over)
}

// took returns how long the pods that were created in a time needed to be ready, the fastest first.
func (c *churn) took(from, to time.Time) (all []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.starts {
		if !s.at.Before(from) && !s.at.After(to) {
			all = append(all, s.took)
		}
	}
	slices.Sort(all)
	return all
}

// lost is for a node that has lost its sandboxes: its pods' addresses are free, and pods get
// others.
func (c *churn) lost(n *lab.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, pod := range c.holders {
		if pod.node == n {
			delete(c.holders, address)
		}
	}
}

func (c *churn) halted() bool {
	select {
	case <-c.halt:
		return true
	default:
		return false
	}
}

func (c *churn) sleep(d time.Duration) {
	select {
	case <-c.halt:
	case <-time.After(d):
	}
}

// live is the life of a pod; false if something is wrong, which it has told.
func (c *churn) live(p *churned, stay func()) bool {
	begun := time.Now()
	err := c.try(func() error { return c.create(p) })
	if err == nil {
		err = c.try(func() error { return c.running(p) })
	}
	if err == nil {
		c.started(begun)
		stay()
		err = c.try(func() error { return c.whole(p) })
	}
	c.release(p)
	if err = errors.Join(err, c.try(func() error { return c.delete(p) })); err != nil {
		c.w.t.Errorf("pod %s: %v", p.name, err)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over[p.node.Name]++
	return true
}

func (c *churn) started(begun time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starts = append(c.starts, podStart{begun, time.Since(begun)})
}

// errWrong marks what no time can mend.
var errWrong = errors.New("wrong")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errWrong}, args...)...)
}

// try repeats what fails. Time in which the API server is away does not count.
func (c *churn) try(what func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := what()
		if err == nil || errors.Is(err, errWrong) {
			return err
		}
		if _, lost := errors.AsType[*url.Error](err); lost {
			c.mu.Lock()
			c.away++
			c.mu.Unlock()
			deadline = time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("is stuck: %w", err)
		}
		select {
		case <-c.ctx.Done():
			return errors.Join(err, c.ctx.Err())
		case <-time.After(look):
		}
	}
}

func (c *churn) create(p *churned) error {
	pod := lab.Pod("default", p.name, map[string]string{nadv1.NetworksAnnotation: "data-plane"})
	pod.Spec.NodeName = p.node.Name
	err := c.w.create(c.ctx, pod)
	if apierrors.IsAlreadyExists(err) { // made by a call whose answer was lost
		err = nil
	}
	return err
}

// running looks at a pod until it runs, and then at its networks.
func (c *churn) running(p *churned) error {
	pod, err := c.w.Client().CoreV1().Pods("default").Get(c.ctx, p.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return wrong("somebody deleted it")
	case err != nil:
		return err
	case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
		return wrong("it is %s: %s", pod.Status.Phase, pod.Status.Message)
	case pod.Status.Phase != corev1.PodRunning:
		return fmt.Errorf("it is %s", pod.Status.Phase)
	}
	if status := pod.Annotations[nadv1.StatusAnnotation]; !strings.Contains(status, `"net1"`) {
		return wrong("it runs without its network: network-status %q", status)
	}
	return c.whole(p)
}

// whole looks into the pod's network namespace, and notes its addresses.
func (c *churn) whole(p *churned) error {
	netns, err := podNetns(p.node, p.name)
	if err != nil {
		return err
	}
	links, err := linksOf(netns)
	if err != nil {
		return err // it went meanwhile
	}
	var addrs []string
	for _, link := range []string{"eth0", "net1"} {
		if len(links[link]) != 1 {
			return wrong("it runs without an address on %s: %v", link, links)
		}
		addrs = append(addrs, links[link]...)
	}
	return c.holds(p, addrs)
}

// holds notes the addresses of a pod.
func (c *churn) holds(p *churned, addrs []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, address := range p.addrs {
		if c.holders[address] == p {
			delete(c.holders, address)
		}
	}
	p.addrs = addrs
	for _, address := range addrs {
		// The default network's addresses are the node's own.
		if other := c.holders[address]; other != nil && other != p &&
			(other.node == p.node || strings.HasPrefix(address, "10.20.")) {
			return wrong("it has address %s, and so has %s", address, other.name)
		}
		c.holders[address] = p
	}
	return nil
}

func (c *churn) release(p *churned) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.holders, func(_ string, holder *churned) bool { return holder == p })
}

// delete deletes a pod; the error is nil when it is gone.
func (c *churn) delete(p *churned) error {
	pods := c.w.Client().CoreV1().Pods("default")
	pod, err := pods.Get(c.ctx, p.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case pod.DeletionTimestamp == nil:
		if err := pods.Delete(c.ctx, p.name, metav1.DeleteOptions{}); err != nil &&
			!apierrors.IsNotFound(err) {
			return err
		}
	}
	return errors.New("it is not gone")
}

// podNetns returns a path to the network namespace of a pod's sandbox.
func podNetns(n *lab.Node, pod string) (string, error) {
	all, err := sandboxes(n)
	if err != nil {
		return "", err
	}
	var newest sandbox
	for _, s := range all {
		if s.pod == pod && s.made.After(newest.made) {
			newest = s
		}
	}
	if newest.netns == "" {
		return "", fmt.Errorf("it has no sandbox on %s", n.Name)
	}
	return n.Path(newest.netns), nil
}

// sandbox is one that the runtime runs, with a network namespace of its own.
type sandbox struct {
	id, pod, netns string
	made           time.Time
}

// layouts are where runtimes have the config.json of each container, and the annotations by which
// they tell what it is.
var layouts = []struct{ files, kind, id, pod string }{
	{
		files: "/run/containerd/io.containerd.runtime.v2.task/k8s.io/*/config.json",
		kind:  "io.kubernetes.cri.container-type",
		id:    "io.kubernetes.cri.sandbox-id", pod: "io.kubernetes.cri.sandbox-name",
	},
	{
		files: "/run/containers/storage/overlay-containers/*/userdata/config.json",
		kind:  "io.kubernetes.cri-o.ContainerType",
		id:    "io.kubernetes.cri-o.SandboxID", pod: "io.kubernetes.cri-o.KubeName",
	},
}

// sandboxes asks the runtime's files: thousands of calls would be what a test measures.
func sandboxes(n *lab.Node) (all []sandbox, err error) {
	for _, l := range layouts {
		files, err := filepath.Glob(n.Path("/") + l.files)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			spec, at, err := sandboxSpec(file)
			if err != nil || spec.Annotations[l.kind] != "sandbox" ||
				spec.Annotations["io.kubernetes.cri-o.HostNetwork"] == "true" { // it has a path as well
				continue // of a container, or it went meanwhile
			}
			for _, ns := range spec.Linux.Namespaces {
				if ns.Type == "network" && ns.Path != "" {
					all = append(all, sandbox{spec.Annotations[l.id], spec.Annotations[l.pod], ns.Path, at})
				}
			}
		}
	}
	return all, nil
}

// ociSpec is what is needed of a sandbox's config.json.
type ociSpec struct {
	Annotations map[string]string `json:"annotations"`
	Linux       struct {
		Namespaces []struct {
			Type string `json:"type"`
			Path string `json:"path"`
		} `json:"namespaces"`
	} `json:"linux"`
}

func sandboxSpec(file string) (spec ociSpec, at time.Time, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return spec, at, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return spec, at, err
	}
	return spec, info.ModTime(), json.Unmarshal(data, &spec)
}

// linksOf returns the IPv4 addresses of the links of a network namespace.
func linksOf(netns string) (map[string][]string, error) {
	out, err := exec.Command("nsenter", "--net="+netns, "ip", "-json", "-4", "address").Output()
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", netns, err)
	}
	var list []struct {
		Name  string `json:"ifname"`
		Addrs []struct {
			Local string `json:"local"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	links := map[string][]string{}
	for _, link := range list {
		for _, address := range link.Addrs {
			links[link.Name] = append(links[link.Name], address.Local)
		}
	}
	return links, nil
}

// nothingLeft returns an error for what a node has of pods that are gone. Pods of the system may
// be there.
func nothingLeft(n *lab.Node) error {
	all, err := sandboxes(n)
	if err != nil {
		return err
	}
	var left, ids []string
	for _, s := range all {
		if ids = append(ids, s.id); strings.HasPrefix(s.pod, churnPrefix) {
			left = append(left, "sandbox of "+s.pod)
		}
	}
	for _, find := range []func(*lab.Node, []string) ([]string, error){
		records, leases, veths,
		mentions,
	} {
		found, err := find(n, ids)
		if err != nil {
			return err
		}
		left = append(left, found...)
	}
	if len(left) > 0 {
		return fmt.Errorf("left:\n  %s", strings.Join(left, "\n  "))
	}
	return nil
}

// records are Braid's records of sandboxes that are not there.
func records(n *lab.Node, sandboxes []string) (left []string, err error) {
	files, err := filepath.Glob(n.Path("/run/braid/sandboxes") + "/*.json")
	for _, file := range files {
		var record struct{ ContainerID string }
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = json.Unmarshal(data, &record)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if !slices.Contains(sandboxes, record.ContainerID) {
			left = append(left, "record of "+record.ContainerID)
		}
	}
	return left, err
}

// leases are host-local's of sandboxes that are not there.
func leases(n *lab.Node, sandboxes []string) (left []string, err error) {
	files, err := filepath.Glob(n.Path("/var/lib/cni/networks") + "/*/10.*")
	for _, file := range files {
		content, err := os.ReadFile(file)
		id, _, _ := strings.Cut(string(content), "\n")
		if id = strings.TrimSpace(id); err == nil && !slices.Contains(sandboxes, id) {
			left = append(left, "lease "+filepath.Base(file)+" of "+id)
		}
	}
	return left, err
}

// veths are those that are more or less than the sandboxes.
func veths(n *lab.Node, sandboxes []string) ([]string, error) {
	links, err := filepath.Glob(n.Path("/sys/class/net") + "/veth*")
	if err != nil || len(links) == len(sandboxes) {
		return nil, err
	}
	return []string{
		fmt.Sprintf("%d links for %d sandboxes: %q", len(links), len(sandboxes), links),
	}, nil
}

// mentions are Braid's files that name a pod of the churn: what it knows of addresses and
// sandboxes.
func mentions(n *lab.Node, _ []string) (left []string, err error) {
	for _, top := range []string{"/run/braid", "/var/lib/braid"} {
		top = n.Path(top)
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case d.IsDir() && path == filepath.Join(top, "gone"): // that a sandbox is gone is remembered
				return fs.SkipDir
			case !d.Type().IsRegular():
				return nil
			}
			content, err := os.ReadFile(path)
			if err == nil && strings.Contains(string(content), "default/"+churnPrefix) {
				left = append(left, strings.TrimPrefix(path, n.Path("/"))+" names one")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}
