//go:build !weaken

package weaken

// Off reports whether a mechanism is switched off: never.
func Off(Mechanism) bool { return false }
