package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plugin"
)

// backup is what a file of the data directory holds: how an interface was before its first ADD, and, unlike the reference's, whose it is.
type backup struct {
	attributes
	Network     string `json:"network,omitempty"`
	ContainerID string `json:"containerID,omitempty"`
	IfName      string `json:"ifName,omitempty"`
}

// suffix is that of the backups' names.
const suffix = ".json"

// maxBackup bounds what is read of a file, in bytes.
const maxBackup = 1 << 16

func (c *Conf) dir() string {
	if c.DataDir == "" {
		return defaultDataDir
	}
	return c.DataDir
}

// path is the file of an attachment, whose name is the reference's too.
func (c *Conf) path(req *plugin.Request) (string, error) {
	if err := utils.ValidateContainerID(req.ContainerID); err != nil {
		return "", err
	}
	if err := utils.ValidateInterfaceName(req.IfName); err != nil {
		return "", err
	}
	return filepath.Join(c.dir(), req.ContainerID+"_"+req.IfName+suffix), nil
}

// save keeps the attributes, unless there are some from an ADD before, which are the older ones. made says whether it made the file.
func (c *Conf) save(path string, req *plugin.Request, a attributes) (made bool, err error) {
	_, err = read(path)
	if errors.Is(err, fs.ErrNotExist) {
		made, err = true, write(path, backup{a, req.Network, req.ContainerID, req.IfName})
	}
	if err != nil {
		return false, types.NewError(types.ErrIOFailure, fmt.Sprintf("field dataDir %q: backup of interface %s: %v", c.dir(), req.IfName, err), "")
	}
	return made, nil
}

// write makes the file at once. Symbolic links in its place are not followed.
func write(path string, b backup) error {
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// Left by a process that was killed.
	if err := os.Remove(temporary(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary(path), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary(path)))
	}
	return nil
}

func temporary(path string) string { return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)) }

// read gives a backup; fs.ErrNotExist if there is none.
func read(path string) (*backup, error) {
	data, err := hostfile.Read(path, maxBackup)
	if err != nil {
		return nil, err
	}
	b := &backup{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("decode %s: %w", path, err)
	}
	return b, nil
}

// remove removes a backup. One that is gone is removed already.
func remove(path string) error {
	var errs []error
	for _, p := range []string{path, temporary(path)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// collect removes the network's backups of attachments that are not valid. Other networks' are in the same directory, and so may be the
// reference's, which do not say whose they are: those stay.
func (c *Conf) collect(req *plugin.Request) error {
	entries, err := os.ReadDir(c.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), suffix) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(c.dir(), e.Name())
		b, err := read(path)
		if err != nil || b.Network != req.Network || slices.Contains(req.Valid, types.GCAttachment{ContainerID: b.ContainerID, IfName: b.IfName}) {
			continue
		}
		errs = append(errs, remove(path))
	}
	return errors.Join(errs...)
}
