package undo_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/braid-cni/braid/pkg/undo"
)

func TestUnwindNewestFirstPastErrors(t *testing.T) {
	var s undo.Stack
	var ran []int
	first, third := errors.New("first"), errors.New("third")
	for i, err := range []error{first, nil, third} {
		s.Push(func(context.Context) error { ran = append(ran, i); return err })
	}
	err := s.Unwind(t.Context())
	if !slices.Equal(ran, []int{2, 1, 0}) {
		t.Errorf("steps ran in order %v", ran)
	}
	if !errors.Is(err, first) || !errors.Is(err, third) {
		t.Errorf("got %v, want both failures", err)
	}
	if err := s.Unwind(t.Context()); err != nil || len(ran) != 3 {
		t.Errorf("a second Unwind ran steps again: %v, %v", ran, err)
	}
}
