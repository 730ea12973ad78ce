package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The targets.
const (
	maxAdd     = 1.35 // ADD with 4 networks, of the chains and two API round trips
	maxDel     = 1.5  // DEL with 4 networks, of that with one
	maxVersion = 3.0  // VERSION, of a bare binary's start
	maxSize    = 0.22 // bin/braid, of the reference's binaries that it stands in for
)

// median returns the median of what was timed under a name, in ms; 0 if nothing was.
func (b *bench) median(name string) float64 {
	times := slices.Clone(b.times[name])
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	middle := times[len(times)/2]
	if len(times)%2 == 0 {
		middle = (middle + times[len(times)/2-1]) / 2
	}
	return float64(middle) / float64(time.Millisecond)
}

// report is the table. floor is what the same plugins need without Braid, for an ADD with the API
// calls that the pod needs anyway.
func (b *bench) report(rounds int, size float64) string {
	var out strings.Builder
	api := b.median("api")
	fmt.Fprintf(&out, "\rPods with a default network (bridge) and N macvlan networks, all with "+
		"host-local; %d rounds, medians in ms; %s.\n", rounds, machine())
	out.WriteString("chains: the plugins run by libcni; +API: and 2 API round trips on a new " +
		"connection; CPU: of plugins and what starts them, ADD and DEL\n\n")
	out.WriteString(" N |  ADD chains   +API  braid  ratio |  DEL chains  braid  ratio |  CPU " +
		"chains  braid  ratio\n")
	out.WriteString(
		"---+----------------------------------+----------------------------+---------------------------\n")
	var add float64
	for _, n := range networks() {
		chains := b.median(key("ADD", "chains", n))
		ratio := b.median(key("ADD", "braid", n)) / (chains + api)
		if n == 4 {
			add = ratio
		}
		fmt.Fprintf(&out, "%2d | %11.1f %6.1f %6.1f %6.2f", n, chains, chains+api,
			b.median(key("ADD", "braid", n)), ratio)
		for _, what := range []string{"DEL", "CPU"} {
			chains, braid := b.median(key(what, "chains", n)), b.median(key(what, "braid", n))
			fmt.Fprintf(&out, " | %11.1f %6.1f %6.2f", chains, braid, braid/chains)
		}
		out.WriteString("\n")
	}
	del := b.median(key("DEL", "braid", 4)) / b.median(key("DEL", "braid", 1))
	bare, version := b.median("VERSION bare"), b.median("VERSION braid")
	fmt.Fprintf(&out, "\n2 API round trips %.1f; start to exit: bare binary %.2f, braid VERSION "+
		"%.2f\n\n", api, bare, version)
	out.WriteString(verdicts([]verdict{
		{"ADD with 4 networks, of chains + 2 API round trips", add, maxAdd, false},
		{"DEL with 4 networks, of that with one", del, maxDel, false},
		{"VERSION, of a bare static Go binary's start", version / bare, maxVersion, false},
		{"size of bin/braid, of what it stands in for", size, maxSize, false},
	}))
	return out.String()
}

// verdict is a ratio of two figures of this run, and what it should be: at most that, or at least.
type verdict struct {
	what       string
	is, target float64
	least      bool
}

// verdicts are lines.
func verdicts(list []verdict) string {
	var out strings.Builder
	for _, v := range list {
		result, bound := "reached", "at most"
		if v.least {
			bound = "at least"
		}
		if v.least && v.is < v.target || !v.least && v.is > v.target {
			result = "MISSED"
		}
		fmt.Fprintf(&out, "%-54s %6.2fx  target: %-8s %5.2fx  %s\n", v.what, v.is, bound, v.target,
			result)
	}
	return out.String()
}

// machine names what the figures are of.
func machine() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown kernel"
	}
	return fmt.Sprintf("%d CPUs, Linux %s", runtime.NumCPU(), unix.ByteSliceToString(name.Release[:]))
}

// cpuTime is the machine's since its boot, in ticks: what was used, and what was wanted but used by
// others of its host.
type cpuTime struct{ used, stolen int64 }

func readCPUTime() (t cpuTime, err error) {
	stat, err := os.Open("/proc/stat")
	if err != nil {
		return t, err
	}
	defer stat.Close() //nolint:errcheck // opened for reading
	var user, nice, system, idle, wait, irq, softirq int64
	_, err = fmt.Fscanf(stat, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq,
		&softirq, &t.stolen)
	t.used = user + nice + system + irq + softirq
	return t, err
}

// since says by how much times are too long.
func (t cpuTime) since(start cpuTime) string {
	used, stolen := t.used-start.used, t.stolen-start.stolen
	return fmt.Sprintf("\nOf the CPU time that was wanted until here the machine's host gave %.0f "+
		"%% to others.\n", 100*float64(stolen)/float64(max(used+stolen, 1)))
}
