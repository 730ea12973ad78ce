package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// page is what a guide has that is the same in all languages.
type page struct {
	// headings have their level; code are the lines of code blocks, inline what is quoted in a text.
	headings, code, inline []string
}

var (
	inlineCode  = regexp.MustCompile("`[^`\n]+`")
	translation = regexp.MustCompile(`^(#+) .* \(([^()]+)\)$`)
)

func readPage(t *testing.T, name string) (p page) {
	t.Helper()
	text, err := os.ReadFile(guide + name)
	if err != nil {
		t.Fatal(err)
	}
	inCode := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inCode = !inCode
		case inCode:
			p.code = append(p.code, line)
		case strings.HasPrefix(line, "#"):
			p.headings = append(p.headings, line)
		default:
			p.inline = append(p.inline, inlineCode.FindAllString(line, -1)...)
		}
	}
	slices.Sort(p.inline)
	p.inline = slices.Compact(p.inline)
	return p
}

// TestU3GuideInChinese: the Chinese guide has the headings, the commands and the names of the
// English one.
func TestU3GuideInChinese(t *testing.T) {
	english, chinese := readPage(t, "README.md"), readPage(t, "README.zh.md")
	for i, heading := range chinese.headings {
		m := translation.FindStringSubmatch(heading)
		if m == nil {
			t.Errorf("%s: the English heading is not behind it", heading)
			continue
		}
		chinese.headings[i] = m[1] + " " + m[2]
	}
	for what, same := range map[string]struct{ english, chinese []string }{
		"headings": {english.headings, chinese.headings},
		"commands": {english.code, chinese.code},
		"names":    {english.inline, chinese.inline},
	} {
		if diff := cmp.Diff(same.english, same.chinese); diff != "" {
			t.Errorf("%s, -English +Chinese:\n%s", what, diff)
		}
	}
}

// TestU3GuideNames: what a reader of the guide types or opens is there.
func TestU3GuideNames(t *testing.T) {
	p := readPage(t, "README.md")
	commandLine := regexp.MustCompile(`(?:braidctl|kubectl braid) ([a-z][a-z -]*)`)
	file := regexp.MustCompile("(?:conf/gke/|conf/helm/|^`)([\\w.-]+(?:\\.yaml)?)")
	found := 0
	for _, line := range append(p.code, p.inline...) {
		if m := commandLine.FindStringSubmatch(line); m != nil {
			found++
			if !slices.ContainsFunc(commands(), func(c command) bool {
				return strings.HasPrefix(m[1]+" ", c.name+" ")
			}) {
				t.Errorf("%s: no such command", line)
			}
		}
		for _, m := range file.FindAllStringSubmatch(line, -1) {
			if !strings.HasSuffix(m[1], ".yaml") {
				continue
			}
			found++
			if _, err := os.Stat(filepath.Join(guide, m[1])); err != nil {
				t.Error(err)
			}
		}
	}
	files, err := filepath.Glob(guide + "*.yaml")
	if err != nil || len(files) < 9 || found < 25 {
		t.Fatalf("%d files, %d names", len(files), found)
	}
	for _, f := range files {
		if !strings.Contains(strings.Join(append(p.inline, p.code...), "\n"), filepath.Base(f)) {
			t.Errorf("%s is not in the guide", f)
		}
	}
}
