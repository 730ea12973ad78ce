package soak_test

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// whole fails the run unless a live sandbox has what its ADD made.
func (s *soak) whole(b *sandbox) {
	if !b.slot.made || b.addrs == nil {
		return
	}
	sp, err := look(b.slot.path)
	s.must(err)
	switch {
	case sp == nil || sp.inode != b.inode:
		s.violated(b, "its namespace is another: %+v", sp)
	case !slices.Equal(sp.links, []string{"eth0", "net1", "net2", "net3"}) ||
		!slices.Equal(sp.addrs, b.addrs):
		s.violated(b, "it is not whole: links %q, addresses %q, want %q", sp.links, sp.addrs, b.addrs)
	case !b.plain && (sp.rules != 2 || sp.mtu != 1400):
		s.violated(b, "it is not whole: %d rules, want 2, MTU of net3 %d, want 1400", sp.rules, sp.mtu)
	case b.plain && (sp.rules != 0 || sp.mtu != 1500):
		s.violated(b, "it has more than its networks say: %d rules, MTU of net3 %d", sp.rules, sp.mtu)
	}
}

// nothingOf fails the run if anything is there of a sandbox that is over.
func (s *soak) nothingOf(b *sandbox) {
	if b.slot.made {
		sp, err := look(b.slot.path)
		s.must(err)
		if sp != nil && (b.inode == 0 || sp.inode == b.inode) && b.slot.now == b &&
			(len(sp.links) > 0 || sp.rules > 0) {
			s.violated(b, "left in its namespace: links %q, %d rules", sp.links, sp.rules)
		}
	}
	if left := s.mentions(b.id)[b.id]; len(left) > 0 {
		s.violated(b, "left of it: %q", left)
	}
}

var sandboxID = regexp.MustCompile(`sb\d{6}`)

// mentions are the files that name sandboxes, by those: leases, records, libcni's cache, what the
// IPAM has in the state and in the cluster's objects, tuning's values. of narrows it down to one.
// Objects may name sandboxes of before a boot until Braid looks after its blocks.
func (s *soak) mentions(of string) map[string][]string {
	found := map[string][]string{}
	tops := []string{stateDir, leasesDir, s.path("manifests/ipblocks")}
	if !s.execs { // the reference's tuning leaves its files where the namespace is gone
		tops = append(tops, "/run/cni")
	}
	for _, top := range tops {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil: // it is gone meanwhile
				return nil //nolint:nilerr // see above
			case path == stateDir+"/gone", d.Name() == filler: // that it is gone is remembered; the test's
				return fs.SkipDir
			case d.IsDir(), d.Name() == "new": // being written
				return nil
			}
			data, _ := os.ReadFile(path)
			if of != "" && !strings.Contains(path, of) && !bytes.Contains(data, []byte(of)) {
				return nil
			}
			ids := map[string]bool{}
			for _, id := range append(sandboxID.FindAllString(string(data), -1),
				sandboxID.FindAllString(path, -1)...) {
				ids[id] = true
			}
			for id := range ids {
				if id > s.booted || !strings.Contains(path, "/ipblocks/") {
					found[id] = append(found[id], path)
				}
			}
			return nil
		})
		s.must(err)
	}
	return found
}

// ruled adds the packet filter's rules that name sandboxes.
func (s *soak) ruled(found map[string][]string) {
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		s.t.Errorf("nft: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		for _, id := range sandboxID.FindAllString(line, -1) {
			found[id] = append(found[id], "nft "+strings.TrimSpace(line))
		}
	}
}

// world looks at the whole node, while nobody is at work: at what the kernel has and what the IPAM
// says.
func (s *soak) world() {
	by := map[string]*slot{}
	for _, at := range s.slots {
		if !at.made {
			continue
		}
		sp, err := look(at.path)
		s.must(err)
		for _, a := range sp.addrs {
			_, ip, _ := strings.Cut(a, " ")
			if other := by[ip]; other != nil {
				s.violated(at.now, "address %s is on a link of %s and of %s, where it was: %q", ip, at.path,
					other.path, s.had[ip])
				if other.now != nil {
					s.violated(other.now, "it is the other")
				}
			}
			by[ip] = at
		}
		switch {
		case at.now == nil && (len(sp.links) > 0 || sp.rules > 0):
			s.violated(at.past[len(at.past)-1], "nobody has %s, and there are links %q and %d rules",
				at.path, sp.links, sp.rules)
		case at.now != nil && at.now.state == live:
			s.whole(at.now)
		}
	}
	s.named()
}

// named fails the run if something names a sandbox that is over, or if a live one's addresses are
// held by nobody.
func (s *soak) named() {
	found := s.mentions("")
	s.ruled(found)
	for _, id := range slices.Sorted(maps.Keys(found)) {
		if s.known[id] == nil {
			var b *sandbox
			for _, at := range s.slots {
				for _, p := range at.past {
					if p.id == id {
						b = p
					}
				}
			}
			s.violated(b, "%s is over, and is named by %q", id, found[id])
		}
	}
	for _, b := range s.known {
		if b.state != live || b.orphan {
			continue
		}
		for _, a := range b.addrs {
			_, ip, _ := strings.Cut(a, " ")
			if !slices.ContainsFunc(found[b.id], func(place string) bool { return holds(place, ip) }) {
				s.violated(b, "nothing holds its address %s", ip)
			}
		}
	}
}

// holds reports whether a file is the lease of an address, or names it.
func holds(place, ip string) bool {
	if filepath.Base(place) == ip {
		return true
	}
	data, _ := os.ReadFile(place)
	return bytes.Contains(data, []byte(ip))
}

// nothingLeft fails the run if the node has anything that it did not have at first.
func (s *soak) nothingLeft() {
	var left []string
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if left = append(s.links(), processes()...); len(left) == 0 || time.Now().After(end) {
			// links go with their namespaces, in the kernel's own time; plugins that outlived Braid come to
			// their end
			break
		}
	}
	left = append(left, s.files()...)
	for _, point := range s.mounts() {
		if !slices.Contains([]string{"/run", stateDir, leasesDir, s.path("manifests")}, point) {
			left = append(left, "mount "+point)
		}
	}
	out, _ := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if bytes.Contains(out, []byte("comment")) {
		left = append(left, string(out))
	}
	if len(left) > 0 {
		s.violated(nil, "left at the end: %q", left)
	}
}

// stays matches the files that are there for the node and not for a sandbox: what Braid knows of
// its networks and of itself, blocks, and where leases go on. That sandboxes are gone is remembered
// for a while.
var stays = regexp.MustCompile("^" + stateDir + "/(networks|reserve|gone|ipam/blocks)/|" +
	"^" + stateDir + `/(ipam/(node|tended|new)|boot-[0-9-]+)$|` +
	"^" + leasesDir + `/networks/\w+/(lock|last_reserved_ip\.\d|\.braid/(boot-[0-9-]+|complete|new))$`)

// files are those of the node that do not stay.
func (s *soak) files() (left []string) {
	tops := []string{stateDir, leasesDir}
	if !s.execs {
		tops = append(tops, "/run/cni")
	}
	for _, top := range tops {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && !stays.MatchString(path) {
				left = append(left, path)
			}
			return nil //nolint:nilerr // as much as can be read
		})
		s.must(err)
	}
	return left
}

// processes are those of the node but this one. Some have ended, and nobody waits for them.
func processes() (left []string) {
	tasks, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, t := range tasks {
		if to, err := os.Readlink(t); err == nil && !strings.HasPrefix(t, "/proc/1/") {
			left = append(left, "process "+to)
		}
	}
	return left
}

func (s *soak) links() (left []string) {
	for _, l := range s.nodeLinks() {
		if name := l.Attrs().Name; !slices.Contains([]string{"lo", "nic0", "wire", "cni0"}, name) {
			left = append(left, "link "+name)
		}
	}
	return left
}

// used are the lines and objects that hold addresses of the cluster.
func (s *soak) used() (used []string) {
	for _, top := range []string{stateDir + "/ipam/blocks", s.path("manifests/ipblocks")} {
		s.must(filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || d.Name() == "new" {
				return nil //nolint:nilerr // as much as can be read
			}
			data, _ := os.ReadFile(path)
			for line := range strings.Lines(string(data)) {
				if strings.HasPrefix(line, "used ") || strings.Contains(line, `"allocations":[{`) {
					used = append(used, path+": "+strings.TrimSpace(line))
				}
			}
			return nil
		}))
	}
	return used
}
