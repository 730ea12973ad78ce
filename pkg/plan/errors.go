package plan

import (
	"errors"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
)

// atNAD puts the network's name into an error that does not name it yet. The class stays; an error
// without one is NADInvalid.
func atNAD(err error, nad string) error {
	if err == nil {
		return nil
	}
	e := asFailure(err, failure.NADInvalid)
	if e.NAD == "" {
		e.NAD = nad
	}
	return e
}

// inAnnotation names the annotation in an error about one: package selection calls it "networks",
// whichever it is. An error without a class is InvalidAnnotation.
func inAnnotation(err error, key string) *failure.Error {
	e := asFailure(err, failure.InvalidAnnotation)
	e.Field = key + strings.TrimPrefix(e.Field, "networks")
	return e
}

// asFailure returns a copy of err that may be changed: others may hold the original.
func asFailure(err error, otherwise failure.Reason) *failure.Error {
	//nolint:errorlint // what wraps it has a text of its own, which is kept below
	if e, ok := err.(*failure.Error); ok {
		c := *e
		return &c
	}
	if inner, ok := errors.AsType[*failure.Error](err); ok {
		return &failure.Error{Reason: inner.Reason, Err: err}
	}
	return &failure.Error{Reason: otherwise, Err: err}
}
