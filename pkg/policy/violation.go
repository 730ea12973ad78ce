package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
)

// Violation is one thing that a rule does not allow.
type Violation struct {
	// Field is the path in the network's configuration, or in the pod's annotation.
	Field string
	// Plugin is the type of the plugin; empty for what is of none.
	Plugin string
	// Key is the key of the rule.
	Key string
	// What says what is not allowed, and what would be.
	What string
	// allow changes a rule so that it allows this. It does not write into lists that the rule has.
	allow func(*Rule)
}

// Amend returns a rule for the same namespaces that allows all of the violations.
func Amend(r *Rule, violations ...Violation) *Rule {
	amended := *r
	for _, v := range violations {
		v.allow(&amended)
	}
	if amended.All {
		return &Rule{Namespaces: r.Namespaces, All: true}
	}
	return &amended
}

// Error returns the violation as an error of the network nad in namespace, where the decision was
// made.
func (v Violation) Error(d Decision, nad, namespace string) *failure.Error {
	return &failure.Error{
		Reason: failure.PolicyRefused, NAD: nad, Plugin: v.Plugin, Field: v.Field,
		Err: fmt.Errorf("%s (%s)", v.What, d.Name),
		Fix: "change it, or let the operator " + d.Remedy(namespace, v),
	}
}

// Remedy says what an operator would have to write for violations in a namespace to be none.
func (d Decision) Remedy(namespace string, violations ...Violation) string {
	amended := Amend(d.Rule, violations...)
	if d.Name == TenantDefault {
		amended.Namespaces = []string{namespace}
		return fmt.Sprintf(`add to "braid": {"policy": [...]}: %s`, amended)
	}
	lines := amended.differing(d.Rule)
	if amended.All {
		lines = (&Rule{All: true}).differing(&Rule{})
	}
	return fmt.Sprintf("have in %s: %s", d.Name, strings.Join(lines, ", "))
}

// addText returns a change that adds a name to a list.
func addText(into func(*Rule) *[]string, name string) func(*Rule) {
	return func(r *Rule) {
		if list := into(r); !slices.Contains(*list, name) {
			*list = append(slices.Clip(*list), name)
		}
	}
}

// addSpan returns what allows numbers in one of a rule's lists.
func addSpan(into func(*Rule) *[]Span, s Span) func(*Rule) {
	return func(r *Rule) {
		if list := into(r); !s.within(*list) {
			*list = append(slices.Clip(*list), s)
		}
	}
}

// addPrefixes returns what allows addresses.
func addPrefixes(all []netip.Prefix) func(*Rule) {
	return func(r *Rule) {
		for _, p := range all {
			if !covered(p, r.Prefixes) {
				r.Prefixes = append(slices.Clip(r.Prefixes), p)
			}
		}
	}
}

// raise returns what allows n of something; more stay allowed.
func raise(into func(*Rule) *int, n int) func(*Rule) {
	return func(r *Rule) { *into(r) = max(*into(r), n) }
}

// allowAll makes a rule allow everything, what no key of a rule allows included.
func allowAll(r *Rule) { r.All = true }

// covered reports whether a prefix is within one of others.
func covered(p netip.Prefix, by []netip.Prefix) bool {
	return slices.ContainsFunc(by, func(b netip.Prefix) bool {
		return b.Bits() <= p.Bits() && b.Contains(p.Addr())
	})
}
