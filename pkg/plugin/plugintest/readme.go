package plugintest

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/plugin"
)

// Readme checks that the plugin's README.md, in the directory of the test, has a row for each key
// of the configuration C and none for another, and that the plugin knows every key of its example.
// ipam is left to the plugin: not all have one.
func Readme[C any](t *testing.T, p *plugin.Plugin) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{"ipam": true}
	addKeys(reflect.TypeFor[C](), keys)
	documented := documentedKeys(string(text))
	documented["ipam"] = true
	for key := range keys {
		if !documented[key] {
			t.Errorf("README.md lacks the key %s", key)
		}
	}
	for key := range documented {
		if !keys[key] {
			t.Errorf("README.md has the key %s, which there is not", key)
		}
	}
	session := plugin.NewSession(plugin.HostNS)
	defer session.Close()
	prepared, err := session.Bind(p).Prepare(example(t, string(text)))
	if err != nil || prepared.Unknown != nil {
		t.Errorf("README.md: %v, %+v", err, prepared)
	}
}

// documentedKeys returns the keys that a table of a README has rows for.
func documentedKeys(text string) map[string]bool {
	keys := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(text, -1) {
		for key := range strings.SplitSeq(row[1], ", ") {
			keys[strings.Trim(key, "`")] = true
		}
	}
	return keys
}

// example returns the configuration in a README; of a list, that of its last plugin.
func example(t *testing.T, text string) json.RawMessage {
	t.Helper()
	_, conf, ok := strings.Cut(text, "config: |\n")
	conf, _, closed := strings.Cut(conf, "```")
	var list struct {
		Plugins []json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(conf), &list); err != nil || !ok || !closed {
		t.Fatalf("README.md has no example with a configuration: %v", err)
	}
	if list.Plugins == nil {
		return json.RawMessage(conf)
	}
	return list.Plugins[len(list.Plugins)-1]
}

// addKeys adds the keys of a configuration that are not those of all plugins.
func addKeys(of reflect.Type, keys map[string]bool) {
	for i := range of.NumField() {
		field := of.Field(i)
		key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case field.Type == reflect.TypeFor[plugin.Common]():
		case field.Anonymous:
			addKeys(field.Type, keys)
		default:
			keys[key] = true
		}
	}
}
