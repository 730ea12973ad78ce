package soak_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// event is what happens to the whole node, while no operation runs.
func (s *soak) event(rng *rand.Rand) {
	if s.disk != "" {
		s.healed()
		return
	}
	switch dice := rng.IntN(100); {
	case dice < 35 && !without("gc"):
		s.gc(rng, oneOf(rng, kill, stop))
	case dice >= 35 && dice < 72 && !without("disk"):
		s.harm(rng)
		return
	case dice >= 72 && dice < 79 && !without("loss"):
		s.loseState()
	case dice >= 86 && dice < 92 && !without("edit"):
		s.edit()
	case dice >= 92 && dice < 96 && !without("rename"):
		s.rename()
	case dice >= 79 && dice < 86 && !without("boot"):
		s.reboot()
	}
	s.world()
}

// filler is what a test fills a file system with.
const filler = ".filler"

// harm does something to the file system of state, of leases or of the cluster's objects.
func (s *soak) harm(rng *rand.Rand) {
	dir := []string{stateDir, leasesDir, s.path("manifests")}[rng.IntN(3)]
	name := filepath.Base(dir)
	switch rng.IntN(3) {
	case 0:
		s.must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, room))
		s.damaged(name+" is read-only", func() { s.must(unix.Mount("", dir, "", unix.MS_REMOUNT, room)) })
	case 1:
		s.fill(dir, int64(4096*rng.IntN(10)))
		s.damaged(name+" is full", func() { s.must(os.Remove(filepath.Join(dir, filler))) })
	default:
		s.crowd(dir, rng.IntN(10))
		s.damaged(name+" has no inodes", func() { s.must(os.RemoveAll(filepath.Join(dir, filler))) })
	}
}

// fill leaves so many bytes free.
func (s *soak) fill(dir string, but int64) {
	f, err := os.Create(filepath.Join(dir, filler))
	s.must(err)
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, unix.ENOSPC) {
		s.t.Fatalf("fill %s: %v", dir, err)
	}
	info, err := f.Stat()
	s.must(err)
	s.must(f.Truncate(info.Size() - but))
	s.must(f.Close())
}

// crowd leaves so many inodes free.
func (s *soak) crowd(dir string, but int) {
	at := filepath.Join(dir, filler)
	s.must(os.Mkdir(at, 0o700))
	n := 0
	for ; ; n++ {
		err := os.WriteFile(filepath.Join(at, fmt.Sprint(n)), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		s.must(err)
	}
	for i := range min(but, n) {
		s.must(os.Remove(filepath.Join(at, fmt.Sprint(i))))
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func (s *soak) damaged(what string, heal func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disk, s.heal = what, heal
}

func (s *soak) healed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heal != nil {
		s.heal()
	}
	s.disk, s.heal = "", nil
}

// gc is the runtime's GC. It knows the live sandboxes, and some of those whose namespace is gone.
func (s *soak) gc(rng *rand.Rand, f fault) {
	valid, others := []any{}, []*sandbox{}
	for _, at := range s.slots {
		for _, b := range at.all() {
			if b.state == live && (b == at.now || rng.IntN(2) == 0) {
				valid = append(valid, map[string]any{"containerID": b.id, "ifname": "eth0"})
				b.note("GC %s knows it", f)
				continue
			}
			others = append(others, b)
			if b.state == live {
				b.state = leaving
			}
			b.note("GC %s does not know it", f)
			s.releases(b, "GC")
		}
	}
	o := s.call("GC", nil, "", f, rng, map[string]any{"cni.dev/valid-attachments": valid})
	switch {
	case o.ok():
		s.collected(others)
	case !o.killed:
		s.violated(nil, "GC is refused: %v", o)
	}
}

// collected are sandboxes that a GC has removed. Without its state, Braid cannot know of all that
// they had.
func (s *soak) collected(others []*sandbox) {
	for _, b := range others {
		if b.orphan {
			continue
		}
		s.over(b)
		b.slot.drop(b)
	}
}

// all are the slot's sandboxes that are not over.
func (at *slot) all() (all []*sandbox) {
	if at.now != nil {
		all = append(all, at.now)
	}
	return append(all, at.former...)
}

func (at *slot) drop(b *sandbox) {
	if at.now == b {
		at.now = nil
	}
	var former []*sandbox
	for _, other := range at.former {
		if other != b {
			former = append(former, other)
		}
	}
	at.former = former
}

// edit takes auxiliary plugins out of the networks, or puts them back. What Braid has a record of
// does not depend on the networks; of what it has none it knows no better than they say.
func (s *soak) edit() {
	for _, b := range s.known {
		if b.orphan {
			return
		}
	}
	s.write(!s.plain)
}

func (s *soak) write(plain bool) {
	s.plain = plain
	s.cluster(slots, plain)
	for _, b := range s.known {
		b.note("networks are plain: %v", plain)
	}
}

// rename changes the node's name, or changes it back.
func (s *soak) rename() {
	own := s.config["braid"].(map[string]any)
	own["nodeName"] = map[any]string{"soak": "soak-2", "soak-2": "soak"}[own["nodeName"]]
	for _, b := range s.known {
		b.note("the node is %s now", own["nodeName"])
	}
}

// loseState removes Braid's state while sandboxes live.
func (s *soak) loseState() {
	entries, err := os.ReadDir(stateDir)
	s.must(err)
	for _, e := range entries {
		s.must(os.RemoveAll(filepath.Join(stateDir, e.Name())))
	}
	s.lossy = true
	s.write(false)
	for _, at := range s.slots {
		for _, b := range at.all() {
			b.note("Braid's state is lost")
			b.orphan = true
			b.pathless = b != at.now && at.now != nil
		}
		for _, b := range at.past {
			b.pathless = at.now != nil
		}
	}
}

// reboot ends all sandboxes, and what was in memory. The runtime remembers them.
func (s *soak) reboot() {
	s.boot()
	s.lossy = false
	s.booted = sandboxName(s.sandboxes)
	s.write(false)
	for _, at := range s.slots {
		at.made = false
		at.former = at.all()
		at.now = nil
		for _, b := range at.former {
			b.note("the node was booted")
			b.orphan, b.pathless = true, false
			if b.state == live {
				b.state = leaving
			}
			s.releases(b, "boot")
		}
		for _, b := range at.past {
			b.pathless = false
		}
	}
}

// end removes everything: most sandboxes by a DEL, the others by a GC. Then nothing may be left.
func (s *soak) end() {
	rng := rand.New(rand.NewPCG(s.seed, 0)) //nolint:gosec // reproducible
	s.healed()
	s.world()
	for _, at := range s.slots {
		for _, b := range at.all() {
			if !b.orphan && rng.IntN(4) == 0 {
				continue
			}
			path := b.path
			if b.pathless {
				path = ""
			}
			if s.remove(b, path, none, rng, func() {}) {
				at.drop(b)
			}
		}
	}
	for _, at := range s.slots {
		for _, b := range at.all() {
			b.state = leaving
		}
	}
	s.gc(rng, none)
	s.world()
	for _, at := range s.slots {
		s.destroy(at)
	}
	s.nothingLeft()
	s.noneLost(rng)
}

// noneLost fails the run unless each address can be given. Those that nobody knew the holder of are
// free after a boot.
func (s *soak) noneLost(rng *rand.Rand) {
	used := slices.DeleteFunc(s.used(), func(line string) bool {
		return s.lossy && strings.HasSuffix(line, " ?")
	})
	if len(used) > 0 {
		s.violated(nil, "addresses are in use at the end: %q", used)
	}
	s.reboot()
	s.reap()
	s.gc(rng, none)
	if used = s.used(); len(used) > 0 {
		s.violated(nil, "addresses are in use after a boot: %q", used)
	}
	all := make([]*sandbox, smallSize)
	s.together(func(worker int) {
		at := &slot{index: worker, path: filepath.Join(netnsDir, fmt.Sprint("small", worker))}
		rng := rand.New(rand.NewPCG(s.seed, uint64(worker))) //nolint:gosec // reproducible
		for i := worker; i < smallSize; i += fillers {
			all[i] = s.small(at, rng, true)
		}
	})
	all = append(all, s.small(all[smallSize%fillers].slot, rng, false))
	s.together(func(worker int) {
		for i := worker; i < len(all); i += fillers {
			s.remove(all[i], "", none, rng, func() {})
		}
	})
	s.nothingLeft()
}

// reap is braid-controller's part: a node that is gone, which is what a name that this one has no
// more is after a boot, loses its blocks.
func (s *soak) reap() {
	name := s.config["braid"].(map[string]any)["nodeName"]
	files, err := filepath.Glob(s.path("manifests/ipblocks/*.json"))
	s.must(err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		s.must(err)
		var block v1alpha1.IPBlock
		s.must(json.Unmarshal(data, &block))
		if owner := block.Spec.Owner; owner != nil && owner.NodeName != name {
			s.must(os.Remove(file))
		}
	}
}

// together runs a function for each of the fillers at the same time.
func (s *soak) together(do func(worker int)) {
	var wg sync.WaitGroup
	for worker := range fillers {
		wg.Go(func() { do(worker) })
	}
	wg.Wait()
}

// small is a sandbox on the small range alone, for which there is an address or none.
func (s *soak) small(at *slot, rng *rand.Rand, there bool) *sandbox {
	s.create(at)
	b := s.begin(at, fmt.Sprint("small-", at.index))
	if o := s.call("ADD", b, at.path, none, rng, nil); o.ok() != there {
		s.violated(b, "of the %d addresses of the small range one is there for it: %v; its ADD: %v",
			smallSize, there, o)
	}
	s.destroy(at)
	return b
}
