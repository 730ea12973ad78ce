package plugins_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// difference is one between ours and the reference that is meant: a line of
// testdata/differences.txt, which says how to read it.
type difference struct {
	plugin  string
	command *regexp.Regexp
	side    *regexp.Regexp
	pattern *regexp.Regexp
}

func differences(t *testing.T) []*difference {
	t.Helper()
	file, err := os.Open("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var list []*difference
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line, reason, _ := strings.Cut(lines.Text(), " # ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 4)
		if len(fields) != 4 || reason == "" {
			t.Fatalf("differences.txt: %q is no PLUGIN COMMAND SIDE PATTERN # reason", lines.Text())
		}
		if fields[1] == "*" {
			fields[1] = ".*"
		}
		list = append(list, &difference{
			fields[0], whole(fields[1]), whole(fields[2]), whole(strings.TrimSpace(fields[3])),
		})
	}
	return list
}

// whole matches the pattern and nothing around it.
func whole(pattern string) *regexp.Regexp { return regexp.MustCompile("^(?:" + pattern + ")$") }

// configs is how many configurations each plugin is tried with; BRAID_DIFFERENTIAL is the number of
// a long run.
func configs(few int) int {
	if n, err := strconv.Atoi(os.Getenv("BRAID_DIFFERENTIAL")); err == nil {
		return n
	}
	return few
}

// twins are a node and a pod of ours, and the same of the reference.
type twins struct {
	t *testing.T
	// kinds are the types of the chain's plugins, with those of their IPAM.
	kinds  []string
	listed []*difference
	// sides are ours and theirs.
	sides [2]*side
}

type side struct {
	name string
	pod  *plugintest.Pod
	// chain are the configurations of the plugins, the last of them the one that is tried; made for
	// this side's directories.
	chain []plugintest.Conf
}

// newTwins makes both nodes with a NIC nic0 with a default route and a NIC nic1, and applies build
// to each.
func newTwins(
	t *testing.T, listed []*difference, build func(n *plugintest.Node) []plugintest.Conf,
) *twins {
	t.Helper()
	w := &twins{t: t, listed: listed}
	for i, runner := range []plugintest.Runner{ours(), plugintest.Reference{}} {
		n := plugintest.New(t, runner)
		outside := nettest.New(t)
		for _, nic := range []string{"nic0", "nic1"} {
			n.Host.Veth(nic, outside, "wire-"+nic)
		}
		n.Host.Addr("nic0", "192.0.2.2/24")
		n.Host.Route("default", "192.0.2.1", "nic0", 0)
		p := n.Pod("container-1")
		w.sides[i] = &side{name: []string{"ours", "theirs"}[i], pod: p, chain: build(n)}
	}
	for _, c := range w.sides[0].chain {
		w.kinds = append(w.kinds, fmt.Sprint(c["type"]))
		if ipam, ok := c["ipam"].(plugintest.Conf); ok {
			w.kinds = append(w.kinds, fmt.Sprint(ipam["type"]))
		}
	}
	return w
}

// settleTries and settleWait bound how long both sides have to become alike: links of a namespace
// that is gone go in their own time, and so does the detection of duplicate addresses.
const (
	settleTries = 100
	settleWait  = 100 * time.Millisecond
)

// both runs a command on both sides, and compares what it prints and the state after it.
func (w *twins) both(command string, run func(s *side) ([]byte, error)) {
	w.t.Helper()
	var printed [2][]string
	var texts [2]string
	failed := 0
	for i, s := range w.sides {
		out, err := run(s)
		if err != nil {
			failed++
		}
		texts[i] = fmt.Sprintf("%s: %s %v", s.name, out, err)
		printed[i] = outcome(w.t, s.pod, command, out, err)
	}
	if failed == len(w.sides) {
		command += "-FAILED"
	}
	unmeant := w.compare(command, printed)
	if failed != 1 { // else all is different
		unmeant = append(unmeant, w.compareStates(command)...)
	}
	for _, line := range unmeant {
		w.t.Errorf("after %s, %s\n%s\n%s\n%v", command, line, texts[0], texts[1], w.sides[0].chain)
	}
}

func (w *twins) compareStates(command string) (unmeant []string) {
	deep := podOnly
	switch {
	// Reading a thousand files takes long in a user-mode kernel.
	case command == "CHECK", strings.Contains(command, "AGAIN"), os.Getenv(nettest.UML) != "":
		deep = shallow
	case slices.Contains(w.kinds, "bridge"):
		deep = everything // the others change nothing on the node but links
	}
	for range settleTries {
		unmeant = w.compare(command,
			[2][]string{state(w.t, w.sides[0].pod, deep), state(w.t, w.sides[1].pod, deep)})
		if len(unmeant) == 0 {
			return nil
		}
		time.Sleep(settleWait)
	}
	return unmeant
}

// compare returns the lines that one side alone has and that are not meant to be so. Both are
// sorted.
func (w *twins) compare(command string, lines [2][]string) (unmeant []string) {
	for i, s := range w.sides {
		for _, line := range lines[i] {
			_, both := slices.BinarySearch(lines[1-i], line)
			if !both && !ofMissingLink(lines[1-i], line) && !w.meant(command, s.name, line) {
				unmeant = append(unmeant, s.name+" alone has: "+line)
			}
		}
	}
	return unmeant
}

// ofMissingLink reports whether the line is a parameter of a link that the other side has not got
// at all: that is said once, by the link.
func ofMissingLink(other []string, line string) bool {
	parameter, _, ok := strings.Cut(line, " = ")
	return ok && !slices.ContainsFunc(other, func(l string) bool {
		return strings.HasPrefix(l, parameter+" = ")
	})
}

func (w *twins) meant(command, side, line string) bool {
	for _, d := range w.listed {
		if (d.plugin == "*" || slices.Contains(w.kinds, d.plugin)) && d.command.MatchString(command) &&
			d.side.MatchString(side) && d.pattern.MatchString(line) {
			return true
		}
	}
	return false
}

// add runs the chain's ADD, each plugin with the result of the one before.
func add(s *side) (out []byte, err error) {
	for _, conf := range s.chain {
		if out != nil {
			conf = conf.With(plugintest.Conf{"prevResult": raw(out)})
		}
		if out, err = s.pod.Call("ADD", conf); err != nil {
			return nil, err
		}
	}
	s.pod.Prev = out
	return out, nil
}

// after runs CHECK or DEL of the chain: CHECK in its order, DEL in reverse.
func after(command string) func(s *side) ([]byte, error) {
	return func(s *side) ([]byte, error) {
		chain := slices.Clone(s.chain)
		if command == "DEL" {
			slices.Reverse(chain)
		}
		var errs []error
		for _, conf := range chain {
			if s.pod.Prev != nil {
				conf = conf.With(plugintest.Conf{"prevResult": s.pod.Prev})
			}
			_, err := s.pod.Call(command, conf)
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}
}

// life is what an attachment goes through.
func (w *twins) life() {
	w.t.Helper()
	w.both("ADD", add)
	attached := w.sides[0].pod.Prev != nil && w.sides[1].pod.Prev != nil
	if attached {
		if hasCheck(w.sides[0].chain[0]) {
			w.both("CHECK", after("CHECK"))
		}
		w.both("ADD-AGAIN", again)
	}
	w.both(w.name("DEL"), after("DEL"))
	w.both(w.name("DEL-AGAIN"), after("DEL"))
}

// hasCheck reports whether there is a CHECK in the configuration's version of CNI; the reference's
// main function knows.
func hasCheck(c plugintest.Conf) bool {
	is, ok := c["cniVersion"].(string)
	if !ok {
		return false
	}
	has, err := version.GreaterThanOrEqualTo(is, "0.4.0")
	return err == nil && has
}

// name is that of a DEL: of what an ADD made, or of what one left that failed.
func (w *twins) name(del string) string {
	if w.sides[0].pod.Prev == nil || w.sides[1].pod.Prev == nil {
		return del + "-AFTER-FAILURE"
	}
	return del
}

// again is a second ADD of what is there; its result does not count.
func again(s *side) ([]byte, error) {
	prev := s.pod.Prev
	out, err := add(s)
	s.pod.Prev = prev
	return out, err
}

// gone is a DEL after the namespace has gone, with its path or without.
func (w *twins) gone(path bool) {
	w.t.Helper()
	w.both("ADD", add)
	for _, s := range w.sides {
		s.pod.Unmount()
		if !path {
			s.pod.NetNS = ""
		}
	}
	w.both(w.name("DEL-GONE"), after("DEL"))
}

// try tries n configurations, which generate makes of a source of chance: the same ones on both
// sides, and each time the tests run.
func try(t *testing.T, n int, generate func(r *rand.Rand, n *plugintest.Node) []plugintest.Conf) {
	t.Helper()
	nettest.NeedsRoot(t)
	listed := differences(t)
	for i := range n {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			w := newTwins(t, listed, func(n *plugintest.Node) []plugintest.Conf {
				return generate(rand.New(rand.NewPCG(uint64(i), 7)), n)
			})
			if i%4 == 3 {
				w.gone(i%8 == 3)
			} else {
				w.life()
			}
		})
	}
}
