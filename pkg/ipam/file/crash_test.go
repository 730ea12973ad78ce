package file_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/file"
)

// job is what a child process of a test does, as JSON in the environment variable childEnv.
type job struct {
	DataDir string
	// Command is "ADD", "DEL" or "fill"; Kill is the step before which it kills itself, 0 for never.
	Command, ID string
	Kill        int
	Named       bool
}

const childEnv = "BRAID_FILE_TEST_JOB"

// TestMain makes the test binary the child process where the environment has its job.
func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.do(context.Background())
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func (j job) do(ctx context.Context) error {
	s := &file.Store{DataDir: j.DataDir, Network: "net", Boot: boot("1", time.Time{})}
	if j.Named {
		s.Named()
	}
	step := 0
	s.Step = func(string) error {
		if step++; step == j.Kill {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
		return nil
	}
	switch j.Command {
	case "ADD":
		_, err := s.Add(ctx, key(j.ID), dual)
		return err
	case "DEL":
		return s.Del(ctx, key(j.ID), nil)
	}
	got := 0 // "fill"
	for ; ; got++ {
		if _, full := s.Add(ctx, key(fmt.Sprint(j.ID, ".", got)), pool); full != nil {
			break
		}
	}
	fmt.Println("got", got)
	return nil //nolint:nilerr // until the pool is full is what was asked for
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// child runs a job; it returns the output, and reports whether the process was killed.
func child(ctx context.Context, j job) (out string, killed bool, err error) {
	text, err := json.Marshal(j)
	if err != nil {
		return "", false, err
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	raw, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil {
		if status, ok := cmd.ProcessState.Sys().(interface{ Signaled() bool }); ok && status.Signaled() {
			return string(raw), true, nil
		}
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, raw)
	}
	return string(raw), false, err
}

// scene is a store with another container's leases, in which a process is killed.
func scene(t *testing.T, fresh bool) *file.Store {
	t.Helper()
	s := store(t)
	if !fresh {
		add(t, s, "other", dual...)
	}
	return s
}

// Whenever a process is killed, the next DEL of its key leaves nothing, also after others have been
// at work.
func TestKilledAtEachStep(t *testing.T) {
	for _, c := range []job{
		{Command: "ADD", ID: "fresh"},
		{Command: "ADD", ID: "a"},
		{Command: "DEL", ID: "a"},
		{Command: "ADD", ID: "fresh", Named: true},
		{Command: "ADD", ID: "a", Named: true},
	} {
		t.Run(fmt.Sprintf("%s of %s, named %v", c.Command, c.ID, c.Named), func(t *testing.T) {
			steps := 0
			for c.Kill = 1; ; c.Kill++ {
				s := scene(t, c.ID == "fresh")
				if c.Command == "DEL" {
					add(t, s, c.ID, dual...)
				}
				c.DataDir = s.DataDir
				_, killed, err := child(t.Context(), c)
				must(t, err)
				for _, then := range []string{"DEL", "DEL by the reference", "ADD", "others", "GC", "reboot"} {
					afterKill(t, duplicate(t, s), c, then)
				}
				if !killed {
					break
				}
				steps++
			}
			if steps < 5 {
				t.Errorf("only %d steps", steps)
			}
		})
	}
}

// duplicate is a store like the other one, with all times and links.
func duplicate(t *testing.T, s *file.Store) *file.Store {
	t.Helper()
	twin := store(t)
	out, err := exec.CommandContext(t.Context(), "cp", "-a", s.DataDir+"/.", twin.DataDir).
		CombinedOutput()
	if err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	return twin
}

func afterKill(t *testing.T, s *file.Store, c job, then string) {
	t.Helper()
	what := fmt.Sprintf("killed before step %d, then %s", c.Kill, then)
	for addr, content := range leases(t, s) {
		if content != c.ID+"\r\nnet1" && content != "other\r\nnet1" {
			t.Errorf("%s: %s has %q", what, addr, content)
		}
	}
	switch then {
	case "DEL by the reference":
		releaseLikeTheReference(t, s, c.ID)
	case "ADD":
		// It is complete, or there is a complete one already.
		got, err := s.Add(t.Context(), key(c.ID), dual)
		if err != nil && !strings.Contains(err.Error(), "duplicate allocation") ||
			err == nil && len(got) != 2 {
			t.Errorf("%s: %v, %v", what, got, err)
		}
		count := 0
		for _, content := range leases(t, s) {
			if content == c.ID+"\r\nnet1" {
				count++
			}
		}
		want(t, what+": leases of the key", count, 2)
	case "others":
		add(t, s, "x", dual...)
		del(t, s, "x")
	case "GC":
		must(t, s.GC(t.Context(), []attachment.ID{key("other")}))
	case "reboot":
		s.Boot = boot("2", time.Now().Add(time.Hour))
		add(t, s, "other2", dual...)
		del(t, s, "other2")
	}
	for range 2 {
		del(t, s, c.ID)
	}
	left := map[string]string{}
	if c.ID != "fresh" && then != "reboot" {
		left = map[string]string{"10.0.0.2": "other\r\nnet1", "fd00::2": "other\r\nnet1"}
	}
	want(t, what+": leases", leases(t, s), left)
	if got := index(t, s); len(got) != len(left)/2 {
		t.Errorf("%s: index %v", what, got)
	}
}

// releaseLikeTheReference removes every file, in the directory and below, that has the content of
// the key's leases.
func releaseLikeTheReference(t *testing.T, s *file.Store, id string) {
	t.Helper()
	root := os.DirFS(s.DataDir)
	must(t, fs.WalkDir(root, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := fs.ReadFile(root, path)
		if err == nil && strings.TrimSpace(string(data)) == id+"\r\nnet1" {
			err = os.Remove(s.DataDir + "/" + path)
		}
		return err
	}))
}

// An operation that fails, at whatever step, has changed nothing (ADD), or is finished by the next
// one (DEL).
func TestFailsAtEachStep(t *testing.T) {
	injected := errors.New("injected")
	for _, c := range []struct {
		name  string
		named bool
		run   func(s *file.Store) error
	}{
		{"ADD", false, func(s *file.Store) error {
			_, err := s.Add(t.Context(), key("a"), dual)
			return err
		}},
		{"named ADD", true, func(s *file.Store) error {
			_, err := s.Add(t.Context(), key("a"), dual)
			return err
		}},
		{"second ADD", false, func(s *file.Store) error {
			_, err := s.Add(t.Context(), key("b"),
				[]file.Wish{{Set: dual[0].Set, Asked: netip.MustParseAddr("10.0.0.9")}})
			return err
		}},
		{"DEL", false, func(s *file.Store) error { return s.Del(t.Context(), key("b"), nil) }},
		{"GC", false, func(s *file.Store) error {
			return s.GC(t.Context(), []attachment.ID{key("other")})
		}},
		{"Release", false, func(s *file.Store) error {
			return s.Release(t.Context(), key("b"),
				[]netip.Addr{netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("fd00::3")})
		}},
	} {
		failed := 0
		for n := 1; ; n++ {
			s := scene(t, false)
			add(t, s, "b", dual...)
			if c.named {
				s.Named()
			}
			before, entries := leases(t, s), index(t, s)
			step := 0
			s.Step = func(string) error {
				if step++; step == n {
					return injected
				}
				return nil
			}
			err := c.run(s)
			if step < n {
				must(t, err)
				break
			}
			s.Step = nil
			if err == nil { // a step that does not matter: the mark
				continue
			}
			failed++
			if !errors.Is(err, injected) {
				t.Errorf("%s fails at step %d with %v", c.name, n, err)
			}
			if strings.HasSuffix(c.name, "ADD") {
				want(t, fmt.Sprintf("%s fails at step %d: leases", c.name, n), leases(t, s), before)
				want(t, fmt.Sprintf("%s fails at step %d: index", c.name, n),
					slices.DeleteFunc(index(t, s), func(n string) bool {
						return n == "new"
					}), entries)
			}
			must(t, c.run(s))
			want(t, c.name+" after all: new",
				slices.Contains(index(t, s), "new") && c.name != "Release", false)
		}
		if failed < 2 {
			t.Errorf("%s failed %d times", c.name, failed)
		}
	}
}

var pool = []file.Wish{wish("10.0.0.2", "10.0.3.233")} // 1,000 addresses

// taken is how many names there are in the directory that are addresses.
func taken(s *file.Store) int {
	entries, err := os.ReadDir(dirOf(s))
	if err != nil {
		return -1
	}
	return len(slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return !strings.HasPrefix(e.Name(), "10.")
	}))
}

// Processes and goroutines get all addresses there are, each once, while others come and go.
func TestEveryAddressOnce(t *testing.T) {
	const n, processes, goroutines = 1000, 3, 8
	s := store(t)
	var mu sync.Mutex
	total := 0
	var wg sync.WaitGroup
	count := func(got int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if total += got; err != nil {
			t.Error(err)
		}
	}
	for p := range processes {
		wg.Go(func() {
			out, _, err := child(t.Context(),
				job{DataDir: s.DataDir, Command: "fill", ID: fmt.Sprint("p", p)})
			got := 0
			if err == nil {
				_, err = fmt.Sscanf(out, "got %d", &got)
			}
			count(got, err)
		})
	}
	seen := map[netip.Addr]bool{}
	for g := range goroutines {
		wg.Go(func() {
			for i := 0; ; i++ {
				gone := key(fmt.Sprint("gone", g))
				_, err := s.Add(t.Context(), gone, pool)
				if derr := s.Del(t.Context(), gone, nil); derr != nil {
					count(0, derr)
				}
				if err != nil && i > 0 && taken(s) >= n {
					return
				}
				got, err := s.Add(t.Context(), key(fmt.Sprint("g", g, ".", i)), pool)
				if err != nil {
					if !strings.Contains(err.Error(), "no address is free") {
						count(0, err)
					}
					continue
				}
				count(1, nil)
				mu.Lock()
				if seen[got[0].Addr.Addr()] {
					t.Errorf("%v was given twice", got[0].Addr)
				}
				seen[got[0].Addr.Addr()] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	all := leases(t, s)
	if total < n || len(all) > n {
		t.Errorf("%d leases were given, %d are there, of %d", total, len(all), n)
	}
	// What the come-and-go held when the others gave up is free now; then it is full.
	for i := 0; ; i++ {
		if _, err := s.Add(t.Context(), key(fmt.Sprint("rest", i)), pool); err != nil {
			break
		}
		total++
	}
	all = leases(t, s)
	want(t, "leases given, and leases", []int{total, len(all)}, []int{n, n})
	holders := map[string]bool{}
	for addr, content := range all {
		if holders[content] {
			t.Errorf("%s: %q has another address", addr, content)
		}
		holders[content] = true
	}
}
