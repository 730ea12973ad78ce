package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom
the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`

// small is a module that is quickly built: two commands, and a module that has code of others.
var small = map[string]string{
	".gitignore": "/bin/\n",
	"go.mod": "module example.org/small\n\ngo 1.26\n\nrequire example.org/dep " +
		"v0.0.0\n\nreplace example.org/dep => ./dep\n",
	"LICENSE": "Copyright (c) 2026 Small\n\n" + mit,
	"cmd/one/main.go": "package main\n\nimport " +
		"(\n\t\"os\"\n\n\t\"example.org/dep/forked\"\n)\n\nvar buildVersion = \"devel\"\n\nfunc main() " +
		"{ os.Stdout.WriteString(forked.Say(buildVersion)) }\n",
	"cmd/two/main.go": "package main\n\nvar buildVersion = \"devel\"\n\nfunc main() { " +
		"println(buildVersion) }\n",
	"cmd/internal/x/x.go":    "package x\n",
	"dep/go.mod":             "module example.org/dep\n\ngo 1.26\n",
	"dep/LICENSE":            "Copyright (c) 2026 Dep\n\n" + mit,
	"dep/NOTICE":             "Dep contains forked.\n",
	"dep/forked/LICENSE.txt": "Copyright (c) 2026 Forked\n\n" + mit,
	"dep/forked/say.go": "package forked\n\nfunc Say(version string) string { return \"one \" " +
		"+ version + \"\\n\" }\n",
	"dep/unused/LICENSE":   "All rights reserved.\n",
	"dep/unused/unused.go": "package unused\n",
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func command(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// repository makes a repository of the small module with the scripts and the tool as they are here,
// at a tag.
func repository(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	for path, text := range small {
		write(t, filepath.Join(dir, path), text)
	}
	for _, script := range []string{"image.sh", "build.sh", "version.sh", "goflags.sh"} {
		write(t, filepath.Join(dir, "scripts", script), read(t, filepath.Join("../..", script)))
		if err := os.Chmod(filepath.Join(dir, "scripts", script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "scripts/tools/image"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	git := func(args ...string) {
		t.Helper()
		command(t, dir, []string{
			"GIT_AUTHOR_DATE=@1700000000 +0000", "GIT_COMMITTER_DATE=@1700000000 +0000",
		},
			"git", append([]string{
				"-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false",
			}, args...)...)
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "--message", "small")
	git("tag", "v1.2.3")
	git("tag", "nightly")
	return dir
}

// build builds cmd/one otherwise than scripts/build.sh does.
func build(t *testing.T, dir string, flags ...string) {
	t.Helper()
	args := append([]string{"build", "-o", filepath.Join(dir, "binaries/amd64/one")}, flags...)
	command(t, filepath.Join(dir, "source"), []string{
		"GOFLAGS=-buildvcs=false", "GOARCH=amd64", "CGO_ENABLED=0",
	}, "go", append(args, "./cmd/one")...)
}

const (
	version = "-ldflags=-X main.buildVersion=v1.2.3"
	// fit is the one kind that is not refused.
	fit = "fit"
)

// spoilt are the kinds of what is not fit for the image, by what is said of each.
var spoilt = map[string]func(t *testing.T, dir string){
	fit:                        func(*testing.T, string) {},
	"not built with -trimpath": func(t *testing.T, dir string) { build(t, dir, version) },
	"built with vcs": func(t *testing.T, dir string) {
		build(t, dir, version, "-trimpath", "-buildvcs=true")
	},
	"is linked dynamically": func(t *testing.T, dir string) {
		build(t, dir, version, "-trimpath", "-buildmode=pie")
	},
	`it prints "one devel\n", not v1.2.3`: func(t *testing.T, dir string) {
		build(t, dir, "-trimpath")
	},
	"not built with GOARCH=arm64": func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "binaries/arm64/one"),
			read(t, filepath.Join(dir, "binaries/amd64/one")))
	},
	`architecture "mips" is unknown`: func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "binaries/mips/one"),
			read(t, filepath.Join(dir, "binaries/amd64/one")))
	},
	"unrecognized file format": func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "binaries/amd64/sh"), "#!/bin/sh\n")
	},
	"is not a regular file": func(t *testing.T, dir string) {
		if err := os.Symlink("one", filepath.Join(dir, "binaries/amd64/link")); err != nil {
			t.Fatal(err)
		}
	},
	"arm64 has one, amd64 has one two": func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, "binaries/arm64/two")); err != nil {
			t.Fatal(err)
		}
	},
	"has no architecture": func(t *testing.T, dir string) {
		if err := os.RemoveAll(filepath.Join(dir, "binaries")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "binaries"), 0o755); err != nil {
			t.Fatal(err)
		}
	},
	"module example.org/dep: has no license": func(t *testing.T, dir string) {
		for _, name := range []string{"LICENSE", "forked/LICENSE.txt"} {
			if err := os.Remove(filepath.Join(dir, "source/dep", name)); err != nil {
				t.Fatal(err)
			}
		}
	},
	"module example.org/dep: 0 % of its forked/LICENSE.txt is a known license": func(
		t *testing.T, dir string,
	) {
		write(t, filepath.Join(dir, "source/dep/forked/LICENSE.txt"), small["dep/unused/LICENSE"])
	},
	"module example.org/dep: its COPYING is WTFPL, which is not permitted": func(
		t *testing.T, dir string,
	) {
		write(t, filepath.Join(dir, "source/dep/COPYING"),
			"DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE\n"+
				"TERMS AND CONDITIONS FOR COPYING, DISTRIBUTION AND MODIFICATION\n\n"+
				"0. You just DO WHAT THE FUCK YOU WANT TO.\n")
	},
	"module example.org/more is in the source, not in the binaries": func(t *testing.T, dir string) {
		source := filepath.Join(dir, "source")
		write(t, filepath.Join(source, "dep/go.mod"), "module example.org/more\n\ngo 1.26\n")
		for _, name := range []string{"go.mod", "cmd/one/main.go"} {
			write(t, filepath.Join(source, name),
				strings.ReplaceAll(small[name], "example.org/dep", "example.org/more"))
		}
	},
}

// Whatever is not fit for the image stops it, and the output directory stays as it was.
func TestRefused(t *testing.T) {
	source := repository(t)
	good := filepath.Join(t.TempDir(), "binaries")
	for _, arch := range []string{"amd64", "arm64"} {
		command(t, source, []string{"GOARCH=" + arch}, "scripts/build.sh", filepath.Join(good, arch))
	}
	for says, spoil := range spoilt {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for to, from := range map[string]string{"binaries": good, "source": source} {
				command(t, ".", nil, "cp", "-a", from, filepath.Join(dir, to))
			}
			spoil(t, dir)
			write(t, filepath.Join(dir, "out/braid.tar"), "old")
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{
				"-binaries", filepath.Join(dir, "binaries"), "-source", filepath.Join(dir, "source"),
				"-out", filepath.Join(dir, "out"), "-name", "localhost/braid", "-version", "v1.2.3",
				"-created", "1700000000",
			}, &stdout, &stderr)
			if says == fit {
				if code != 0 {
					t.Fatalf("what is fit is refused: %s", &stderr)
				}
				return
			}
			if code != 1 || !strings.Contains(stderr.String(), says) {
				t.Errorf("ends with %d and says %q, want 1 and %q", code, &stderr, says)
			}
			left := digests(t, filepath.Join(dir, "out"))
			if got := read(t, filepath.Join(dir, "out/braid.tar")); len(left) != 1 || got != "old" {
				t.Errorf("the output directory has %v", left)
			}
		})
	}
}

// The SBOM has what go.mod and go.sum have: a module of another version, or with another sum, stops
// it.
func TestModulesOfTheSource(t *testing.T) {
	const sum = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	m := module{path: "example.org/m", version: "v1.2.3", sum: sum}
	for name, c := range map[string]struct {
		with *goModule
		same bool
	}{
		"same": {&goModule{Path: m.path, Version: "v1.2.3", Sum: sum}, true},
		"replaced": {&goModule{
			Path: m.path, Version: "v1.0.0",
			Replace: &goModule{Path: "example.org/fork", Version: "v1.2.3", Sum: sum},
		}, true},
		"main":          {&goModule{Path: m.path, Main: true}, true},
		"other version": {&goModule{Path: m.path, Version: "v1.2.4", Sum: sum}, false},
		"other sum":     {&goModule{Path: m.path, Version: "v1.2.3", Sum: "h1:x"}, false},
		"not in go.sum": {&goModule{Path: m.path, Version: "v1.2.3"}, false},
		"replaced by directory": {&goModule{
			Path: m.path, Version: "v1.2.3", Sum: sum, Replace: &goModule{Path: "./m"},
		}, false},
	} {
		if err := m.compare(c.with); (err == nil) != c.same {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nothing is made for a wrong command line, or for a registry that nobody named.
func TestCommandLine(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	good := []string{
		"-binaries", "b", "-source", ".", "-out", out, "-name", "localhost/braid", "-version", "v1",
		"-created", "0",
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "-binaries is missing\n-source is missing\n-out is missing\n-name is " +
			"missing\n-version is missing\n-created is missing\n"},
		{append(slices.Clone(good), "more"), 2, `argument "more" is unknown`},
		{
			append(slices.Clone(good), "-push", "braid:v1"), 1,
			"push image: could not parse reference: braid:v1",
		},
		{
			append(slices.Clone(good), "-push", "localhost:1/braid"), 1,
			"push image: could not parse reference: localhost:1/braid",
		},
		{append(slices.Clone(good), "-version", "v1+2"), 1, "name image: "},
		{good, 1, "read binaries: open b: no such file or directory"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), c.args, &stdout, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%v: ends with %d and says %q, want %d and %q", c.args, code, &stderr, c.code, c.says)
		}
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v: output is there: %v", c.args, err)
		}
	}
}

// digests are those of all files below a directory.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			sum := sha256.Sum256([]byte(read(t, filepath.Join(dir, path))))
			sums[path] = hex.EncodeToString(sum[:])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// The script on a small module: twice, in two directories and two environments, the second time
// with a registry to push to.
func TestImage(t *testing.T) {
	server := httptest.NewServer(
		registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, 0))))
	t.Cleanup(server.Close)
	ref, err := name.ParseReference(
		strings.TrimPrefix(server.URL, "http://") + "/networks/braid:v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	first := repository(t)
	second := filepath.Join(t.TempDir(), "a longer path", "clone")
	command(t, ".", nil, "git", "clone", "--quiet", first, second)
	command(t, first, []string{"PUSH=", "SOURCE_DATE_EPOCH="}, "scripts/image.sh")
	// What an earlier run left is replaced, and what it did not make is not its own.
	write(t, filepath.Join(second, "bin/image/oci/blobs/sha256/old"), "old")
	write(t, filepath.Join(second, "bin/image/notes"), "mine")
	said := command(t, second, []string{
		"PUSH=" + ref.String(), "SOURCE_DATE_EPOCH=1700000000", "TZ=Asia/Tokyo", "GOAMD64=v3",
		"GOARCH=arm64", "GOOS=plan9",
	},
		"sh", "-c", "umask 077; scripts/image.sh")

	out := filepath.Join(first, "bin/image")
	index := readIndex(t, out)
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("reproducible", func(t *testing.T) {
		one, two := digests(t, out), digests(t, filepath.Join(second, "bin/image"))
		if _, ok := two["notes"]; !ok {
			t.Error("a file that the script did not make is gone")
		}
		delete(two, "notes")
		same(t, "files", two, one)
	})
	t.Run("pushed", func(t *testing.T) {
		got, err := remote.Index(ref)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(got); err != nil {
			t.Error(err)
		}
		have, err := got.Digest()
		if err != nil || have != digest {
			t.Errorf("the registry has %v, %v, want %v", have, err, digest)
		}
	})
	t.Run("says what it made", func(t *testing.T) {
		for _, want := range []string{
			"image: localhost/braid:v1.2.3 " + digest.String() + " in bin/image\n",
			"image: linux/amd64 sha256:", "image: linux/arm64 sha256:",
			"MB compressed (licenses 0.0, one ",
			"image: pushed " + ref.Context().String() + "@" + digest.String() + "\n",
		} {
			if !strings.Contains(said, want) {
				t.Errorf("no %q in %s", want, said)
			}
		}
	})
	t.Run("archive", func(t *testing.T) { checkArchive(t, out) })
	for _, arch := range []string{"amd64", "arm64"} {
		t.Run(arch, func(t *testing.T) { checkImage(t, index, arch, out, first) })
	}
}

func readIndex(t *testing.T, out string) v1.ImageIndex {
	t.Helper()
	dir, err := layout.ImageIndexFromPath(filepath.Join(out, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	top, err := dir.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(top.Manifests) != 1 {
		t.Fatalf("%d entries in index.json, want 1", len(top.Manifests))
	}
	same(t, "names", top.Manifests[0].Annotations, map[string]string{
		"io.containerd.image.name":          "localhost/braid:v1.2.3",
		"org.opencontainers.image.ref.name": "v1.2.3",
	})
	index, err := dir.ImageIndex(top.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	return index
}

// The archive is the layout, file by file.
func checkArchive(t *testing.T, out string) {
	want := digests(t, filepath.Join(out, "oci"))
	got, last := map[string]string{}, ""
	for _, e := range untar(t, strings.NewReader(read(t, filepath.Join(out, "braid.tar")))) {
		if e.Name <= last {
			t.Errorf("%s comes after %s", e.Name, last)
		}
		last = e.Name
		if e.Uid != 0 || e.Gid != 0 || e.ModTime.Unix() != 1700000000 {
			t.Errorf("%s belongs to %d:%d and is of %v", e.Name, e.Uid, e.Gid, e.ModTime)
		}
		if e.Typeflag == tar.TypeReg {
			sum := sha256.Sum256(e.data)
			got[e.Name] = hex.EncodeToString(sum[:])
		}
	}
	same(t, "files", got, want)
}

type entry struct {
	*tar.Header
	data []byte
}

func untar(t *testing.T, r io.Reader) []entry {
	t.Helper()
	var entries []entry
	for tr := tar.NewReader(r); ; {
		header, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries
		} else if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry{header, data})
	}
}

func checkImage(t *testing.T, index v1.ImageIndex, arch, out, repository string) {
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(manifest.Manifests, func(d v1.Descriptor) bool {
		return d.Platform.String() == "linux/"+arch
	})
	if i < 0 {
		t.Fatalf("no image for linux/%s", arch)
	}
	if a := manifest.Manifests[i].ArtifactType; a != "" {
		t.Errorf("is an artifact of type %s", a)
	}
	img, err := index.Image(manifest.Manifests[i].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"org.opencontainers.image.title": "small", "org.opencontainers.image.description": "Several network interfaces for Kubernetes pods: one two",
		"org.opencontainers.image.version":  "v1.2.3",
		"org.opencontainers.image.created":  "2023-11-14T22:13:20Z",
		"org.opencontainers.image.source":   "https://example.org/small",
		"org.opencontainers.image.licenses": "MIT",
		"org.opencontainers.image.revision": strings.TrimSpace(
			command(t, repository, nil, "git", "rev-parse", "HEAD")),
	}
	same(t, "labels", config.Config.Labels, want)
	own, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	same(t, "annotations of the image", own.Annotations, want)
	same(t, "annotations of the index", manifest.Annotations, want)
	if len(config.Config.Entrypoint) > 0 || config.Config.User != "" || config.Architecture != arch ||
		config.OS != "linux" {
		t.Errorf("configuration %+v", config)
	}
	files := mutate.Extract(img)
	defer files.Close()
	checkFiles(t, untar(t, files), arch, out)
}

func checkFiles(t *testing.T, entries []entry, arch, out string) {
	modes := map[string]string{}
	for _, e := range entries {
		modes[e.Name] = e.FileInfo().Mode().String()
		if e.Uid != 0 || e.Gid != 0 || e.Uname != "" || e.Gname != "" || e.ModTime.Unix() != 1700000000 {
			t.Errorf("%s belongs to %d:%d (%s:%s) and is of %v",
				e.Name, e.Uid, e.Gid, e.Uname, e.Gname, e.ModTime)
		}
		switch e.Name {
		case "one", "two":
			checkProgram(t, e.data, arch)
		case sbomFile:
			beside := read(t, filepath.Join(out, "sbom-linux-"+arch+".cdx.json"))
			if string(e.data) != beside {
				t.Error("the SBOM beside the archive is another one")
			}
			checkSBOM(t, e.data)
		}
	}
	want := map[string]string{"one": "-rwxr-xr-x", "two": "-rwxr-xr-x", sbomFile: "-rw-r--r--"}
	for _, path := range []string{
		"std/LICENSE", "std/PATENTS", "example.org/small/LICENSE",
		"example.org/dep/LICENSE", "example.org/dep/NOTICE", "example.org/dep/forked/LICENSE.txt",
	} {
		path = "licenses/" + path
		for want[path] = "-rw-r--r--"; path != "licenses"; {
			path = filepath.Dir(path)
			want[path] = "drwxr-xr-x"
		}
	}
	same(t, "files", modes, want)
}

func checkProgram(t *testing.T, data []byte, arch string) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if f.Machine != want {
		t.Errorf("is for %v, want %v", f.Machine, want)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("has a segment %v", p.Type)
		}
	}
	if arch != runtime.GOARCH {
		return
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "v1.2.3") {
		t.Errorf("prints %q, %v, want v1.2.3", out, err)
	}
}

// checkSBOM checks the SBOM of the small module by CycloneDX's own schema and by what it says.
func checkSBOM(t *testing.T, data []byte) {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema(t).Validate(document); err != nil {
		t.Errorf("%v\n%s", err, data)
	}
	type component struct {
		Type, Name, Version, PURL string
		Licenses                  []struct{ License struct{ ID string } }
	}
	var bom struct {
		Metadata     struct{ Component component }
		Components   []component
		Dependencies []struct {
			Ref       string
			DependsOn []string
		}
	}
	if err := json.Unmarshal(data, &bom); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range append(bom.Components, bom.Metadata.Component) {
		got[c.Name] = fmt.Sprintf("%s %s %s %v", c.Type, c.Version, c.PURL, c.Licenses)
	}
	std := strings.TrimPrefix(runtime.Version(), "go")
	same(t, "components", got, map[string]string{
		"example.org/small": "application v1.2.3 pkg:golang/example.org/small@v1.2.3 [{{MIT}}]",
		"example.org/dep":   "library  pkg:golang/example.org/dep [{{MIT}}]",
		"std":               "library " + std + " pkg:golang/std@" + std + " [{{BSD-3-Clause}}]",
		"one":               "application v1.2.3  []",
		"two":               "application v1.2.3  []",
	})
	uses := map[string]string{}
	for _, d := range bom.Dependencies {
		uses[d.Ref] = strings.Join(d.DependsOn, " ")
	}
	same(t, "dependencies", uses,
		map[string]string{"/one": "std example.org/dep", "/two": "std", "example.org/small": "/one /two"})
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	dir := strings.TrimSpace(
		command(t, ".", nil, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go"))
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	const base = "http://cyclonedx.org/schema/"
	for as, file := range map[string]string{
		"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json",
		"jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		document, err := jsonschema.UnmarshalJSON(
			strings.NewReader(read(t, filepath.Join(dir, "schema", file))))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(base+as, document); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(base + "bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func same[V comparable](t *testing.T, what string, got, want map[string]V) {
	t.Helper()
	for k, v := range want {
		if g, ok := got[k]; !ok {
			t.Errorf("%s: no %s", what, k)
		} else if g != v {
			t.Errorf("%s: %s is %v, want %v", what, k, g, v)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("%s: %s is there", what, k)
		}
	}
}
