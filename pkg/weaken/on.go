//go:build weaken

package weaken

import (
	"os"
	"slices"
	"strings"
)

// Variable has the mechanisms that are switched off, separated by commas.
const Variable = "BRAID_TEST_WEAKEN"

// Off reports whether a mechanism is switched off.
func Off(m Mechanism) bool {
	return slices.Contains(strings.Split(os.Getenv(Variable), ","), string(m))
}
