package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// Bounds on what is read, so that a stray file is an error and not an out-of-memory.
const (
	maxManifest  = 1 << 20  // bytes a file
	maxManifests = 16 << 20 // bytes in all
	maxEntries   = 4096     // of the directory
	maxDocuments = 4096     // and items of Lists, in all
	maxBroken    = 5        // files that a message names
	maxComplaint = 300      // bytes that it quotes for each
	defaultSpace = metav1.NamespaceDefault
)

// manifest is one object: what names it, and its JSON.
type manifest struct {
	gvk             schema.GroupVersionKind
	namespace, name string
	where           string // file, and document of several
	raw             []byte
}

// contents are the objects of a directory, and what could not be read there.
type contents struct {
	objects []manifest
	broken  []string
}

// header is what every object has.
type header struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// readDirectory reads the directory. A file that cannot be read is noted in the result. It does not
// hide the others.
func readDirectory(ctx context.Context, dir string) (*contents, error) {
	names, err := manifestsIn(dir)
	if err != nil {
		return nil, err
	}
	all, total := new(contents), 0
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		data := all.load(dir, name)
		if total += len(data); total > maxManifests {
			return nil, invalid(
				fmt.Errorf("the files in %s have more than %d bytes", dir, maxManifests),
				"keep only manifests there")
		}
		all.addFile(ctx, name, data)
		if all.tooMany() {
			return nil, invalid(fmt.Errorf("%s has more than %d objects", dir, maxDocuments),
				"keep only manifests there")
		}
	}
	if ctx.Err() != nil {
		return nil, &failure.Error{
			Reason: failure.TimedOut, Err: fmt.Errorf("read manifests in %s: %w", dir, context.Cause(ctx)),
		}
	}
	return all, nil
}

// manifestsIn returns the names of the files in a directory that are manifests by their names.
func manifestsIn(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, invalid(fmt.Errorf("read directory: %w", err),
			"create the directory, or correct the path")
	}
	if len(entries) > maxEntries {
		return nil, invalid(fmt.Errorf("%s has %d entries, of at most %d",
			dir, len(entries), maxEntries), "keep only manifests there")
	}
	for _, entry := range entries {
		if isManifest(entry.Name()) {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// load reads a file. One that is broken is noted. It returns nothing for that, and for one that was
// removed since the directory was read.
func (c *contents) load(dir, name string) []byte {
	data, err := hostfile.Read(filepath.Join(dir, name), maxManifest)
	if err != nil && !missing(err) {
		c.fail(name, pathless(err))
	}
	if err != nil {
		return nil
	}
	return data
}

// isManifest reports whether a file is one by its name: none of those that Braid writes is.
func isManifest(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, statusSuffix) ||
		strings.HasSuffix(name, claimSuffix) {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// fail notes what could not be read.
func (c *contents) fail(where string, err error) {
	c.broken = append(c.broken, where+": "+complaint(err))
}

func (c *contents) tooMany() bool { return len(c.objects)+len(c.broken) > maxDocuments }

// complaint returns the text of an error of the decoders, which may list every line of a file.
func complaint(err error) string {
	text := strings.ToValidUTF8(strings.Join(strings.Fields(err.Error()), " "), "\uFFFD")
	if len(text) > maxComplaint {
		text = strings.ToValidUTF8(text[:maxComplaint], "") + "…"
	}
	return text
}

// addFile adds the documents of a file, each on its own: one that is broken does not hide the
// others. It stops when ctx is done, and when there are too many.
func (c *contents) addFile(ctx context.Context, name string, data []byte) {
	split, toJSON := splitYAML, yaml.YAMLToJSONStrict
	if filepath.Ext(name) == ".json" {
		split, toJSON = splitJSON, func(document []byte) ([]byte, error) { return document, nil }
	}
	documents, err := split(data)
	if err != nil {
		c.fail(name, err)
	}
	for i, document := range documents {
		if ctx.Err() != nil || c.tooMany() {
			return
		}
		where := name
		if len(documents) > 1 {
			where = fmt.Sprintf("%s (document %d)", name, i+1)
		}
		raw, err := toJSON(document)
		if err != nil {
			c.fail(where, err)
			continue
		}
		c.add(where, raw, true)
	}
}

// add adds an object, or the items of a List. Lists of Lists there are none.
func (c *contents) add(where string, raw []byte, list bool) {
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return // a document of comments only
	}
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &h); err != nil {
		c.fail(where, err)
		return
	}
	if list && h.APIVersion == "v1" && h.Kind == "List" {
		for i, item := range h.Items {
			c.add(fmt.Sprintf("%s (item %d)", where, i+1), item, false)
		}
		return
	}
	if h.Kind == "" || h.APIVersion == "" {
		c.fail(where, errors.New("has no kind or no apiVersion"))
		return
	}
	if h.Metadata.Namespace == "" {
		h.Metadata.Namespace = defaultSpace
	}
	c.objects = append(c.objects, manifest{
		gvk: h.GroupVersionKind(), namespace: h.Metadata.Namespace, name: h.Metadata.Name, where: where,
		raw: raw,
	})
}

// splitYAML cuts a stream at its document markers, which are at the start of a line, also where
// YAML has other text.
func splitYAML(data []byte) ([][]byte, error) {
	var documents [][]byte
	var current []byte
	for line := range bytes.Lines(data) {
		rest, marked := bytes.CutPrefix(line, []byte("---"))
		if marked && (len(rest) == 0 || bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0]))) {
			documents = append(documents, current)
			current = append([]byte(nil), rest...) // text may follow on the marker's line
			continue
		}
		current = append(current, line...)
	}
	documents = append(documents, current)
	full := documents[:0]
	for _, document := range documents {
		if len(bytes.TrimSpace(document)) > 0 {
			full = append(full, document)
		}
	}
	return full, nil
}

// splitJSON returns the values of a stream up to the first that is no JSON.
func splitJSON(data []byte) ([][]byte, error) {
	var documents [][]byte
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var document json.RawMessage
		err := d.Decode(&document)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return documents, err
		}
		documents = append(documents, document)
	}
}

// named returns all objects of a kind and name; more than one is a mistake.
func (c *contents) named(gvk schema.GroupVersionKind, namespace, name string) []manifest {
	var found []manifest
	for _, o := range c.objects {
		if o.gvk == gvk && o.namespace == namespace && o.name == name {
			found = append(found, o)
		}
	}
	return found
}

// notFound names the files in which the object may be nonetheless.
func (c *contents) notFound(resource schema.GroupResource, name string) error {
	err := error(apierrors.NewNotFound(resource, name))
	if len(c.broken) == 0 {
		return err
	}
	more := ""
	if n := len(c.broken) - maxBroken; n > 0 {
		more = fmt.Sprintf(", and %d more", n)
	}
	return fmt.Errorf("%w; these manifests could not be read: %s%s",
		err, strings.Join(c.broken[:min(len(c.broken), maxBroken)], ", "), more)
}

// decodeObject decodes a Kubernetes object as the API server does with strict field validation: it
// refuses keys that the type does not have, keys given twice, and keys in the wrong case.
func decodeObject(raw []byte, out any) error {
	strict, err := kjson.UnmarshalStrict(raw, out)
	if err = errors.Join(append([]error{err}, strict...)...); err != nil {
		return errors.New(complaint(err))
	}
	return nil
}

// pathless takes off the path, which the message names anyway.
func pathless(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
