package helm_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/policy"
)

// documented is a key of values.yaml with the comment above it.
type documented struct {
	key, text string
	// section is a key whose keys have a comment each.
	section bool
}

// commented reads the keys that have comments, in the order of the file.
func commented(t *testing.T) (keys []documented) {
	t.Helper()
	data, err := os.ReadFile("braid/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var path, comment []string
	for line := range strings.Lines(string(data)) {
		text := strings.TrimSpace(line)
		indent := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		switch {
		case text == "":
			comment = nil
		case strings.HasPrefix(text, "# "):
			comment = append(comment, text[2:])
		case len(comment) > 0:
			name, _, _ := strings.Cut(text, ":")
			path = append(path[:min(indent, len(path))], name)
			key := strings.Join(path, ".")
			if parent := len(path) - 1; parent > 0 {
				i := slices.IndexFunc(keys, func(d documented) bool {
					return d.key == strings.Join(path[:parent], ".")
				})
				keys[i].section = true
			}
			keys, comment = append(keys, documented{key: key, text: strings.Join(comment, " ")}), nil
		}
	}
	return keys
}

// lookUp finds a value by its key with dots.
func lookUp(t *testing.T, values map[string]any, key string) any {
	t.Helper()
	var value any = values
	for name := range strings.SplitSeq(key, ".") {
		in, ok := value.(map[string]any)
		if !ok {
			t.Fatalf("there is no %s", key)
		}
		value = in[name]
	}
	return value
}

func readYAML(t *testing.T, path string) (values map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return values
}

// The table of README.md is what values.yaml says.
func TestReadmeHasTheValues(t *testing.T) {
	values := readYAML(t, "braid/values.yaml")
	var rows strings.Builder
	for _, d := range commented(t) {
		if d.section {
			continue
		}
		value, err := json.Marshal(lookUp(t, values, d.key))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&rows, "| `%s` | `%s` | %s |\n", d.key, value, d.text)
	}
	readme, err := os.ReadFile("braid/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "| key | default | meaning |\n|---|---|---|\n")
	if table != rows.String() {
		t.Errorf("the table is to be\n%s", &rows)
	}
}

// property is the part of a JSON schema that says which keys there are.
type property struct {
	Type                 string              `json:"type"`
	Properties           map[string]property `json:"properties"`
	AdditionalProperties json.RawMessage     `json:"additionalProperties"`
	Items                *property           `json:"items"`
}

// Each key that the schema allows is in values.yaml, with a comment, down to where users decide
// which keys there are; and the schema is closed.
func TestSchemaHasTheValues(t *testing.T) {
	data, err := os.ReadFile("braid/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema property
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global") // Helm's
	keys := commented(t)
	var walk func(path string, p property)
	walk = func(path string, p property) {
		if string(p.AdditionalProperties) != "false" {
			t.Errorf("%q: the schema takes any key", path)
		}
		for name, sub := range p.Properties {
			key := strings.TrimPrefix(path+"."+name, ".")
			i := slices.IndexFunc(keys, func(d documented) bool { return d.key == key })
			if i < 0 {
				t.Errorf("values.yaml has no %s, or no comment above it", key)
			} else if keys[i].section {
				walk(key, sub)
			}
		}
	}
	walk("", schema)
	if len(keys) < 40 {
		t.Errorf("only %d keys were found in values.yaml", len(keys))
	}
}

// In the configuration the schema allows what Braid's README has, but for what is the agent's to
// know or makes no sense in a cluster, and Braid reads all of it.
func TestSchemaHasBraidsKeys(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("braid/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema property
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(readme), "| key in `\"braid\"` |")
	table, _, _ = strings.Cut(table, "\n\n")
	if !ok {
		t.Fatal("README.md has no table of the keys in \"braid\"")
	}
	allowed := schema.Properties["config"].Properties["braid"].Properties
	config, _ := readYAML(t, "testdata/all.yaml")["config"].(map[string]any)
	config["name"], config["clusterNetwork"] = "braid", "/etc/cni/net.d/10-pods.conflist"
	all, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.Load(all); err != nil {
		t.Error(err)
	}
	covers(t, "config", schema.Properties["config"], config)
	found := 0
	for line := range strings.Lines(table) {
		key, _, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "`")
		if !ok || !strings.HasPrefix(line, "| `") {
			continue
		}
		found++
		_, known := allowed[key]
		if agents := key == "manifests" || key == "nodeName"; known == agents {
			t.Errorf("config.braid.%s: allowed is %t", key, known)
		}
	}
	rule := allowed["policy"].Items.Properties
	got, want := slices.Sorted(maps.Keys(rule)), slices.Sorted(slices.Values(policy.Keys()))
	if !slices.Equal(got, want) {
		t.Errorf("the schema of a rule has the keys %q, want %q", got, want)
	}
	if found < len(allowed) {
		t.Errorf("README.md has %d keys, the schema %d", found, len(allowed))
	}
}

// covers wants a value for each key that a schema has.
func covers(t *testing.T, path string, p property, values map[string]any) {
	t.Helper()
	for name, sub := range p.Properties {
		value, ok := values[name]
		if !ok {
			t.Errorf("testdata/all.yaml has no %s.%s", path, name)
		}
		if inner, ok := value.(map[string]any); ok {
			covers(t, path+"."+name, sub, inner)
		}
	}
}
