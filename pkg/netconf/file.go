package netconf

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// OnDisk finds the network of that name in a configuration directory (NPWG v1.3 s.3.4.1): the first
// *.conflist, in alphabetical order, whose JSON name it is, else the first such *.conf or *.json. A
// file that cannot be read or is invalid hides no other; the error of a search that finds nothing
// lists such files. The result is a conflist, with the plugins of the directory named after the
// network appended (CNI 1.1, loadOnlyInlinedPlugins). Errors have reason NetworkNotFound.
func OnDisk(dir, name string) ([]byte, error) {
	var unusable hints
	for _, extensions := range [][]string{{".conflist"}, {".conf", ".json"}} {
		files, err := confFiles(dir, extensions...)
		unusable.add(dir, err)
		for _, path := range files {
			list, err := named(path, name)
			unusable.add(path, err)
			if list != nil {
				return list.Bytes(), nil
			}
		}
	}
	return nil, notFound(name, unusable, "no CNI configuration in %s has the name %s", dir,
		strictjson.Quote(name))
}

// named returns the file's network if it has the name, else nil.
func named(path, name string) (*List, error) {
	list, err := readList(path)
	if err != nil || name == "" || list.Name() != name {
		return nil, err
	}
	if err := list.chain(filepath.Dir(path)); err != nil {
		return nil, err
	}
	return list, nil
}

// FromFile reads the network of a configuration file, or of a directory: that of its alphabetically
// first *.conflist, *.conf or *.json that is valid and not Braid's own. The result is a conflist as
// that of OnDisk. Errors have reason NetworkNotFound where there is no such file, else
// InvalidConfig; NAD is the path.
func FromFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, notFound(path, nil, "read network configuration: %w", withoutPath(err))
	}
	if info.IsDir() {
		return fromDir(path)
	}
	list, err := readChained(path)
	if err != nil {
		return nil, inFile(err, path)
	}
	return list.Bytes(), nil
}

// fromDir returns the configuration of the first file that is usable, as runtimes do.
func fromDir(dir string) ([]byte, error) {
	var unusable hints
	files, err := confFiles(dir, ".conflist", ".conf", ".json")
	unusable.add(dir, err)
	for _, path := range files {
		list, err := readChained(path)
		if err == nil {
			return list.Bytes(), nil
		}
		unusable.add(path, err)
	}
	return nil, notFound(dir, unusable, "no CNI configuration in %s", dir)
}

func readChained(path string) (*List, error) {
	list, err := readList(path)
	if err != nil {
		return nil, err
	}
	return list, list.chain(filepath.Dir(path))
}

// readList reads a conf or conflist, without the plugins that a directory may add.
func readList(path string) (*List, error) {
	raw, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parse(raw)
}

// inFile names the file in an error that names no network yet. The node's operator is to mend it,
// not the author of a NAD.
func inFile(err error, path string) error {
	if fe, ok := errors.AsType[*failure.Error](err); ok && fe.NAD == "" {
		fe.NAD, fe.Reason = path, failure.InvalidConfig
	}
	return err
}
