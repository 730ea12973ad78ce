package main

import (
	"context"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// platform is one architecture, what is built for it, and what that is made of.
type platform struct {
	arch     string
	programs []program
	modules  []module
	sbom     []byte
}

// program is one binary. Its name is its path in the image, too.
type program struct {
	name string
	path string
	info *buildinfo.BuildInfo
}

// readPlatforms reads a directory of binaries for each architecture, ordered by name.
func readPlatforms(dir string) ([]*platform, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read binaries: %w", err)
	}
	var platforms []*platform
	for _, e := range entries {
		p, err := readPlatform(dir, e.Name())
		if err != nil {
			return nil, err
		}
		platforms = append(platforms, p)
	}
	if len(platforms) == 0 {
		return nil, fmt.Errorf("read binaries: %s has no architecture", dir)
	}
	for _, p := range platforms[1:] {
		if have, want := p.names(), platforms[0].names(); have != want {
			return nil, fmt.Errorf("read binaries: %s has %s, %s has %s",
				p.arch, have, platforms[0].arch, want)
		}
	}
	return platforms, nil
}

// readPlatform reads the binaries of an architecture. Each has to be fit for the image.
func readPlatform(dir, arch string) (*platform, error) {
	if _, known := machineOf(arch); !known {
		return nil, fmt.Errorf("read binaries: architecture %q is unknown", arch)
	}
	entries, err := os.ReadDir(filepath.Join(dir, arch))
	if err != nil {
		return nil, fmt.Errorf("read binaries: %w", err)
	}
	p := &platform{arch: arch}
	for _, e := range entries {
		one := program{name: e.Name(), path: filepath.Join(dir, arch, e.Name())}
		if one.info, err = readProgram(one.path, arch); err != nil {
			return nil, fmt.Errorf("read binary %s: %w", one.path, err)
		}
		p.programs = append(p.programs, one)
	}
	if len(p.programs) == 0 {
		return nil, fmt.Errorf("read binaries: none for %s", arch)
	}
	return p, nil
}

// names returns the names of the binaries, with a blank between them.
func (p *platform) names() string {
	var names []string
	for _, one := range p.programs {
		names = append(names, one.name)
	}
	return strings.Join(names, " ")
}

// main is the module that the binaries are of.
func (p *platform) main() *module {
	i := slices.IndexFunc(p.modules, func(m module) bool {
		return m.path == p.programs[0].info.Main.Path
	})
	return &p.modules[i]
}

// readProgram returns the build information of a binary that is fit for the image: a regular file,
// static, for Linux and the architecture, and the same from whichever directory it is built.
func readProgram(path, arch string) (*buildinfo.BuildInfo, error) {
	if stat, err := os.Lstat(path); err != nil {
		return nil, err
	} else if !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("%v is not a regular file", stat.Mode().Type())
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkSettings(info.Settings, arch); err != nil {
		return nil, err
	}
	return info, checkStatic(path, arch)
}

// checkSettings refuses what a binary for an architecture may not be built with, or without.
func checkSettings(settings []debug.BuildSetting, arch string) error {
	want := map[string]string{"GOOS": "linux", "GOARCH": arch, "CGO_ENABLED": "0", "-trimpath": "true"}
	for _, s := range settings {
		if want[s.Key] == s.Value {
			delete(want, s.Key)
		}
		if strings.HasPrefix(s.Key, "vcs") {
			return fmt.Errorf("built with %s: the same source without its repository is another binary",
				s.Key)
		}
	}
	for key, value := range want {
		return fmt.Errorf("not built with %s=%s", key, value)
	}
	return nil
}

// machineOf returns an architecture's name in ELF, and whether there are images for it.
func machineOf(arch string) (machine elf.Machine, known bool) {
	machine, known = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	return machine, known
}

// checkStatic refuses a binary that needs others to run, or another machine.
func checkStatic(path, arch string) error {
	f, err := elf.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if machine, _ := machineOf(arch); f.Machine != machine {
		return fmt.Errorf("is for %v, not %v", f.Machine, machine)
	}
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("is linked dynamically: it has a segment %v", segment.Type)
		}
	}
	return nil
}

// checkVersion calls each binary that this machine can run with --version. The linker ignores
// silently that a program has no variable for the version.
func (p *platform) checkVersion(ctx context.Context, version string) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != p.arch {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // one without the flag may begin its work
	defer cancel()
	for _, one := range p.programs {
		out, err := exec.CommandContext(ctx, one.path, "--version").CombinedOutput()
		if err != nil {
			return fmt.Errorf("ask %s --version: %w", one.name, err)
		}
		if !strings.Contains(string(out), version) {
			return fmt.Errorf("ask %s --version: it prints %q, not %s", one.name, out, version)
		}
	}
	return nil
}
