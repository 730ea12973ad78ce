package netconf

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
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

// refused fails unless err is a failure with the reason and field whose text contains all the
// texts, and returns it.
func refused(t *testing.T, err error, reason failure.Reason, field string, texts ...string) *failure.Error {
	t.Helper()
	e, ok := errors.AsType[*failure.Error](err)
	if !ok {
		t.Fatalf("got %v (%T), want a failure at %s", err, err, field)
	}
	if e.Reason != reason || e.Field != field {
		t.Errorf("got %s at %q, want %s at %q: %v", e.Reason, e.Field, reason, field, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not contain %q", err, text)
		}
	}
	return e
}

// badList fails unless Parse refuses raw.
func badList(t *testing.T, raw, field string, texts ...string) *failure.Error {
	t.Helper()
	list, err := Parse([]byte(raw))
	if err == nil {
		t.Fatalf("Parse(%.200s) = %s, want an error at %s", raw, list.Bytes(), field)
	}
	return refused(t, err, failure.NADInvalid, field, texts...)
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

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
