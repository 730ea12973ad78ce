// Command bench is what scripts/bench.sh runs, in a network namespace that has a NIC and is its
// own: it attaches pods with Braid, as a runtime does, and, taking turns with that, with libcni
// alone, and prints medians, ratios and the targets.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/braid-cni/braid/e2e/lab"
)

// networks are how many macvlan networks a pod has besides the default one.
func networks() []int { return []int{0, 1, 4, 8} }

const (
	// warmUps are rounds that do not count: page cache, the bridge, the API server's first
	// requests.
	warmUps = 2
	// starts is how often a process is started for the time that VERSION takes.
	starts = 200
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	rounds := flag.Int("rounds", 30, "how often each pod is attached in each way")
	log := flag.String("log", "/run/bench/braid.log",
		"where Braid writes its log, which has the time of each attachment")
	onlyAgent := flag.Bool("agent", false, "measure only what the agent does")
	flag.Parse()
	bench := &bench{
		log: *log, onlyAgent: *onlyAgent,
		bin: os.Getenv("BRAID_BENCH"), plugins: os.Getenv("BRAID_PLUGINS"), work: "/run/bench",
		times: map[string][]time.Duration{}, networks: map[string]string{}, uids: map[string]string{},
	}
	before, err := readCPUTime()
	if err != nil {
		return err
	}
	progress("starting etcd and kube-apiserver")
	// By default a kube-apiserver writes no audit log, as the lab's does for tests.
	if bench.api, err = lab.NewAPIWith("--audit-log-path="); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bench.api.Stop()) }()
	if err := bench.prepare(ctx); err != nil {
		return err
	}
	text, err := bench.measure(ctx, *rounds)
	if err != nil {
		return err
	}
	after, err := readCPUTime()
	if err != nil {
		return err
	}
	_, err = fmt.Print(text, after.since(before))
	return err
}

// measure returns the report: of pairs with another binary of Braid, if there is one to compare
// with, else of everything.
func (b *bench) measure(ctx context.Context, rounds int) (string, error) {
	if base := os.Getenv("BRAID_BASE"); base != "" {
		p, err := newPairs(b, base)
		if err != nil {
			return "", err
		}
		return p.run(ctx, rounds)
	}
	if b.onlyAgent {
		return b.throughAgent(ctx, rounds)
	}
	if err := b.rounds(ctx, rounds); err != nil {
		return "", err
	}
	size, err := b.size()
	if err != nil {
		return "", err
	}
	text := b.report(rounds, size)
	addresses, err := b.addresses(ctx, rounds)
	if err != nil {
		return "", err
	}
	agent, err := b.throughAgent(ctx, rounds)
	return text + addresses + agent, err
}

// rounds times all that does without cluster-wide addresses and the agent.
func (b *bench) rounds(ctx context.Context, rounds int) error {
	for round := range warmUps + rounds {
		if round == warmUps {
			clear(b.times)
		}
		if err := b.round(ctx, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		progress(fmt.Sprintf("round %d of %d", round+1, warmUps+rounds))
	}
	for range starts {
		if err := b.versions(ctx); err != nil {
			return err
		}
	}
	return nil
}

// size is that of Braid's binary, of those of the reference together that it has built in.
func (b *bench) size() (float64, error) {
	braid, err := os.Stat(filepath.Join(b.bin, "braid"))
	if err != nil {
		return 0, err
	}
	var all int64
	for _, name := range []string{
		"bridge", "ipvlan", "macvlan", "portmap", "sbr", "tuning", "host-local", "static",
	} {
		info, err := os.Stat(filepath.Join(b.plugins, name))
		if err != nil {
			return 0, err
		}
		all += info.Size()
	}
	info, err := os.Stat(os.Getenv("BRAID_WHEREABOUTS"))
	if err != nil {
		return 0, err
	}
	return float64(braid.Size()) / float64(all+info.Size()), nil
}

// progress shows a line that the next one replaces, where someone is looking.
func progress(text string) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r\033[Kbench: %s", text)
	}
}
