// Package pkg_test checks what holds for the repository as a whole: who may import whom, and what
// lies at the top level.
package pkg_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/braid-cni/braid/"

type goPackage struct {
	ImportPath    string
	Imports, Deps []string
}

// packages lists ours, without their tests, each with what it imports and all that it depends on.
func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var list []goPackage
	for d := json.NewDecoder(out); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		for _, l := range [][]string{p.Imports, p.Deps} {
			for i := range l {
				l[i] = strings.TrimPrefix(l[i], module)
			}
		}
		list = append(list, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(list) < 5 {
		t.Fatalf("only %d packages: looked in the wrong place", len(list))
	}
	return list
}

// below reports whether path is one of the packages or folders, or lies below one.
func below(path string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == f || strings.HasPrefix(path, f+"/")
	})
}

// arrows are the rules about who may depend on what.
var arrows = []struct {
	says string
	// who is bound by the rule, and who of them is not
	who, except []string
	// what they must not depend on: at all, or only not directly (by their own import)
	not      []string
	directly bool
}{
	{
		says: "packages do not know plugins or commands", who: []string{"pkg"},
		not: []string{"plugins", "cmd"},
	},
	{says: "plugins do not know commands", who: []string{"plugins"}, not: []string{"cmd"}},
	{
		says: "the engine sees clusters, daemons and links only through its own interfaces",
		who:  []string{"pkg/engine"},
		not:  []string{"pkg/kube", "pkg/agent", "pkg/install", "pkg/nl", "k8s.io/client-go"},
	},
	{
		says: "what a pod gets is found out without the engine",
		who:  []string{"pkg/resolve", "pkg/lint"},
		not:  []string{"pkg/engine", "pkg/kube", "pkg/record", "pkg/nl", "pkg/netns", "k8s.io/client-go"},
	},
	{
		says: "what parses and plans does not reach out",
		who:  []string{"pkg/selection", "pkg/plan", "pkg/api", "pkg/conf", "pkg/netconf", "pkg/capacity"},
		not: []string{
			"pkg/kube", "pkg/engine", "pkg/nl", "pkg/netns", "k8s.io/client-go", "github.com/vishvananda",
		},
	},
	{
		says: "networks are read without Braid's own configuration",
		who:  []string{"pkg/netconf", "pkg/strictjson"}, not: []string{"pkg/conf"},
	},
	{
		says: "a plugin knows neither the engine nor Braid's configuration",
		who:  []string{"plugins", "pkg/plugin", "pkg/invoke"},
		not:  []string{"pkg/engine", "pkg/resolve", "pkg/plan", "pkg/record", "pkg/kube", "pkg/conf"},
	},
	{
		says: "the contract of plugins does not know what some of them share",
		who:  []string{"pkg/plugin"},
		except: []string{
			"pkg/plugin/link", "pkg/plugin/ipam", "pkg/plugin/memory", "pkg/plugin/plugintest",
			"pkg/plugin/uplink", "pkg/plugin/vlan",
		},
		not: []string{"pkg/plugin/link", "pkg/plugin/ipam", "pkg/plugin/uplink", "pkg/plugin/vlan"},
	},
	{
		says: "clusters are reached without knowing what for", who: []string{"pkg/kube"},
		not: []string{
			"pkg/engine", "pkg/resolve", "pkg/plan", "pkg/record", "pkg/conf", "pkg/netconf", "pkg/nl",
		},
	},
	{
		says: "manifests and devices are read without a client of the API server",
		who:  []string{"pkg/kube/manifests", "pkg/kube/kubelet"}, not: []string{"k8s.io/client-go"},
	},
	{
		says: "a network's configuration is not Braid's own",
		who:  []string{"pkg/netconf", "pkg/selection", "pkg/strictjson", "pkg/attachment"},
		not:  []string{"pkg/conf", "pkg/plan", "pkg/record"},
	},
	{
		says: "what is started for every pod stays small", who: []string{"cmd/braid"},
		not: []string{
			"k8s.io/api/core", "k8s.io/client-go/informers", "k8s.io/client-go/tools/cache",
			"k8s.io/client-go/kubernetes",
			"github.com/fsnotify", "pkg/install",
			// libcni has the API of OTel
			"github.com/prometheus", "go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters",
		},
	},
	{
		says: "the installer sees clusters through its own interfaces", who: []string{"pkg/install"},
		not: []string{"pkg/kube", "pkg/engine", "pkg/conf", "k8s.io"},
	},
	{
		says: "only commands wire plugins in", who: []string{"pkg", "e2e", "conf"},
		not: []string{"plugins"}, directly: true,
	},
	{
		says: "one package puts an engine together", who: []string{"cmd"},
		except: []string{"cmd/internal/node"},
		not:    []string{"pkg/invoke", "pkg/nl", "plugins/ipam"}, directly: true,
	},
	{
		says: "plugins do not know each other", who: []string{"plugins"},
		except: []string{"plugins/builtin"},
		not:    []string{"plugins"}, directly: true,
	},
	{
		says: "only pkg/kube talks to the API server",
		who:  []string{"cmd", "pkg", "plugins", "conf"}, except: []string{"pkg/kube"},
		not: []string{"k8s.io/client-go"}, directly: true,
	},
	{
		says: "raw netlink is pkg/nl's",
		who:  []string{"cmd", "pkg", "plugins", "conf"}, except: []string{"pkg/nl", "pkg/nettest"},
		not: []string{"github.com/vishvananda"}, directly: true,
	},
	{
		says: "test support stays in tests", who: []string{"cmd", "pkg", "plugins"},
		except: []string{"pkg/nettest", "pkg/plugin/plugintest", "pkg/internal"},
		not:    []string{"pkg/nettest", "pkg/plugin/plugintest", "pkg/internal"},
	},
}

// Arrows point one way.
func TestDependencyDirection(t *testing.T) {
	all := packages(t)
	for _, rule := range arrows {
		t.Run(strings.ReplaceAll(rule.says, " ", "-"), func(t *testing.T) {
			for _, p := range all {
				if !below(p.ImportPath, rule.who...) || below(p.ImportPath, rule.except...) {
					continue
				}
				deps := p.Deps
				if rule.directly {
					deps = p.Imports
				}
				for _, dep := range deps {
					if below(dep, rule.not...) {
						t.Errorf("%s depends on %s", p.ImportPath, dep)
					}
				}
			}
		})
	}
}

// What a runtime starts for each call of the CNI protocol starts fast: it has nothing but the
// standard library, and of that neither the network nor the log. JSON costs it a tenth of a start.
func TestClientIsSmall(t *testing.T) {
	client := []string{"pkg/agent/wire", "pkg/agent/client", "cmd/braid-client"}
	for _, p := range packages(t) {
		if !slices.Contains(client, p.ImportPath) {
			continue
		}
		for _, dep := range p.Deps {
			top, _, _ := strings.Cut(dep, "/")
			ours := below(dep, "cmd", "pkg", "plugins") && !slices.Contains(client, dep)
			if ours || strings.Contains(top, ".") ||
				slices.Contains([]string{"net", "log", "crypto"}, dep) {
				t.Errorf("%s depends on %s", p.ImportPath, dep)
			}
		}
	}
}

// A reader finds the same few folders, whatever is added.
func TestTopLevel(t *testing.T) {
	allowed := []string{
		"cmd", "pkg", "plugins", "conf", "e2e", "scripts", "go.mod", "go.sum", "LICENSE", "Makefile",
		"README.md", "CHANGELOG.md",
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// bin is what `make build` makes.
		if !slices.Contains(allowed, e.Name()) && !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}

// CHANGELOG.md has the form of Keep a Changelog: what is not released yet comes first, then
// versions.
func TestChangelog(t *testing.T) {
	text, err := os.ReadFile("../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`^## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d$`)
	kind := regexp.MustCompile(`^### (Added|Changed|Deprecated|Removed|Fixed|Security)$`)
	versions := 0
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "## "):
			if versions++; versions == 1 && line != "## [Unreleased]" ||
				versions > 1 && !version.MatchString(line) {
				t.Errorf("line %d: %s", i+1, line)
			}
		case strings.HasPrefix(line, "###") && !kind.MatchString(line):
			t.Errorf("line %d: %s", i+1, line)
		}
	}
	if versions == 0 {
		t.Error("nothing is said to be unreleased")
	}
}

// The linker puts the version where there is a variable for it, and says nothing where there is
// none.
func TestCommandsHaveVersion(t *testing.T) {
	commands, err := filepath.Glob("../cmd/*/main.go")
	if err != nil || len(commands) < 3 {
		t.Fatalf("commands are %v, %v", commands, err)
	}
	for _, path := range commands {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "\nvar buildVersion = \"devel\"\n") {
			t.Errorf("%s has no variable buildVersion, which scripts/build.sh sets", path)
		}
	}
}

// TestMap: pkg/README.md names each package, and nothing that is not there.
func TestMap(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("\\]\\(([a-z/]+)\\)|`([a-z]+/[a-z/]+)`").
		FindAllSubmatch(text, -1) {
		name := "pkg/" + string(m[1]) + string(m[2])
		if strings.HasPrefix(name, "pkg/cmd/") {
			continue
		}
		named[name] = true
		if info, err := os.Stat(filepath.Join("..", name)); err != nil || !info.IsDir() {
			t.Errorf("pkg/README.md names %s, which is no package", name)
		}
	}
	for _, m := range regexp.MustCompile("`([a-z0-9_/]+\\.go)`").FindAllSubmatch(text, -1) {
		here, there := string(m[1]), filepath.Join("..", string(m[1]))
		if _, err := os.Stat(here); err == nil {
			continue
		}
		if _, err := os.Stat(there); err != nil {
			t.Errorf("pkg/README.md names the file %s, which is nowhere", here)
		}
	}
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "pkg/") && !below(p.ImportPath, "pkg/api") &&
			!named[p.ImportPath] {
			t.Errorf("pkg/README.md does not name %s", p.ImportPath)
		}
	}
}
