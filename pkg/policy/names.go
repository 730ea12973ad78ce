package policy

import (
	"fmt"

	"github.com/braid-cni/braid/pkg/failure"
)

// Borrowed returns the violation of a network, or a space, whose name belongs to another namespace.
func Borrowed(field, name, owner string) Violation {
	return Violation{
		Field: field, Key: "names",
		What: fmt.Sprintf("%q is of the networks of namespace %s, whose leases and addresses are "+
			"its own", name, owner),
		allow: addText(func(r *Rule) *[]string { return &r.Names }, name),
	}
}

// Crowded returns the violation of a namespace whose networks would have so many addresses on a
// node.
func Crowded(rule *Rule, namespace string, have int) Violation {
	return Violation{
		Field: "ipam", Key: "addresses",
		What: fmt.Sprintf("the networks of namespace %s would have %s on this node, the limit "+
			"is %d", namespace, failure.Count(have, "address"), rule.Addresses),
		allow: raise(func(r *Rule) *int { return &r.Addresses }, have),
	}
}
