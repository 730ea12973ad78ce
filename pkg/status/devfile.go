package status

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// maxDeviceInfo bounds a device-information file, in bytes: real ones have a few hundred, and all
// of it goes into an annotation.
const maxDeviceInfo = 16 << 10

// LoadDeviceInfo reads and checks a device-information file; nil without an error where there is
// none.
func LoadDeviceInfo(path string) (*nadv1.DeviceInfo, error) {
	_, info, err := load(path)
	return info, err
}

// CopyDeviceInfo makes the CNI file of an attachment from the device plugin's file, before the
// plugins are called (s.4.2.1). It reports whether there was one to copy. A CNI file that a dead
// ADD left is replaced, or removed where there is nothing to copy: the plugins must not take it for
// theirs. The directory is there afterwards, for the plugins to write in.
func CopyDeviceInfo(dpFile, cniFile string) (bool, error) {
	if err := os.MkdirAll(filepath.Dir(cniFile), 0o755); err != nil {
		return false, fmt.Errorf("make directory of device info: %w", err)
	}
	raw, info, err := load(dpFile)
	if err != nil || info == nil {
		return false, errors.Join(err, CleanDeviceInfo(cniFile))
	}
	if err := replace(cniFile, raw); err != nil {
		return false, fmt.Errorf("write device info: %w", err)
	}
	return true, nil
}

// CleanDeviceInfo removes an attachment's CNI file; one that is gone already is fine.
func CleanDeviceInfo(cniFile string) error {
	for _, path := range []string{cniFile, temporary(cniFile)} {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("remove device info: %w", err)
		}
	}
	return nil
}

// load reads a regular file, follows no link to it and waits for no pipe: others write in that
// directory.
func load(path string) ([]byte, *nadv1.DeviceInfo, error) {
	raw, err := hostfile.Read(path, maxDeviceInfo)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read device info: %w", err)
	}
	info, err := parseDeviceInfo(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("read device info %s: %w", path, err)
	}
	return raw, info, nil
}

// replace writes a file, in a directory that is there, in one step. The temporary name is fixed, so
// what a crash leaves of it is found and removed.
func replace(path string, raw []byte) error {
	tmp := temporary(path)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}

func temporary(path string) string { return path + ".tmp" }
