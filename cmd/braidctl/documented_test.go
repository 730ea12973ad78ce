package main

import (
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A command of ours as documents show it: in backquotes, on a line of a code block, or in the prose
// of an issue template.
var (
	documented = regexp.MustCompile(
		"(?m)(?:^|[`/])(?:kubectl braid|braidctl)\\s([a-z-][^`\n]*(?:\n *[a-z -]+`)?)")
	verb   = regexp.MustCompile("(?m)(?:^|[`(&] *)make ([a-z0-9-]+)")
	script = regexp.MustCompile(`(?:^|[^\w/.])((?:scripts|\.ci)/[a-z0-9.-]+)`)
)

// documents returns the Markdown files and templates of the repository, by their paths from the
// root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git",
		"-C", "../..", "ls-files", "-co", "--exclude-standard", "--", "*.md", ".github/*.yml").Output()
	if err != nil {
		t.Skipf("needs a git checkout: %v", err)
	}
	texts := map[string]string{}
	for _, name := range strings.Fields(string(out)) {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

// TestDocumentedCommands: each command line of ours that a document shows is one that the command
// takes; each verb of make and each script is there.
func TestDocumentedCommands(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, text := range documents(t) {
		for _, m := range documented.FindAllStringSubmatch(text, -1) {
			seen++
			problem := takes(strings.Fields(strings.Split(strings.Trim(m[1], "`"), " #")[0]))
			if problem != "" {
				t.Errorf("%s shows %q: %s", name, m[0], problem)
			}
		}
		for _, m := range verb.FindAllStringSubmatch(text, -1) {
			seen++
			if !strings.Contains(string(makefile), "\n"+m[1]+":") {
				t.Errorf("%s shows make %s, which the Makefile lacks", name, m[1])
			}
		}
		built := strings.Index(text, "make build")
		if used := strings.Index(text, "bin/braidctl"); used >= 0 && (built < 0 || built > used) {
			t.Errorf("%s uses bin/braidctl, which only make build makes, before that", name)
		}
		for _, m := range script.FindAllStringSubmatch(text, -1) {
			seen++
			if _, err := os.Stat(filepath.Join("../..", strings.TrimSuffix(m[1], "."))); err != nil {
				t.Errorf("%s shows a script that is not there: %v", name, err)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d commands were found: looked in the wrong place", seen)
	}
}

// takes returns what is wrong with the arguments, empty if some command takes them. It runs
// nothing.
func takes(args []string) string {
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) < len(words) || strings.Join(args[:len(words)], " ") != c.name {
			continue
		}
		f := flag.NewFlagSet(c.name, flag.ContinueOnError)
		f.SetOutput(io.Discard)
		c.setUp(f)
		if err := parse(f, args[len(words):]); err != nil {
			return err.Error()
		}
		if f.NArg() > 0 && c.operands == "" {
			return "it takes no " + f.Arg(0)
		}
		return ""
	}
	if len(args) == 1 && args[0] == "--version" {
		return ""
	}
	return "no such command"
}
