package record_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

func lock(t *testing.T, s *record.Store, id string) *record.Sandbox {
	t.Helper()
	b, err := s.Lock(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sample() *record.Record {
	return &record.Record{
		NetNS: "/run/netns/x", Created: time.Now().UTC(),
		Pod: record.Pod{Namespace: "default", Name: "a", UID: "u"},
		Attachments: []record.Attachment{
			{Attachment: plan.Attachment{
				Name: "default/n", Network: "n", IfName: "net1",
				Conf: json.RawMessage(`{"big":12345678901234567890}`),
			}, State: record.Attempted},
		},
	}
}

func TestSaveLoadRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := record.New(dir)
	b := lock(t, s, "c1")
	if _, err := b.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Load of nothing: %v", err)
	}
	want := sample()
	if err := b.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := b.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	info, err := os.Stat(filepath.Join(dir, "sandboxes", "c1.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("record: %v, %v; want mode 0600", info, err)
	}
	if err := errors.Join(b.Remove(), b.Remove()); err != nil {
		t.Errorf("Remove twice: %v", err)
	}
	b.Unlock()
	left, err := os.ReadDir(filepath.Join(dir, "sandboxes"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// A record that cannot be trusted is never "no record".
func TestM4CorruptRecordIsAnError(t *testing.T) {
	huge := strings.Repeat(" ", 17<<20)
	for name, content := range map[string]string{
		"empty": "", "truncated": `{"version":1,"containerID":"c1","atta`, "wrong JSON": `[1]`,
		"unknown field":   `{"version":1,"containerID":"c1","x":1}`,
		"other version":   `{"version":9,"containerID":"c1"}`,
		"other container": `{"version":1,"containerID":"c2"}`, "10 MB and more": huge,
		"hostile interface": `{"version":1,"containerID":"c1","attachments":[{"ifName":"../x",` +
			`"network":"n","state":"added","name":"","conf":{}}]}`,
		"hostile network": `{"version":1,"containerID":"c1","attachments":[{"ifName":"net1",` +
			`"network":"../n","state":"added","name":"","conf":{}}]}`,
		"unknown state": `{"version":1,"containerID":"c1","attachments":[{"ifName":"net1",` +
			`"network":"n","state":"gone","name":"","conf":{}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := record.New(filepath.Join(dir, "state"))
			b := lock(t, s, "c1")
			defer b.Unlock()
			path := filepath.Join(dir, "state", "sandboxes", "c1.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := b.Load()
			if failure.ReasonOf(err) != failure.StateCorrupt || failure.Code(err) != 6 ||
				!strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("symbolic link", func(t *testing.T) {
		dir := t.TempDir()
		b := lock(t, record.New(filepath.Join(dir, "state")), "c1")
		defer b.Unlock()
		err := os.Symlink("/etc/passwd", filepath.Join(dir, "state", "sandboxes", "c1.json"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Load(); failure.ReasonOf(err) != failure.StateCorrupt {
			t.Errorf("got %v", err)
		}
	})
}

func TestLockExcludesAndCleansUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var inside, most int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				b, err := record.New(dir).Lock(context.Background(), "c1")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				most = max(most, inside)
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				b.Unlock()
			}
		})
	}
	wg.Wait()
	if most != 1 {
		t.Errorf("%d holders at once", most)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "sandboxes")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestLockGivesUpWhenTold(t *testing.T) {
	s := record.New(t.TempDir() + "/state")
	b := lock(t, s, "c1")
	defer b.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := s.Lock(ctx, "c1")
	if failure.ReasonOf(err) != failure.Busy || failure.Code(err) != 11 {
		t.Errorf("got %v", err)
	}
}

// A delegate that outlives a killed engine keeps the sandbox locked until it ends.
func TestInheritedLockOutlivesItsHolder(t *testing.T) {
	s := record.New(t.TempDir() + "/state")
	b := lock(t, s, "c1")
	delegate := exec.Command("sleep", "0.3")
	delegate.ExtraFiles = []*os.File{b.File()}
	if err := delegate.Start(); err != nil {
		t.Fatal(err)
	}
	// What the kernel does when the engine is killed: it closes, it does not unlock.
	if err := unix.Close(int(b.File().Fd())); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	again := lock(t, s, "c1")
	defer again.Unlock()
	if waited := time.Since(start); waited < 200*time.Millisecond {
		t.Errorf("got the lock after %v, while the delegate was at work", waited)
	}
	if err := delegate.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestContainerIDs(t *testing.T) {
	s := record.New(t.TempDir() + "/state")
	for _, id := range []string{"", "../x", "a/b", "a b", "a\x00", strings.Repeat("a", 300), "-a"} {
		_, err := s.Lock(t.Context(), id)
		if failure.ReasonOf(err) != failure.InvalidEnvironment || failure.Code(err) != 4 {
			t.Errorf("%.20q: got %v", id, err)
		}
	}
}

func TestStateDirOthersCanWriteToIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := record.New(dir).Lock(t.Context(), "c1")
	if failure.ReasonOf(err) != failure.StateFailed {
		t.Errorf("got %v", err)
	}
}

func TestNetworksOutliveTheirRecords(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := record.New(dir)
	b := lock(t, s, "c1")
	first := plan.Attachment{Name: "a/n", Network: "n", Conf: json.RawMessage(`{"v":1}`)}
	second := plan.Attachment{Name: "b/n", Network: "n", Conf: json.RawMessage(`{"v":2}`)}
	changed := plan.Attachment{Name: "a/n", Network: "n", Conf: json.RawMessage(`{"v":3}`)}
	err := errors.Join(b.Remember(first, record.Places{}), b.Remember(second, record.Places{}),
		b.Remember(changed, record.Places{}))
	if err != nil {
		t.Fatal(err)
	}
	b.Unlock()
	got, err := s.Networks()
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	for _, n := range got {
		if want := map[string]string{"a/n": `{"v":3}`, "b/n": `{"v":2}`}[n.Name]; string(n.Conf) != want {
			t.Errorf("%s: %s, want %s", n.Name, n.Conf, want)
		}
	}
	if ids, err := s.List(); err != nil || len(ids) != 0 {
		t.Errorf("List: %v, %v", ids, err)
	}
}
