package block_test

import (
	"errors"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/braid-cni/braid/pkg/ipam/block"
)

// A node that has not looked for long at its blocks' objects looks before it gives an address. Where that fails it gives one all the same,
// and does not ask again at each: an API server that is overloaded would get still more to do.
func TestLooks(t *testing.T) {
	r := newRig(t)
	m := r.node("n0")
	w := wish(t, "10.0.0.0/20")
	i := 0
	add := func() error {
		i++
		_, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil)
		return err
	}
	must := func(what string, want int) {
		t.Helper()
		before := r.api.Calls()
		if err := add(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := r.api.Calls() - before; n != want {
			t.Errorf("%s: %d requests, want %d", what, n, want)
		}
	}
	if err := add(); err != nil {
		t.Fatal(err)
	}
	must("trusted", 0)
	r.pass(time.Hour)
	must("looked: node and blocks", 2)
	must("trusted again", 0)

	tries := 0
	r.api.Fault = func(string, string) error {
		tries++
		return errors.New("overloaded")
	}
	r.pass(time.Hour)
	for range 5 {
		must("the API is away", 0)
	}
	if tries != 1 {
		t.Errorf("it was asked %d times, want once", tries)
	}
	r.pass(time.Minute)
	must("still away", 0)
	if tries != 2 {
		t.Errorf("it was asked %d times after a minute, want twice", tries)
	}
	r.api.Fault = nil
	r.pass(time.Minute)
	must("back", 2)
	if n := r.api.Calls("status", "update", "delete"); n != 0 {
		t.Errorf("an Add made %d writes", n)
	}

	r.api.DeleteNode("n0")
	r.pass(time.Hour)
	for range 2 {
		if err := add(); !apierrors.IsNotFound(err) {
			t.Errorf("the node is gone: %v", err)
		}
	}
}
