package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// small has the host's state on a file system of its own.
func (h *host) small() {
	h.t.Helper()
	if err := os.Mkdir(h.path("state"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	err := unix.Mount("tmpfs", h.path("state"), "tmpfs", 0, "size=256k,nr_inodes=80,mode=0700")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if err := unix.Unmount(h.path("state"), unix.MNT_DETACH); err != nil {
			h.t.Error(err)
		}
	})
}

// fill uses up what there is: "bytes" or "inodes". empty takes it back.
func (h *host) fill(what string) (empty func()) {
	h.t.Helper()
	var made []string
	for n := 0; ; n++ {
		name := h.path("state", fmt.Sprint("filler-", n))
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
			h.t.Fatal(err)
		}
	}
	return func() {
		for _, name := range made {
			if err := os.Remove(name); err != nil {
				h.t.Fatal(err)
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
				h := newHost(t)
				h.small()
				h.nad("a", h.macvlan(11, ""))
				h.nad("b", `{"cniVersion":"1.0.0","plugins":[`+
					h.whereabouts("macvlan", `"range":"10.12.0.0/24"`, "")+`]}`)
				p, q, none := h.pod("p", "a,b,a"), h.pod("q", "a,b"), h.pod("none", "a,b")
				h.add(p)
				h.add(q)
				empty := h.fill(what)
				out, failed := h.call("ADD", none)
				if failed == nil || failed.Code != types.ErrIOFailure ||
					!strings.Contains(failed.Msg, "no space left") || !strings.Contains(failed.Msg, "stateDir") {
					t.Errorf("ADD: %v %s", failed, out)
				}
				h.has(none)
				if gone {
					p.Unmount()
				}
				h.must("DEL", none)
				h.must("DEL", p)
				h.must("DEL", p)
				h.valid()
				h.must("GC", nil)
				empty()
				h.must("DEL", q)
				if gone {
					h.clean(q, none)
				} else {
					h.clean(p, q, none)
				}
				h.add(q)
				h.must("DEL", q)
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
			h := newHost(t)
			h.small()
			h.nad("a", h.macvlan(11, ""))
			p := h.pod("p", "a,a")
			h.add(p)
			empty := h.fill(what)
			points, failed := h.points("DEL", p)
			if failed != nil {
				t.Fatal(failed)
			}
			empty()
			covers(t, points, "record unfinished", "record detached eth0", "record removed")
			h.eachPoint(points, 0, func(h *host, n int) {
				h.add(p)
				empty := h.fill(what)
				out, err := h.exec("DEL", p, fmt.Sprintf("%s=%d", killAt, n), traceTo+"=/dev/null")
				if err == nil {
					h.t.Fatalf("DEL was not killed: %s", out)
				}
				h.must("DEL", p)
				empty()
				h.clean(p)
			})
		})
	}
}

// TestR31ReadOnly: the error says what is wrong, and what to do.
func TestR31ReadOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.small()
	h.nad("a", h.macvlan(11, ""))
	p, none := h.pod("p", "a"), h.pod("none", "a")
	h.add(p)
	remount := func(flags uintptr) {
		if err := unix.Mount("", h.path("state"), "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	for command, q := range map[string]*pod{"ADD": none, "DEL": p} {
		h.fails(command, q, types.ErrIOFailure, "braid.stateDir", "read-only file system", "remount")
	}
	h.has(p, "eth0", "net1")
	h.has(none)
	remount(0)
	h.must("DEL", p)
	h.clean(p)
}

// elsewhere runs a command in a mount namespace that has another /run.
func (h *host) elsewhere(command string, p *pod) {
	h.t.Helper()
	cmd := h.command(command, p)
	cmd.Path, cmd.Args = "/bin/sh", []string{
		"sh", "-c", `exec unshare -m sh -c 'mount -t tmpfs none /run && exec "$0"' "$0"`, h.braid,
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := h.node.Run(cmd.Run); err != nil {
		h.t.Fatalf("%s: %v %s\n%s", command, err, stdout.String(), h.log())
	}
}

// TestR31OneIdentity: who asks from a mount namespace with another /run is the same node, in the
// same boot.
func TestR31OneIdentity(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	seen, boots := map[string]bool{}, map[string]bool{}
	for i := range 4 {
		network := fmt.Sprint("a", i) // whose blocks are still to be claimed
		h.nad(network, `{"cniVersion":"1.0.0","plugins":[`+
			h.whereabouts("macvlan", fmt.Sprintf(`"range":"10.1%d.0.0/24"`, i), "")+`]}`)
		p := h.pod(fmt.Sprint("p", i), network)
		path := h.path("netns", p.name)
		h.takes(path, p)
		if i%2 == 0 {
			h.add(p)
		} else {
			h.elsewhere("ADD", p.by(path))
		}
		addr := h.address(p, "net1")
		if seen[addr] {
			t.Errorf("%s is given twice", addr)
		}
		seen[addr] = true
		data, err := os.ReadFile(h.path("state/ipam/node"))
		boot, _, ok := strings.Cut(string(data), "\n")
		if err != nil || !ok || !strings.HasPrefix(boot, "boot ") {
			t.Fatalf("node %s: %v", data, err)
		}
		boots[boot] = true
	}
	same(t, "boots", len(boots), 1)
}
