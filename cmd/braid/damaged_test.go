package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/corpus"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/plugins/builtin"
)

// damage is a file of the corpus with one fault.
type damage struct {
	file corpus.File
	what string
	// key is the one that an error has to name; empty where the fault has none.
	key string
	// harmful is that there must be an error.
	harmful bool
	text    string
}

// damages are all of a file: cut at every fiftieth byte, and with each key of the NAD's
// configuration and of the annotation doubled, emptied, and of another type.
func damages(t *testing.T, f corpus.File) (all []damage) {
	t.Helper()
	for at := 50; at < len(f.Text); at += 50 {
		all = append(all, damage{file: f, what: fmt.Sprintf("cut at %d", at), text: string(f.Text[:at])})
	}
	for _, d := range faults(t, f.NAD.Spec.Config, 0) {
		nad := f.NAD
		nad.Spec.Config = d.text
		d.file, d.what = f, "configuration: "+d.what
		d.text = string(manifest(t, nad)) + podsOf(t, f, "")
		all = append(all, d)
	}
	networks := f.Pods[0].Annotations[nadv1.NetworksAnnotation]
	if strings.HasPrefix(networks, "[") {
		for _, d := range faults(t, networks, 0) {
			d.file, d.what = f, "annotation: "+d.what
			d.text = string(manifest(t, f.NAD)) + podsOf(t, f, d.text)
			all = append(all, d)
		}
	}
	return all
}

// podsOf are the manifests of the file's first pod, with an annotation in the place of its own
// unless that is empty.
func podsOf(t *testing.T, f corpus.File, networks string) string {
	t.Helper()
	p := f.Pods[0]
	if networks == "" {
		networks = p.Annotations[nadv1.NetworksAnnotation]
	}
	data, err := yaml.Marshal(
		map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
			"name": p.Name, "namespace": p.Namespace,
			"annotations": map[string]string{nadv1.NetworksAnnotation: networks},
		}})
	if err != nil {
		t.Fatal(err)
	}
	return "\n---\n" + string(data)
}

// faults are a JSON text with one fault in each key, at whatever depth. base is where in a larger
// text it begins.
func faults(t *testing.T, text string, base int) (all []damage) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	tok, err := dec.Token()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	delim, nested := tok.(json.Delim)
	for nested && dec.More() {
		var key string
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			key, _ = tok.(string)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		end := int(dec.InputOffset())
		start := end - len(value)
		if key != "" {
			at := strings.LastIndex(text[:start], `"`+key+`"`)
			empty, other := "null", `"x"`
			if value[0] == '"' {
				empty, other = `""`, "7"
			}
			put := func(value string) string { return text[:start] + value + text[end:] }
			all = append(
				all,
				damage{
					what: key + " doubled", key: key, harmful: true,
					text: text[:at] + text[at:end] + "," + text[at:],
				},
				damage{what: key + " emptied", key: key, text: put(empty)},
				damage{what: key + " of another type", key: key, text: put(other)},
			)
		}
		for _, inner := range faults(t, string(value), start) {
			inner.text = text[:start] + inner.text + text[end:]
			all = append(all, inner)
		}
	}
	return all
}

// judge does what an ADD does before its first change.
func judge(t *testing.T, cfg *conf.Config, exec engine.Exec, bin string, d damage) error {
	t.Helper()
	source, err := manifests.New(cfg.Manifests)
	if err != nil {
		t.Fatal(err)
	}
	p := d.file.Pods[0]
	pod, err := source.Pod(t.Context(), p.Namespace, p.Name)
	if err != nil {
		return err
	}
	resolver := &resolve.Resolver{
		Node: &cfg.Node, Policy: &cfg.Policy, Source: source,
		Devices: kubelet.NewDevices(kubelet.New(cfg.PodResources), source),
	}
	attachments, err := resolver.Attachments(t.Context(), resolve.Any(&cfg.Call), pod)
	for i := range attachments {
		if err == nil {
			err = resolve.Plugins(exec, &attachments[i], []string{bin})
		}
	}
	return err
}

// TestCorpusDamaged: an error of a damaged file names the object and the key. A fault that changes
// nothing is none.
func TestCorpusDamaged(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, kind := range []string{"cnv-bridge", routeOverride} {
		h.script(kind, "exit 1")
	}
	raw, err := json.Marshal(h.conf)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Load(raw)
	if err != nil {
		t.Fatal(err)
	}
	exec := builtin.NewExec(slog.New(slog.DiscardHandler), builtin.Node{DataRoots: cfg.DataRoots})
	defer exec.Close()
	counted := map[bool]int{}
	for _, d := range allDamages(t) {
		h.write("manifests/all.yaml", d.text)
		err := judge(t, cfg, exec, h.path("bin"), d)
		counted[err != nil]++
		if err == nil {
			if d.harmful {
				t.Errorf("%s, %s: accepted", d.file.Name, d.what)
			}
			continue
		}
		object := func(name string) bool { return strings.Contains(err.Error(), name) }
		p := d.file.Pods[0]
		if !slices.ContainsFunc([]string{d.file.NAD.Name, nadv1.NetworksAnnotation, p.Name, "all.yaml"},
			object) || !strings.Contains(err.Error(), d.key) {
			t.Errorf("%s, %s: the error does not name object and key: %v", d.file.Name, d.what, err)
		}
	}
	t.Logf("%d refused, %d harmless", counted[true], counted[false])
	if counted[true] < 500 {
		t.Errorf("%d faults are too few", counted[true])
	}
}

func allDamages(t *testing.T) (all []damage) {
	t.Helper()
	files, err := corpus.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, damages(t, f)...)
	}
	return all
}

// TestCorpusDamagedPods: a pod with a damaged file changes nothing on the node if it does not
// start, and can be deleted.
func TestCorpusDamagedPods(t *testing.T) {
	t.Parallel()
	all := allDamages(t)
	const samples = 60
	for i := range samples {
		d := all[(i*len(all)+len(all)/2)/samples]
		t.Run(fmt.Sprintf("%s, %s", d.file.Name, d.what), func(t *testing.T) {
			t.Parallel()
			c := newCorpusHost(t, corpus.File{NAD: d.file.NAD, Pods: d.file.Pods[:1]})
			for _, file := range c.manifests() {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			c.write("manifests/all.yaml", d.text)
			p := c.pods[0]
			before := c.files()
			if _, err := c.call("ADD", p); err != nil {
				same(t, "interfaces", interfaces(p), []string(nil))
				same(t, "links of the node", c.more(), []string(nil))
				same(t, "state", c.files(), before)
			}
			c.must("DEL", p)
			c.gone()
		})
	}
}

func (c *corpusHost) manifests() []string {
	c.t.Helper()
	files, err := filepath.Glob(c.path("manifests", "*"))
	if err != nil {
		c.t.Fatal(err)
	}
	return files
}

// files is the state that sandboxes have, as text.
func (c *corpusHost) files() string {
	c.t.Helper()
	var out bytes.Buffer
	for _, dir := range []string{"state/sandboxes", "state/cni/results"} {
		entries, err := os.ReadDir(c.path(dir))
		if err != nil && !os.IsNotExist(err) {
			c.t.Fatal(err)
		}
		for _, e := range entries {
			fmt.Fprintln(&out, dir, e.Name())
		}
	}
	return out.String()
}
