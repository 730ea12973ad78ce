package block_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// A node that has not looked for long at its blocks' objects looks before it assigns an address.
// Where that fails it goes on for a while, and does not ask again at each: an API server that is
// overloaded would get still more to do.
func TestLooks(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/20")
	i := 0
	add := func() error {
		i++
		_, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil)
		return err
	}
	must := func(what string, want int) {
		t.Helper()
		before := c.api.Calls()
		if err := add(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if n := c.api.Calls() - before; n != want {
			t.Errorf("%s: %d requests, want %d", what, n, want)
		}
	}
	if err := add(); err != nil {
		t.Fatal(err)
	}
	must("trusted", 0)
	c.pass(time.Hour)
	must("looked: node and blocks", 2)
	must("trusted again", 0)

	tries := 0
	c.api.Fault = func(string, string) error {
		tries++
		return errors.New("overloaded")
	}
	c.pass(11 * time.Minute)
	for range 5 {
		must("the API is away", 0)
	}
	if tries != 1 {
		t.Errorf("it was asked %d times, want once", tries)
	}
	c.pass(time.Minute)
	must("still away", 0)
	if tries != 2 {
		t.Errorf("it was asked %d times after a minute, want twice", tries)
	}
	c.pass(time.Hour)
	for range 5 {
		if err := add(); err == nil {
			t.Error("an address is given long after the last look")
		}
	}
	if tries != 3 {
		t.Errorf("it was asked %d times after an hour, want once more", tries)
	}
	c.api.Fault = nil
	c.pass(time.Minute)
	must("back", 2)
	if n := c.api.Calls("status", "update", "delete"); n != 0 {
		t.Errorf("an Add made %d writes", n)
	}

	c.api.DeleteNode("n0")
	c.pass(time.Hour)
	for range 2 {
		if err := add(); !apierrors.IsNotFound(err) {
			t.Errorf("the node is gone: %v", err)
		}
	}
}

// After the last look that told that the blocks are the node's own, addresses of them are given
// until the lease ends, and then none, whatever the reason that there was no other look, and
// by whichever clock.
func TestR25NoAddressAfterTheLease(t *testing.T) {
	for name, fault := range map[string]error{
		"refused": errors.New("connection refused"),
		"forbidden": apierrors.NewForbidden(schema.GroupResource{Resource: "nodes"}, "n0",
			errors.New("no role")),
		"unauthorized": apierrors.NewUnauthorized("token expired"), "slow": context.DeadlineExceeded,
	} {
		for clock, skew := range map[string][2]time.Duration{
			"both": {0, 0}, "suspended": {-time.Hour, 0}, "wall clock set back": {0, -time.Hour},
		} {
			t.Run(name+" "+clock, func(t *testing.T) {
				c := newCluster(t)
				m := c.node("n0")
				wallSkew, bootSkew := time.Duration(0), time.Duration(0)
				m.Now = func() time.Time { return c.now().Add(bootSkew) }
				m.Wall = func() time.Time { return c.now().Add(wallSkew) }
				w := []block.Wish{wish(t, "10.0.0.0/24")}
				add := func(i int) error {
					_, err := m.Add(t.Context(), holder(i), w, nil)
					return err
				}
				if err := add(0); err != nil {
					t.Fatal(err)
				}
				c.api.Fault = func(string, string) error { return fault }
				c.pass(block.Grace / 2)
				if err := add(1); err != nil {
					t.Fatalf("in the lease: %v", err)
				}
				if skew[0] != 0 {
					c.pass(time.Hour)
				}
				bootSkew, wallSkew = skew[0], skew[1]
				c.pass(block.Grace/2 - time.Minute)
				err := add(2)
				if failure.ReasonOf(err) != failure.APIUnavailable || failure.Code(err) != 11 ||
					!strings.Contains(err.Error(), "kubeconfig") {
					t.Fatalf("after the lease: %v", err)
				}
				if err := m.Del(t.Context(), holder(0).ID); err != nil {
					t.Error(err)
				}
				c.api.Fault = nil
				c.pass(time.Minute)
				if err := add(3); err != nil {
					t.Errorf("the API is back: %v", err)
				}
			})
		}
	}
}

// The look is bounded by what there is to look at.
func TestR25LookTakesAsLongAsThereAreBlocks(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/16")
	for i := range 40 * block.Size {
		if _, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	m.Sleep = nil
	c.api.Fault = func(when, verb string) error {
		if when == "before" && verb == "list" {
			time.Sleep(2200 * time.Millisecond)
		}
		return nil
	}
	c.pass(15 * time.Minute)
	before := c.api.Calls("list")
	for i := range 2 {
		if _, err := m.Add(t.Context(), holder(-1-i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.api.Calls("list") - before; n != 1 {
		t.Errorf("%d lists, want that of one look, which is enough", n)
	}
}

// A node that was declared out of service loses its blocks though it may go on: its looks do not
// renew the lease.
func TestR25OutOfServiceEndsTheLease(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := []block.Wish{wish(t, "10.0.0.0/24")}
	add := func(i int) error {
		_, err := m.Add(t.Context(), holder(i), w, nil)
		return err
	}
	if err := add(0); err != nil {
		t.Fatal(err)
	}
	c.api.SetOutOfService("n0", true)
	c.pass(12 * time.Minute)
	if err := add(1); err != nil {
		t.Errorf("in the lease: %v", err)
	}
	c.pass(7 * time.Minute)
	if err := add(2); failure.Code(err) != 11 || !strings.Contains(err.Error(), "out of service") {
		t.Errorf("after the lease: %v", err)
	}
	c.api.SetOutOfService("n0", false)
	c.pass(time.Minute)
	if err := add(3); err != nil {
		t.Errorf("in service again: %v", err)
	}
}
