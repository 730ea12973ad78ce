package credential_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/install/credential"
)

// clock moves when somebody waits: After lets do happen, and its time pass.
type clock struct {
	steady, wall time.Duration
	do           func(steady time.Duration)
}

func (c *clock) Now() time.Time { return time.Unix(1e9, 0).Add(c.wall) }

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.steady += d
	c.wall += d
	if c.do != nil {
		c.do(c.steady)
	}
	ch := make(chan time.Time, 1)
	ch <- c.Now()
	return ch
}

// cluster makes tokens and judges them.
type cluster struct {
	clock    *clock
	life     time.Duration
	requests []time.Duration // when
	away     error           // what requests end with
	refuses  error           // what trials end with
	// onlyFirst is that trials of the first token alone end so.
	onlyFirst bool
	written   []string
	reports   []error
	own       string
	full      error
	spoilt    bool
}

func (c *cluster) Request(context.Context) (credential.Token, error) {
	c.requests = append(c.requests, c.clock.steady)
	if c.away != nil {
		return credential.Token{}, c.away
	}
	return credential.Token{
		Value: fmt.Sprint("t", len(c.requests)), Expires: c.clock.Now().Add(c.life), Life: c.life,
	}, nil
}

func (c *cluster) Try(_ context.Context, kubeconfig []byte) error {
	if c.onlyFirst && string(kubeconfig) != "kubeconfig of t1" {
		return nil
	}
	return c.refuses
}

// run runs a Keeper until that time. do happens meanwhile.
func (c *cluster) run(t *testing.T, until time.Duration, do func(steady time.Duration)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.clock = &clock{do: func(steady time.Duration) {
		if do != nil {
			do(steady)
		}
		if steady > until {
			cancel()
		}
	}}
	k := &credential.Keeper{
		Source: c, Trial: c, Clock: c.clock, Rand: rand.New(rand.NewPCG(1, 2)),
		Kubeconfig: func(token string) ([]byte, error) { return []byte("kubeconfig of " + token), nil },
		Write: func(_ context.Context, kubeconfig []byte) error {
			if c.full == nil {
				c.written, c.spoilt = append(c.written, string(kubeconfig)), false
			}
			return c.full
		},
		Own: func() ([]byte, error) {
			if c.own == "" {
				return nil, errors.New("just being replaced")
			}
			return []byte(c.own), nil
		},
		Intact: func() bool { return !c.spoilt },
		Report: func(expires time.Time, err error) {
			if err == nil && !expires.Equal(c.clock.Now().Add(c.life)) {
				t.Errorf("reported until %v", expires)
			}
			c.reports = append(c.reports, err)
		},
	}
	if err := k.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestRenewsAtAQuarter(t *testing.T) {
	c := &cluster{life: 4 * time.Hour, own: "o"}
	c.run(t, 10*time.Hour, nil)
	last := time.Duration(0)
	pauses := map[time.Duration]bool{}
	for _, at := range c.requests[1:] {
		pause := at - last
		pauses[pause] = true
		if pause < 48*time.Minute || pause > time.Hour {
			t.Errorf("renewed after %v, want about a quarter of 4h", pause)
		}
		last = at
	}
	if len(c.requests) < 10 || len(pauses) < 5 {
		t.Errorf("renewals at %v: too few, or without jitter", c.requests)
	}
	if want := fmt.Sprint("kubeconfig of t", len(c.requests)); !slices.Contains(c.written, want) {
		t.Errorf("written is %q, want %q", c.written, want)
	}
}

// An API server that is away costs nothing but tries, which are a minute apart in the end.
func TestAwayKeepsTheLast(t *testing.T) {
	c := &cluster{life: 4 * time.Hour, own: "o"}
	away := errors.New("away")
	c.run(t, 3*time.Hour, func(steady time.Duration) {
		if c.away = nil; steady > 30*time.Minute && steady < 150*time.Minute {
			c.away = away
		}
	})
	tries, failed := 0, 0
	for _, err := range c.reports {
		if tries++; errors.Is(err, away) {
			failed++
		}
	}
	if failed < 60 || failed > 130 || len(c.written) != tries-failed {
		t.Errorf("%d of %d tries failed, %d were written", failed, tries, len(c.written))
	}
	if c.reports[len(c.reports)-1] != nil {
		t.Error("it did not come back")
	}
}

// A token that the server does not accept replaces nothing, nor does one that cannot be written.
func TestTrial(t *testing.T) {
	for _, c := range []*cluster{{refuses: errors.New("no")}, {full: errors.New("no")}} {
		c.life, c.own = 4*time.Hour, "o"
		c.run(t, 2*time.Minute, func(steady time.Duration) {
			if steady > 50*time.Second {
				c.refuses, c.full = nil, nil
			}
		})
		n := len(c.reports)
		if n < 4 || c.reports[0] == nil || c.reports[n-1] != nil || len(c.written) != 1 {
			t.Errorf("reports %v, written %q", c.reports, c.written)
		}
	}
}

// The signing key has changed, perhaps.
func TestOwnTokenChanges(t *testing.T) {
	c := &cluster{life: 24 * time.Hour, own: "o"}
	c.run(t, 2*time.Hour, func(steady time.Duration) {
		switch {
		case steady == time.Hour:
			c.own = "" // for a moment there is none
		case steady > time.Hour:
			c.own = "p"
		}
	})
	if want := []time.Duration{0, time.Hour + credential.Look}; !slices.Equal(c.requests, want) {
		t.Errorf("renewed at %v, want %v", c.requests, want)
	}
}

// Somebody has removed the file.
func TestNotIntact(t *testing.T) {
	c := &cluster{life: 24 * time.Hour, own: "o"}
	c.run(t, 2*time.Hour, func(steady time.Duration) { c.spoilt = c.spoilt || steady == time.Hour })
	if want := []time.Duration{0, time.Hour}; !slices.Equal(c.requests, want) {
		t.Errorf("renewed at %v, want %v", c.requests, want)
	}
}

// A token that has ended before its time is replaced at the next proof, and not while the server is
// only away.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want []time.Duration
	}{
		"refused": {
			&credential.RefusedError{Err: errors.New("no such account")},
			[]time.Duration{0, time.Hour + credential.Proof},
		},
		"away": {errors.New("connection refused"), []time.Duration{0}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &cluster{life: 24 * time.Hour, own: "o", onlyFirst: true}
			c.run(t, 2*time.Hour, func(steady time.Duration) {
				if steady > time.Hour {
					c.refuses = test.err
				}
			})
			if !slices.Equal(c.requests, test.want) {
				t.Errorf("renewed at %v, want %v", c.requests, test.want)
			}
		})
	}
}

// A clock that is set costs one renewal at most; a machine that slept renews when it wakes.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{-1e4 * time.Hour, 1e4 * time.Hour, 3 * time.Hour} {
		c := &cluster{life: 4 * time.Hour, own: "o"}
		done := false
		c.run(t, 40*time.Minute, func(time.Duration) {
			if c.clock.steady >= 20*time.Minute && !done {
				done = true
				c.clock.wall += jump
			}
		})
		want := []time.Duration{0}
		if jump > 0 {
			want = append(want, 20*time.Minute)
		}
		if !slices.Equal(c.requests, want) {
			t.Errorf("clock set by %v: renewed at %v, want %v", jump, c.requests, want)
		}
	}
}

// A server that grants next to nothing is not asked all the time.
func TestShortLife(t *testing.T) {
	for _, life := range []time.Duration{-time.Hour, 0, time.Second} {
		c := &cluster{life: life, own: "o"}
		c.run(t, 10*time.Minute, nil)
		if len(c.requests) > 61 {
			t.Errorf("life %v: %d requests", life, len(c.requests))
		}
	}
}
