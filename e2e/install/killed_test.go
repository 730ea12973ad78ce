package install_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/conf"
)

// Where things are on a node.
const (
	killerDir     = "/run/killer"
	confDir       = "/etc/cni/net.d"
	privateDir    = "/etc/cni/braid.d"
	binDir        = "/opt/cni/bin"
	stateDir      = "/var/lib/braid"
	configuration = confDir + "/00-braid.conflist"
	networkName   = "10-pods.conflist"
)

// TestAgentKilledAtEachStep: an agent that has a new binary, a new configuration, a new credential
// and a new default network to install is killed before each change of a file, one after the other,
// and each time the next agent finishes. Nothing that the runtime may read or execute is ever half
// there, and pods come and go as if nothing were.
func TestAgentKilledAtEachStep(t *testing.T) {
	w := newWorld(t)
	w.private()
	restore := w.underKiller()
	var all sync.WaitGroup
	victims := make([]*victim, len(w.Nodes()))
	for i, n := range w.Nodes() {
		victims[i] = &victim{w: w, node: n}
		w.must(victims[i].begin())
	}
	c := w.churn()
	start := time.Now()
	for i, v := range victims {
		all.Go(func() {
			if err := v.killAtEach(i, len(victims)); err != nil {
				t.Errorf("%s: %v", v.node.Name, err)
			}
		})
	}
	all.Wait()
	t.Logf("%d steps in %v", victims[0].known, time.Since(start).Round(time.Second))
	if victims[0].known < 70 {
		t.Errorf("only %d steps", victims[0].known)
	}
	restore()
	c.more()
	c.end()
}

// underKiller starts the agents under the command killer. They begin to run when a victim says so.
func (w *world) underKiller() (restore func()) {
	w.t.Helper()
	dir := w.t.TempDir()
	w.must(lab.Build(w.ctx, dir, "github.com/braid-cni/braid/e2e/install/killer"))
	for _, n := range w.Nodes() {
		w.must(n.Install(filepath.Join(dir, "killer"), killerDir+"/killer", 0o755))
	}
	sets := w.Client().AppsV1().DaemonSets(namespace)
	d, err := sets.Get(w.ctx, "braid-agent", metav1.GetOptions{})
	w.must(err)
	before := d.Spec.Template.DeepCopy()
	spec := &d.Spec.Template.Spec
	directory := corev1.HostPathDirectory
	spec.Volumes = append(spec.Volumes, corev1.Volume{
		Name: "killer", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: killerDir, Type: &directory},
		},
	})
	container := &spec.Containers[0]
	container.VolumeMounts = append(container.VolumeMounts,
		corev1.VolumeMount{Name: "killer", MountPath: "/killer"})
	container.Command = append([]string{
		"/killer/killer", "-dir", "/killer", "-under",
		strings.Join([]string{"/etc/cni", binDir, stateDir}, ","), "--",
	}, container.Command...)
	for i, arg := range container.Args {
		if strings.HasPrefix(arg, "--config=") {
			container.Args[i] = "--config=/killer/config.json"
		}
	}
	_, err = sets.Update(w.ctx, d, metav1.UpdateOptions{})
	w.must(err)
	w.eventually("the killers are there", w.rolledOut)
	return func() {
		w.t.Helper()
		d, err := sets.Get(w.ctx, "braid-agent", metav1.GetOptions{})
		w.must(err)
		d.Spec.Template = *before
		_, err = sets.Update(w.ctx, d, metav1.UpdateOptions{})
		w.must(err)
		w.eventually("the agents are back", w.moved)
		w.eventually("both nodes are ready", w.ready)
	}
}

// victim is the agent of a node.
type victim struct {
	w    *world
	node *lab.Node
	// run numbers the agents, edition what there is to be installed.
	run, edition int
	binaries     map[string][]byte // the image's, by path
	network      []byte            // of this edition
	kubeconfig   []byte            // as it was before this run
	known        int
}

// begin remembers what there is.
func (v *victim) begin() (err error) {
	v.binaries = map[string][]byte{}
	for _, name := range []string{"braid", "braid-full"} {
		path := binDir + "/" + name
		if v.binaries[path], err = os.ReadFile(v.path(path)); err != nil {
			return err
		}
	}
	v.network, err = os.ReadFile(v.path(privateDir + "/" + networkName))
	return err
}

func (v *victim) path(inside string) string { return v.node.Path(inside) }

// killAtEach kills agents at every of-th step, from the at-th on.
func (v *victim) killAtEach(at, of int) error {
	steps, err := v.whole()
	if err != nil {
		return err
	}
	v.known = len(steps)
	for i := at; i < len(steps); i += of {
		if err := v.killAt(steps[i]); err != nil {
			return fmt.Errorf("killed at step %d, %s: %w", i, steps[i], err)
		}
	}
	return nil
}

// whole installs an edition without a kill, and returns the steps that it takes.
func (v *victim) whole() ([]string, error) {
	if err := v.prepare(); err != nil {
		return nil, err
	}
	if err := v.start(""); err != nil {
		return nil, err
	}
	if err := v.await("installed", v.installed); err != nil {
		return nil, err
	}
	return v.steps()
}

// killAt kills an agent at a step. Another finishes.
func (v *victim) killAt(step string) error {
	if err := v.prepare(); err != nil {
		return err
	}
	if err := v.start(step); err != nil {
		return err
	}
	if err := v.await("killed", v.killed); err != nil {
		return err
	}
	steps, err := v.steps()
	if err != nil {
		return err
	}
	if steps[len(steps)-1] != step {
		return fmt.Errorf("it was killed after %q", steps)
	}
	if err := v.sound(); err != nil {
		return err
	}
	if err := v.start(""); err != nil {
		return err
	}
	return v.await("repaired", v.installed)
}

// prepare ends the agent that runs, and has another edition of everything to be installed by the
// next.
func (v *victim) prepare() error {
	if err := v.end(); err != nil {
		return err
	}
	v.edition++
	var network map[string]any
	if err := json.Unmarshal(v.network, &network); err != nil {
		return err
	}
	network["edition"] = v.edition
	text, err := json.Marshal(network)
	if err != nil {
		return err
	}
	v.network = text
	errs := []error{
		v.node.WriteFile(killerDir+"/config.json", fmt.Appendf(nil, `{"logLevel": %q}`, v.level()),
			0o600),
		v.node.WriteFile(confDir+"/"+networkName, text, 0o600), // as its own agent does
	}
	for path := range v.binaries {
		errs = append(errs, v.node.WriteFile(path, v.former(path), 0o755))
	}
	return errors.Join(errs...)
}

// level is what differs between one edition's configuration and the next.
func (v *victim) level() string { return []string{"info", "debug"}[v.edition%2] }

// former is a binary before an edition: a program can have anything after its end.
func (v *victim) former(path string) []byte {
	return fmt.Appendf(slices.Clip(v.binaries[path]), "edition %d", v.edition-1)
}

// start begins a run.
func (v *victim) start(kill string) (err error) {
	if v.kubeconfig, err = os.ReadFile(v.path(kubeconfig)); err != nil {
		return err
	}
	v.run++
	return v.order(map[string]any{"run": v.run, "kill": kill})
}

// end ends the run, if there is one.
func (v *victim) end() error {
	if v.run == 0 {
		return nil
	}
	if err := v.order(map[string]any{"run": v.run, "end": true}); err != nil {
		return err
	}
	return v.await("ended", v.killed)
}

func (v *victim) order(order map[string]any) error {
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return v.node.WriteFile(killerDir+"/order", text, 0o600)
}

// killed returns nil when the run has ended.
func (v *victim) killed() error {
	end, err := os.ReadFile(v.path(fmt.Sprintf("%s/end-%d", killerDir, v.run)))
	if err == nil && string(end) != "killed" {
		return fmt.Errorf("it ended with %s", end)
	}
	return err
}

func (v *victim) steps() ([]string, error) {
	text, err := os.ReadFile(v.path(fmt.Sprintf("%s/steps-%d", killerDir, v.run)))
	return strings.Split(strings.TrimSpace(string(text)), "\n"), err
}

func (v *victim) await(what string, check func() error) error {
	var err error
	for deadline := time.Now().Add(patience); time.Now().
		Before(deadline) && v.w.ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return nil
		}
	}
	steps, _ := v.steps() //nolint:errcheck // for the reader alone
	return fmt.Errorf("not %s: %w, after %q", what, err, steps)
}

// installed returns nil when the node has this edition of everything, and nothing else.
func (v *victim) installed() error {
	for _, dir := range []string{confDir, privateDir, binDir, stateDir} {
		names, err := v.names(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if strings.HasPrefix(name, ".") || dir == confDir && name != filepath.Base(configuration) {
				return fmt.Errorf("there is %s in %s", name, dir)
			}
		}
	}
	cfg, err := conf.LoadFile(v.path(configuration))
	if err != nil {
		return err
	}
	if cfg.LogLevel != v.level() {
		return fmt.Errorf("the configuration has level %s", cfg.LogLevel)
	}
	if v.is(kubeconfig, v.kubeconfig) == nil {
		return errors.New("the credential is the former")
	}
	if err := v.is(privateDir+"/"+networkName, v.network); err != nil {
		return err
	}
	for path, binary := range v.binaries {
		if err := v.is(path, binary); err != nil {
			return err
		}
	}
	ledger, err := v.ledger()
	for _, f := range ledger {
		if !f.Installed || len(f.Digests) != 1 {
			return fmt.Errorf("%s is in the making", f.Path)
		}
	}
	return err
}

// sound returns an error unless a pod could start now, and get its networks.
func (v *victim) sound() error {
	names, err := v.names(confDir)
	if err != nil {
		return err
	}
	first := slices.IndexFunc(names, func(name string) bool {
		return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
	})
	if first < 0 || names[first] != filepath.Base(configuration) {
		return fmt.Errorf("the runtime reads the first of %q", names)
	}
	cfg, err := conf.LoadFile(v.path(configuration))
	if err != nil {
		return err
	}
	network, err := os.ReadFile(v.path(cfg.ClusterNetwork))
	if err != nil {
		return err
	}
	if !json.Valid(network) {
		return fmt.Errorf("the default network %s is %q", cfg.ClusterNetwork, network)
	}
	for path, binary := range v.binaries {
		if err := v.is(path, binary, v.former(path)); err != nil {
			return err
		}
	}
	if _, err := clientcmd.LoadFromFile(v.path(kubeconfig)); err != nil {
		return err
	}
	_, err = v.ledger()
	return err
}

// is returns nil if a file has one of the contents.
func (v *victim) is(path string, contents ...[]byte) error {
	is, err := os.ReadFile(v.path(path))
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(contents, func(content []byte) bool { return bytes.Equal(content, is) }) {
		return fmt.Errorf("%s is another", path)
	}
	return nil
}

func (v *victim) names(dir string) (names []string, err error) {
	entries, err := os.ReadDir(v.path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// installedFile is an entry of the agent's ledger.
type installedFile struct {
	Path      string   `json:"path"`
	Digests   []string `json:"digests"`
	Installed bool     `json:"installed"`
}

func (v *victim) ledger() ([]installedFile, error) {
	var ledger struct {
		Files []installedFile `json:"files"`
	}
	text, err := os.ReadFile(v.path(stateDir + "/installed.json"))
	if err == nil {
		err = json.Unmarshal(text, &ledger)
	}
	return ledger.Files, err
}
