package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// small has the rig's state on a file system of its own.
func (r *rig) small() {
	r.t.Helper()
	if err := os.Mkdir(r.path("state"), 0o700); err != nil {
		r.t.Fatal(err)
	}
	err := unix.Mount("tmpfs", r.path("state"), "tmpfs", 0, "size=256k,nr_inodes=80,mode=0700")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := unix.Unmount(r.path("state"), unix.MNT_DETACH); err != nil {
			r.t.Error(err)
		}
	})
}

// fill uses up what there is: "bytes" or "inodes". empty takes it back.
func (r *rig) fill(what string) (empty func()) {
	r.t.Helper()
	var made []string
	for n := 0; ; n++ {
		name := r.path("state", fmt.Sprint("filler-", n))
		err := os.WriteFile(name, nil, 0o600)
		if err == nil {
			made = append(made, name)
		}
		if err == nil && what == "bytes" {
			err = os.WriteFile(name, make([]byte, 1<<20), 0o600)
		}
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return func() {
		for _, name := range made {
			if err := os.Remove(name); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// TestR31Full: where the state is has no room. Pods can be deleted all the same; no pod is half
// attached.
func TestR31Full(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"bytes", "inodes"} {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gone %v", what, gone), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.small()
				r.nad("a", r.macvlan(11, ""))
				r.nad("b", `{"cniVersion":"1.0.0","plugins":[`+
					r.whereabouts("macvlan", `"range":"10.12.0.0/24"`, "")+`]}`)
				p, q, none := r.pod("p", "a,b,a"), r.pod("q", "a,b"), r.pod("none", "a,b")
				r.add(p)
				r.add(q)
				empty := r.fill(what)
				out, failed := r.call("ADD", none)
				if failed == nil || failed.Code != types.ErrIOFailure ||
					!strings.Contains(failed.Msg, "no space left") || !strings.Contains(failed.Msg, "stateDir") {
					t.Errorf("ADD: %v %s", failed, out)
				}
				r.has(none)
				if gone {
					p.Unmount()
				}
				r.must("DEL", none)
				r.must("DEL", p)
				r.must("DEL", p)
				r.valid()
				r.must("GC", nil)
				empty()
				r.must("DEL", q)
				if gone {
					r.clean(q, none)
				} else {
					r.clean(p, q, none)
				}
				r.add(q)
				r.must("DEL", q)
			})
		}
	}
}

// TestFaultFull kills a DEL at each point where there is no room. The retried DEL leaves nothing.
func TestFaultFull(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"bytes", "inodes"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.small()
			r.nad("a", r.macvlan(11, ""))
			p := r.pod("p", "a,a")
			r.add(p)
			empty := r.fill(what)
			points, failed := r.points("DEL", p)
			if failed != nil {
				t.Fatal(failed)
			}
			empty()
			covers(t, points, "record unfinished", "record detached eth0", "record removed")
			r.eachPoint(points, 0, func(r *rig, n int) {
				r.add(p)
				empty := r.fill(what)
				out, err := r.exec("DEL", p, fmt.Sprintf("%s=%d", killAt, n), traceTo+"=/dev/null")
				if err == nil {
					r.t.Fatalf("DEL was not killed: %s", out)
				}
				r.must("DEL", p)
				empty()
				r.clean(p)
			})
		})
	}
}

// TestR31ReadOnly: the error says what is wrong, and what to do.
func TestR31ReadOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.small()
	r.nad("a", r.macvlan(11, ""))
	p, none := r.pod("p", "a"), r.pod("none", "a")
	r.add(p)
	remount := func(flags uintptr) {
		if err := unix.Mount("", r.path("state"), "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	for command, q := range map[string]*pod{"ADD": none, "DEL": p} {
		r.fails(command, q, types.ErrIOFailure, "braid.stateDir", "read-only file system", "remount")
	}
	r.has(p, "eth0", "net1")
	r.has(none)
	remount(0)
	r.must("DEL", p)
	r.clean(p)
}

// elsewhere runs a command in a mount namespace that has another /run.
func (r *rig) elsewhere(command string, p *pod) {
	r.t.Helper()
	cmd := r.command(command, p)
	cmd.Path, cmd.Args = "/bin/sh", []string{
		"sh", "-c", `exec unshare -m sh -c 'mount -t tmpfs none /run && exec "$0"' "$0"`, r.braid,
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := r.node.Run(cmd.Run); err != nil {
		r.t.Fatalf("%s: %v %s\n%s", command, err, stdout.String(), r.log())
	}
}

// TestR31OneIdentity: who asks from a mount namespace with another /run is the same node, in the
// same boot.
func TestR31OneIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	seen, boots := map[string]bool{}, map[string]bool{}
	for i := range 4 {
		network := fmt.Sprint("a", i) // whose blocks are still to be claimed
		r.nad(network, `{"cniVersion":"1.0.0","plugins":[`+
			r.whereabouts("macvlan", fmt.Sprintf(`"range":"10.1%d.0.0/24"`, i), "")+`]}`)
		p := r.pod(fmt.Sprint("p", i), network)
		path := r.path("netns", p.name)
		r.takes(path, p)
		if i%2 == 0 {
			r.add(p)
		} else {
			r.elsewhere("ADD", p.by(path))
		}
		addr := r.address(p, "net1")
		if seen[addr] {
			t.Errorf("%s is given twice", addr)
		}
		seen[addr] = true
		var node struct{ Boot string }
		data, err := os.ReadFile(r.path("state/ipam/node"))
		if err != nil || json.Unmarshal(data, &node) != nil || node.Boot == "" {
			t.Fatalf("node %s: %v", data, err)
		}
		boots[node.Boot] = true
	}
	same(t, "boots", len(boots), 1)
}
