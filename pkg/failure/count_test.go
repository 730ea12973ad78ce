package failure_test

import (
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
)

func TestCount(t *testing.T) {
	for _, test := range []struct {
		n         int
		one, want string
	}{
		{1, "address", "1 address"},
		{0, "address", "0 addresses"},
		{2, "sandbox", "2 sandboxes"},
		{3, "try", "3 tries"},
		{2, "NIC", "2 NICs"},
	} {
		if got := failure.Count(test.n, test.one); got != test.want {
			t.Errorf("Count(%d, %q) is %q, want %q", test.n, test.one, got, test.want)
		}
	}
}
