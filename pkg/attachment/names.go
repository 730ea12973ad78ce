package attachment

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// maxName is how long the name of a network of one namespace gets, as it is that of a directory.
const maxName = 255

// unnamed is the space of whereabouts' networks without a network_name.
const unnamed = "default"

// Own returns the name that a network has where its namespace shares none by accident:
// "<namespace>.<name>". A namespace has no dot, so that two of them never have one such name. A
// name that is of that form already stays.
func Own(namespace, name string) string {
	own := namespace + "."
	if strings.HasPrefix(name, own) {
		return name
	}
	if own += name; len(own) > maxName {
		sum := sha256.Sum256([]byte(own))
		end := "-" + hex.EncodeToString(sum[:hashBytes])
		own = own[:maxName-len(end)] + end
	}
	return own
}

// OwnSpace is Own for a network_name, which may be empty.
func OwnSpace(namespace, networkName string) string {
	if networkName == "" {
		networkName = unnamed
	}
	return Own(namespace, networkName)
}

// Owner returns the namespace that a name of Own's form is of; empty for another name.
func Owner(name string) string {
	namespace, _, ok := strings.Cut(name, ".")
	if !ok {
		return ""
	}
	return namespace
}

// OtherName returns the other name under which there may be leases of a network: that of before its
// names became its namespace's own, or that of after. It is empty for none.
func (l *Limits) OtherName(network string) string {
	if l == nil {
		return ""
	}
	name, own := strings.CutPrefix(network, l.Namespace+".")
	switch {
	case l.Name != "":
		name = l.Name
	case !own:
		name = Own(l.Namespace, network)
	}
	if slices.Contains(l.Foreign, name) {
		return ""
	}
	return name
}

// OtherSpaces is OtherName for a network_name; both may be empty.
func (l *Limits) OtherSpaces(networkName string) []string {
	if l == nil {
		return nil
	}
	name, own := strings.CutPrefix(networkName, l.Namespace+".")
	switch {
	case !own:
		return []string{OwnSpace(l.Namespace, networkName)}
	case name == unnamed:
		return []string{"", unnamed}
	case slices.Contains(l.Foreign, name):
		return nil
	}
	return []string{name}
}
