package selection

import (
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

const shortForm = "write [namespace/]name[@interface], separated by commas"

// parseShort reads "name, namespace/name@interface, ...".
func parseShort(text, podNamespace string) ([]Selection, error) {
	elements := strings.Split(text, ",")
	if err := checkCount(len(elements)); err != nil {
		return nil, err
	}
	var selections []Selection
	for i, element := range elements {
		one, err := parseReference(at(i), strings.Trim(element, blanks), podNamespace)
		if err != nil {
			return nil, err
		}
		selections = append(selections, one)
	}
	return selections, nil
}

// parseReference reads an element of the short form, "namespace/name@interface".
func parseReference(field, reference, podNamespace string) (Selection, error) {
	if reference == "" {
		return Selection{}, invalid(field, shortForm, "an empty element")
	}
	rest, ifName, hasInterface := strings.Cut(reference, "@")
	namespace, name, hasNamespace := strings.Cut(rest, "/")
	if !hasNamespace {
		namespace, name = podNamespace, rest
	}
	if hasNamespace {
		if err := checkNamespace(namespace); err != nil {
			return Selection{}, invalid(field, shortForm, "in %s: namespace %w",
				strictjson.Quote(reference), err)
		}
	}
	if err := checkName(name); err != nil {
		return Selection{}, invalid(field, shortForm, "in %s: name %w", strictjson.Quote(reference), err)
	}
	if hasInterface {
		if err := checkInterface(ifName); err != nil {
			return Selection{}, invalid(field, shortForm, "in %s: interface %w",
				strictjson.Quote(reference), err)
		}
	}
	return Selection{Namespace: namespace, Name: name, Interface: ifName}, nil
}
