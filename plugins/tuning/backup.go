package tuning

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plugin"
)

// backup is what a file of the data directory holds: how an interface was before its first ADD,
// and, unlike the reference's, whose it is.
type backup struct {
	attributes
	attachment.ID
}

// dataDirKey is the configuration's key of the directory.
const dataDirKey = "dataDir"

// suffix is the suffix of the backups' names.
const suffix = ".json"

const (
	// maxBackup bounds what is read of a file, in bytes.
	maxBackup = 1 << 16
	dirMode   = 0o700
	fileMode  = 0o600
)

// backups is the directory with the backups, and the name of one attachment's.
type backups struct {
	hostfile.Place
	name string
}

// backups checks where the attachment's backup is to be. Its name is the reference's, too.
func (p Plugin) backups(req *plugin.Request, c *Conf) (backups, error) {
	if err := req.Validate(); err != nil {
		return backups{}, err
	}
	place, err := p.place(req, c)
	return backups{place, req.ContainerID + "_" + req.IfName + suffix}, err
}

// place returns the directory of the backups, which is not made yet, maybe.
func (p Plugin) place(req *plugin.Request, c *Conf) (hostfile.Place, error) {
	return req.DataDir(dataDirKey, c.DataDir, defaultDataDir, p.Roots)
}

// at returns the same backup in another place.
func (b backups) at(place hostfile.Place) backups { return backups{place, b.name} }

// Judge holds the directory to what the node's administrator allows.
func (p Plugin) Judge(c *Conf) error {
	_, err := plugin.DataDir(dataDirKey, c.DataDir, defaultDataDir, p.Roots)
	return err
}

// save keeps the attributes, unless there are some from an ADD before, which are the older ones.
// made is true if it made the file.
func (b backups) save(req *plugin.Request, a attributes) (made bool, err error) {
	_, err = b.load()
	if errors.Is(err, fs.ErrNotExist) {
		made, err = true, b.write(backup{a, req.ID})
	}
	if err != nil {
		return false, types.NewError(types.ErrIOFailure,
			fmt.Sprintf("field dataDir %q: backup of interface %s: %v", b.Place, req.IfName, err), "")
	}
	return made, nil
}

// write makes the file at once. Symbolic links in its place are not followed.
func (b backups) write(content backup) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	dir, err := b.Make(dirMode)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Left by a process that was killed.
	if err := dir.RemoveAny(temporary(b.name)); err != nil {
		return err
	}
	err = dir.Write(temporary(b.name), unix.O_CREAT|unix.O_EXCL, fileMode, data)
	if err == nil {
		err = dir.Rename(temporary(b.name), dir, b.name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(temporary(b.name)))
	}
	return nil
}

// temporary returns the name under which a file is written before it gets its own.
func temporary(name string) string { return "." + name }

// load reads the attachment's backup; fs.ErrNotExist if there is none.
func (b backups) load() (*backup, error) {
	dir, err := open(b.Place)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return read(dir, b.name)
}

// open opens a directory with backups. What is no directory, or cannot be one, has none.
func open(place hostfile.Place) (hostfile.Dir, error) {
	dir, err := place.Open()
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENAMETOOLONG) {
		err = &fs.PathError{Op: "open", Path: place.String(), Err: fs.ErrNotExist}
	}
	return dir, err
}

// read reads a backup; fs.ErrNotExist if there is none.
func read(dir hostfile.Dir, name string) (*backup, error) {
	data, _, err := dir.Read(name, maxBackup)
	if err != nil {
		return nil, err
	}
	b := &backup{}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, dir.Fail("decode", name, err)
	}
	return b, nil
}

// remove removes the attachment's backup. One that is gone is removed already.
func (b backups) remove() error {
	dir, err := open(b.Place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return remove(dir, b.name)
}

// remove removes a backup, and what a killed ADD left beside it. That there is neither is no
// error.
func remove(dir hostfile.Dir, name string) error {
	return errors.Join(dir.RemoveAny(name), dir.RemoveAny(temporary(name)))
}

// collect removes the network's backups of attachments that are not valid. Other networks' are in
// the same directory, and so may be the reference's, which do not say whose they are: those stay.
func collect(place hostfile.Place, req *plugin.Request) error {
	dir, err := open(place)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Names()
	errs := []error{err}
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		b, err := read(dir, name)
		if err != nil || b.Network != req.Network || slices.Contains(req.Valid, b.ID) {
			continue
		}
		errs = append(errs, remove(dir, name))
	}
	return errors.Join(errs...)
}
