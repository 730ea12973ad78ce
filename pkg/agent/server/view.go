package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// view is what of a machine a process sees, as files that are the same for those that see the same.
type view map[string]id

// id is a file's identity.
type id struct{ dev, ino uint64 }

func viewOf(process string) (view, error) {
	v := view{}
	for _, what := range []string{"ns/mnt", "ns/net", "root"} {
		var st unix.Stat_t
		if err := unix.Stat("/proc/"+process+"/"+what, &st); err != nil {
			return nil, &fs.PathError{Op: "stat", Path: what, Err: err}
		}
		v[what] = id{st.Dev, st.Ino}
	}
	return v, nil
}

// sameAs holds a process to see the same node as this one: paths, links and routes are to mean the
// same to both.
func (v view) sameAs(pid int) error {
	if pid <= 0 {
		return errors.New("its client is in a process namespace that is not seen from here")
	}
	other, err := viewOf(strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("it is not known which node its client sees: %w", err)
	}
	for what, is := range other {
		if v[what] != is {
			return fmt.Errorf("its client sees another node (%s of process %d is not the agent's)",
				what, pid)
		}
	}
	return nil
}

// sameNetNS holds the path of the sandbox's network namespace to lead to what the client has opened
// there: to the same namespace, or for both to nothing. The path is what the engine works with, and
// what it records.
func sameNetNS(path string, sent *os.File, announced bool) error {
	if announced != (sent != nil) {
		return errors.New("its network namespace was announced and not sent, or the other way round")
	}
	var here, there unix.Stat_t
	var err error = unix.ENOENT
	if path != "" {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("CNI_NETNS %.200q is no absolute path", path)
		}
		err = unix.Stat(path, &here)
	}
	if sent == nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return fmt.Errorf("CNI_NETNS %.200q is there, and its client did not send it", path)
	}
	if err != nil {
		return fmt.Errorf("CNI_NETNS %.200q: %w", path, err)
	}
	if err := isNetNS(sent); err != nil {
		return fmt.Errorf("CNI_NETNS %.200q: %w", path, err)
	}
	if err := unix.Fstat(int(sent.Fd()), &there); err != nil {
		return fmt.Errorf("CNI_NETNS %.200q: %w", path, err)
	}
	if here.Dev != there.Dev || here.Ino != there.Ino {
		return fmt.Errorf("CNI_NETNS %.200q leads to another file here than for its client", path)
	}
	return nil
}

func isNetNS(file *os.File) error {
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return errors.New("what its client sent is no network namespace")
	}
	return nil
}
