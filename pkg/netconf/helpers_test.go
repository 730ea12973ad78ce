package netconf

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/internal/checktest"
	"github.com/braid-cni/braid/pkg/strictjson"
)

func mustParse(t *testing.T, raw string) *List {
	t.Helper()
	list, err := Parse([]byte(raw))
	if err != nil {
		t.Fatalf("Parse(%s): %v", raw, err)
	}
	return list
}

// equal compares a network in the normal form with what is expected; the order of keys does not
// matter, numbers do.
func equal(t *testing.T, got []byte, want string) {
	t.Helper()
	if string(got) != string(normal(t, want)) {
		t.Errorf("got  %s\nwant %s", got, normal(t, want))
	}
}

// normal sorts all keys and keeps numbers as written.
func normal(t *testing.T, raw string) []byte {
	t.Helper()
	var value any
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return strictjson.Marshal(value)
}

// badList fails unless Parse refuses raw.
func badList(t *testing.T, raw, field string, texts ...string) *failure.Error {
	t.Helper()
	list, err := Parse([]byte(raw))
	if err == nil {
		t.Fatalf("Parse(%.200s) = %s, want an error at %s", raw, list.Bytes(), field)
	}
	return checktest.Refused(t, err, failure.NADInvalid, field, texts...)
}

// files makes a directory with these files; a name may have a directory part.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
