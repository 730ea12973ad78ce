// Command bench is what scripts/bench.sh runs, in a network namespace that has a NIC and is its own: it attaches pods with Braid,
// as a runtime does, and, taking turns with that, with libcni alone, and prints medians, ratios and the targets.
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
	// warmUps are rounds that do not count: page cache, the bridge, the API server's first requests.
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
	log := flag.String("log", "/run/bench/braid.log", "where Braid writes its log, which has the time of each attachment")
	flag.Parse()
	bench := &bench{
		log: *log,
		bin: os.Getenv("BRAID_BENCH"), plugins: os.Getenv("BRAID_PLUGINS"), work: "/run/bench",
		times: map[string][]time.Duration{}, networks: map[string]string{},
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
	for round := range warmUps + *rounds {
		if round == warmUps {
			clear(bench.times)
		}
		if err := bench.round(ctx, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		progress(fmt.Sprintf("round %d of %d", round+1, warmUps+*rounds))
	}
	for range starts {
		if err := bench.versions(ctx); err != nil {
			return err
		}
	}
	size, err := os.Stat(filepath.Join(bench.bin, "braid"))
	if err != nil {
		return err
	}
	addresses, err := bench.addresses(ctx, *rounds)
	if err != nil {
		return err
	}
	after, err := readCPUTime()
	if err != nil {
		return err
	}
	_, err = fmt.Print(bench.report(*rounds, size.Size()), addresses, after.since(before))
	return err
}

// progress shows a line that the next one replaces, where someone is looking.
func progress(text string) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r\033[Kbench: %s", text)
	}
}
