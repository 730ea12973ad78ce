package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// standard is the path of the standard library among modules.
const standard = "std"

// module is a Go module that is linked into a platform's binaries.
type module struct {
	path, version string
	// sum is the module's line in go.sum; empty for the main module and the standard library.
	sum string
	// licenses are SPDX identifiers, sorted.
	licenses []string
	// files are what has to go along with a binary, by path below the module's root.
	files map[string][]byte
}

// permitted are the licenses, as SPDX identifiers, that ask for no more than to be passed on.
func permitted(id string) bool {
	return slices.Contains([]string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}, id)
}

// goPackage is what `go list` prints of a package.
type goPackage struct {
	Dir      string
	Standard bool
	Module   *goModule
}

// goModule is what `go list` prints of a module: the version that go.mod has, and the sum that
// go.sum has of it.
type goModule struct {
	Path, Dir, Version, Sum string
	Main                    bool
	Replace                 *goModule
}

// compare returns in what a module of the binaries differs from that of the source.
func (m *module) compare(with *goModule) error {
	if with.Main {
		return nil
	}
	if with.Replace != nil {
		with = with.Replace
	}
	if m.version != with.Version || m.sum != with.Sum {
		return fmt.Errorf("module %s is %q with sum %q in the binaries, and %q with %q by go.mod and "+
			"go.sum: they were built from another source",
			m.path, m.version, m.sum, with.Version, with.Sum)
	}
	return nil
}

// A license, or what a license asks to be passed on with it.
var (
	licenseFile = regexp.MustCompile(`(?i)^(licen[cs]es?|copying|copyright|notice|patents)([.-].*)?$`)
	noLicense   = regexp.MustCompile(`(?i)^(notice|patents)|\.go$`)
)

// readModules returns the modules that the platform's binaries are made of, the main module and the
// standard library among them, ordered by path. The binaries say which; the source has the
// licenses, and agrees by its go.mod and go.sum.
func readModules(ctx context.Context, source string, p *platform) ([]module, error) {
	linked := p.linked()
	packages, err := listPackages(ctx, source, p)
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	goroot, err := goRoot(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("find Go's license: %w", err)
	}
	for _, pkg := range packages {
		if err := pkg.addLicenses(linked, goroot); err != nil {
			return nil, err
		}
	}
	var modules []module
	for _, path := range slices.Sorted(maps.Keys(linked)) {
		if err := linked[path].identify(); err != nil {
			return nil, fmt.Errorf("module %s: %w", path, err)
		}
		modules = append(modules, *linked[path])
	}
	return modules, nil
}

// linked returns the modules that the binaries say that they are made of, by path.
func (p *platform) linked() map[string]*module {
	found := map[string]*module{}
	for _, one := range p.programs {
		found[standard] = &module{path: standard, version: strings.TrimPrefix(one.info.GoVersion, "go")}
		found[one.info.Main.Path] = &module{path: one.info.Main.Path}
		for _, dep := range one.info.Deps {
			found[dep.Path] = newModule(dep)
		}
	}
	return found
}

// addLicenses adds the licenses that are with a package to its module, which is one of those that
// are linked and the same there.
func (pkg *goPackage) addLicenses(linked map[string]*module, goroot string) error {
	path, root, dir := standard, goroot, goroot
	if !pkg.Standard {
		path, root, dir = pkg.Module.Path, pkg.Module.Dir, pkg.Dir
	}
	m := linked[path]
	if m == nil {
		return fmt.Errorf("module %s is in the source, not in the binaries: they were built from "+
			"another", path)
	}
	if !pkg.Standard {
		if err := m.compare(pkg.Module); err != nil {
			return err
		}
	}
	if err := m.readLicenses(root, dir); err != nil {
		return fmt.Errorf("read licenses of %s: %w", path, err)
	}
	return nil
}

// newModule returns a module as the binary has it. A directory in place of it has no version.
func newModule(dep *debug.Module) *module {
	from := dep
	if dep.Replace != nil {
		from = dep.Replace
	}
	return &module{
		path: dep.Path, version: strings.Replace(from.Version, "(devel)", "", 1), sum: from.Sum,
	}
}

// listPackages lists the packages that the binaries are built from, of the standard library, too.
func listPackages(ctx context.Context, source string, p *platform) ([]goPackage, error) {
	args := []string{"list", "-deps", "-json=Dir,Standard,Module"}
	for _, one := range p.programs {
		args = append(args, one.info.Path)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+p.arch, "CGO_ENABLED=0")
	out, err := output(cmd)
	if err != nil {
		return nil, err
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(out)); ; {
		var pkg goPackage
		if err := d.Decode(&pkg); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, err
		}
		packages = append(packages, pkg)
	}
}

func goRoot(ctx context.Context, source string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", "GOROOT")
	cmd.Dir = source
	out, err := output(cmd)
	return strings.TrimSpace(out), err
}

// output returns what the command prints; what it complains of is the error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	return string(out), err
}

// readLicenses adds the license files of a package's directory and of those above it, up to the
// module's root: code that a module took over from elsewhere has its license beside it.
func (m *module) readLicenses(root, dir string) error {
	if m.files == nil {
		m.files = map[string][]byte{}
	}
	for {
		if err := m.readDirectory(root, dir); err != nil || dir == root {
			return err
		}
		if dir = filepath.Dir(dir); !strings.HasPrefix(dir, root) {
			return fmt.Errorf("%s is not below %s", dir, root)
		}
	}
}

// readDirectory adds the license files that are in a directory of the module.
func (m *module) readDirectory(root, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !isLicense(e) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if m.files[rel], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	return nil
}

// isLicense reports whether a file is a license, or goes along with one. Code is neither.
func isLicense(e os.DirEntry) bool {
	return e.Type().IsRegular() && licenseFile.MatchString(e.Name()) &&
		!strings.HasSuffix(e.Name(), ".go")
}

// identify sets the licenses that the module's files contain. A text that is not known, or is a
// license that asks for more than to be passed on, is for a person to decide.
func (m *module) identify() error {
	for _, path := range slices.Sorted(maps.Keys(m.files)) {
		if noLicense.MatchString(filepath.Base(path)) {
			continue
		}
		coverage := licensecheck.Scan(m.files[path])
		if coverage.Percent < 75 {
			return fmt.Errorf("%.0f %% of its %s is a known license", coverage.Percent, path)
		}
		for _, match := range coverage.Match {
			if !permitted(match.ID) {
				return fmt.Errorf("its %s is %s, which is not permitted", path, match.ID)
			}
			if !slices.Contains(m.licenses, match.ID) {
				m.licenses = append(m.licenses, match.ID)
			}
		}
	}
	if len(m.licenses) == 0 {
		return errors.New("has no license")
	}
	slices.Sort(m.licenses)
	return nil
}

// expression is how SPDX writes that all of the licenses hold.
func expression(licenses []string) string { return strings.Join(licenses, " AND ") }
