package failure

import (
	"fmt"
	"strings"
)

// Count returns a number of things that one word names in the singular, as "1 address" and
// "2 addresses".
func Count(n int, one string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(one, "s"), strings.HasSuffix(one, "x"):
		one += "es"
	case strings.HasSuffix(one, "ry"): // a try, an entry
		one = strings.TrimSuffix(one, "y") + "ies"
	default:
		one += "s"
	}
	return fmt.Sprintf("%d %s", n, one)
}
