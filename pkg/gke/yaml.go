package gke

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// maxFile is the size of a file of 100,000 lines or so.
const maxFile = 8 << 20

// Problem is one thing that is wrong with a file, or odd.
type Problem struct {
	File string `json:"file"`
	// Line counts from 1; 0 is for the file as a whole.
	Line int `json:"line,omitempty"`
	// Field leads to the key, as "network.additionalNodeInterfaces[0].type".
	Field string `json:"field,omitempty"`
	// Message says what is wrong, Fix what to do, as an imperative.
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
	// Warning is true if the cluster works, and something of it may not be meant.
	Warning bool `json:"warning,omitempty"`
}

// String reads "cluster.yaml:12: network.podCIDR: what is wrong; what to do", fit for a terminal.
func (p Problem) String() string {
	text := p.File
	if p.Line > 0 {
		text += ":" + strconv.Itoa(p.Line)
	}
	text += ": "
	if p.Field != "" {
		text += p.Field + ": "
	}
	if p.Warning {
		text += "warning: "
	}
	text += p.Message
	if p.Fix != "" {
		text += "; " + p.Fix
	}
	return strictjson.Printable(text)
}

// reader reads the documented keys of one YAML file, and collects what is wrong with them.
type reader struct {
	file     string
	lines    map[string]int // of each field that was read
	problems []Problem
}

// add adds a problem; line is 0 for the file as a whole.
func (r *reader) add(line int, field, fix, format string, args ...any) {
	r.problems = append(r.problems, Problem{
		File: r.file, Line: line, Field: field,
		Message: fmt.Sprintf(format, args...), Fix: fix,
	})
}

// line returns the line of a field, or of the nearest one above it that was read.
func (r *reader) line(field string) int {
	for field != "" {
		if line, ok := r.lines[field]; ok {
			return line
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return 0
}

// open reads the document of a file; nil if there is none, which is told as a problem. An error is
// that the file cannot be read.
func (r *reader) open() (*yaml.Node, error) {
	raw, err := hostfile.ReadLinked(r.file, maxFile)
	if err != nil {
		return nil, err
	}
	return r.parse(raw), nil
}

// lineOfError finds the line in what the YAML library says.
var lineOfError = regexp.MustCompile(`^yaml: line (\d+): `)

// parse returns the root of the only document of a file; nil if there is none.
func (r *reader) parse(raw []byte) *yaml.Node {
	decoder := yaml.NewDecoder(strings.NewReader(string(raw)))
	var document, next yaml.Node
	err := decoder.Decode(&document)
	switch {
	case errors.Is(err, io.EOF) || err == nil &&
		(len(document.Content) == 0 || document.Content[0].Tag == "!!null"):
		r.add(0, "", "write the configuration into it", "the file has no content")
		return nil
	case err != nil:
		r.syntax(raw, err)
		return nil
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		r.add(next.Line, "", "keep one document, without ---", "the file has more than one document")
	}
	return document.Content[0]
}

// syntax tells of a text that is no YAML. A tab in an indentation is what people do not see.
func (r *reader) syntax(raw []byte, err error) {
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		if indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]; strings.Contains(indent,
			"\t") {
			r.add(n, "", "indent with blanks", "a tab in the indentation, and YAML has none there")
			return
		}
	}
	text := err.Error()
	if at := lineOfError.FindStringSubmatch(text); at != nil {
		line, _ := strconv.Atoi(at[1])
		r.add(line, "", "correct the YAML at this place or just before it", "no YAML: %s",
			strings.TrimPrefix(text, at[0]))
		return
	}
	r.add(0, "", "correct the YAML", "no YAML: %s", strings.TrimPrefix(text, "yaml: "))
}

// object is a mapping with the path to it.
type object struct {
	r    *reader
	path string
	node *yaml.Node
	keys map[string]*yaml.Node
}

// object reads a mapping; a nil node is one without keys. A key that is there twice is wrong.
func (r *reader) object(path string, node *yaml.Node) *object {
	o := &object{r: r, path: path, node: node, keys: map[string]*yaml.Node{}}
	if node = resolve(node); node == nil {
		return o
	}
	if path != "" {
		r.lines[path] = node.Line
	}
	if node.Kind != yaml.MappingNode {
		r.add(node.Line, path, "make it a mapping, as KEY: VALUE", "it is %s", kind(node))
		return o
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		field := o.field(key.Value)
		switch {
		case key.Tag == "!!merge":
			r.add(key.Line, field, "write the keys out", "merged keys are not read")
		case o.keys[key.Value] != nil:
			r.add(key.Line, field, "keep one of the two", "the key is there twice")
		default:
			o.keys[key.Value], r.lines[field] = value, key.Line
		}
	}
	return o
}

// field returns the path of a key of the object.
func (o *object) field(key string) string {
	return strings.TrimPrefix(o.path+"."+strictjson.Label(key), ".")
}

// only complains about keys other than these.
func (o *object) only(keys ...string) {
	known := "use " + strings.Join(keys, ", ")
	if o.node == nil {
		return
	}
	for i := 0; i+1 < len(resolve(o.node).Content); i += 2 {
		if key := resolve(o.node).Content[i]; !contains(keys, key.Value) && key.Tag != "!!merge" {
			o.r.add(key.Line, o.field(key.Value), known, "there is no such key")
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// text returns the value of a key, as it is written; empty if it is absent or wrong.
func (o *object) text(key string) string {
	node := resolve(o.keys[key])
	switch {
	case node == nil:
	case node.Kind != yaml.ScalarNode || node.Tag == "!!null":
		o.r.add(node.Line, o.field(key), "give one value", "it is %s", kind(node))
	default:
		return node.Value
	}
	return ""
}

func (o *object) bool(key string) (value bool) {
	node := resolve(o.keys[key])
	if node == nil {
		return false
	}
	if node.Kind != yaml.ScalarNode || node.Tag != "!!bool" || node.Decode(&value) != nil {
		o.r.add(node.Line, o.field(key), "write true or false, without quotes", "it is %s", kind(node))
	}
	return value
}

// list calls each for every element of a key's list.
func (o *object) list(key string, each func(path string, node *yaml.Node)) {
	node := resolve(o.keys[key])
	switch {
	case node == nil:
	case node.Kind != yaml.SequenceNode:
		o.r.add(node.Line, o.field(key), "make it a list, each element after a dash", "it is %s",
			kind(node))
	default:
		for i, element := range node.Content {
			path := fmt.Sprintf("%s[%d]", o.field(key), i)
			o.r.lines[path] = element.Line
			each(path, element)
		}
	}
}

// resolve follows an alias.
func resolve(node *yaml.Node) *yaml.Node {
	if node != nil && node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func kind(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if node.Tag == "!!null" {
			return "empty"
		}
		return strictjson.Quote(node.Value)
	}
	return "something else"
}
