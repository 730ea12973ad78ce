package netconf

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
)

// hints are files that may have been meant but cannot be used, each with the reason.
type hints []string

// maxHints bounds how many an error names.
const maxHints = 4

func (h *hints) add(path string, err error) {
	if err != nil {
		*h = append(*h, filepath.Base(path)+": "+err.Error())
	}
}

// notFound is the error of a network that no file has; unusable are files that might have had it.
func notFound(network string, unusable hints, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if n := len(unusable); n > 0 {
		more := ""
		if n > maxHints {
			more = fmt.Sprintf(", and %d more", n-maxHints)
		}
		err = fmt.Errorf("%w (unusable: %s%s)",
			err, strings.Join(unusable[:min(n, maxHints)], ", "), more)
	}
	return &failure.Error{
		Reason: failure.NetworkNotFound, NAD: network, Err: err,
		Fix: "put a CNI configuration there, or correct the name",
	}
}
