package netconf

import (
	"path/filepath"

	"github.com/containernetworking/cni/pkg/utils"
)

// chain appends the plugins in dir/<network name>/*.conf, in alphabetical order, unless the list
// wants none. There must be plugins in the end. Unlike a file of another network, a broken one here
// is an error: it is a part of this network.
func (l *List) chain(dir string) error {
	inlinedOnly, _ := boolean(l.top["loadOnlyInlinedPlugins"])
	if !l.single && !inlinedOnly && utils.ValidateNetworkName(l.Name()) == nil {
		files, err := confFiles(filepath.Join(dir, l.Name()), ".conf")
		if err != nil {
			return invalid("", "", "read the chain's directory: %w", err)
		}
		for _, path := range files {
			if err := l.appendFile(path); err != nil {
				return inFile(err, path)
			}
		}
	}
	if l.Len() == 0 {
		fix := "add plugins to it, or as *.conf to its directory in " + dir
		return invalid("plugins", fix, "the network has no plugins")
	}
	return nil
}

func (l *List) appendFile(path string) error {
	raw, err := readFile(path)
	if err != nil {
		return err
	}
	plugin, err := parseObject(raw)
	if err != nil {
		return err
	}
	if _, err := checkPlugin("", plugin); err != nil {
		return err
	}
	l.plugins = append(l.plugins, plugin)
	return nil
}
