package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The targets of pairs.
const (
	maxFourOfBase = 1.0  // ADD with four networks, of the base's
	maxOfBase     = 1.05 // everything else
)

// pairs compares Braid with another binary of it, the base: both attach the same pods in turns,
// which one first alternates, so that what a machine does besides meets both. Each has a state of
// its own, and is a node of its own.
type pairs struct {
	*bench
	base *meta
}

func newPairs(b *bench, binary string) (*pairs, error) {
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("BRAID_BASE: %w", err)
	}
	base, err := b.newBraid("base", b.plugins)
	if err != nil {
		return nil, err
	}
	base.binary = binary
	base.config["braid"] = map[string]any{
		"nodeName": nodeName(1), "stateDir": filepath.Join(b.work, "base"),
	}
	return &pairs{b, base}, nil
}

// pod is a pod to attach, and what the report calls it.
type pod struct {
	name, what string
	// stricter: it has to be faster than the base's.
	stricter bool
}

func pairedPods() []pod {
	var list []pod
	for _, n := range networks() {
		list = append(list, pod{podName(n), fmt.Sprintf("%d networks", n), n == 4})
	}
	return append(list, pod{wherePod(), "4 of whereabouts", true})
}

func (p *pairs) run(ctx context.Context, rounds int) (string, error) {
	for round := range warmUps + rounds {
		if round == warmUps {
			clear(p.times)
		}
		for i, pod := range pairedPods() {
			metas := []*meta{p.braid, p.base}
			if (round+i)%2 == 1 {
				slices.Reverse(metas)
			}
			for _, m := range metas {
				if err := p.attach(ctx, m, pod); err != nil {
					return "", fmt.Errorf("round %d, %s: %w", round, m.binary, err)
				}
			}
		}
		progress(fmt.Sprintf("pair %d of %d", round+1, warmUps+rounds))
	}
	return p.report(rounds), nil
}

// attach times ADD and DEL of a pod, and what CPU time they used together.
func (p *pairs) attach(ctx context.Context, m *meta, pod pod) error {
	if err := p.fresh(ctx, pod.name); err != nil {
		return err
	}
	return inNetns(func(netns string) error {
		before, err := usedCPU()
		for _, command := range []string{"ADD", "DEL"} {
			err = errors.Join(err, p.timed(command+" "+m.name+" "+pod.name, func() error {
				return m.call(ctx, command, pod.name, "bench", netns)
			}))
		}
		after, uerr := usedCPU()
		name := "CPU " + m.name + " " + pod.name
		p.times[name] = append(p.times[name], after-before)
		return errors.Join(err, uerr)
	})
}

// ratio is the median of the pairs' ratios.
func (p *pairs) ratio(what, pod string) float64 {
	ours, theirs := p.times[what+" "+p.braid.name+" "+pod], p.times[what+" base "+pod]
	ratios := make([]time.Duration, len(ours))
	for i := range ours {
		ratios[i] = time.Duration(
			float64(ours[i]) / float64(max(theirs[i], 1)) * float64(time.Millisecond))
	}
	p.times["ratio"] = ratios
	return p.median("ratio")
}

func (p *pairs) report(rounds int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\rThis tree beside %s: the same pods, %d pairs of which either is first in "+
		"turn; medians in ms; %s.\n", p.base.binary, rounds, machine())
	out.WriteString("ratio: the median of the pairs' ratios, this tree's time of the base's; CPU: " +
		"of ADD and DEL\n\n")
	fmt.Fprintf(&out, "%-26s %8s %8s %7s  %s\n", "", "base", "this", "ratio", "target")
	for _, what := range []string{"ADD", "DEL", "CPU"} {
		for _, pod := range pairedPods() {
			target := maxOfBase
			if what == "ADD" && pod.stricter {
				target = maxFourOfBase
			}
			ratio := p.ratio(what, pod.name)
			verdict := "reached"
			if ratio > target {
				verdict = "MISSED"
			}
			fmt.Fprintf(&out, "%-4s %-21s %8.1f %8.1f %6.2fx  %5.2fx  %s\n", what, pod.what,
				p.median(what+" base "+pod.name), p.median(what+" "+p.braid.name+" "+pod.name), ratio, target,
				verdict)
		}
	}
	return out.String()
}
