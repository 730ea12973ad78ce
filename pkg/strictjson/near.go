package strictjson

import "strings"

// Near returns the known key that key is a slip of: in another case, in plural or singular, or with
// one letter more, less, changed or swapped with the next. It returns "" where there is none. A key
// that is known itself is no slip of another.
func Near(key string, known []string) string {
	for _, like := range []func(a, b string) bool{equal, strings.EqualFold, oneOff, plural} {
		for _, k := range known {
			if like(key, k) {
				if k == key {
					return ""
				}
				return k
			}
		}
	}
	return ""
}

func equal(a, b string) bool { return a == b }

// oneOff reports whether two words, whatever their case, are one letter apart.
func oneOff(a, b string) bool {
	x, y := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	if len(x) > len(y) {
		x, y = y, x
	}
	if len(y)-len(x) > 1 {
		return false
	}
	x, y = differing(x, y)
	switch len(y) {
	case 1: // one more, or one changed
		return true
	case 2: // swapped
		return len(x) == 2 && x[0] == y[1] && x[1] == y[0]
	}
	return len(x) == 0 && len(y) == 0
}

// differing returns two words without the letters with which both begin, and those with which both
// end. x is no longer than y.
func differing(x, y []rune) (restX, restY []rune) {
	for len(x) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return x, y
}

// plural reports whether one word is the other's plural, where that is more than an "s".
func plural(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if len(a) < len(b) {
		a, b = b, a
	}
	stem, ies := strings.CutSuffix(a, "ies")
	return a == b+"es" || ies && b == stem+"y"
}
