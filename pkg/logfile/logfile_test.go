package logfile_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/logfile"
)

func TestNew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "braid.log")
	log, closeLog := logfile.New(&conf.Node{
		LogFile: path, LogLevel: "warn", LogOptions: conf.DefaultLogOptions(),
	})
	log.Info("left out")
	log.Warn("kept")
	if err := closeLog(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Count(string(text), "\n") != 1 ||
		!strings.Contains(string(text), "msg=kept") {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"logs", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	roots := hostfile.Roots{filepath.Join(dir, "logs")}
	err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "logs", "out"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		// fails is set for a path that is refused.
		fails bool
	}{
		"beneath a root":           {"logs/a.log", false},
		"a directory that is made": {"logs/deep/a.log", false},
		"out of a root":            {"logs/out/a.log", true},
		"a directory":              {"logs", true},
		"the administrator's":      {"elsewhere/a.log", false},
	} {
		log, closeLog, err := logfile.Open(filepath.Join(dir, test.path), "no level", roots, 0)
		if (err != nil) != test.fails {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		log.Info("line")
		log.Debug("left out")
		text, err := os.ReadFile(filepath.Join(dir, test.path))
		err = errors.Join(err, closeLog())
		if err != nil || strings.Count(string(text), "msg=line") != 1 ||
			strings.Contains(string(text), "left out") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if _, _, err := logfile.Open("logs/a.log", "info", roots, 0); err == nil {
		t.Error("a path that is not absolute was opened")
	}
}

// A log that cannot be used is told to the other one, which takes its place.
func TestOpenElse(t *testing.T) {
	var text bytes.Buffer
	other := slog.New(slog.NewTextHandler(&text, nil))
	path := filepath.Join(t.TempDir(), "a.log")
	for file, want := range map[string]struct{ own, told bool }{
		"": {}, "logs/a.log": {told: true}, path: {own: true},
	} {
		text.Reset()
		log, done := logfile.OpenElse(other, file, "info", nil, 0)
		done()
		if own, told := log != other, text.Len() > 0; own != want.own || told != want.told {
			t.Errorf("%q: its own %v, told %v: %s", file, own, told, text.String())
		}
	}
}

// TestM25LogsOfOthers: a log that a network names is not the node's own: that is neither moved away
// nor spoiled.
func TestM25LogsOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	roots := hostfile.Roots{dir}
	for name, test := range map[string]struct {
		content             string
		fails, renamed, old bool
	}{
		"own, full": {
			"time=2026-01-01T00:00:00Z level=INFO msg=x\n" + strings.Repeat("x", 100),
			false, true, true,
		},
		"own, not full": {"time=2026-01-01T00:00:00Z level=INFO msg=x\n", false, false, false},
		"text, full":    {strings.Repeat("Jan  1 sshd: x\n", 20), true, false, false},
		"text":          {"2023-01-01T00:00:00Z [debug] x\n", false, false, false},
		"journal":       {"LPKSHHRH\x00\x00\x01" + strings.Repeat("x", 100), true, false, false},
		"wtmp":          {"\x07\x00\x00\x00", true, false, false},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		log, closeLog, err := logfile.Open(path, "info", roots, 100)
		if (err != nil) != test.fails {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			log.Info("line")
			if err := closeLog(); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		_, oldErr := os.Stat(path + ".old")
		if err != nil || (oldErr == nil) != test.old || strings.HasPrefix(string(text),
			test.content) == test.renamed || test.fails && string(text) != test.content {
			t.Errorf("%s: %q, %v, %v", name, text, err, oldErr)
		}
	}
}
