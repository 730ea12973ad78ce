package attack_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// world is a node all of whose namespaces are hostile, and who watches Braid there.
type world struct {
	*node
	*watcher

	// sandbox is that of all pods, one after the other.
	sandbox *pod
	// lies is the directory of logs with a link that leads outside.
	lies string
}

// The namespaces: one that has the tenant's label, one with a rule of its own, and one that nothing
// is enforced for but what holds everywhere.
const (
	labelled = "team"
	ruled    = "tools"
	loose    = "loose"
)

// tools are the plugins of a namespace that may be run: the others are in the plugin path, too.
func tools(namespace string) []string {
	return map[string][]string{ruled: {"fake"}, loose: {"fake", "tool"}}[namespace]
}

func newWorld(tb testing.TB, b build) *world {
	tb.Helper()
	n := newNode(tb, b)
	n.host.Bridge("br-admin")
	n.tenant(labelled)
	n.own["policy"] = []any{map[string]any{
		"namespaces": []string{ruled}, "exec": []string{"fake"}, "masters": []string{"nic*"},
		"vlans": []string{"1-100"}, "bridges": []string{"br-*"},
		"hostPorts": map[string]any{"ports": []string{"1-65535"}, "loopback": true}, "networks": 40,
		"ranges": 20,
	}}
	for _, name := range []string{"fake", "tool"} {
		n.plugin(name, "")
	}
	n.script(n.path("outside", "mine"), "exit 0")
	n.write(n.path("outside", "secret"), "nameserver 10.66.6.6\n")
	n.must(os.Symlink(filepath.Join(n.bin, "braid"), n.path("bin", "braid")))
	n.must(os.Symlink(n.path("outside"), n.path("data", "link")))
	lies, err := os.MkdirTemp("/var/log", "attack-") //nolint:usetesting // where logs may be
	n.must(err)
	n.must(os.Symlink(n.path("outside"), filepath.Join(lies, "link")))
	n.must(os.Symlink(n.path("outside", "secret"), filepath.Join(lies, "file")))
	return &world{
		node: n, watcher: watch(tb, n.host.Path), sandbox: n.pod(labelled+"/p", ""), lies: lies,
	}
}

// attempt is a pod of a namespace that asks for the network x with a configuration.
type attempt struct{ namespace, config, networks string }

// of has failures be those of a test, which the world outlives.
func (w *world) of(t *testing.T) *world {
	w.TB, w.tb = t, t
	return w
}

// try attaches and removes the pod, and returns what Braid may not have done meanwhile.
func (w *world) try(a attempt) (found []string) {
	p := &pod{w.sandbox.Namespace, a.namespace, "p"}
	w.nad(a.namespace+"/x", a.config)
	w.object("v1", "Pod", a.namespace+"/p", map[string]any{},
		map[string]string{"k8s.v1.cni.cncf.io/networks": a.networks})
	for _, command := range []string{"ADD", "DEL"} {
		d, seen := w.run(job{
			Path: filepath.Join(w.bin, "braid"), Env: append(w.cni(command, p), "CNI_PATH="+w.path("bin")),
			Stdin: w.config(),
		})
		for _, access := range seen {
			if !w.may(a.namespace, access) {
				found = append(found, fmt.Sprintf("%s: %s", command, access))
			}
		}
		if d.Failed && !bytes.Contains(d.Stdout, []byte(`"msg"`)) {
			found = append(found, fmt.Sprintf("%s ends without an error of CNI: %s%s",
				command, d.Stdout, d.Stderr))
		}
		if d.Failed && command == "DEL" {
			found = append(found, fmt.Sprintf("DEL fails: %s", d.Stdout))
		}
	}
	for _, name := range []string{"bin", "net.d", "outside"} { // as newWorld made them
		if n := w.entries(name); n != map[string]int{"bin": 3, "outside": 2}[name] {
			found = append(found, fmt.Sprintf("%s has %d entries", name, n))
		}
	}
	return found
}

// may reports whether Braid may do that for a pod of a namespace.
func (w *world) may(namespace string, a access) bool {
	switch {
	case a.runs:
		// By the very path: a link to Braid in the plugin path is none that may be run.
		return a.asked == filepath.Join(w.bin, "braid") ||
			slices.ContainsFunc(tools(namespace), func(name string) bool {
				return a.asked == w.path("bin", name)
			})
	case a.writes:
		return beneath(a.path, w.written()...)
	}
	return a.path == w.dir || beneath(a.path, append(w.written(), w.read()...)...)
}

// written are the places that Braid may write for networks of others.
func (w *world) written() []string {
	return []string{
		w.path("state"), w.path("data"), w.path("devinfo"), w.path("manifests"), w.path("braid.log"),
		w.lies, "/var/lib/cni", "/run/cni", "/dev/null",
		"/proc/sys/net",
	}
}

// read are those that it, and the shell that plugins are written in, may read besides.
func (w *world) read() []string {
	return []string{
		w.path("bin"), w.path("net.d"), w.path("kubelet.sock"), w.bin, filepath.Dir(w.sandbox.Path),
		"/var/log", "/etc", "/run/systemd/resolve",
		"/proc/sys", "/proc/N", "/proc/stat", "/proc/cpuinfo", "/sys", "/lib", "/lib64", "/usr",
		"/dev/urandom",
	}
}

// beneath reports whether a path is one of others, or beneath one. What a process has of itself
// below /proc is /proc/N.
func beneath(path string, roots ...string) bool {
	var pid int
	if _, err := fmt.Sscanf(path, "/proc/%d/", &pid); err == nil && pid > 1 {
		path = "/proc/N"
	}
	return slices.ContainsFunc(roots, func(r string) bool {
		return path == r || strings.HasPrefix(path, r+"/")
	})
}
