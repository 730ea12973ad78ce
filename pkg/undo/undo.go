// Package undo runs clean-up steps newest first.
//
// Contract: Push directly after the change that the step takes back. Unwind runs every step, past
// errors, and joins them; the steps must be idempotent, "already gone" is success. A Stack belongs
// to one goroutine; the zero value is ready.
package undo

import (
	"context"
	"errors"
)

// Step takes one change back.
type Step func(context.Context) error

// Stack is the changes made so far, in order.
type Stack struct{ steps []Step }

// Push adds the step that takes back the latest change.
func (s *Stack) Push(step Step) { s.steps = append(s.steps, step) }

// Unwind takes back everything, newest first, and empties the stack. A step that fails does not
// stop those below it; their errors are joined, newest first. A step is run even when ctx is done:
// it is the step that knows whether it can do without.
func (s *Stack) Unwind(ctx context.Context) error {
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		errs = append(errs, s.steps[i](ctx))
	}
	s.steps = nil
	return errors.Join(errs...)
}
