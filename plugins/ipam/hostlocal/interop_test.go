package hostlocal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// mixed runs each command by one of the two, as chance decides.
type mixed struct {
	ours   plugintest.Plugins
	chance *rand.Rand
}

func (m *mixed) Run(
	ctx context.Context, n *plugintest.Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	if m.chance.IntN(2) == 0 {
		return m.ours.Run(ctx, n, kind, environ, stdin)
	}
	return plugintest.Reference{}.Run(ctx, n, kind, environ, stdin)
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// operation is a command on the network.
type operation struct {
	command, id, ifName, args string
	more                      conf
}

// script is a configuration and what is done with it.
func script(r *rand.Rand) (ipam conf, version string, operations []operation) {
	four := conf{"subnet": pick(r, "10.1.0.0/29", "10.1.0.0/30", "10.1.0.0/24", "10.0.0.0/8")}
	if four["subnet"] == "10.1.0.0/24" {
		four["rangeStart"] = pick(r, "10.1.0.0", "10.1.0.1", "10.1.0.4", "10.1.0.250")
		four["rangeEnd"] = pick(r, "10.1.0.255", "10.1.0.254", "10.1.0.251")
	}
	if r.IntN(3) == 0 {
		four["gateway"] = pick(r, "10.1.0.2", "10.1.0.5", "192.168.0.1")
	}
	six := conf{"subnet": pick(r, "fd00::/64", "fd00::/126")}
	ipam = conf{}
	switch r.IntN(5) {
	case 0:
		maps.Copy(ipam, four)
	case 1:
		ipam["ranges"] = list{list{four}, list{six}}
	case 2:
		ipam["ranges"] = list{
			list{
				four, conf{"subnet": "172.16.0.0/30"}, conf{"subnet": "172.16.0.4/30", "gateway": "172.16.0.6"},
			},
		}
	case 3:
		maps.Copy(ipam, four)
		ipam["ranges"] = list{list{six}}
	case 4:
		ipam["ranges"] = list{list{six}, list{four}}
	}
	ipam["routes"] = pick(r, nil, list{}, list{conf{"dst": "0.0.0.0/0"}},
		list{conf{"dst": "10.5.0.1/16", "gw": "10.1.0.9", "mtu": 1400}, conf{"dst": "::/0"}})
	for range 4 + r.IntN(12) {
		o := operation{
			command: pick(r, "ADD", "ADD", "ADD", "DEL", "DEL", "CHECK"),
			id:      pick(r, "a", "b", "c", "d", "e", "f"), ifName: pick(r, "net1", "net1", "net-2.5"),
			more: conf{},
		}
		if o.command == "DEL" && r.IntN(4) > 0 {
			operations = append(operations, o)
			continue
		}
		if r.IntN(4) == 0 {
			o.more["runtimeConfig"] = conf{
				"ips": pick(r, list{"10.1.0.5"}, list{"10.1.0.1"}, list{"fd00::2/64"},
					list{"10.1.0.3", "fd00::3"}, list{"10.9.0.1"}),
			}
		}
		if r.IntN(6) == 0 {
			o.more["args"] = conf{
				"cni": conf{"ips": pick(r, list{"10.1.0.5"}, list{"10.1.0.6", "10.1.0.6"}, list{})},
			}
		}
		if r.IntN(8) == 0 {
			o.args = pick(r, "IP=10.1.0.4", "IgnoreUnknown=1;X=y", unknownArgs, "IP=")
		}
		if r.IntN(10) == 0 {
			o.more["runtimeConfig"] = conf{
				"ipRanges": list{list{conf{"subnet": pick(r, "10.77.0.0/24", "10.1.0.0/25", "fd77::/64")}}},
			}
		}
		operations = append(operations, o)
	}
	version = pick(r, "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
	if version < "0.4.0" { // which has no CHECK
		operations = slices.DeleteFunc(operations, func(o operation) bool { return o.command == "CHECK" })
	}
	return ipam, version, operations
}

// run does an operation, and returns what a runtime sees of it. prev keeps the results of
// attachments.
func (n *node) run(c conf, o operation, prev map[string]json.RawMessage) string {
	n.t.Helper()
	p := n.pod(o.id)
	p.IfName, p.Args = o.ifName, o.args
	key := o.id + "/" + o.ifName
	if o.command != "ADD" && prev[key] != nil {
		c = c.With(conf{"prevResult": prev[key]})
	}
	out, err := p.Call(o.command, c.With(o.more))
	if err != nil {
		return o.command + " fails"
	}
	switch o.command {
	case "ADD":
		prev[key] = out
		return "ADD returns " + sorted(n.t, out)
	case "DEL":
		delete(prev, key)
	}
	return o.command + " succeeds"
}

// unknownArgs are CNI_ARGS that nobody knows, and that do not say that this does not matter.
const unknownArgs = "X=y"

// Whoever does what, the results and the files are those of the reference, with three differences:
// an ADD that fails changes nothing, where the reference moves on in its order and takes away what
// the key had before; and DEL does not fail for a configuration that only an ADD cannot use. There
// a script ends. And CHECK does not read CNI_ARGS, which say nothing about what is there.
func TestDifferential(t *testing.T) {
	scripts, err := strconv.Atoi(os.Getenv("BRAID_DIFFERENTIAL"))
	if err != nil {
		scripts = 40
	}
	both := &mixed{ours: ours(file.Boot{})}
	nodes := [3]*node{
		newNode(t, plugintest.Reference{}), newNode(t, ours(file.Boot{})), newNode(t, both),
	}
	operations, ended := 0, 0
	for seed := range scripts {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			both.chance = rand.New(rand.NewPCG(uint64(seed), 5))
			d := newDifferential(t, uint64(seed), nodes)
			for _, o := range d.script {
				if operations++; !d.step(o) {
					ended++
					return
				}
			}
		})
	}
	t.Logf("%d operations, %d of %d scripts ended before their time", operations, ended, scripts)
	if operations < 5*scripts {
		t.Error("there is hardly anything left to compare")
	}
}

// differential is a script that is run by the reference, by ours, and by both in turn.
type differential struct {
	t       *testing.T
	ipam    conf
	version string
	script  []operation
	nodes   [3]*node
	prevs   [3]map[string]json.RawMessage
}

// The nodes of a differential.
const (
	theirs = iota
	oursAlone
	inTurn
)

func newDifferential(t *testing.T, seed uint64, nodes [3]*node) *differential {
	t.Helper()
	d := &differential{t: t}
	d.ipam, d.version, d.script = script(rand.New(rand.NewPCG(seed, 3)))
	for i, n := range nodes {
		d.nodes[i], d.prevs[i] = n.elsewhere(t), map[string]json.RawMessage{}
	}
	return d
}

// step does an operation. It reports whether there is any sense in the next one.
func (d *differential) step(o operation) bool {
	d.t.Helper()
	var before, after [3]map[string]string
	var seen [3]string
	for i, n := range d.nodes {
		before[i] = n.leases()
		seen[i] = n.run(n.conf(d.ipam).With(conf{"cniVersion": d.version}), o, d.prevs[i])
		if o.command == "CHECK" && o.args == unknownArgs {
			seen[i] = "" // the reference fails
		}
		after[i] = n.leases()
	}
	if seen[theirs] == "DEL fails" && seen[oursAlone] == "DEL succeeds" {
		for addr, content := range after[oursAlone] {
			if content == o.id+"\r\n"+o.ifName {
				d.t.Errorf("%+v leaves %s", o, addr)
			}
		}
		return false
	}
	// Of several addresses that are asked for, the reference tries one or another first.
	moved := !maps.Equal(after[theirs], before[theirs]) || !maps.Equal(after[inTurn], before[inTurn])
	if seen[theirs] == "ADD fails" && seen[oursAlone] == "ADD fails" && moved {
		want(d.t, fmt.Sprintf("leases after %+v fails", o), after[oursAlone], before[oursAlone])
		return false
	}
	for i := 1; i < len(d.nodes); i++ {
		if seen[i] != seen[theirs] || !maps.Equal(after[i], after[theirs]) {
			d.t.Errorf("%v %s, %+v:\n%s\n%v\nreference\n%s\n%v",
				d.ipam, d.version, o, seen[i], after[i], seen[theirs], after[theirs])
			return false
		}
	}
	return true
}

// Both at once get every address, each once, and each can free what the other got.
func TestTogetherWithReference(t *testing.T) {
	const n, each = 61, 4 // a /26 without network, gateway and broadcast
	us := newNode(t, ours(file.Boot{}))
	them := newNode(t, plugintest.Reference{})
	c := conf{
		"type": "host-local", "ipam": conf{
			"type": "host-local", "dataDir": us.dir(),
			"ranges": list{list{conf{"subnet": "10.1.0.0/26"}}, list{conf{"subnet": "fd00::/64"}}},
		},
	}
	var got atomic.Int64
	var wg sync.WaitGroup
	for side, node := range []*node{us, them} {
		for g := range each {
			wg.Go(func() {
				for i := 0; ; i++ {
					p := node.pod(fmt.Sprintf("s%d.%d.%d", side, g, i))
					if _, err := p.Add(c); err != nil {
						if !strings.Contains(err.Error(), "no address is free") &&
							!strings.Contains(err.Error(), "no IP addresses available") {
							t.Error(err)
						}
						return
					}
					got.Add(1)
					if i%3 == 1 { // one in three comes and goes
						got.Add(-1)
						if err := p.Del(c); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
	}
	wg.Wait()
	// Whoever gave up while another one held an address for a moment.
	for i := 0; ; i++ {
		if _, err := us.pod(fmt.Sprint("rest", i)).Add(c); err != nil {
			break
		}
		got.Add(1)
	}
	held := us.addresses()
	want(t, "attachments, and leases of both families", []int{int(got.Load()), len(held)},
		[]int{n, 2 * n})
	holders := map[string]int{}
	for _, content := range held {
		holders[content]++
	}
	want(t, "holders", len(holders), n)

	t.Run("each honours the other's", func(t *testing.T) {
		for _, content := range slices.Sorted(maps.Keys(holders)) {
			id, _, _ := strings.Cut(content, "\r\n")
			checker, releaser := us, them
			if strings.HasPrefix(id, "s1") {
				checker, releaser = them, us
			}
			must(t, errors.Join(us.pod(id).Check(c), them.pod(id).Check(c)))
			for _, node := range []*node{us, them} {
				_, err := node.pod(id).Add(c)
				if err == nil || !strings.Contains(err.Error(), "duplicate allocation") {
					t.Fatalf("second ADD of %s: %v", id, err)
				}
			}
			must(t, releaser.pod(id).Del(c))
			if err := checker.pod(id).Check(c); err == nil {
				t.Fatalf("%s has a lease after DEL by the other one", id)
			}
		}
		want(t, "leases", us.addresses(), "map[]")
	})
}
