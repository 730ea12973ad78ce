package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// What is allowed, for messages.
const (
	allowedPath       = "give an absolute path"
	allowedStateDir   = "give the absolute path of a directory of Braid's own"
	allowedBool       = "give true or false"
	allowedObject     = "give an object"
	allowedNamespace  = "give the name of a namespace"
	allowedNamespaces = "give names of namespaces"
)

// maxPath is the kernel's bound, in bytes.
const maxPath = 4095

// absPath decodes an absolute path, without superfluous slashes. ".." is refused rather
// than resolved: through a symbolic link it would mean something else than it reads.
func absPath(raw json.RawMessage) (string, error) {
	path, err := strictjson.String(raw)
	switch {
	case err != nil:
		return "", err
	case !filepath.IsAbs(path):
		return "", fmt.Errorf("%s is no absolute path", strictjson.Quote(path))
	case len(path) > maxPath || strings.ContainsFunc(path, unicode.IsControl) ||
		slices.Contains(strings.Split(path, "/"), ".."):
		return "", fmt.Errorf("%s has \"..\", a control character or more than %d bytes",
			strictjson.Quote(path), maxPath)
	}
	return filepath.Clean(path), nil
}

// ownDir returns a path at which Braid writes, so not the root.
func ownDir(raw json.RawMessage) (string, error) {
	path, err := absPath(raw)
	if err == nil && path == "/" {
		return "", errors.New(`"/" is not Braid's own`)
	}
	return path, err
}

// binDirs returns the absolute paths of directories.
func binDirs(raw json.RawMessage) ([]string, error) {
	if strictjson.Kind(raw) == "a list" {
		dirs, err := listOf(absPath)(raw)
		if err == nil && len(dirs) == 0 {
			dirs = []string{DefaultBinDir}
		}
		return dirs, err
	}
	paths, err := strictjson.String(raw)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for path := range strings.SplitSeq(paths, ":") {
		dir, err := orDefault(DefaultBinDir, absPath)(strictjson.Marshal(path))
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// orDefault lets a string be empty, which means the default.
func orDefault(
	def string, decode func(json.RawMessage) (string, error),
) func(json.RawMessage) (string, error) {
	return func(raw json.RawMessage) (string, error) {
		if string(raw) == `""` {
			return def, nil
		}
		return decode(raw)
	}
}

func optionalPath(raw json.RawMessage) (string, error) { return optional(absPath)(raw) }

// optional lets a string be empty.
func optional(decode func(json.RawMessage) (string, error)) func(json.RawMessage) (string, error) {
	return func(raw json.RawMessage) (string, error) {
		if string(raw) == `""` {
			return "", nil
		}
		return decode(raw)
	}
}

// listOf decodes a list of strings; an empty one is not nil.
func listOf(decode func(json.RawMessage) (string, error)) func(json.RawMessage) ([]string, error) {
	return func(raw json.RawMessage) ([]string, error) {
		elements, err := strictjson.List(raw)
		if err != nil {
			return nil, err
		}
		values := []string{}
		for i, element := range elements {
			value, err := decode(element)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			values = append(values, value)
		}
		return values, nil
	}
}

func namespace(raw json.RawMessage) (string, error) {
	name, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	if len(validation.IsDNS1123Label(name)) > 0 {
		return "", fmt.Errorf("%s is no DNS-1123 label", strictjson.Quote(name))
	}
	return name, nil
}

// globalNamespaces reads Multus's form, one string with commas, and a list of strings. In Multus a
// blank string means the default and blank elements nothing; an empty list means none.
func globalNamespaces(raw json.RawMessage) ([]string, error) {
	if strictjson.Kind(raw) == "a list" {
		return listOf(strictjson.String)(raw)
	}
	text, err := strictjson.String(raw)
	if err != nil {
		return nil, errors.New("is neither a string nor a list")
	}
	var names []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			names = append(names, part)
		}
	}
	if len(names) == 0 {
		return []string{DefaultGlobalNamespace}, nil
	}
	return names, nil
}

func networkName(raw json.RawMessage) (string, error) {
	name, err := strictjson.String(raw)
	if err == nil && utils.ValidateNetworkName(name) != nil {
		err = fmt.Errorf("%s is no CNI network name", strictjson.Quote(name))
	}
	return name, err
}

// network returns a name or, where it has a slash, a path.
func network(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err == nil && strings.Contains(text, "/") {
		return absPath(raw)
	}
	return networkName(raw)
}

func nodeName(raw json.RawMessage) (string, error) {
	name, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	good := len(name) <= 253
	for part := range strings.SplitSeq(name, ".") {
		good = good && len(validation.IsDNS1123Label(part)) == 0
	}
	if !good {
		return "", fmt.Errorf("%s is no DNS-1123 name", strictjson.Quote(name))
	}
	return name, nil
}

// capabilities returns those that are declared; nil for none. The runtime judges them, too.
func capabilities(raw json.RawMessage) (map[string]bool, error) {
	all, err := strictjson.Object(raw)
	var declared map[string]bool
	for key, value := range all {
		if yes, err := strictjson.Bool(value); err == nil && yes {
			if declared == nil {
				declared = map[string]bool{}
			}
			declared[key] = true
		}
	}
	return declared, err
}

// attachments reads the runtime's list of a GC. It is strict: an attachment that is misread here
// would be taken down.
func attachments(raw json.RawMessage) ([]types.GCAttachment, error) {
	elements, err := strictjson.List(raw)
	if err != nil {
		return nil, err
	}
	all := []types.GCAttachment{}
	for i, element := range elements {
		keys, err := strictjson.Object(element)
		if err != nil {
			return nil, fmt.Errorf("element %d %w", i, err)
		}
		a := types.GCAttachment{
			ContainerID: strictjson.Text(keys["containerID"]), IfName: strictjson.Text(keys["ifname"]),
		}
		if utils.ValidateContainerID(a.ContainerID) != nil ||
			utils.ValidateInterfaceName(a.IfName) != nil {
			return nil, fmt.Errorf("element %d, %s, is no attachment", i, strictjson.Quote(string(element)))
		}
		all = append(all, a)
	}
	return all, nil
}
