// Package memory keeps the configuration of each ADD of a plugin that is called under its own name.
//
// Contract: DEL and GC take away what the ADD of an attachment has made with the configuration that
// it had then, whatever the configuration is by now: without its key ipam nobody would know who has
// leased the addresses. The engine does not need it, for its record has the same. A configuration
// is saved before the ADD and removed after the DEL, so nothing is lost where either is killed. An
// attachment whose configuration was not saved is removed with the present one.
package memory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// maxSaved bounds what is read of a file, in bytes.
const maxSaved = 1 << 20

// suffix is the suffix of the files' names; unfinished follows where one is being written.
const suffix, unfinished = ".json", ".tmp"

// Memory is the directory of the configurations.
type Memory struct {
	Dir string
	// Step, if set, is called with each change before it is made.
	Step func(change string)
}

// Call is one CNI command of a plugin.
type Call struct {
	// Kind is the plugin's type.
	Kind                         string
	Command, ContainerID, IfName string
	Environ                      []string
	Stdin                        []byte
}

// Runner runs a plugin as the protocol has it, and returns what it prints.
type Runner func(ctx context.Context, environ []string, stdin []byte) ([]byte, error)

// saved is the content of a file.
type saved struct {
	Kind string `json:"kind"`
	attachment.ID
	Config json.RawMessage `json:"config"`
}

// attachment begins the names of the files of an attachment. It has several where the plugin is
// several times in a chain.
func (s *saved) attachment() string {
	sum := sha256.Sum256([]byte(
		strings.Join([]string{s.Kind, s.Network, s.ContainerID, s.IfName}, "\x00")))
	return hex.EncodeToString(sum[:16]) + "-"
}

// config ends the name of the file: two that differ only by what came before in the chain are one.
func (s *saved) config() string {
	config := []byte(s.Config)
	if object, err := strictjson.Object(config); err == nil {
		delete(object, "prevResult")
		if data, err := json.Marshal(object); err == nil {
			config = data
		}
	}
	sum := sha256.Sum256(config)
	return "-" + hex.EncodeToString(sum[:8]) + suffix
}

// Operate runs a command.
func (m *Memory) Operate(ctx context.Context, c *Call, run Runner) ([]byte, error) {
	var present struct {
		Name  string               `json:"name"`
		Valid []types.GCAttachment `json:"cni.dev/valid-attachments"`
	}
	if json.Unmarshal(c.Stdin, &present) != nil {
		return run(ctx, c.Environ, c.Stdin) // the plugin says what is wrong
	}
	s := &saved{
		c.Kind,
		attachment.ID{Network: present.Name, ContainerID: c.ContainerID, IfName: c.IfName},
		c.Stdin,
	}
	switch c.Command {
	case "ADD":
		return m.add(ctx, c, s, run)
	case "DEL":
		return nil, m.del(ctx, c.Environ, s, run)
	case "GC":
		var err error
		if present.Valid != nil {
			err = m.collect(ctx, c, s, attachment.InNetwork(present.Name, present.Valid), run)
		}
		_, rerr := run(ctx, c.Environ, c.Stdin)
		return nil, joined(err, rerr)
	}
	return run(ctx, c.Environ, c.Stdin)
}

// add keeps what an earlier ADD of the attachment has saved: the plugin refuses the second one.
func (m *Memory) add(ctx context.Context, c *Call, s *saved, run Runner) ([]byte, error) {
	fresh, err := m.save(s)
	if err != nil {
		return nil, types.NewError(types.ErrIOFailure, "save the configuration: "+err.Error(), "")
	}
	out, err := run(ctx, c.Environ, c.Stdin)
	if err != nil && fresh != "" {
		err = joined(err, m.forget(fresh))
	}
	return out, err
}

// save makes a file, whose name it returns, unless there is one with the configuration. Those of an
// attachment are numbered.
func (m *Memory) save(s *saved) (fresh string, err error) {
	names, err := m.names(s.attachment(), suffix)
	if err != nil || slices.ContainsFunc(names, func(name string) bool {
		return strings.HasSuffix(name, s.config())
	}) {
		return "", err
	}
	data, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return "", err
	}
	dir, err := hostfile.OpenDir(m.Dir)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	m.step("save configuration")
	fresh = fmt.Sprintf("%s%04d%s", s.attachment(), len(names), s.config())
	if err := dir.Write(fresh+unfinished, unix.O_CREAT|unix.O_TRUNC, 0o600, data); err != nil {
		return "", errors.Join(err, dir.Remove(fresh+unfinished))
	}
	return fresh, dir.Rename(fresh+unfinished, dir, fresh)
}

// del runs DEL with each configuration that was saved, the last one first; where there is none,
// with the present one.
func (m *Memory) del(ctx context.Context, environ []string, s *saved, run Runner) error {
	names, err := m.names(s.attachment(), suffix)
	if err != nil {
		return err
	}
	halves, err := m.names(s.attachment(), unfinished)
	errs := []error{err}
	for _, name := range halves { // an ADD was killed before it changed anything else
		errs = append(errs, m.forget(strings.TrimSuffix(name, unfinished)))
	}
	if len(names) == 0 {
		_, err := run(ctx, environ, s.Config)
		return joined(append(errs, err)...)
	}
	for _, name := range slices.Backward(names) {
		stdin := []byte(s.Config)
		if old, err := m.load(name); err == nil { // a damaged one is as one that is not there
			stdin = old.merge(s.Config)
		}
		_, err := run(ctx, environ, stdin)
		if err == nil {
			err = m.forget(name)
		}
		errs = append(errs, err)
	}
	return joined(errs...)
}

// joined is errors.Join that leaves a single error as it is.
func joined(errs ...error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// names lists the files whose names begin and end so, in their order.
func (m *Memory) names(prefix, suffix string) (names []string, err error) {
	entries, err := os.ReadDir(m.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// merge returns the saved configuration with what the runtime knows of the attachment by now: the
// result, which is in the words of the present version.
func (s *saved) merge(present []byte) []byte {
	now, err := strictjson.Object(present)
	if err != nil {
		return s.Config
	}
	merged, err := strictjson.Object(s.Config)
	if err != nil {
		return present
	}
	for _, key := range []string{"prevResult", "cniVersion"} {
		delete(merged, key)
		if now[key] != nil {
			merged[key] = now[key]
		}
	}
	data, err := json.Marshal(merged)
	if err != nil {
		return present
	}
	return data
}

// collect runs DEL for the attachments of the plugin and the network that are not valid.
func (m *Memory) collect(
	ctx context.Context, c *Call, of *saved, valid []attachment.ID, run Runner,
) error {
	names, err := m.names("", suffix)
	errs := []error{err}
	for _, name := range names {
		s, err := m.load(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if s.Kind != of.Kind || s.Network != of.Network || slices.Contains(valid, s.ID) {
			continue
		}
		environ := append(slices.Clone(c.Environ), "CNI_COMMAND=DEL", "CNI_CONTAINERID="+s.ContainerID,
			"CNI_IFNAME="+s.IfName, "CNI_NETNS=")
		if _, err = run(ctx, environ, s.merge(c.Stdin)); err == nil {
			err = m.forget(name)
		}
		errs = append(errs, err)
	}
	return joined(errs...)
}

// load reads a saved configuration; fs.ErrNotExist if there is none.
func (m *Memory) load(name string) (*saved, error) {
	path := filepath.Join(m.Dir, name)
	data, err := hostfile.Read(path, maxSaved)
	if err != nil {
		return nil, fmt.Errorf("read saved configuration: %w", err)
	}
	s := &saved{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("decode saved configuration %s: %w", path, err)
	}
	return s, nil
}

// forget removes a configuration. One that is not there is removed already.
func (m *Memory) forget(name string) error {
	m.step("forget configuration")
	path := filepath.Join(m.Dir, name)
	for _, p := range []string{path + unfinished, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove saved configuration: %w", err)
		}
	}
	return nil
}

// step is where tests kill the process.
func (m *Memory) step(change string) {
	if m.Step != nil {
		m.Step(change)
	}
}
