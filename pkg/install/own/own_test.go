package own_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/internal/killtest"
	"github.com/braid-cni/braid/pkg/nettest"
)

func TestMain(m *testing.M) { os.Exit(killtest.Main(m, putNew)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testStore is a Store and the directory of configurations that it writes to.
type testStore struct {
	*own.Store

	t     *testing.T
	dir   string
	steps []string
}

func newTestStore(t *testing.T) *testStore {
	t.Helper()
	root := t.TempDir()
	s := &testStore{
		t: t, dir: filepath.Join(root, "net.d"),
		Store: &own.Store{Dir: filepath.Join(root, "state"), Self: "a", Installation: "i"},
	}
	s.Step = func(change string) error {
		s.steps = append(s.steps, strings.ReplaceAll(change, root, ""))
		return nil
	}
	must(t, os.Mkdir(s.dir, 0o755))
	must(t, s.Claim(t.Context()))
	s.steps = nil
	return s
}

func (s *testStore) path() string { return filepath.Join(s.dir, "00-braid.conflist") }

func (s *testStore) file(content string) *own.File {
	return own.Bytes(s.path(), 0o644, "configuration", []byte(content))
}

func (s *testStore) put(content string) bool {
	s.t.Helper()
	changed, err := s.Put(s.t.Context(), s.file(content))
	must(s.t, err)
	return changed
}

// refuses wants a Put to fail for a reason, with words in its text, and to leave all as it is.
func (s *testStore) refuses(f *own.File, reason failure.Reason, words ...string) {
	s.t.Helper()
	before := tree(s.t, filepath.Dir(f.Path))
	_, err := s.Put(s.t.Context(), f)
	if failure.ReasonOf(err) != reason || failure.FixOf(err) == "" {
		s.t.Errorf("error %v of reason %q, want %q and a fix", err, failure.ReasonOf(err), reason)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			s.t.Errorf("error %v does not say %q", err, word)
		}
	}
	if after := tree(s.t, filepath.Dir(f.Path)); !slices.Equal(after, before) {
		s.t.Errorf("there is\n%q, was\n%q", after, before)
	}
}

// tree lists what is in a directory, with type, mode and content.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		line := e.Name() + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(filepath.Join(dir, e.Name()))
			must(t, err)
			line += " " + string(content)
		}
		all = append(all, line)
	}
	return all
}

func (s *testStore) wants(lines ...string) {
	s.t.Helper()
	if got := tree(s.t, s.dir); !slices.Equal(got, lines) {
		s.t.Errorf("there is\n%q, want\n%q", got, lines)
	}
}

func TestPut(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	s := newTestStore(t)
	if !s.put("1") || s.put("1") || !s.put("2") {
		t.Error("what is new was not written, or what is there was written again")
	}
	s.wants("00-braid.conflist -rw-r--r-- 2")
	entries, err := s.Entries(t.Context())
	must(t, err)
	want := own.Entry{
		Path: s.path(), Kind: "configuration", Digests: []string{s.file("2").Digest}, Installed: true,
	}
	if len(entries) != 1 || fmt.Sprint(entries[0]) != fmt.Sprint(want) {
		t.Errorf("the ledger has %v, want %v", entries, want)
	}
}

// What is right already is not touched: neither it nor the ledger nor their directories.
func TestPutWritesNothingTwice(t *testing.T) {
	s := newTestStore(t)
	s.put("1")
	s.steps = nil
	stat := func(path string) (st unix.Stat_t) {
		must(t, unix.Lstat(path, &st))
		st.Atim = unix.Timespec{}
		return st
	}
	file, dir, ledger := stat(s.path()), stat(s.dir), stat(filepath.Join(s.Dir, "installed.json"))
	if s.put("1") || len(s.steps) > 0 {
		t.Errorf("changed by %q", s.steps)
	}
	if stat(s.path()) != file || stat(s.dir) != dir ||
		stat(filepath.Join(s.Dir, "installed.json")) != ledger {
		t.Error("a file is not as it was")
	}
}

func TestPutMode(t *testing.T) {
	s := newTestStore(t)
	s.put("1")
	must(t, os.Chmod(s.path(), 0o600))
	if !s.put("1") {
		t.Error("the mode is no change")
	}
	s.wants("00-braid.conflist -rw-r--r-- 1")
}

// The content is on the disk before it has its name, and the name has no configuration's suffix
// before.
func TestPutOrder(t *testing.T) {
	s := newTestStore(t)
	keep := s.Step
	s.Step = func(change string) error {
		for _, e := range tree(t, s.dir) {
			if strings.HasPrefix(change, "sync /") && strings.Contains(change, "00-braid") &&
				e != "."+"00-braid.conflist.braid-new -rw-r--r-- 1" {
				t.Errorf("%s: there is %s", change, e)
			}
		}
		return keep(change)
	}
	s.put("1")
	want := []string{
		"create /state/installed.json", "write /state/installed.json", "sync /state/installed.json",
		"rename /state/installed.json",
		"sync directory /state",
		"create /net.d/00-braid.conflist", "write /net.d/00-braid.conflist",
		"sync /net.d/00-braid.conflist", "rename /net.d/00-braid.conflist",
		"sync directory /net.d",
		"create /state/installed.json", "write /state/installed.json", "sync /state/installed.json",
		"rename /state/installed.json",
		"sync directory /state",
	}
	if !slices.Equal(s.steps, want) {
		t.Errorf("changes are\n%q, want\n%q", s.steps, want)
	}
}

func TestPutForeign(t *testing.T) {
	s := newTestStore(t)
	must(t, os.WriteFile(s.path(), []byte("theirs"), 0o600))
	s.refuses(s.file("1"), failure.FileInTheWay, s.path(), "not from this installer")
	must(t, s.Remove(t.Context(), s.path()))
	s.wants("00-braid.conflist -rw------- theirs")
}

// A Store that has lost its ledger knows its files by what is in them; one that is of another
// version is foreign to it, but for those in its own directory.
func TestLedgerLost(t *testing.T) {
	s := newTestStore(t)
	inside := func(content string) *own.File {
		return own.Bytes(filepath.Join(s.Dir, "kubeconfig"), 0o600, "kubeconfig", []byte(content))
	}
	s.put("1")
	_, err := s.Put(t.Context(), inside("old"))
	must(t, err)
	lose := func() {
		must(t, os.Remove(filepath.Join(s.Dir, "installed.json")))
		must(t, s.Claim(t.Context()))
	}
	lose()
	s.refuses(s.file("2"), failure.FileInTheWay)
	if s.put("1") {
		t.Error("what was there was written again")
	}
	if !s.put("2") {
		t.Error("it was not replaced after it had been adopted")
	}
	lose()
	s.put("2")
	must(t, s.Remove(t.Context(), s.path()))
	s.wants()
	if changed, err := s.Put(t.Context(), inside("new")); err != nil || !changed {
		t.Errorf("a file in the Store's own directory: %v, %v", changed, err)
	}
}

// A file that came while the first Put was interrupted is not the Store's.
func TestPutForeignMeanwhile(t *testing.T) {
	s := newTestStore(t)
	s.Step = func(change string) error {
		if strings.HasPrefix(change, "create "+s.dir) {
			return errors.New("stop")
		}
		return nil
	}
	if _, err := s.Put(t.Context(), s.file("1")); err == nil {
		t.Fatal("the step's error is lost")
	}
	s.Step = nil
	must(t, os.WriteFile(s.path(), []byte("theirs"), 0o600))
	s.refuses(s.file("1"), failure.FileInTheWay)
	must(t, os.WriteFile(s.path(), []byte("1"), 0o600)) // as if the rename had been done
	if !s.put("2") {
		t.Error("not written")
	}
}

func TestPutInTheWay(t *testing.T) {
	for kind, make := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink("/dev/null", path) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"named pipe":    func(path string) error { return unix.Mkfifo(path, 0o600) },
		"socket":        func(path string) error { return unix.Mknod(path, unix.S_IFSOCK|0o600, 0) },
	} {
		s := newTestStore(t)
		must(t, make(s.path()))
		s.refuses(s.file("1"), failure.FileInTheWay, kind, s.path())
		must(t, os.Remove(s.path()))
		s.put("1")
		must(t, os.Remove(s.path()))
		must(t, make(s.path())) // also in the place of one that was the Store's
		s.refuses(s.file("1"), failure.FileInTheWay, kind, s.path())
		if err := s.Remove(t.Context(), s.path()); failure.ReasonOf(err) != failure.FileInTheWay {
			t.Errorf("removing a %s: %v", kind, err)
		}
	}
}

// A link to a file that others need is not written through.
func TestPutFollowsNoLink(t *testing.T) {
	s := newTestStore(t)
	target := filepath.Join(t.TempDir(), "shadow")
	must(t, os.WriteFile(target, []byte("secret"), 0o600))
	must(t, os.Symlink(target, filepath.Join(s.dir, ".00-braid.conflist.braid-new")))
	s.put("1")
	s.wants("00-braid.conflist -rw-r--r-- 1")
	if content, err := os.ReadFile(target); err != nil || string(content) != "secret" {
		t.Errorf("the link's target has %q, %v", content, err)
	}
}

func TestPutDirectory(t *testing.T) {
	s := newTestStore(t)
	must(t, os.Remove(s.dir))
	must(t, os.Mkdir(s.dir+".real", 0o755))
	must(t, os.Symlink(s.dir+".real", s.dir)) // as microk8s has it
	s.put("1")
	if got := tree(t, s.dir+".real"); !slices.Equal(got, []string{"00-braid.conflist -rw-r--r-- 1"}) {
		t.Errorf("there is %q", got)
	}
	must(t, os.Remove(s.dir)) // absent: it is made
	s.put("1")
	s.wants("00-braid.conflist -rw-r--r-- 1")
	must(t, os.RemoveAll(s.dir))
	must(t, os.WriteFile(s.dir, nil, 0o600))
	_, err := s.Put(t.Context(), s.file("1"))
	if failure.ReasonOf(err) != failure.StateFailed ||
		!strings.Contains(err.Error(), "not a directory") || failure.FixOf(err) == "" {
		t.Errorf("a file for a directory: %v", err)
	}
	_, err = s.Put(t.Context(), own.Bytes("net.d/x", 0o600, "", nil))
	if failure.ReasonOf(err) != failure.InvalidConfig {
		t.Errorf("relative path: %v", err)
	}
}

func TestLook(t *testing.T) {
	s := newTestStore(t)
	look := func(content string, want own.State) {
		t.Helper()
		if state, err := s.Look(t.Context(), s.file(content)); err != nil || state != want {
			t.Errorf("state %v, %v, want %v", state, err, want)
		}
	}
	look("1", own.Missing)
	s.put("1")
	look("1", own.Right)
	look("2", own.Old)
	must(t, os.WriteFile(s.path(), []byte("x"), 0o600))
	look("1", own.Changed)
	s.put("1")
	look("1", own.Right)
	must(t, os.Remove(s.path()))
	look("1", own.Missing)
	must(t, s.Remove(t.Context(), s.path()))
	must(t, os.WriteFile(s.path(), []byte("x"), 0o600))
	look("1", own.Foreign)
	must(t, os.RemoveAll(s.dir))
	look("1", own.Missing)
}

func TestRemove(t *testing.T) {
	s := newTestStore(t)
	s.put("1")
	must(t, os.WriteFile(s.path(), []byte("edited"), 0o644))
	err := s.Remove(t.Context(), s.path())
	if failure.ReasonOf(err) != failure.FileInTheWay || failure.FixOf(err) == "" {
		t.Errorf("a file that was edited: %v", err)
	}
	s.put("1")
	must(t, os.WriteFile(filepath.Join(s.dir, ".00-braid.conflist.braid-new"), nil, 0o600))
	for range 2 {
		must(t, s.Remove(t.Context(), s.path()))
		s.wants()
	}
	s.put("1")
	must(t, os.RemoveAll(s.dir))
	must(t, s.Remove(t.Context(), s.path()))
	if entries, err := s.Entries(t.Context()); err != nil || len(entries) > 0 {
		t.Errorf("remembered are %v, %v", entries, err)
	}
}

// What is given back to others is theirs.
func TestGive(t *testing.T) {
	s := newTestStore(t)
	for range 2 {
		must(t, s.Give(t.Context(), s.file("theirs")))
	}
	s.wants("00-braid.conflist -rw-r--r-- theirs")
	must(t, s.Remove(t.Context(), s.path()))
	s.wants("00-braid.conflist -rw-r--r-- theirs")
	if err := s.Give(t.Context(), s.file("other")); failure.ReasonOf(err) != failure.FileInTheWay {
		t.Errorf("replaced: %v", err)
	}
}

// A note that changes is remembered, though the file does not.
func TestPutNote(t *testing.T) {
	s := newTestStore(t)
	f := s.file("1")
	for _, note := range []string{"a", "b"} {
		f.Note = note
		if _, err := s.Put(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Entries(t.Context()); err != nil || all[0].Note != note {
			t.Errorf("remembered is %v, %v", all, err)
		}
	}
}

// Of two agents, the one that came last does the work.
func TestSuperseded(t *testing.T) {
	s := newTestStore(t)
	s.put("1")
	next := &own.Store{Dir: s.Dir, Self: "b", Installation: "i"}
	must(t, next.Claim(t.Context()))
	if changed, err := next.Put(t.Context(), s.file("2")); err != nil || !changed {
		t.Errorf("the later agent: %v, %v", changed, err)
	}
	_, putErr := s.Put(t.Context(), s.file("1"))
	_, lookErr := s.Look(t.Context(), s.file("1"))
	for _, err := range []error{putErr, lookErr, s.Remove(t.Context(), s.path())} {
		if e, ok := errors.AsType[*own.SupersededError](err); !ok || e.By != "b" {
			t.Errorf("the earlier agent: %v", err)
		}
	}
	s.wants("00-braid.conflist -rw-r--r-- 2")
}

// An agent that starts once more while its installation is being removed does not bring it back; a
// new installation does.
func TestRetired(t *testing.T) {
	s := newTestStore(t)
	s.put("1")
	hook := &own.Store{Dir: s.Dir, Self: "hook"}
	must(t, hook.Retire(t.Context()))
	must(t, hook.Retire(t.Context()))
	must(t, hook.Remove(t.Context(), s.path()))
	if _, ok := errors.AsType[*own.RetiredError](s.Claim(t.Context())); !ok {
		t.Error("a retired installation came back")
	}
	if _, err := s.Put(t.Context(), s.file("1")); err == nil {
		t.Error("it still writes")
	}
	next := &own.Store{Dir: s.Dir, Self: "b", Installation: "j"}
	must(t, next.Claim(t.Context()))
	must(t, next.Claim(t.Context()))
}

func TestLedgerUnreadable(t *testing.T) {
	for content, word := range map[string]string{
		"": "unexpected end", "{": "unexpected end", `{"version":2}`: "version 2",
	} {
		s := newTestStore(t)
		must(t, os.WriteFile(filepath.Join(s.Dir, "installed.json"), []byte(content), 0o600))
		s.refuses(s.file("1"), failure.StateCorrupt, word)
		if _, err := s.Entries(t.Context()); failure.ReasonOf(err) != failure.StateCorrupt {
			t.Errorf("entries: %v", err)
		}
	}
}

func TestPutSource(t *testing.T) {
	s := newTestStore(t)
	source := filepath.Join(t.TempDir(), "braid")
	must(t, os.WriteFile(source, []byte("whole"), 0o755))
	f, err := own.Copy(s.path(), 0o755, "binary", source)
	must(t, err)
	must(t, os.WriteFile(source, []byte("who"), 0o755))
	s.refuses(f, failure.StateFailed, "not complete")
	if _, err := own.Copy(s.path(), 0o755, "binary", source+"x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no source: %v", err)
	}
	checked := errors.New("does not run")
	f = s.file("1")
	f.Check = func(_ context.Context, temporary string) error {
		content, err := os.ReadFile(temporary)
		must(t, err)
		if string(content) != "1" {
			t.Errorf("checked is %q", content)
		}
		return checked
	}
	if _, err := s.Put(t.Context(), f); !errors.Is(err, checked) {
		t.Errorf("check: %v", err)
	}
	s.wants()
}

// An error of any change leaves the old content or the new, and nothing beside it.
func TestPutFailsAtEachStep(t *testing.T) {
	for n := 0; ; n++ {
		s := newTestStore(t)
		s.put("old")
		count, stop := 0, errors.New("stop")
		s.Step = func(string) error {
			if count++; count > n {
				return stop
			}
			return nil
		}
		_, err := s.Put(t.Context(), s.file("new"))
		if err == nil {
			if n < 10 {
				t.Errorf("only %d steps", n)
			}
			break
		}
		if !errors.Is(err, stop) {
			t.Errorf("step %d: error %v", n, err)
		}
		s.oldOrNew(n)
		for _, e := range append(tree(t, s.dir), tree(t, s.Dir)...) {
			if strings.Contains(e, "braid-new") {
				t.Errorf("step %d: left is %s", n, e)
			}
		}
		s.Step = nil
		s.repaired(n)
	}
}

func (s *testStore) oldOrNew(n int) {
	s.t.Helper()
	content, err := os.ReadFile(s.path())
	if err != nil || string(content) != "old" && string(content) != "new" {
		s.t.Errorf("step %d: content %q, %v", n, content, err)
	}
}

// repaired runs the Put again, and wants all to be as if it had not been interrupted.
func (s *testStore) repaired(n int) {
	s.t.Helper()
	must(s.t, s.Claim(s.t.Context()))
	s.put("new")
	s.wants("00-braid.conflist -rw-r--r-- new")
	entries, err := s.Entries(s.t.Context())
	if err != nil || len(entries) != 1 || len(entries[0].Digests) != 1 || !entries[0].Installed {
		s.t.Errorf("step %d: the ledger has %v, %v", n, entries, err)
	}
}

// putNew is what is killed: a Put into the Store and to the path of args.
func putNew(args []string, step func(string) error) error {
	ctx := context.Background()
	s := &own.Store{Dir: args[0], Self: "a", Installation: "i", Step: step}
	if err := s.Claim(ctx); err != nil {
		return err
	}
	_, err := s.Put(ctx, own.Bytes(args[1], 0o644, "configuration", []byte("new")))
	return err
}

// So does a kill, but for a temporary file that the next run takes away.
func TestPutKilledAtEachStep(t *testing.T) {
	for _, first := range []bool{true, false} {
		for n := 0; ; n++ {
			s := newTestStore(t)
			if !first {
				s.put("old")
			}
			if !killtest.Run(t, n, s.Dir, s.path()) {
				if n < 10 {
					t.Errorf("only %d steps", n)
				}
				break
			}
			if first {
				if content, err := os.ReadFile(s.path()); err == nil && string(content) != "new" {
					t.Errorf("step %d: content %q", n, content)
				}
			} else {
				s.oldOrNew(n)
			}
			for _, e := range tree(t, s.dir) {
				name, _, _ := strings.Cut(e, " ")
				if name != "00-braid.conflist" && name != ".00-braid.conflist.braid-new" {
					t.Errorf("step %d: there is %s", n, e)
				}
			}
			s.repaired(n)
		}
	}
}

// mounted mounts a file system on the store's directory, in this test's mount namespace.
func (s *testStore) mounted(options string, flags uintptr) {
	s.t.Helper()
	nettest.NeedsRoot(s.t)
	must(s.t, unix.Mount("tmpfs", s.dir, "tmpfs", flags, options))
	s.t.Cleanup(func() { unix.Unmount(s.dir, unix.MNT_DETACH) })
}

// A directory that cannot be written is fine where the file is in the node's image.
func TestPutReadOnly(t *testing.T) {
	s := newTestStore(t)
	s.mounted("size=64k", 0)
	must(t, os.WriteFile(s.path(), []byte("baked"), 0o755))
	must(t, unix.Mount("", s.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	baked := own.Bytes(s.path(), 0o755, "binary", []byte("baked"))
	if changed, err := s.Put(t.Context(), baked); err != nil || changed {
		t.Errorf("baked in: %v, %v", changed, err)
	}
	must(t, s.Remove(t.Context(), s.path())) // it is not the Store's to remove
	s.wants("00-braid.conflist -rwxr-xr-x baked")
	s.refuses(own.Bytes(s.path(), 0o755, "binary", []byte("newer")), failure.FileInTheWay)
	s.refuses(own.Bytes(s.path()+"x", 0o755, "binary", []byte("other")), failure.StateFailed,
		"read-only", "bake")
	// One that does not run is not as wanted.
	must(t, unix.Mount("", s.dir, "", unix.MS_REMOUNT, ""))
	must(t, os.Chmod(s.path(), 0o600))
	must(t, unix.Mount("", s.dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	s.refuses(baked, failure.FileInTheWay)
}

// A full disk costs nothing that is there.
func TestPutFullDisk(t *testing.T) {
	s := newTestStore(t)
	s.mounted("size=64k", 0)
	s.put("old")
	must(t, os.WriteFile(filepath.Join(s.dir, "ballast"), make([]byte, 48<<10), 0o600))
	s.refuses(own.Bytes(s.path(), 0o644, "configuration", bytes.Repeat([]byte("x"), 32<<10)),
		failure.StateFailed, "no space", "make room")
	must(t, os.Remove(filepath.Join(s.dir, "ballast")))
	s.put("new")
}

// A full disk of the ledger leaves the file as it is.
func TestLedgerFullDisk(t *testing.T) {
	s := newTestStore(t)
	s.put("old")
	nettest.NeedsRoot(t)
	ledger, err := os.ReadFile(filepath.Join(s.Dir, "installed.json"))
	must(t, err)
	must(t, unix.Mount("tmpfs", s.Dir, "tmpfs", 0, "size=16k"))
	t.Cleanup(func() { unix.Unmount(s.Dir, unix.MNT_DETACH) })
	must(t, os.WriteFile(filepath.Join(s.Dir, "installed.json"), ledger, 0o600))
	os.WriteFile(filepath.Join(s.Dir, "ballast"), make([]byte, 32<<10), 0o600) // as much as goes
	s.refuses(s.file("new"), failure.StateFailed, "no space")
	if s.put("old") {
		t.Error("written")
	}
}

// A program that runs is replaced, and one that was just installed can be run, whatever the agent
// starts at the same time.
func TestPutTextBusy(t *testing.T) {
	s := newTestStore(t)
	s.Step = nil
	path := filepath.Join(s.dir, "sleep")
	real, err := exec.LookPath("sleep")
	must(t, err)
	f, err := own.Copy(path, 0o755, "binary", real)
	must(t, err)
	_, err = s.Put(t.Context(), f)
	must(t, err)
	running := exec.CommandContext(t.Context(), path, "60")
	must(t, running.Start())
	defer running.Wait()
	defer running.Process.Kill()
	ctx, stop := context.WithCancel(t.Context())
	var children sync.WaitGroup
	for range 4 {
		children.Go(func() {
			for ctx.Err() == nil {
				exec.CommandContext(ctx, real, "0").Run()
			}
		})
	}
	content, err := os.ReadFile(real)
	must(t, err)
	for i := range 20 {
		next := own.Bytes(path, 0o755, "binary", append(bytes.Clone(content), byte(i)))
		next.Check = func(ctx context.Context, temporary string) error {
			return exec.CommandContext(ctx, temporary, "0").Run()
		}
		if _, err := s.Put(t.Context(), next); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if err := exec.CommandContext(t.Context(), path, "0").Run(); err != nil {
			t.Fatalf("%d: run what was installed: %v", i, err)
		}
	}
	stop()
	children.Wait()
}

// A child that is forked while the file is open for writing would keep it so for a moment.
func TestPutForksNotMeanwhile(t *testing.T) {
	s := newTestStore(t)
	started := make(chan error, 1)
	s.Step = func(change string) error {
		if change != "write "+s.path() {
			return nil
		}
		go func() {
			started <- exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$").Run()
		}()
		select {
		case err := <-started:
			t.Errorf("a child was started: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	}
	s.put("1")
	must(t, <-started)
}

// Several processes may install at once.
func TestPutAtOnce(t *testing.T) {
	s := newTestStore(t)
	s.Step = nil
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			store := &own.Store{Dir: s.Dir, Self: "a", Installation: "i"}
			for j := range 10 {
				path := filepath.Join(s.dir, fmt.Sprint(i))
				file := own.Bytes(path, 0o644, "", fmt.Append(nil, j))
				if _, err := store.Put(t.Context(), file); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	s.wants("0 -rw-r--r-- 9", "1 -rw-r--r-- 9", "2 -rw-r--r-- 9", "3 -rw-r--r-- 9")
	if entries, err := s.Entries(t.Context()); err != nil || len(entries) != 4 {
		t.Errorf("remembered are %v, %v", entries, err)
	}
}

func ExampleStore() {
	root, err := os.MkdirTemp("", "braid")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(root)
	store := &own.Store{Dir: filepath.Join(root, "var/lib/braid"), Self: "agent-1"}
	if err := store.Claim(context.Background()); err != nil {
		panic(err)
	}
	path := filepath.Join(root, "etc/cni/net.d/00-braid.conflist")
	for _, content := range []string{"{}", "{}", `{"name":"braid"}`} {
		changed, err := store.Put(context.Background(),
			own.Bytes(path, 0o644, "configuration", []byte(content)))
		fmt.Println(changed, err)
	}
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	content, err := io.ReadAll(file)
	fmt.Println(string(content), err)
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
	// {"name":"braid"} <nil>
}
