package selection

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
	"github.com/braid-cni/braid/pkg/weaken"
)

// Bounds of the annotation. MaxSize is what Kubernetes allows all annotations of an object
// together, in bytes; MaxNetworks is far above what a pod can use and keeps a slip of a template
// from making an ADD last for minutes.
const (
	MaxSize     = 256 << 10
	MaxNetworks = 64
)

// blanks is the white space of JSON; a value that holds nothing else asks for nothing.
const blanks = " \t\r\n"

// whole is the Field of errors that concern the annotation and not one of its elements.
const whole = "networks"

// Parse reads the value of a networks annotation. Names without a namespace are taken to be in
// podNamespace. A blank value, and an empty JSON list, ask for nothing: nil.
func Parse(annotation, podNamespace string) ([]Selection, error) {
	if len(annotation) > MaxSize {
		return nil, invalid(whole, fmt.Sprintf("keep it below %d bytes", MaxSize),
			"the annotation has %d bytes", len(annotation))
	}
	text := strings.Trim(annotation, blanks)
	var (
		selections []Selection
		err        error
	)
	switch {
	case text == "":
		return nil, nil
	case text[0] == '{':
		return nil, invalid(whole, "wrap it in a list: [{...}]", "the annotation is a JSON object, %s",
			strictjson.Quote(text))
	case text[0] == '[':
		selections, err = parseJSON(text, podNamespace)
	default:
		selections, err = parseShort(text, podNamespace)
	}
	if err != nil {
		return nil, err
	}
	return selections, checkTogether(selections)
}

func parseJSON(text, podNamespace string) ([]Selection, error) {
	if err := strictjson.Check([]byte(text)); err != nil {
		path, fix := strictjson.Place(err)
		return nil, invalid(whole+path, fix, "%w", err)
	}
	elements, err := strictjson.List(json.RawMessage(text))
	if err != nil {
		return nil, invalid(whole, "", "%w", err)
	}
	if err := checkCount(len(elements)); err != nil {
		return nil, err
	}
	var selections []Selection
	for i, raw := range elements {
		one, err := parseElement(at(i), raw, podNamespace)
		if err != nil {
			return nil, err
		}
		selections = append(selections, one)
	}
	return selections, nil
}

func checkCount(n int) error {
	if n > MaxNetworks && !weaken.Off(weaken.Networks) {
		return invalid(whole, fmt.Sprintf("ask for at most %d", MaxNetworks),
			"%d networks are asked for", n)
	}
	return nil
}

// at returns the Field of an element.
func at(i int) string { return fmt.Sprintf("%s[%d]", whole, i) }

func invalid(field, fix, format string, args ...any) *failure.Error {
	return &failure.Error{
		Reason: failure.InvalidAnnotation, Field: field, Err: fmt.Errorf(format, args...), Fix: fix,
	}
}
