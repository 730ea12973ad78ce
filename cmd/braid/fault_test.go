package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// The tests of this file kill braid at every point of its work: before and after each change of
// state, as engine.Engine.Trace names them. A first run without a kill finds the points;
// then each point has a run, a subtest named after it. They are on one node, one after the other:
// each leaves it clean for the next, or the node would not bear many crashes.

// neverKilled is a number of points that no operation has.
const neverKilled = "1000000"

// pluginDeviceInfo is a delegate that describes its device (Device Information Specification
// s.4.2), and is macvlan for the rest.
const pluginDeviceInfo = `
in=$(cat)
file=$(printf %s "$in" | sed -n 's/.*"CNIDeviceInfoFile": *"\([^"]*\)".*/\1/p')
if [ "$CNI_COMMAND" = ADD ]; then
	mkdir -p "${file%/*}"
	echo '{"type":"memif","version":"1.1.0","memif":{"role":"master","path":"/run/memif.sock","mode":"ethernet"}}' >"$file"
fi
printf %s "$in" | exec "$BRAID_PLUGINS/macvlan"
`

// faultHost is a node with a pod on the default network and three macvlan networks: the second has
// the default route, the third a device that is described in a file.
func faultHost(t *testing.T) (*host, *pod) {
	t.Helper()
	h := newHost(t)
	h.script("device", pluginDeviceInfo)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	h.nad("c", strings.Replace(h.macvlan(13, `,"capabilities":{"CNIDeviceInfoFile":true}`),
		`"macvlan"`, `"device"`, 1))
	return h, h.pod("p", `[{"name":"a"},{"name":"b","default-route":["10.12.0.1"]},{"name":"c"}]`)
}

// points returns the points of a command that nothing kills; failed is its error, if it has one.
func (h *host) points(command string, p *pod) (points []string, failed *types.Error) {
	h.t.Helper()
	file := h.path("points")
	_, failed = h.call(command, p, killAt+"="+neverKilled, traceTo+"="+file)
	return h.readPoints(file, p), failed
}

// readPoints reads and removes the file of points. The container's ID, which is another on each
// node, is written as "ID".
func (h *host) readPoints(file string, p *pod) []string {
	h.t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		h.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(data), p.id, "ID"), "\n"), "\n")
}

// killedAt runs a command that is killed at the n-th of the points. Where the point is before a
// file is written, the file is left as by a kill in the middle of that.
func (h *host) killedAt(command string, p *pod, points []string, n int) {
	h.t.Helper()
	file := h.path("points")
	out, err := h.exec(command, p, fmt.Sprintf("%s=%d", killAt, n), traceTo+"="+file)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		h.t.Fatalf("%s was not killed: %v %s", command, err, out)
	}
	if diff := cmp.Diff(points[:n+1], h.readPoints(file, p)); diff != "" {
		h.t.Fatalf("the points that the killed %s went through, -want +got:\n%s", command, diff)
	}
	point := points[n]
	switch {
	case point == "before record removed":
	case strings.HasPrefix(point, "before record "), strings.HasPrefix(point, "before remember "):
		h.write("state/sandboxes/"+p.id+".json.tmp", `{"version":1,"contai`)
	case strings.HasPrefix(point, "before publish "):
		h.write("manifests/.braid.tmp", `[{"na`)
	case strings.HasPrefix(point, "before restore cache "):
		for _, entry := range globbed(h.t,
			h.path("state/cni/results/*-"+strings.TrimPrefix(point, "before restore cache "))) {
			if err := os.Truncate(entry, 10); err != nil {
				h.t.Fatal(err)
			}
		}
	}
}

func globbed(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// eachPoint has a subtest for each of the points from first on, up to one that fails: it may have
// left anything.
func (h *host) eachPoint(points []string, first int, test func(h *host, n int)) {
	h.t.Helper()
	if first < 0 || first >= len(points) {
		h.t.Fatalf("no point to be killed at: from %d of %q", first, points)
	}
	for n := first; n < len(points); n++ {
		passed := h.t.Run(fmt.Sprintf("%02d %s", n, points[n]), func(t *testing.T) {
			node := *h
			node.t = t
			test(&node, n)
		})
		if !passed {
			return
		}
	}
}

// covers fails the test unless each kind of change is among the points, before and after.
func covers(t *testing.T, points []string, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		for _, when := range []string{"before ", "after "} {
			if !slices.ContainsFunc(points, func(p string) bool { return strings.HasPrefix(p, when+kind) }) {
				t.Errorf("no point %q among %q", when+kind, points)
			}
		}
	}
	if own := slices.DeleteFunc(slices.Clone(points), isAddresses); len(own)%2 != 0 {
		t.Errorf("a change has not both of its points: %q", own)
	}
}

// isAddresses is for the points of the cluster-wide addresses, which are before each change and not
// after it.
func isAddresses(point string) bool { return strings.HasPrefix(point, "addresses: ") }

// whole fails the test unless the pod has all of its ADD's result, once.
func (h *host) whole(p *pod) {
	h.t.Helper()
	h.has(p, "eth0", "net1", "net2", "net3")
	var networks []string
	for _, lease := range h.leases() {
		networks = append(networks, filepath.Dir(lease))
	}
	if want := []string{"a", "b", "c", "pods"}; !slices.Equal(networks, want) {
		h.t.Errorf("leases of %v, want one of each of %v", networks, want)
	}
	var names []string
	for _, s := range h.status(p) {
		names = append(names, s.Name+" "+s.Interface)
		for _, ip := range s.IPs {
			if !strings.Contains(p.Addrs(), "addr "+s.Interface+" "+ip+"/") {
				h.t.Errorf("in the status %s is of %s, the pod has %s", ip, s.Interface, p.Addrs())
			}
		}
		if (s.DeviceInfo != nil) != (s.Interface == "net3") {
			h.t.Errorf("%s has device information %v", s.Interface, s.DeviceInfo)
		}
	}
	want := []string{"pods eth0", "default/a net1", "default/b net2", "default/c net3"}
	if !slices.Equal(names, want) {
		h.t.Errorf("network-status of %q, want %q", names, want)
	}
	var defaults []string
	for line := range strings.Lines(p.Routes()) {
		if strings.HasPrefix(line, "route4 table main default ") {
			defaults = append(defaults, strings.TrimSpace(line))
		}
	}
	if len(defaults) != 1 || !strings.Contains(defaults[0], "via 10.12.0.1 dev net2") {
		h.t.Errorf("default routes %q, want one via net2", defaults)
	}
}

// addPoints is a node and the points of an ADD on it.
func addPoints(t *testing.T) (h *host, p *pod, points []string) {
	t.Helper()
	h, p = faultHost(t)
	points, failed := h.points("ADD", p)
	if failed != nil {
		t.Fatal(failed)
	}
	h.whole(p)
	h.must("DEL", p)
	h.clean(p)
	return h, p, points
}

// TestFaultAddThenDel kills an ADD at each point. The runtime's DEL leaves nothing, so that the
// next ADD finds what the first did.
func TestFaultAddThenDel(t *testing.T) {
	t.Parallel()
	h, p, points := addPoints(t)
	covers(t, points, "lock ", "remember network ", "record attempted eth0", "record attempted net3",
		"ADD eth0", "ADD net1",
		"ADD net2", "ADD net3", "record attached", "copy device info net3", "default route net2",
		"publish status",
		"record complete", "unlock")
	h.eachPoint(points, 0, func(h *host, n int) {
		h.killedAt("ADD", p, points, n)
		h.must("DEL", p)
		h.clean(p)
	})
	h.must("ADD", p)
	h.whole(p)
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// TestFaultAddThenAdd kills an ADD at each point. The runtime's second ADD makes the pod whole, or
// is refused because it is.
func TestFaultAddThenAdd(t *testing.T) {
	t.Parallel()
	h, p, points := addPoints(t)
	complete := slices.Index(points, "after record complete")
	h.eachPoint(points, 0, func(h *host, n int) {
		h.killedAt("ADD", p, points, n)
		if n < complete {
			h.must("ADD", p)
		} else {
			h.fails("ADD", p, types.ErrInvalidEnvironmentVariables, p.id, "attached already")
		}
		h.whole(p)
		h.must("DEL", p)
		h.clean(p)
	})
}

// TestFaultForgotten kills an ADD, and no DEL follows: the runtime was killed as well and has
// forgotten the sandbox. The next DEL, of another pod, cleans up after it once its network
// namespace is gone, and not before; what a delegate that is exec'd made is left for GC.
func TestFaultForgotten(t *testing.T) {
	t.Parallel()
	_, _, points := addPoints(t)
	for _, point := range []string{
		"before ADD eth0", "after ADD net1", "before record attempted net3", "after publish status",
		"after record complete",
	} {
		n := slices.IndexFunc(points, func(p string) bool { return strings.HasPrefix(p, point) })
		t.Run(point, func(t *testing.T) {
			h, p := faultHost(t)
			other := h.pod("other", "")
			h.killedAt("ADD", p, points, n)
			h.must("DEL", other)
			if files, err := filepath.Glob(h.path("state/sandboxes/*.json")); err != nil || len(files) != 1 {
				t.Fatalf("records %v %v, want that of the sandbox whose namespace is there", files, err)
			}
			p.Unmount()
			h.must("DEL", other)
			if left := slices.DeleteFunc(h.leases(), func(lease string) bool {
				return filepath.Dir(lease) == "c"
			}); len(left) > 0 {
				t.Errorf("leases of what is built in are left: %q", left)
			}
			// no delegate that is exec'd is run within the DEL of another pod
			if n > slices.Index(points, "before record attempted net3") {
				h.valid()
				h.must("GC", nil)
			}
			h.clean()
		})
	}
}

// TestFaultDel kills a DEL at each point. The retried DEL leaves nothing.
func TestFaultDel(t *testing.T) {
	t.Parallel()
	h, p := faultHost(t)
	h.must("ADD", p)
	points, failed := h.points("DEL", p)
	if failed != nil {
		t.Fatal(failed)
	}
	h.clean(p)
	covers(t, points, "lock ", "remove links", "DEL eth0", "DEL net1", "DEL net2", "DEL net3",
		"clean device info net3", "record detached eth0",
		"record detached net3", "record removed", "unlock")

	h.eachPoint(points, 0, func(h *host, n int) {
		h.must("ADD", p)
		h.killedAt("DEL", p, points, n)
		h.must("DEL", p)
		h.clean(p)
	})
}

// addressHost is a node with a pod that has the only address of one cluster-wide network and one of
// each family of another.
func addressHost(t *testing.T) (*host, *pod) {
	t.Helper()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.1/32"`, "")+`]}`)
	h.nad("b", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.21.0.0/24","ipRanges":[{"range":"fd21::1/128"}]`, "")+`]}`)
	return h, h.pod("p", "a,b")
}

// nobodyHas fails the test unless all that a pod of addressHost has is free: another pod gets it.
func (h *host) nobodyHas(p *pod) {
	h.t.Helper()
	h.clean(p)
	other := h.pod("other", "a,b")
	h.must("ADD", other)
	h.must("CHECK", other)
	h.must("DEL", other)
	other.Unmount()
	h.clean()
}

// TestFaultAddresses kills an ADD of cluster-wide addresses at each point, the first on the node
// and a later one, and a DEL. The runtime's DEL frees all of them.
func TestFaultAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, command string
		// before the command, on a node that has just come up.
		before func(*host, *pod)
		kinds  []string
	}{
		{
			"first ADD", "ADD", func(*host, *pod) {},
			[]string{"write node", "write held", "write blocks", "create block", "created block"},
		},
		{"ADD", "ADD", (*host).nobodyHas, []string{"write held", "write blocks"}},
		{"DEL", "DEL", func(h *host, p *pod) {
			h.must("ADD", p)
		}, []string{"write blocks", "remove held"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h, p := addressHost(t)
			test.before(h, p)
			points, failed := h.points(test.command, p)
			if failed != nil {
				t.Fatal(failed)
			}
			for _, kind := range test.kinds {
				if !slices.Contains(points, "addresses: "+kind) {
					t.Errorf("no point %q among %q", kind, points)
				}
			}
			for n, point := range points {
				if !isAddresses(point) {
					continue
				}
				t.Run(fmt.Sprintf("%02d %s", n, point), func(t *testing.T) {
					h, p := addressHost(t)
					test.before(h, p)
					h.killedAt(test.command, p, points, n)
					h.must("DEL", p)
					h.nobodyHas(p)
				})
			}
		})
	}
}

// TestFaultDelAgain kills the DEL that retries one that was killed when a delegate had removed its
// interface and, with it, libcni's cache, but the record did not say so yet: the cache is restored
// from the record.
func TestFaultDelAgain(t *testing.T) {
	t.Parallel()
	h, p := faultHost(t)
	begin := func(h *host) {
		h.must("ADD", p)
		points := []string{
			"before lock ID", "after lock ID", "before record unfinished", "after record unfinished",
			"before remove links", "after remove links",
			"before DEL net3", "after DEL net3",
		}
		h.killedAt("DEL", p, points, len(points)-1)
	}
	begin(h)
	points, failed := h.points("DEL", p)
	if failed != nil {
		t.Fatal(failed)
	}
	covers(t, points, "restore cache net3")
	last := slices.Index(points, "after record detached net3")
	h.eachPoint(points[:last], 0, func(h *host, n int) {
		begin(h)
		h.killedAt("DEL", p, points, n)
		h.must("DEL", p)
		h.clean(p)
	})
}

// TestFaultRollBack kills the roll-back of a failed ADD at each point. The runtime's DEL leaves
// nothing.
func TestFaultRollBack(t *testing.T) {
	t.Parallel()
	h, p := faultHost(t)
	h.script("device", `[ "$CNI_COMMAND" != ADD ] || { echo '{"cniVersion":"1.0.0","code":123,`+
		`"msg":"no luck"}'; exit 1; }`)
	points, failed := h.points("ADD", p)
	if failed == nil || failed.Code != 123 {
		t.Fatalf("the ADD should fail as its delegate does: %v", failed)
	}
	h.clean(p)
	first := slices.Index(points, "after ADD net3")
	covers(t, points, "DEL eth0", "DEL net1", "DEL net2", "DEL net3", "clean device info net3",
		"record detached eth0", "record removed")

	h.eachPoint(points, first, func(h *host, n int) {
		h.killedAt("ADD", p, points, n)
		h.must("DEL", p)
		h.clean(p)
	})
}

// TestFaultGC kills a GC at each point. The next one removes the pod that the runtime does not
// know, and keeps the other.
func TestFaultGC(t *testing.T) {
	t.Parallel()
	h, stale := faultHost(t)
	live := h.pod("live", "a")
	h.must("ADD", live)
	h.conf["cni.dev/valid-attachments"] = []any{
		map[string]any{"containerID": live.id, "ifname": "eth0"},
	}
	collected := func(h *host) {
		h.has(stale)
		h.has(live, "eth0", "net1")
		if leases := h.leases(); len(leases) != 2 {
			h.t.Errorf("leases %q, want those of the live pod alone", leases)
		}
	}
	h.must("ADD", stale)
	points, failed := h.points("GC", stale)
	if failed != nil {
		t.Fatal(failed)
	}
	collected(h)
	covers(t, points, "lock ", "remove links", "DEL eth0", "DEL net3", "record detached eth0",
		"clean device info net3", "record removed", "unlock", "GC pods",
		"GC default/a", "GC default/b", "GC default/c", "forget network default/b")
	h.eachPoint(points, 0, func(h *host, n int) {
		h.must("ADD", stale)
		h.killedAt("GC", stale, points, n)
		h.must("GC", nil)
		collected(h)
	})
	h.must("CHECK", live)
	h.must("DEL", live)
	h.clean(stale, live)
}

// gate makes a delegate that is macvlan, but waits in its command until the test opens it.
func (h *host) gate(command string) {
	h.t.Helper()
	h.script("gated", fmt.Sprintf(`
if [ "$CNI_COMMAND" = %[1]s ] && [ ! -e %[2]s/open ]; then
	touch %[2]s/waits
	until [ -e %[2]s/open ]; do sleep 0.01; done
fi
exec "$BRAID_PLUGINS/macvlan"
`, command, h.dir))
	h.nad("b", strings.Replace(h.macvlan(12, ""), `"macvlan"`, `"gated"`, 1))
}

// start begins a command and returns it when the gated delegate waits.
func (h *host) start(command string, p *pod) (cmd *exec.Cmd, stdout *bytes.Buffer) {
	h.t.Helper()
	cmd, stdout = h.command(command, p), &bytes.Buffer{}
	cmd.Stdout = stdout
	if err := h.node.Run(cmd.Start); err != nil {
		h.t.Fatal(err)
	}
	h.await("the delegate", func() bool { _, err := os.Stat(h.path("waits")); return err == nil })
	return cmd, stdout
}

func (h *host) await(what string, there func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("%s: not within 30 seconds\n%s", what, h.log())
		}
	}
}

// TestFaultDelegateOutlives kills braid while a delegate runs, which goes on. Nothing is done to
// the sandbox before the delegate has ended; then the DEL that waited for it leaves nothing.
func TestFaultDelegateOutlives(t *testing.T) {
	for _, command := range []string{"ADD", "DEL"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			h, p := faultHost(t)
			h.gate(command)
			if command == "DEL" {
				h.must("ADD", p)
			}
			cmd, _ := h.start(command, p)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			cmd.Wait() //nolint:errcheck // killed

			patience := h.conf
			h.conf = with(h.conf, "braid",
				with(h.conf["braid"].(map[string]any), "timeouts", map[string]any{"operation": "100ms"}))
			h.fails("CHECK", p, types.ErrTryAgainLater, p.id, "at work")
			h.conf = patience

			retry := h.command("DEL", p)
			if err := h.node.Run(retry.Start); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- retry.Wait() }()
			select {
			case err := <-done:
				t.Errorf("the DEL did not wait for the delegate: %v", err)
			case <-time.After(200 * time.Millisecond):
			}
			h.write("open", "")
			if err := <-done; err != nil {
				t.Errorf("DEL: %v\n%s", err, h.log())
			}
			h.clean(p)
		})
	}
}

// TestFaultSigterm stops an ADD as a runtime does that waits no longer: it takes back what it did,
// and says that it may be tried again.
func TestFaultSigterm(t *testing.T) {
	h, p := faultHost(t)
	h.gate("ADD")
	cmd, stdout := h.start("ADD", p)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the ADD succeeded")
	}
	failed := &types.Error{}
	err := json.Unmarshal(stdout.Bytes(), failed)
	if err != nil || failed.Code != types.ErrTryAgainLater {
		t.Errorf("error %s, want code %d", stdout, types.ErrTryAgainLater)
	}
	for _, word := range []string{"default/p", "default/b", "gated", "terminated"} {
		if !strings.Contains(failed.Msg, word) {
			t.Errorf("the error does not say %q: %v", word, failed)
		}
	}
	h.clean(p)
	h.write("open", "")
	h.must("ADD", p)
	h.whole(p)
	h.must("DEL", p)
	h.clean(p)
}
