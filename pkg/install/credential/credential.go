// Package credential keeps the CNI binary's kubeconfig good: a token of its own, bound to the Node,
// that is replaced long before it ends.
//
// Contract: a kubeconfig is replaced only by one that the API server has just accepted. While the
// server is away, or refuses, the last good one stays. One that the server no longer accepts is
// replaced as soon as that is found out. The token of the agent's own pod is never copied, as it
// dies with the pod.
package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// Look is how often the agent's own token and the wall clock are looked at.
	Look = 10 * time.Second
	// Proof is how often the kubeconfig in place is tried. A token ends before its time with the
	// key that signed it, and with the ServiceAccount or Node object that it is of.
	Proof = 30 * time.Second
	// firstPause and lastPause bound the pauses between tries that failed. The node is not ready
	// until one succeeds.
	firstPause = time.Second
	lastPause  = time.Minute
	// quarter is the part of a token's life after which it is replaced.
	quarter = 4
	// spread is by how much of itself that time is shortened at most, by chance, so that the nodes
	// of a cluster do not ask all at once.
	spread = 0.2
)

// Token is a credential.
type Token struct {
	Value string
	// Expires is for people: it is by the server's clock.
	Expires time.Time
	// Life is for how long it is good from now on.
	Life time.Duration
}

// TokenSource makes a new token each time.
type TokenSource interface {
	Request(ctx context.Context) (Token, error)
}

// Trial uses a kubeconfig once. A [RefusedError] is that it is of no use, any other that nobody
// knows.
type Trial interface {
	Try(ctx context.Context, kubeconfig []byte) error
}

// RefusedError means that the API server does not accept a credential.
type RefusedError struct{ Err error }

// Error has the words of the API server.
func (e *RefusedError) Error() string { return "the API server refuses it: " + e.Err.Error() }

// Unwrap returns the error of the API server.
func (e *RefusedError) Unwrap() error { return e.Err }

// Clock is the time. After is not disturbed by who sets Now.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// Keeper renews one kubeconfig. Source, Trial, Clock, Kubeconfig and Write are required.
type Keeper struct {
	Source TokenSource
	Trial  Trial
	Clock  Clock
	// Kubeconfig makes the file's content.
	Kubeconfig func(token string) ([]byte, error)
	// Write puts it in its place, durably and with mode 0600.
	Write func(ctx context.Context, kubeconfig []byte) error
	// Own reads the agent's own token. That it changed may be because the cluster's signing key
	// did; the token that was made with the former one is then replaced at once. Nil for no such
	// token.
	Own func() ([]byte, error)
	// Intact reports whether the kubeconfig is still as it was written; one that is not is renewed
	// at once. Nil for always.
	Intact func() bool
	// Report is called for each renewal: when the new token ends, or why there is none. For the
	// agent's log, condition and metrics; nil for nobody.
	Report func(expires time.Time, err error)
	// Rand spreads renewals; nil: by chance.
	Rand *rand.Rand

	own []byte
	// placed is the kubeconfig that was last put in its place.
	placed []byte
}

// Run renews the kubeconfig at once and then in time, until ctx is done, which is no error. It
// starts no goroutine.
func (k *Keeper) Run(ctx context.Context) error {
	k.own = k.readOwn()
	pause := firstPause
	for ctx.Err() == nil {
		token, err := k.Renew(ctx)
		next := pause
		if pause = min(2*pause, lastPause); err == nil {
			next, pause = renewAfter(token.Life, k.random()), firstPause
		}
		if ctx.Err() == nil {
			k.report(token.Expires, err)
			k.wait(ctx, next)
		}
	}
	return nil
}

// Renew requests a token, tries it, and puts it in place.
func (k *Keeper) Renew(ctx context.Context) (Token, error) {
	token, err := k.Source.Request(ctx)
	if err != nil {
		return Token{}, fmt.Errorf("request token: %w", err)
	}
	if token.Value == "" {
		return Token{}, errors.New("request token: it is empty")
	}
	content, err := k.Kubeconfig(token.Value)
	if err != nil {
		return Token{}, fmt.Errorf("make kubeconfig: %w", err)
	}
	if err := k.Trial.Try(ctx, content); err != nil {
		return Token{}, fmt.Errorf("try new kubeconfig, the last one stays: %w", err)
	}
	if err := k.Write(ctx, content); err != nil {
		return Token{}, fmt.Errorf("write kubeconfig: %w", err)
	}
	k.placed = content
	return token, nil
}

// renewAfter returns when a token of that life is replaced. A life that is too short to be true is
// not waited for in vain, and does not make us ask all the time.
func renewAfter(life time.Duration, random float64) time.Duration {
	after := life / quarter
	return max(after-time.Duration(spread*random*float64(after)), Look)
}

// wait returns when the time has passed, by the machine's steady clock or by its wall clock, which
// goes on while the machine sleeps; when the agent's own token changes; when the kubeconfig is no
// longer what it is to be, or no longer accepted; or when ctx is done.
func (k *Keeper) wait(ctx context.Context, d time.Duration) {
	start := k.Clock.Now().Round(0)
	unproven := time.Duration(0)
	for left := d; left > 0 && k.Clock.Now().Round(0).Sub(start) < d; {
		step := min(left, Look)
		select {
		case <-ctx.Done():
			return
		case <-k.Clock.After(step):
		}
		left -= step
		if k.ownChanged() || !k.intact() {
			return
		}
		if unproven += step; unproven >= Proof {
			if unproven = 0; k.refused(ctx) {
				return
			}
		}
	}
}

// ownChanged reports whether the agent's own token is another than at the last time.
func (k *Keeper) ownChanged() bool {
	own := k.readOwn()
	if own == nil || bytes.Equal(own, k.own) {
		return false
	}
	k.own = own
	return true
}

// intact reports whether the kubeconfig is what it is to be.
func (k *Keeper) intact() bool { return k.Intact == nil || k.Intact() }

// refused reports whether the API server no longer accepts the kubeconfig in place.
func (k *Keeper) refused(ctx context.Context) bool {
	if k.placed == nil {
		return false
	}
	_, refused := errors.AsType[*RefusedError](k.Trial.Try(ctx, k.placed))
	return refused
}

// readOwn returns nil while the token cannot be read, as in the moment in which it is replaced.
func (k *Keeper) readOwn() []byte {
	if k.Own == nil {
		return nil
	}
	own, err := k.Own()
	if err != nil {
		return nil
	}
	return own
}

func (k *Keeper) report(expires time.Time, err error) {
	if k.Report != nil {
		k.Report(expires, err)
	}
}

// random is in [0, 1), so that the nodes of a cluster do not renew at the same time.
func (k *Keeper) random() float64 {
	if k.Rand == nil {
		return rand.Float64() //nolint:gosec // no secret
	}
	return k.Rand.Float64()
}
