package file_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/file"
)

func key(id string) attachment.ID {
	return attachment.ID{Network: "net", ContainerID: id, IfName: "net1"}
}

var dual = []file.Wish{wish("10.0.0.2", "10.0.0.9"), wish("fd00::2", "fd00::ffff")}

// store makes a store in an empty directory, in a boot of the test's.
func store(t *testing.T) *file.Store {
	t.Helper()
	return &file.Store{DataDir: memory(t), Network: "net", Boot: boot("1", time.Time{})}
}

func boot(id string, at time.Time) file.Boot {
	return file.Boot{ID: func() (string, error) {
		return id, nil
	}, Time: func() time.Time { return at }}
}

func dirOf(s *file.Store) string { return filepath.Join(s.DataDir, s.Network) }

// leases returns what each lease file has in it, and other things than files by their kind.
func leases(t *testing.T, s *file.Store) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(dirOf(s))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err != nil {
			continue
		}
		found[e.Name()] = e.Type().String()
		if e.Type().IsRegular() {
			found[e.Name()] = read(t, filepath.Join(dirOf(s), e.Name()))
		}
	}
	return found
}

// index returns the names of what is in the index, but for the marks of boots.
func index(t *testing.T, s *file.Store) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dirOf(s), ".braid"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "boot-") {
			names = append(names, e.Name())
		}
	}
	return names
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func add(t *testing.T, s *file.Store, id string, wishes ...file.Wish) []file.Lease {
	t.Helper()
	got, err := s.Add(t.Context(), key(id), wishes)
	if err != nil {
		t.Fatalf("ADD of %s: %v", id, err)
	}
	return got
}

func del(t *testing.T, s *file.Store, id string, perhaps ...netip.Addr) {
	t.Helper()
	if err := s.Del(t.Context(), key(id), perhaps); err != nil {
		t.Fatalf("DEL of %s: %v", id, err)
	}
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// sweeps counts how often all leases are read.
func sweeps(s *file.Store) *int {
	count := new(int)
	s.Step = func(change string) error {
		if change == "read all leases" {
			*count++
		}
		return nil
	}
	return count
}

func TestFormat(t *testing.T) {
	s := store(t)
	want(t, "leases", add(t, s, "a", dual...), "[{10.0.0.2/8 10.0.0.1} {fd00::2/64 fd00::1}]")
	want(t, "files", leases(t, s), map[string]string{"10.0.0.2": "a\r\nnet1", "fd00::2": "a\r\nnet1"})
	want(t, "last", read(t, dirOf(s)+"/last_reserved_ip.0")+" "+
		read(t, dirOf(s)+"/last_reserved_ip.1"), "10.0.0.2 fd00::2")
	err := filepath.WalkDir(s.DataDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == s.DataDir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if mode := info.Mode(); mode != 0o600 && mode != fs.ModeDir|0o755 {
			t.Errorf("%s has mode %v", path, mode)
		}
		// The reference takes every file with this content for a lease.
		if strings.Contains(path, ".braid/") && strings.TrimSpace(read(t, path)) == "a\r\nnet1" {
			t.Errorf("%s reads like a lease", path)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRoundRobin(t *testing.T) {
	s := store(t)
	var got []string
	for i := range 9 {
		id := fmt.Sprint("c", i)
		got = append(got, add(t, s, id, wish("10.0.0.2", "10.0.0.5"))[0].Addr.Addr().String())
		if i != 1 { // it keeps 10.0.0.3
			del(t, s, id)
		}
	}
	want(t, "addresses", got,
		"[10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.2 10.0.0.4 10.0.0.5 10.0.0.2 10.0.0.4]")
}

func TestDuplicate(t *testing.T) {
	s := store(t)
	add(t, s, "a", dual...)
	before := leases(t, s)
	_, err := s.Add(t.Context(), key("a"), dual)
	if err == nil || !strings.Contains(err.Error(), "duplicate allocation is not allowed") {
		t.Errorf("second ADD: %v", err)
	}
	_, err = s.Add(t.Context(), key("a"), []file.Wish{wish("10.1.0.2", "10.1.0.9"), dual[1]})
	if err == nil {
		t.Error("an ADD with one set that the key has an address of succeeds")
	}
	want(t, "leases", leases(t, s), before)
	// Another interface of the container, another set, and a certain address are no duplicates.
	other := attachment.ID{Network: "net", ContainerID: "a", IfName: "net2"}
	if _, err := s.Add(t.Context(), other, dual); err != nil {
		t.Error(err)
	}
	add(t, s, "a", wish("10.1.0.2", "10.1.0.9"))
	asked := dual[0]
	asked.Asked = netip.MustParseAddr("10.0.0.7")
	add(t, s, "a", asked)
	_, err = s.Add(t.Context(), key("a"), []file.Wish{asked})
	if err == nil || !strings.Contains(err.Error(), "held by container a interface net1") {
		t.Errorf("a certain address twice: %v", err)
	}
	del(t, s, "a")
	want(t, "leases", leases(t, s), map[string]string{"10.0.0.3": "a\r\nnet2", "fd00::3": "a\r\nnet2"})
}

func TestAllOrNothing(t *testing.T) {
	s := store(t)
	add(t, s, "a", wish("10.0.0.2", "10.0.0.2"))
	before := leases(t, s)
	for name, wishes := range map[string][]file.Wish{
		"second set is full": {dual[1], wish("10.0.0.2", "10.0.0.2")},
		"asked is taken":     {dual[1], {Set: dual[0].Set, Asked: netip.MustParseAddr("10.0.0.2")}},
	} {
		if _, err := s.Add(t.Context(), key("b"), wishes); err == nil {
			t.Errorf("%s: no error", name)
		}
		want(t, name, leases(t, s), before)
		want(t, name, len(index(t, s)), 1)
	}
}

// What an old version or the reference has made is found, once.
func TestForeignLeases(t *testing.T) {
	s := store(t)
	if err := os.MkdirAll(dirOf(s), 0o755); err != nil {
		t.Fatal(err)
	}
	count := sweeps(s)
	for i := range 5 {
		put(t, dirOf(s), fmt.Sprintf("10.0.0.%d", i+2), fmt.Sprintf("c%d\r\nnet1\n", i))
	}
	put(t, dirOf(s), "10.0.0.7", "old")
	put(t, dirOf(s), "fd00::7", "old\n")
	if _, err := s.Add(t.Context(), key("c1"), dual[:1]); err == nil {
		t.Error("ADD of a key that holds a foreign lease succeeds")
	}
	for _, wishes := range [][]file.Wish{dual[:1], dual[1:]} {
		if _, err := s.Add(t.Context(), key("old"), wishes); err == nil {
			t.Error("ADD of a container that holds a lease of an old version succeeds")
		}
	}
	del(t, s, "c2")
	for range 3 {
		del(t, s, "unknown")
	}
	add(t, s, "new", dual...)
	del(t, s, "c3")
	del(t, s, "new")
	want(t, "sweeps", *count, 1)

	put(t, dirOf(s), "10.0.0.9", "late\r\nnet1")
	del(t, s, "late")
	del(t, s, "old")
	want(t, "sweeps", *count, 2)
	want(t, "leases", leases(t, s), map[string]string{
		"10.0.0.2": "c0\r\nnet1\n", "10.0.0.3": "c1\r\nnet1\n", "10.0.0.6": "c4\r\nnet1\n",
	})

	// What the reference removed is forgotten.
	if err := os.Remove(dirOf(s) + "/10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	del(t, s, "unknown")
	want(t, "entries", len(index(t, s)), 2)
}

// Where the index could not be written, the next operation does not rely on it.
func TestIndexThatCannotBeWritten(t *testing.T) {
	s := store(t)
	del(t, s, "unknown")
	add(t, s, "other", dual...)
	put(t, dirOf(s), "10.0.0.8", "a\r\nnet1")
	put(t, dirOf(s), "10.0.0.9", "b\r\nnet1")
	s.Step = func(change string) error {
		if change == "write new" {
			return unix.ENOSPC
		}
		return nil
	}
	del(t, s, "b") // a full disk does not keep addresses from being given back
	want(t, "leases", len(leases(t, s)), 3)
	s.Step = nil
	del(t, s, "a")
	want(t, "leases", leases(t, s),
		map[string]string{"10.0.0.2": "other\r\nnet1", "fd00::2": "other\r\nnet1"})
}

// An old lease belongs to the container's first interface that has no other.
func TestOldLeaseStays(t *testing.T) {
	s := store(t)
	add(t, s, "a", dual[0])
	put(t, dirOf(s), "10.0.0.9", "a")
	del(t, s, "a")
	want(t, "leases", leases(t, s), map[string]string{"10.0.0.9": "a"})
	del(t, s, "a")
	want(t, "leases", leases(t, s), map[string]string{})
}

func TestDelWithoutIndex(t *testing.T) {
	s := store(t)
	add(t, s, "a", dual...)
	add(t, s, "b", dual...)
	for _, name := range index(t, s) {
		if err := os.Remove(filepath.Join(dirOf(s), ".braid", name)); err != nil {
			t.Fatal(err)
		}
	}
	count := sweeps(s)
	var all []netip.Addr
	for _, text := range []string{"10.0.0.2", "fd00::2", "10.0.0.3", "10.0.0.4"} {
		all = append(all, netip.MustParseAddr(text))
	}
	del(t, s, "a", all...)
	want(t, "leases", leases(t, s), map[string]string{"10.0.0.3": "b\r\nnet1", "fd00::3": "b\r\nnet1"})
	want(t, "sweeps", *count, 0)
}

func TestDelOfNothing(t *testing.T) {
	s := store(t)
	del(t, s, "a")
	if err := s.GC(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dirOf(s)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("DEL made the directory: %v", err)
	}
}

func TestBadEntryIsMadeAnew(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"another's": func(path string) error {
			return os.WriteFile(path,
				[]byte(`{"containerID":"b","ifname":"net1","adds":[["10.0.0.2"]]}`), 0o600)
		},
		"no addr": func(path string) error {
			return os.WriteFile(path, []byte(`{"containerID":"a","ifname":"net1","adds":[[""]]}`), 0o600)
		},
		"zone": func(path string) error {
			return os.WriteFile(path,
				[]byte(`{"containerID":"a","ifname":"net1","adds":[["fe80::1%/../x"]]}`), 0o600)
		},
		"a link": func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/etc/passwd", path))
		},
		"a pipe": func(path string) error {
			return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
		},
		"a large one": func(path string) error { return os.Truncate(path, 1<<30) },
	} {
		s := store(t)
		add(t, s, "a", dual...)
		if err := spoil(filepath.Join(dirOf(s), ".braid", index(t, s)[0])); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Add(t.Context(), key("a"), dual); err == nil {
			t.Errorf("%s: a second ADD succeeds", name)
		}
		del(t, s, "a")
		want(t, name, fmt.Sprint(leases(t, s), index(t, s)), "map[] []")
	}
}

// rebooted has leases from before a boot and from after it, by this package and by others. It
// returns the time between.
func rebooted(t *testing.T) (*file.Store, time.Time) {
	t.Helper()
	s := store(t)
	pause := func() { time.Sleep(20 * time.Millisecond) } // further than the clock of files is coarse
	add(t, s, "own", dual...)
	put(t, dirOf(s), "10.0.0.4", "seen\r\nnet1")
	put(t, dirOf(s), "10.0.0.5", "remade\r\nnet1")
	del(t, s, "unknown") // reads them
	pause()
	put(t, dirOf(s), "10.0.0.6", "late\r\nnet1")
	put(t, dirOf(s), "10.0.0.7", "")
	if err := os.Symlink("/etc/passwd", dirOf(s)+"/10.0.0.8"); err != nil {
		t.Fatal(err)
	}
	pause()
	booted := time.Now()
	pause()
	if err := os.Remove(dirOf(s) + "/10.0.0.5"); err != nil {
		t.Fatal(err)
	}
	put(t, dirOf(s), "10.0.0.5", "remade\r\nnet1")
	put(t, dirOf(s), "10.0.0.9", "new\r\nnet1")
	return s, booted
}

var (
	certain = map[string]string{
		"10.0.0.5": "remade\r\nnet1", "10.0.0.8": "L---------", "10.0.0.9": "new\r\nnet1",
	}
	unclear = map[string]string{
		"10.0.0.5": "remade\r\nnet1", "10.0.0.6": "late\r\nnet1", "10.0.0.7": "",
		"10.0.0.8": "L---------", "10.0.0.9": "new\r\nnet1",
	}
)

func TestLeasesFromBeforeTheBootAreReclaimed(t *testing.T) {
	t.Run("same boot", func(t *testing.T) {
		s, booted := rebooted(t)
		s.Boot = boot("1", booted)
		before := leases(t, s)
		del(t, s, "unknown")
		want(t, "leases", leases(t, s), before)
	})
	t.Run("boot time unknown", func(t *testing.T) {
		s, _ := rebooted(t)
		s.Boot = boot("2", time.Time{})
		del(t, s, "unknown")
		want(t, "leases", leases(t, s), unclear)
	})
	t.Run("boot time known", func(t *testing.T) {
		s, booted := rebooted(t)
		s.Boot = boot("2", booted)
		count := sweeps(s)
		if free, err := s.Free(t.Context(), []file.Set{dual[0].Set}); err != nil || free[0] == 0 {
			t.Errorf("free: %v, %v", free, err)
		}
		want(t, "leases", leases(t, s), certain)
		add(t, s, "own", dual...)
		del(t, s, "own")
		want(t, "sweeps", *count, 1)
		want(t, "entries", len(index(t, s)), 2)
	})
	t.Run("first operation ever", func(t *testing.T) {
		s, booted := rebooted(t)
		if err := os.RemoveAll(dirOf(s) + "/.braid"); err != nil {
			t.Fatal(err)
		}
		s.Boot = boot("1", booted)
		del(t, s, "unknown")
		want(t, "leases", leases(t, s), certain)
	})
	t.Run("cut short", func(t *testing.T) {
		for n := 1; ; n++ {
			s, booted := rebooted(t)
			s.Boot = boot("2", booted)
			step := 0
			s.Step = func(string) error {
				if step++; step == n {
					return errors.New("injected")
				}
				return nil
			}
			_ = s.Del(t.Context(), key("unknown"), nil)
			if step < n {
				break
			}
			s.Step = nil
			s.Boot = boot("2", time.Time{}) // what the index has known is enough for its own
			del(t, s, "unknown")
			got := leases(t, s)
			if got["10.0.0.2"] != "" || got["fd00::2"] != "" || got["10.0.0.4"] != "" ||
				got["10.0.0.5"] == "" || got["10.0.0.9"] == "" {
				t.Errorf("failed at step %d: %v", n, got)
			}
		}
	})
}

func TestGC(t *testing.T) {
	s := store(t)
	for _, id := range []string{"a", "b", "c"} {
		add(t, s, id, dual...)
	}
	put(t, dirOf(s), "10.0.0.6", "b")
	put(t, dirOf(s), "10.0.0.7", "x")
	put(t, dirOf(s), "10.0.0.8", "")
	put(t, dirOf(s), "10.0.0.9", strings.Repeat("x", 5000)) // nobody's lease
	put(t, dirOf(s), "not-an-address", "c\r\nnet1")
	valid := []attachment.ID{key("b"), {Network: "net", ContainerID: "a", IfName: "net2"}}
	for range 2 {
		if err := s.GC(t.Context(), valid); err != nil {
			t.Fatal(err)
		}
		want(t, "leases", leases(t, s), map[string]string{
			"10.0.0.3": "b\r\nnet1", "fd00::3": "b\r\nnet1", "10.0.0.6": "b",
			"10.0.0.9": strings.Repeat("x", 5000),
		})
		want(t, "entries", len(index(t, s)), 2)
	}
	read(t, dirOf(s)+"/not-an-address")
	count := sweeps(s)
	del(t, s, "b")
	want(t, "sweeps", *count, 0)
}

func TestCheck(t *testing.T) {
	s := store(t)
	a, b := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	if err := s.Check(t.Context(), key("a"), nil); err == nil {
		t.Error("CHECK without a directory succeeds")
	}
	add(t, s, "a", dual...)
	add(t, s, "b", dual...)
	put(t, dirOf(s), "10.0.0.9", "old")
	before := read(t, dirOf(s)+"/10.0.0.2")
	for _, c := range []struct {
		id    string
		addrs []netip.Addr
		want  string
	}{
		{"a", nil, ""},
		{"a", []netip.Addr{a}, ""},
		{"old", []netip.Addr{netip.MustParseAddr("10.0.0.9")}, ""},
		{"old", nil, ""},
		{"a", []netip.Addr{a, b}, "container a interface net1 has no lease of address 10.0.0.3"},
		{"a", []netip.Addr{netip.MustParseAddr("10.0.0.8")}, "no lease of address 10.0.0.8"},
		{"c", nil, "container c interface net1 has no lease"},
	} {
		err := s.Check(t.Context(), key(c.id), c.addrs)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.id, c.addrs, err, c.want)
		}
	}
	want(t, "lease", read(t, dirOf(s)+"/10.0.0.2"), before)
}

func TestFree(t *testing.T) {
	s := store(t)
	sets := []file.Set{
		dual[0].Set,
		{rng("10.1.0.1", "10.1.0.2", "10.1.0.1")},
		{rng("10.2.0.1", "10.2.0.1", "10.2.0.1")},
		{rng("fd00::1", "fd00:1::1", "fd00::1")},
	}
	free := func() []uint64 {
		got, err := s.Free(t.Context(), sets)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	const most uint64 = math.MaxUint64
	want(t, "without directory", free(), []uint64{8, 1, 0, most})
	add(t, s, "a", file.Wish{Set: sets[1]})
	put(t, dirOf(s), "10.1.0.1", "the gateway")
	want(t, "one full", free(), []uint64{8, 0, 0, most})
	for i := range uint64(8) {
		want(t, "sets", free(), []uint64{8 - i, 0, 0, most})
		add(t, s, fmt.Sprint("c", i), dual[0])
	}
	want(t, "all full", free(), []uint64{0, 0, 0, most})
	del(t, s, "c3")
	want(t, "one free", free(), []uint64{1, 0, 0, most})
}

// strangeFiles make what may be in the place of a file. target is a directory elsewhere.
var strangeFiles = map[string]func(path, target string) error{
	"link to a file": func(path, target string) error {
		return os.Symlink(target+"/file", path)
	},
	"link to a directory": func(path, target string) error {
		return os.Symlink(target, path)
	},
	"link to nothing": func(path, target string) error {
		return os.Symlink(target+"/none", path)
	},
	"pipe": func(path, _ string) error {
		return unix.Mkfifo(path, 0o600)
	},
	"socket": func(path, _ string) error {
		return unix.Mknod(path, unix.S_IFSOCK|0o600, 0)
	},
	"directory": func(path, _ string) error { return os.Mkdir(path, 0o755) },
	"file": func(path, _ string) error {
		return os.WriteFile(path, []byte("x"), 0o600)
	},
}

// Whatever is in the place of a file, nothing is followed, and nobody is harmed.
func TestStrangeFiles(t *testing.T) {
	target := func(t *testing.T) string {
		t.Helper()
		dir := t.TempDir()
		put(t, dir, "file", "a\r\nnet1")
		return dir
	}
	for _, c := range []struct {
		place string
		// fine are the kinds with which an ADD succeeds.
		fine []string
	}{
		{"", []string{"directory"}},
		{".braid", []string{"directory"}},
		{"lock", []string{"file", "pipe"}},
		{"last_reserved_ip.0", []string{"file"}},
		{"10.0.0.2", []string{
			"link to a file", "link to a directory", "link to nothing", "pipe", "socket", "directory",
			"file",
		}},
	} {
		for kind, make := range strangeFiles {
			t.Run(c.place+" is a "+kind, func(t *testing.T) {
				s, dir := store(t), target(t)
				if c.place != "" {
					if err := os.MkdirAll(dirOf(s), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if err := make(filepath.Join(dirOf(s), c.place), dir); err != nil {
					t.Fatal(err)
				}
				_, err := s.Add(t.Context(), key("a"), dual)
				if (err == nil) != slices.Contains(c.fine, kind) {
					t.Errorf("ADD: %v", err)
				}
				path := filepath.Join(dirOf(s), c.place)
				if err != nil && !strings.Contains(err.Error(), path) {
					t.Errorf("%v does not name %s", err, path)
				}
				if err != nil && c.place != "" && c.place != ".braid" &&
					len(leases(t, s))+len(index(t, s)) > 0 {
					t.Errorf("the failed ADD left %v %v", leases(t, s), index(t, s))
				}
				derr := s.Del(t.Context(), key("a"), []netip.Addr{netip.MustParseAddr("10.0.0.2")})
				if err == nil && derr != nil {
					t.Errorf("DEL: %v", derr)
				}
				if c.place == "10.0.0.2" {
					if _, err := os.Lstat(path); err != nil {
						t.Errorf("the strange lease is gone: %v", err)
					}
					want(t, "leases", len(leases(t, s)), 1)
				}
				left, err := os.ReadDir(dir)
				if err != nil || len(left) != 1 || read(t, dir+"/file") != "a\r\nnet1" {
					t.Errorf("the target was changed: %v, %v", left, err)
				}
			})
		}
	}
}

func TestInvalid(t *testing.T) {
	good := store(t)
	for name, c := range map[string]struct {
		dir, network string
		key          attachment.ID
		says         string
	}{
		"relative":     {"networks", "net", key("a"), `directory "networks" is not an absolute path`},
		"no directory": {"", "net", key("a"), `directory "" is not an absolute path`},
		"climbing":     {good.DataDir, "../net", key("a"), `network name "../net"`},
		"dots":         {good.DataDir, "..", key("a"), `network name ".."`},
		"no network":   {good.DataDir, "", key("a"), `network name ""`},
		"nul":          {good.DataDir + "\x00", "net", key("a"), "invalid argument"},
		"container ID": {good.DataDir, "net", key("a/b"), "a/b"},
		"no ID":        {good.DataDir, "net", key(""), "containerID"},
		"interface": {
			good.DataDir, "net",
			attachment.ID{Network: "net", ContainerID: "a", IfName: "a b"},
			"whitespace",
		},
		"no interface": {
			good.DataDir, "net",
			attachment.ID{Network: "net", ContainerID: "a"},
			"interface",
		},
		"line in the ID": {good.DataDir, "net", key("a\r\nb"), "invalid"},
	} {
		c.key.Network = c.network
		s := &file.Store{DataDir: c.dir, Network: c.network, Boot: good.Boot}
		_, err := s.Add(t.Context(), c.key, dual)
		for what, err := range map[string]error{
			"ADD": err, "DEL": s.Del(t.Context(), c.key, nil), "CHECK": s.Check(t.Context(), c.key, nil),
		} {
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	if left, err := os.ReadDir(good.DataDir); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// Whatever comes of an operation, no file stays open.
func TestNothingStaysOpen(t *testing.T) {
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	s := store(t)
	add(t, s, "first", dual...)
	before := open()
	for _, named := range []bool{false, true} {
		if named {
			s.Named()
		}
		for n := range 20 {
			step := 0
			s.Step = func(string) error {
				if step++; step == n {
					return unix.EIO
				}
				return nil
			}
			put(t, dirOf(s), "10.0.0.9", "foreign\r\nnet1")
			_, _ = s.Add(t.Context(), key("a"), dual)
			_ = s.Check(t.Context(), key("a"), nil)
			_ = s.Del(t.Context(), key("a"), nil)
			_ = s.GC(t.Context(), []attachment.ID{key("first")})
			_, _ = s.Free(t.Context(), []file.Set{dual[0].Set})
		}
	}
	want(t, "open files", open(), before)
}

// Whoever waits for the lock stops in time, having changed nothing.
func TestWaitEndsWithContext(t *testing.T) {
	s := store(t)
	add(t, s, "a", dual...)
	lock, err := os.Open(dirOf(s) + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := leases(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, aerr := s.Add(ctx, key("b"), dual)
	_, ferr := s.Free(ctx, []file.Set{dual[0].Set})
	for _, err := range []error{aerr, ferr, s.Del(ctx, key("a"), nil), s.GC(ctx, nil)} {
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "lock") {
			t.Errorf("got %v", err)
		}
	}
	want(t, "leases", leases(t, s), before)
}

// The address that was given last takes the whole place of a longer one, and of what is none.
func TestLastAddressIsWrittenWhole(t *testing.T) {
	s := store(t)
	add(t, s, "a", dual...)
	for _, before := range []string{"10.0.0.111", "no address, and much longer than one is", ""} {
		must(t, os.WriteFile(dirOf(s)+"/last_reserved_ip.0", []byte(before), 0o600))
		given := add(t, s, "b", dual...)
		want(t, "last after "+before, read(t, dirOf(s)+"/last_reserved_ip.0"),
			given[0].Addr.Addr().String())
		del(t, s, "b")
	}
}

// The index that nodes have is read by name and content: neither may change.
func TestEntryStays(t *testing.T) {
	s := store(t)
	const name, content = "e3392043b0e115104f187a2481355b93", `{"containerID":"a","ifname":"net1",` +
		`"adds":[["10.0.0.2","fd00::2"]]}`
	if _, err := s.Add(t.Context(), key("a"), dual); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dirOf(s), ".braid", name)); got != content {
		t.Errorf("entry %s", got)
	}
}

// Leases are of one network. An attachment of another one has none here, and can get none.
func TestOtherNetwork(t *testing.T) {
	s := store(t)
	if _, err := s.Add(t.Context(), key("a"), dual); err != nil {
		t.Fatal(err)
	}
	other := key("a")
	other.Network = "other"
	_, err := s.Add(t.Context(), other, dual)
	for what, err := range map[string]error{
		"ADD": err, "DEL": s.Del(t.Context(), other, nil), "CHECK": s.Check(t.Context(), other, nil),
		"release": s.Release(t.Context(), other, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), "network") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Check(t.Context(), key("a"), nil); err != nil {
		t.Error(err)
	}
	if err := s.GC(t.Context(), []attachment.ID{other}); err != nil || len(leases(t, s)) != 0 {
		t.Errorf("%v are left: %v", leases(t, s), err)
	}
}
