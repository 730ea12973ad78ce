// Package checktest has checks that the tests of several packages make.
package checktest

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
)

// Same fails the test unless two values are deeply equal.
func Same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// Refused fails the test unless err is a failure with the reason and field whose text contains all
// the texts, and returns it.
func Refused(
	t *testing.T, err error, reason failure.Reason, field string, texts ...string,
) *failure.Error {
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
