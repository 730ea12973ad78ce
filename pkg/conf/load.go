package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// MaxStdin bounds what the runtime passes, in bytes. On GC that includes every valid attachment of
// the node, some 110 bytes each: this is room for 38000, a hundred times what a kubelet runs.
const MaxStdin = 4 << 20

// Load reads Braid's own configuration as the runtime passes it on stdin. Keys of Multus match in
// any case, as they do there; of two spellings the documented one counts. Unknown keys are ignored,
// since the runtime and other tools add theirs, except under "braid". A key that is given twice is
// an error. Errors have reason InvalidConfig and CNI code 7, except for text that is not JSON (6)
// and for a cniVersion that Braid does not speak (1).
func Load(stdin []byte) (*Config, error) {
	c := &Config{}
	return loaded(c, read(stdin, c.Call.read, c.Node.read, c.Policy.read))
}

// LoadForCall is Load for operations of the CNI protocol. A policy that cannot be read stops no pod
// of the operator's: the tenant's default is enforced in its place, with a warning.
func LoadForCall(stdin []byte) (*Config, error) {
	c := &Config{}
	return loaded(c, read(stdin, c.Call.read, c.Node.read, c.readForCall))
}

// LoadForRemoval is LoadForCall for DEL and GC, which work from what ADD recorded: a configuration
// of whose networks none can be attached must not keep a pod from being deleted.
func LoadForRemoval(stdin []byte) (*Config, error) {
	c := &Config{}
	return loaded(c, read(stdin, c.Call.read, c.readForRemoval, c.readForCall))
}

// LoadCall reads of stdin what the runtime passed with the call, for those who read the rest
// before.
func LoadCall(stdin []byte) (*Call, error) {
	c := &Call{}
	return loaded(c, read(stdin, c.read))
}

// loaded returns a part only if nothing is wrong: nobody is to use half of a configuration.
func loaded[T any](part *T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return part, nil
}

// read hands the keys to readers of parts, each its own object, and returns the first error.
func read(stdin []byte, parts ...func(*object)) error {
	top, err := decodeStdin(stdin)
	for _, part := range parts {
		if err == nil {
			o := &object{keys: top, anyCase: true}
			part(o)
			err = o.err
		}
	}
	return err
}

// LoadFile reads Braid's own configuration from a file, a conf or a conflist with a plugin of type
// braid or multus in it, as the runtime would pass it on.
func LoadFile(path string) (*Config, error) {
	raw, err := netconf.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := parseFile(raw)
	return c, inFile(err, path)
}

// parseFile is LoadFile of the file's text.
func parseFile(raw []byte) (*Config, error) {
	top, err := decodeStdin(raw)
	if err != nil {
		return nil, err
	}
	if strictjson.Null(top["plugins"]) {
		return Load(raw)
	}
	plugins, err := strictjson.List(top["plugins"])
	if err != nil {
		return nil, badConfig("plugins", "", "%w", err)
	}
	for _, p := range plugins {
		own, err := strictjson.Object(p)
		if err == nil && netconf.IsMeta(strictjson.Text(own["type"])) {
			own["name"], own["cniVersion"] = top["name"], top["cniVersion"]
			return Load(strictjson.Marshal(own))
		}
	}
	return nil, badConfig("plugins", "name a file with Braid's configuration",
		"there is none of type braid")
}

// decodeStdin returns the configuration's keys. It refuses what is too long, no JSON, or has a key
// twice.
func decodeStdin(stdin []byte) (map[string]json.RawMessage, error) {
	if len(stdin) > MaxStdin {
		return nil, badConfig("", fmt.Sprintf("keep it below %d bytes", MaxStdin),
			"the configuration has %d bytes", len(stdin))
	}
	if err := strictjson.Check(stdin); err != nil {
		path, fix := strictjson.Place(err)
		return nil, badConfig(path, fix, "the configuration is no valid JSON: %w",
			types.NewError(types.ErrDecodingFailure, err.Error(), ""))
	}
	top, err := strictjson.Object(stdin)
	if err != nil {
		return nil, badConfig("", "", "the configuration %w", err)
	}
	return top, nil
}

// read is the reader of Call.
func (c *Call) read(o *object) {
	c.readIdentity(o)
	c.RuntimeConfig = field(o, "runtimeConfig", nil, allowedObject, strictjson.Object)
	c.ValidAttachments = field(o, "cni.dev/valid-attachments", nil,
		`give a list of {"containerID": "...", "ifname": "..."}`, attachments)
	c.Warnings = o.warnings
}

// read is the reader of Node.
func (n *Node) read(o *object) { n.readWith(o, (*Node).readNetworks) }

// readForRemoval is the reader of Node for DEL and GC, which need no network to be readable.
func (n *Node) readForRemoval(o *object) { n.readWith(o, (*Node).keepNetworks) }

func (n *Node) readWith(o *object, networks func(*Node, *object)) {
	n.readBraid(o)
	n.readPaths(o)
	n.readLogging(o)
	n.SystemNamespaces = o.namespaces("systemNamespaces", DefaultMultusNamespace,
		listOf(strictjson.String))
	n.MultusNamespace = field(o, "multusNamespace", DefaultMultusNamespace, allowedNamespace,
		orDefault(DefaultMultusNamespace, namespace))
	n.RetryDeleteOnError = field(o, "retryDeleteOnError", false, allowedBool, strictjson.Bool)
	n.Capabilities = field(o, "capabilities", nil, allowedObject, capabilities)
	networks(n, o)
	n.Warnings = o.warnings
}

// read is the reader of Policy.
func (p *Policy) read(o *object) { p.readWith(o, (*Policy).readRules) }

func (p *Policy) readForCall(o *object) { p.readWith(o, (*Policy).rulesIfReadable) }

func (p *Policy) readWith(o *object, rules func(*Policy, *object)) {
	p.readBraid(o, rules)
	p.NamespaceIsolation = field(o, "namespaceIsolation", true, allowedBool, strictjson.Bool)
	p.GlobalNamespaces = o.namespaces("globalNamespaces", DefaultGlobalNamespace, globalNamespaces)
	p.Warnings = o.warnings
}

func (c *Call) readIdentity(o *object) {
	c.Name = field(o, "name", "", netconf.AllowedName, networkName)
	if o.err == nil && c.Name == "" {
		o.err = badConfig("name", netconf.AllowedName, "the name is missing")
	}
	c.CNIVersion = field(o, "cniVersion", "", netconf.AllowedVersions(), strictjson.String)
	switch {
	case o.err != nil:
	case c.CNIVersion == "": // CNI's 0.1.0, whose results have no interfaces
		c.CNIVersion = netconf.DefaultVersion
		o.odd("cniVersion", netconf.AllowedVersions(), "it is missing, and taken for %s",
			netconf.DefaultVersion)
	case !netconf.Speaks(c.CNIVersion):
		o.err = badVersion(c.CNIVersion)
	}
}

func badVersion(version string) error {
	msg := strictjson.Quote(version) + " is not supported"
	return badConfig("cniVersion", netconf.AllowedVersions(), "%w",
		types.NewError(types.ErrIncompatibleCNIVersion, msg, ""))
}

func (n *Node) readPaths(o *object) {
	n.ConfDir = field(o, "confDir", DefaultConfDir, allowedPath, orDefault(DefaultConfDir, absPath))
	n.CNIDir = field(o, "cniDir", n.StateDir+"/cni", allowedStateDir, ownDir)
	n.readBinDirs(o)
	n.Kubeconfig = field(o, "kubeconfig", "", allowedPath, optionalPath)
	n.ReadinessIndicatorFile = field(o, "readinessindicatorfile", "", allowedPath, optionalPath)
}

// readBinDirs reads one directory, as the documentation of Multus has it, or several: a list, or as
// CNI_PATH has them.
func (n *Node) readBinDirs(o *object) {
	n.BinDirs = field(o, "binDir", []string{DefaultBinDir},
		"give the absolute path of a directory of plugins", binDirs)
	if o.err == nil && (len(n.BinDirs) > 1 || strictjson.Kind(o.raw("binDir")) == "a list") {
		o.odd("binDir", "give one directory, and add the others to the runtime's plugin path",
			"it names %d directories, and all are searched", len(n.BinDirs))
	}
}

// namespaces are names. What no namespace can be called is left out: no pod is of it.
func (o *object) namespaces(
	key, def string, decode func(json.RawMessage) ([]string, error),
) []string {
	names := field(o, key, []string{def}, allowedNamespaces, decode)
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := namespace(strictjson.Marshal(name))
		if err != nil {
			o.odd(key, "correct it, or remove it", "%w, and is ignored", err)
		}
		return err != nil
	})
}

// inFile names the file in an error.
func inFile(err error, path string) error {
	if fe, ok := errors.AsType[*failure.Error](err); ok && fe.NAD == "" {
		fe.NAD = path
	}
	return err
}

// badConfig returns an error in Braid's own configuration.
func badConfig(path, fix, format string, args ...any) *failure.Error {
	return &failure.Error{
		Reason: failure.InvalidConfig, Field: path, Err: fmt.Errorf(format, args...), Fix: fix,
	}
}
