package failure_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
)

func TestEach(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	wrapped := fmt.Errorf("of a pod: %w", errors.Join(a, b))
	for i, test := range []struct {
		err  error
		want []error
	}{
		{nil, nil},
		{a, []error{a}},
		{errors.Join(a, nil), []error{a}},
		{wrapped, []error{wrapped}},
		{errors.Join(errors.Join(a, b), c), []error{a, b, c}},
	} {
		if got := failure.Each(test.err); !slices.Equal(got, test.want) {
			t.Errorf("%d: %v, want %v", i, got, test.want)
		}
	}
}
