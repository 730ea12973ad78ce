package selection

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Longest names that Kubernetes and Linux allow, in bytes.
const (
	maxLabel     = 63
	maxSubdomain = 253
	maxInterface = 15
)

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// checkNamespace checks that a name is a DNS-1123 label.
func checkNamespace(name string) error {
	if len(name) > maxLabel || !label.MatchString(name) {
		return fmt.Errorf("%s is no DNS-1123 label: lower case letters, digits and '-', first and last "+
			"no '-', at most %d bytes",
			strictjson.Quote(name), maxLabel)
	}
	return nil
}

// checkName checks the name of a NAD by NPWG v1.3 s.3.3: DNS-1123 labels, separated by dots. The
// length of a label is only recommended there; that of the whole is Kubernetes' bound.
func checkName(name string) error {
	good := len(name) <= maxSubdomain
	for unit := range strings.SplitSeq(name, ".") {
		good = good && label.MatchString(unit)
	}
	if !good {
		return fmt.Errorf("%s is no DNS-1123 name: lower case letters, digits, '-' and '.', each unit "+
			"begins and ends with a letter or digit, at most %d bytes",
			strictjson.Quote(name), maxSubdomain)
	}
	return nil
}

// checkInterface checks that the kernel takes the name of an interface as it is. Beyond the
// kernel's own rules it refuses '%', which makes the kernel choose a number, and the names that
// stand for something else in a pod or in /proc/sys/net/*/conf.
func checkInterface(name string) error {
	quoted := strictjson.Quote(name)
	switch {
	case name == "":
		return errors.New(`"" is empty`)
	case len(name) > maxInterface:
		return fmt.Errorf("%s has %d bytes, at most %d are allowed", quoted, len(name), maxInterface)
	case slices.Contains([]string{".", "..", "lo", "all", "default"}, name):
		return fmt.Errorf("%s is reserved", quoted)
	}
	for _, r := range name {
		if refused(r) {
			return fmt.Errorf("%s contains %q: blanks, control characters, '/', ':' and '%%' are not "+
				"allowed", quoted, r)
		}
	}
	// the kernel takes this byte for a blank
	if !utf8.ValidString(name) || strings.IndexByte(name, 0xa0) >= 0 {
		return fmt.Errorf("%s contains a letter that is not allowed; use ASCII", quoted)
	}
	return nil
}

// refused reports whether a name of an interface must not have the letter.
func refused(r rune) bool {
	return r == ' ' || !unicode.IsPrint(r) || strings.ContainsRune("/:%", r)
}
