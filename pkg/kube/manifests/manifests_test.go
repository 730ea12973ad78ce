package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
	"github.com/braid-cni/braid/pkg/kube/internal/sourcetest"
)

// backend is the backend of a Directory: each object is a file.
type backend struct {
	dir  string
	uids int
}

func (d *backend) put(t *testing.T, namespace, name, kind string, object any) {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, d.path(namespace, name, kind), string(data))
}

func (d *backend) path(namespace, name, kind string) string {
	return filepath.Join(d.dir, kind+"-"+namespace+"-"+name+".yaml")
}

func (d *backend) CreatePod(t *testing.T, namespace, name string, annotations map[string]string) {
	var pod metaManifest
	pod.APIVersion, pod.Kind = "v1", "Pod"
	pod.Namespace, pod.Name, pod.Annotations = namespace, name, annotations
	d.put(t, namespace, name, "pod", pod)
}

func (d *backend) ReplacePod(t *testing.T, namespace, name string) {
	d.uids++
	meta := metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: derivedUID("uid", fmt.Sprint(d.uids)),
	}
	d.put(t, namespace, name, "pod",
		metaManifest{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: meta})
}

func (d *backend) DeletePod(t *testing.T, namespace, name string) {
	if err := os.Remove(d.path(namespace, name, "pod")); err != nil {
		t.Fatal(err)
	}
}

func (d *backend) CreateNAD(t *testing.T, namespace, name, config string) {
	nad := nadv1.NetworkAttachmentDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "k8s.cni.cncf.io/v1", Kind: nadv1.Kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	d.put(t, namespace, name, "nad", nad)
}

func (d *backend) Events(t *testing.T, namespace, name string) []sourcetest.Event {
	data, err := os.ReadFile(filepath.Join(d.dir, namespace+"_"+name+".events.jsonl"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var events []sourcetest.Event
	for line := range strings.Lines(string(data)) {
		var e objects.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if e.InvolvedObject.Name != name || e.InvolvedObject.Namespace != namespace {
			t.Errorf("event on %+v", e.InvolvedObject)
		}
		events = append(events, sourcetest.Event{
			Type: e.Type, Reason: e.Reason, Message: e.Message, Component: e.Source.Component,
			UID: string(e.InvolvedObject.UID),
		})
	}
	return events
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newDirectory makes a source of files given by name and content.
func newDirectory(t *testing.T, files map[string]string) (*Directory, string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		writeFile(t, filepath.Join(dir, name), content)
	}
	src, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return src, dir
}

func TestContract(t *testing.T) {
	src, dir := newDirectory(t, nil)
	back := &backend{dir: dir}
	sourcetest.Run(t, src, back)
	t.Run("Namespaces", func(t *testing.T) {
		sourcetest.RunNamespaces(t, src, func(t *testing.T, name string, labels map[string]string) {
			meta := metav1.ObjectMeta{Name: name, Labels: labels}
			back.put(t, "", name, "namespace",
				metaManifest{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: meta})
		})
	})
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

const manyObjects = `# comment only
---
apiVersion: v1
kind: Pod
metadata:
  name: inner
  annotations:
    text: |
      --- not a marker
spec: {containers: [{name: c, image: x}]}
--- # marker with a comment
{apiVersion: v1, kind: ConfigMap, metadata: {name: ignored}, data: {}}
---
apiVersion: v1
kind: List
items:
- apiVersion: k8s.cni.cncf.io/v1
  kind: NetworkAttachmentDefinition
  metadata: {name: listed, namespace: other}
  spec: {config: '{"type": "macvlan"}'}
- apiVersion: v1
  kind: Pod
  metadata: {name: listed, uid: my-uid}
`

func TestDocuments(t *testing.T) {
	src, _ := newDirectory(t, map[string]string{
		"many.yaml":    strings.ReplaceAll(manyObjects, "\n", "\r\n"),
		"stream.json":  "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"j1\"}}\n\t{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"j2\"}}",
		".hidden.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: hidden}}",
		"README.md":    "not: [yaml",
		"empty.yml":    "",
	})
	inner, err := src.Pod(t.Context(), "default", "inner")
	if err != nil {
		t.Fatal(err)
	}
	if got := inner.Annotations["text"]; got != "--- not a marker\n" {
		t.Errorf("annotation is %q", got)
	}
	listed, err := src.Pod(t.Context(), "default", "listed")
	if err != nil || listed.UID != "my-uid" {
		t.Errorf("got %+v, %v", listed, err)
	}
	nad, err := src.NAD(t.Context(), "other", "listed")
	if err != nil || nad.Spec.Config != `{"type": "macvlan"}` {
		t.Errorf("got %+v, %v", nad, err)
	}
	for _, name := range []string{"j1", "j2"} {
		if _, err := src.Pod(t.Context(), "default", name); err != nil {
			t.Error(err)
		}
	}
	_, err = src.Pod(t.Context(), "default", "hidden")
	if !apierrors.IsNotFound(err) || strings.Contains(err.Error(), "could not be read") {
		t.Errorf("got error %v, want not found and no broken file", err)
	}
}

func TestBrokenFiles(t *testing.T) {
	src, dir := newDirectory(t, map[string]string{
		"good.yaml":   "{apiVersion: v1, kind: Pod, metadata: {name: good}}",
		"syntax.yaml": "a: [",
		"twice.yaml": "apiVersion: v1\napiVersion: v1\nkind: Pod\n---\n{apiVersion: v1, kind: Pod, " +
			"metadata: {name: after}}",
		"list.yaml":     "[1, 2]",
		"nokind.yaml":   "metadata: {name: x}",
		"cut.json":      `{"apiVersion": "v1", "kind": "Po`,
		"nested.yaml":   "{apiVersion: v1, kind: List, items: [{kind: x}, 5]}",
		"bomb.yaml":     bomb(),
		"too-large.yml": strings.Repeat("#", maxManifest+1),
	})
	err := os.Symlink(filepath.Join(dir, "good.yaml"), filepath.Join(dir, "link.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"good", "after"} {
		if _, err := src.Pod(t.Context(), "default", name); err != nil {
			t.Errorf("a broken file hides %s: %v", name, err)
		}
	}
	all, err := readDirectory(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	notFound := all.notFound(objects.PodResource(), "x")
	if !apierrors.IsNotFound(notFound) || !strings.Contains(notFound.Error(), "more") {
		t.Errorf("got %v", notFound)
	}
	broken := strings.Join(all.broken, "\n")
	for _, name := range []string{
		"syntax.yaml", "twice.yaml (document 1)", "list.yaml", "nokind.yaml", "cut.json",
		"nested.yaml (item 1)", "nested.yaml (item 2)",
		"bomb.yaml", "too-large.yml", "link.yaml: is not a regular file",
		"pipe.yaml: is not a regular file", "dir.yaml: is not a regular file",
	} {
		if !strings.Contains(broken, name) {
			t.Errorf("%s is not among the broken:\n%s", name, broken)
		}
	}
}

// bomb is a document that would expand to a billion elements.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), i-1)
	}
	return b.String()
}

// What would take long to read, or to complain of, is cut short.
func TestTooMuch(t *testing.T) {
	many := strings.Repeat(`{"apiVersion": "v1", "kind": "X"}`, maxDocuments+1)
	src, _ := newDirectory(t, map[string]string{"many.json": many})
	if _, err := src.Pod(t.Context(), "default", "p"); failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("too many documents: got error %v", err)
	}
	src, _ = newDirectory(t, map[string]string{
		"long.yaml": "a: 1\n" + strings.Repeat("a: 1\n", 1000),
		"p.yaml":    `{apiVersion: v1, kind: Pod, metadata: {name: p, "\xff": 1}}`,
	})
	_, err := src.Pod(t.Context(), "default", "q")
	if !apierrors.IsNotFound(err) || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
		t.Errorf("got error of %d bytes: %.2000v", len(err.Error()), err)
	}
	files := map[string]string{}
	for i := range maxManifests/maxManifest + 1 {
		files[fmt.Sprintf("%d.json", i)] = strings.Repeat(" ", maxManifest)
	}
	src, _ = newDirectory(t, files)
	_, err = src.NAD(t.Context(), "default", "p")
	if failure.ReasonOf(err) != failure.InvalidConfig || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("too many bytes: got error %v", err)
	}
}

func TestStrict(t *testing.T) {
	for name, test := range map[string]struct {
		file   string
		reason failure.Reason
		want   string
	}{
		"unknown key of metadata": {
			"{apiVersion: v1, kind: Pod, metadata: {name: x, anotations: {}}}",
			failure.InvalidAnnotation, "anotations",
		},
		"unknown key of a pod": {
			"{apiVersion: v1, kind: Pod, metadata: {name: x}, sepc: {}}",
			failure.InvalidAnnotation, "sepc",
		},
		"annotation no string": {"{apiVersion: v1, kind: Pod, metadata: {name: x, annotations: " +
			"{a: 1}}}", failure.InvalidAnnotation, "number"},
		"wrong case": {
			"{apiVersion: v1, kind: Pod, metadata: {name: x, Annotations: {}}}",
			failure.InvalidAnnotation, "Annotations",
		},
		"unknown key of a spec": {"{apiVersion: k8s.cni.cncf.io/v1, kind: " +
			"NetworkAttachmentDefinition, metadata: {name: x}, spec: {cfg: ''}}", failure.NADInvalid, "cfg"},
		"config as object": {
			"{apiVersion: k8s.cni.cncf.io/v1, kind: " +
				"NetworkAttachmentDefinition, metadata: {name: x}, spec: {config: {}}}", failure.NADInvalid,
			"config",
		},
		"the same pod, two places": {
			"{apiVersion: v1, kind: Pod, metadata: {name: " +
				"x}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: default}}",
			failure.InvalidConfig, "document 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			src, _ := newDirectory(t, map[string]string{"it.yaml": test.file})
			var err error
			if test.reason == failure.NADInvalid {
				_, err = src.NAD(t.Context(), "default", "x")
			} else {
				_, err = src.Pod(t.Context(), "default", "x")
			}
			if failure.ReasonOf(err) != test.reason || !strings.Contains(err.Error(), test.want) ||
				!strings.Contains(err.Error(), "it.yaml") {
				t.Errorf("got error %v of class %q, want one of %q that names %q and it.yaml",
					err, failure.ReasonOf(err), test.reason, test.want)
			}
			if apierrors.IsNotFound(err) {
				t.Error("it is not found")
			}
		})
	}
}

func TestDirectory(t *testing.T) {
	if _, err := New("relative"); failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("relative path: got error %v", err)
	}
	missing, err := New(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = missing.Pod(t.Context(), "default", "p")
	if failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("no directory: got error %v", err)
	}
	err = missing.Event(t.Context(), &metav1.ObjectMeta{Namespace: "a", Name: "b"}, "Normal", "R", "m")
	if failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("no directory: got error %v", err)
	}
}

// A manifest with a uid binds the status to it; one without needs no file for that.
func TestStatusFiles(t *testing.T) {
	src, dir := newDirectory(t,
		map[string]string{"p.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}}"})
	publish := func(status string) {
		t.Helper()
		pod, err := src.Pod(t.Context(), "ns", "p")
		if err == nil {
			err = src.PublishStatus(t.Context(), pod.Meta(), status)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func() (string, bool) {
		t.Helper()
		pod, err := src.Pod(t.Context(), "ns", "p")
		if err != nil {
			t.Fatal(err)
		}
		status, there := pod.Annotations[nadv1.StatusAnnotation]
		return status, there
	}
	publish("[1]")
	data, err := os.ReadFile(filepath.Join(dir, "ns_p.network-status.json"))
	if err != nil || string(data) != "[1]" {
		t.Errorf("file holds %q, %v", data, err)
	}
	_, err = os.Stat(filepath.Join(dir, "ns_p.network-status.uid"))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("uid file: %v", err)
	}
	writeFile(t, filepath.Join(dir, "p.yaml"),
		"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns, uid: u1}}")
	if got, there := read(); there {
		t.Errorf("the pod that got a uid has status %q", got)
	}
	publish("[2]")
	writeFile(t, filepath.Join(dir, "p.yaml"),
		"{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}}")
	if got, there := read(); there {
		t.Errorf("the pod that lost its uid has status %q", got)
	}
	publish("[3]")
	if got, _ := read(); got != "[3]" {
		t.Errorf("status is %q", got)
	}
	// What Braid writes is no manifest, not even a broken one.
	all, err := readDirectory(t.Context(), dir)
	if err != nil || len(all.objects) != 1 || len(all.broken) > 0 {
		t.Errorf("the directory has %+v, %v", all, err)
	}
}

// Whatever step of a publication fails, no pod has a status that is not its own, and no temporary
// file stays.
func TestPublishFails(t *testing.T) {
	const manifest = "{apiVersion: v1, kind: Pod, metadata: {name: p, uid: %s}}"
	for step := 1; ; step++ {
		src, dir := newDirectory(t, map[string]string{"p.yaml": fmt.Sprintf(manifest, "u1")})
		err := src.PublishStatus(t.Context(),
			&metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u1"}, "[1]")
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "p.yaml"), fmt.Sprintf(manifest, "u2"))
		steps := 0
		src.rename = func(from, to string) error {
			if steps++; steps == step {
				return unix.EIO
			}
			return os.Rename(from, to)
		}
		pod := &metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u2"}
		err = src.PublishStatus(t.Context(), pod, "[2]")
		if steps < step {
			if steps != 2 || err != nil {
				t.Errorf("a publication has %d steps, and says %v", steps, err)
			}
			return
		}
		if failure.ReasonOf(err) != failure.APIUnavailable || !errors.Is(err, unix.EIO) {
			t.Errorf("step %d: got error %v", step, err)
		}
		if _, err := os.Stat(filepath.Join(dir, temporaryFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("step %d: temporary file: %v", step, err)
		}
		got, err := src.Pod(t.Context(), "default", "p")
		if err != nil {
			t.Fatal(err)
		}
		if status, there := got.Annotations[nadv1.StatusAnnotation]; there {
			t.Errorf("step %d: status is %q after a publication that failed", step, status)
		}
		if err := src.PublishStatus(t.Context(), pod, "[2]"); err != nil {
			t.Errorf("step %d: next try: %v", step, err)
		}
		got, err = src.Pod(t.Context(), "default", "p")
		if err != nil || got.Annotations[nadv1.StatusAnnotation] != "[2]" {
			t.Errorf("step %d: next try: got %+v, %v", step, got, err)
		}
	}
}

// A writer that was killed left its temporary file; links are replaced and not followed.
func TestWriteThroughNothing(t *testing.T) {
	src, dir := newDirectory(t,
		map[string]string{"p.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: p}}", "victim": "safe"})
	for _, name := range []string{temporaryFile, "default_p" + statusSuffix} {
		if err := os.Symlink(filepath.Join(dir, "victim"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pod := &metav1.ObjectMeta{Namespace: "default", Name: "p", UID: derivedUID("default", "p")}
	if _, err := src.Pod(t.Context(), "default", "p"); err == nil {
		t.Error("a status behind a symbolic link is read")
	}
	if err := src.PublishStatus(t.Context(), pod, "[1]"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "victim")); err != nil || string(data) != "safe" {
		t.Errorf("the link's target holds %q, %v", data, err)
	}
	err := src.PublishStatus(t.Context(), pod, strings.Repeat("x", maxStatus+1))
	if !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("got error %v, want too large", err)
	}
}

func TestEventsBounded(t *testing.T) {
	src, dir := newDirectory(t, nil)
	path := filepath.Join(dir, "ns_p.events.jsonl")
	pod := &metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}
	full := []byte("rubbish\n")
	for i := range maxEvents {
		// The longest line that there is: each byte of the message is six in JSON.
		ev, err := objects.NewEvent(objects.KindPod, pod, "Normal", "R",
			fmt.Sprint(i)+strings.Repeat("\x01", objects.MaxMessage), "")
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(ev)
		if err != nil {
			t.Fatal(err)
		}
		full = append(append(full, line...), '\n')
	}
	if len(full) > maxEventsFile {
		t.Errorf("a full file has %d bytes, of at most %d", len(full), maxEventsFile)
	}
	writeFile(t, path, string(full)+"{\"cut")
	for _, message := range []string{"a", "b", "a"} {
		if err := src.Event(t.Context(), pod, "Normal", "R", message); err != nil {
			t.Fatal(err)
		}
	}
	events := (&backend{dir: dir}).Events(t, "ns", "p")
	if len(events) != maxEvents || !strings.HasPrefix(events[0].Message, "2\x01") ||
		events[maxEvents-1].Message != "b" {
		t.Errorf("%d events, the first %.10q, the last %.10q",
			len(events), events[0].Message, events[len(events)-1].Message)
	}
}

// lock has the directory locked by somebody else until the test ends, or unlocks it.
func lock(t *testing.T, dir string) (unlock func()) {
	t.Helper()
	other, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock = func() { other.Close() } //nolint:errcheck // only read
	t.Cleanup(unlock)
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return unlock
}

func TestLocked(t *testing.T) {
	src, dir := newDirectory(t,
		map[string]string{"p.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: p}}"})
	unlock := lock(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	pod, err := src.Pod(ctx, "default", "p") // readers do not wait
	if err != nil {
		t.Fatal(err)
	}
	err = src.PublishStatus(ctx, pod.Meta(), "[]")
	if failure.ReasonOf(err) != failure.TimedOut || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want deadline exceeded of class TimedOut", err)
	}
	unlock()
	if err := src.PublishStatus(t.Context(), pod.Meta(), "[]"); err != nil {
		t.Error(err)
	}
}

func FuzzManifests(f *testing.F) {
	f.Add([]byte(manyObjects), true)
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[null,{"kind":1}]}`), false)
	f.Add([]byte("---\n--- \n---x\n"), true)
	f.Fuzz(func(t *testing.T, data []byte, asYAML bool) {
		all, name := new(contents), "f.json"
		if asYAML {
			name = "f.yaml"
		}
		all.addFile(t.Context(), name, data)
		for _, o := range all.objects {
			var pod metaManifest
			_ = decodeObject(o.raw, &pod) // an error, but no panic
		}
	})
}
