package plugintest

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// WithoutEachKey calls test, as a subtest named after the key, with each of the configurations and
// a copy of it that lacks one key, for each key that it has: what ADD has made with the first, DEL
// has to remove with the second. Every key of C, the plugin's configuration, is in at least one of
// them, or of those of another test, elsewhere, so that a new key cannot be forgotten. The keys of
// an IPAM plugin are in the object of the key at, which is "ipam"; at is empty for others.
func WithoutEachKey[C any](
	t *testing.T, at string, confs []Conf, test func(t *testing.T, key string, add, del Conf),
	elsewhere ...Conf,
) {
	t.Helper()
	missing := map[string]bool{}
	addKeys(reflect.TypeFor[C](), missing)
	for _, conf := range elsewhere {
		for key := range conf {
			delete(missing, key)
		}
	}
	for _, conf := range confs {
		object := conf
		if at != "" {
			object, _ = conf[at].(Conf)
		}
		for _, key := range slices.Sorted(maps.Keys(object)) {
			delete(missing, key)
			if slices.Contains([]string{"type", "name", "cniVersion"}, key) {
				continue // nobody calls a plugin without them
			}
			without := maps.Clone(object)
			delete(without, key)
			if at != "" {
				without = conf.With(Conf{at: without})
			}
			t.Run(key, func(t *testing.T) { test(t, key, conf, without) })
		}
	}
	delete(missing, "type")
	if len(missing) > 0 {
		t.Errorf("no configuration has the keys %s: whether DEL needs them is not known",
			strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
	}
}
