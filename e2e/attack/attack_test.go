package attack_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/weaken"
)

// attacker is who attacks.
type attacker string

const (
	podTenant attacker = "a tenant with pods"
	nadTenant attacker = "a tenant with NADs"
	rawPod    attacker = "a pod with NET_ADMIN and NET_RAW"
	localUser attacker = "a local user without rights"
	delegate  attacker = "a malicious delegate"
)

// attack is one attack.
type attack struct {
	// name is what the attacker wants; it begins with the item of the conformance list, if there is
	// one.
	name string
	by   attacker
	// off are the mechanisms without which it works. Of several each one stops it.
	off []weaken.Mechanism
	// reaches attacks a new node and reports whether the aim is reached. It fails the test only where
	// the attack could not be tried.
	reaches func(n *node) bool
}

func off(mechanisms ...weaken.Mechanism) []weaken.Mechanism { return mechanisms }

func attacks() []attack {
	return slices.Concat(ofPods(), ofNADs(), ofRawPods(), ofUsers(), ofDelegates())
}

// tries bounds how often an attack is tried that has to reach its aim: on a busy machine pods do
// not start, either.
const tries = 3

// TestAttacks: each attack works without the mechanism that stops it, and is stopped by it.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			t.Log(a.by)
			reached := false
			for try := 0; !reached && try < tries; try++ {
				reached = a.reaches(newNode(t, weak(t, a.off...)))
			}
			if !reached {
				t.Errorf("without %v it does not reach its aim either, so it shows nothing", a.off)
			}
			if a.reaches(newNode(t, released(t, a.off...))) {
				t.Error("it reaches its aim")
			}
		})
	}
}

// TestEachMechanismStops: where several mechanisms stop an attack, each of them does alone.
func TestEachMechanismStops(t *testing.T) {
	t.Parallel()
	for _, a := range attacks() {
		for i, on := range a.off {
			if len(a.off) == 1 {
				continue
			}
			t.Run(a.name+" with "+string(on), func(t *testing.T) {
				t.Parallel()
				others := slices.Delete(slices.Clone(a.off), i, i+1)
				if a.reaches(newNode(t, weak(t, others...))) {
					t.Errorf("%s does not stop it", on)
				}
			})
		}
	}
}

// TestAttackersAreComplete: each attacker attacks, each mechanism stops somebody, and names are
// attacks of their own.
func TestAttackersAreComplete(t *testing.T) {
	t.Parallel()
	by, stops, names := map[attacker]bool{}, map[weaken.Mechanism]bool{}, map[string]bool{}
	for _, a := range attacks() {
		if names[a.name] || len(a.off) == 0 {
			t.Errorf("%q is there twice, or by no mechanism", a.name)
		}
		by[a.by], names[a.name] = true, true
		for _, m := range a.off {
			stops[m] = true
		}
	}
	for _, a := range []attacker{podTenant, nadTenant, rawPod, localUser, delegate} {
		if !by[a] {
			t.Errorf("%s attacks nothing", a)
		}
	}
	for _, m := range mechanisms(t) {
		if !stops[weaken.Mechanism(m)] {
			t.Errorf("no attack is stopped by %s", m)
		}
	}
}

// evil clears a terminal.
const evil = "\x1b[2J"

// shows reports whether a text would do so.
func shows(text string) bool { return strings.Contains(text, evil) }
