package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/strictjson"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// undoWithin bounds the roll-back of an ADD, which goes on when the request's time is up.
const undoWithin = 10 * time.Second

// HostNS is the network namespace of the process, the node's.
const HostNS = "/proc/self/ns/net"

// Session is what the plugins of one operation on a sandbox share. Each network namespace is opened
// once, so that a path that is unmounted or reused meanwhile changes nothing.
type Session struct {
	host string

	mu     sync.Mutex
	places map[string]*place
}

// place is an open network namespace.
type place struct {
	ns     *netns.NS
	handle *nl.Handle
	// node is true if this is the machine's own namespace.
	node bool
}

// close closes what at has opened of a namespace, also if that was not all.
func (p *place) close() {
	if p.handle != nil {
		p.handle.Close()
	}
	p.ns.Close()
}

// NewSession makes a session. host is the path of the node's network namespace, HostNS as a rule.
// The session is closed after the operation.
func NewSession(host string) *Session {
	return &Session{host: host, places: map[string]*place{}}
}

// Close closes the namespaces.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.places {
		p.close()
	}
	clear(s.places)
}

// Host returns a handle for the node's network namespace, which is closed with the session.
func (s *Session) Host() (*nl.Handle, error) {
	at, err := s.at(s.host)
	if err != nil {
		return nil, err
	}
	return at.handle, nil
}

// at returns a namespace, which it opens once in a session. The session closes it.
func (s *Session) at(path string) (*place, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.places[path]; ok {
		return p, nil
	}
	ns, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	p := &place{ns: ns, node: ns.IsNode()}
	// One visit of the namespace for all that needs one.
	err = ns.Do(func() (err error) {
		if p.handle, err = nl.Open(ns); err != nil {
			return err
		}
		if path == s.host {
			return nil
		}
		return sysctl.Reach(ns)
	})
	if err != nil {
		p.close()
		return nil, err
	}
	s.places[path] = p
	return p, nil
}

// Bind returns a plugin in its wire form for this session.
func (s *Session) Bind(p *Plugin) *Bound { return &Bound{p, s} }

// Bound is a plugin in wire form: an invoke.Plugin.
type Bound struct {
	plugin  *Plugin
	session *Session
}

// Prepare reads a configuration, as invoke.Plugin has it. A panic of the operation is an error. Of
// an ADD that fails nothing is left.
func (b *Bound) Prepare(config []byte) (*invoke.Prepared, error) {
	own, err := b.plugin.own(config)
	if err != nil {
		return nil, err
	}
	p, err := b.plugin.prepare(own)
	if err != nil {
		return nil, err
	}
	run := func(ctx context.Context, call *invoke.Call) ([]byte, error) {
		return b.run(ctx, call, p.run)
	}
	prepared := &invoke.Prepared{
		Run: run, Unknown: p.keys.unknown, Recased: p.keys.recased, Foreign: p.foreign,
		Ignored: p.ignored, Validate: p.validate,
	}
	if p.protect != nil {
		prepared.Protect = b.session.protecting(p.protect)
	}
	if p.room != nil {
		prepared.Room = b.session.counting(p.room)
	}
	if p.keys.refused != nil {
		prepared.Refused = p.keys.refused
	}
	return prepared, nil
}

// protecting returns the wire form of a plugin's Protect.
func (s *Session) protecting(
	protect func(context.Context, *Request) error,
) func(context.Context, *invoke.Call) error {
	return func(ctx context.Context, call *invoke.Call) error {
		_, req, err := s.request(call)
		if err != nil {
			return err
		}
		return protect(ctx, req)
	}
}

// counting returns the wire form of a plugin's Room.
func (s *Session) counting(
	room func(context.Context, *Request) (uint64, error),
) func(context.Context, *invoke.Call) (uint64, error) {
	return func(ctx context.Context, call *invoke.Call) (uint64, error) {
		_, req, err := s.request(call)
		if err != nil {
			return 0, err
		}
		return room(ctx, req)
	}
}

// run calls an operation. What an ADD that fails has done is taken back, also after its time is up.
func (b *Bound) run(
	ctx context.Context, call *invoke.Call, run operation,
) (stdout []byte, err error) {
	command, req, err := b.session.request(call)
	if err != nil {
		return nil, err
	}
	stdout, err = do(ctx, command, req, run)
	if err != nil && command == "ADD" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWithin)
		defer cancel()
		if uerr := req.Undo.Unwind(ctx); uerr != nil {
			err = fmt.Errorf("%w (and what was done could not be taken back: %w)", err, uerr)
		}
	}
	return stdout, err
}

// do calls an operation, and returns its result as JSON in the version that the request asks for.
func do(
	ctx context.Context, command string, req *Request, run operation,
) (stdout []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			stdout, err = nil, fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	speaks := version.All.SupportedVersions()
	if command == "ADD" && req.Version != "" && !slices.Contains(speaks, req.Version) {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion,
			fmt.Sprintf("field cniVersion: %.20q is not supported", req.Version),
			"use one of "+strings.Join(speaks, ", "))
	}
	result, err := run(ctx, command, req)
	if err != nil || result == nil {
		return nil, err
	}
	converted, err := result.GetAsVersion(req.Version)
	if err != nil {
		return nil, types.NewError(types.ErrIncompatibleCNIVersion,
			fmt.Sprintf("express the result in CNI %s: %v", req.Version, err), "")
	}
	return json.Marshal(converted)
}

// own returns the part of a configuration that is the plugin's.
func (p *Plugin) own(config []byte) ([]byte, error) {
	if !p.ipam {
		return config, nil
	}
	object, err := strictjson.Object(config)
	if err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "configuration "+err.Error(), "")
	}
	ipam := strictjson.Lookup(object, "ipam")
	if strictjson.Null(ipam) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig, "field ipam: is missing", "")
	}
	return ipam, nil
}

// environment is a list of NAME=VALUE.
type environment []string

// get returns the value of a variable; it is empty for none. The last one counts, as for a process.
func (e environment) get(name string) string {
	for _, pair := range slices.Backward(e) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// request reads the wire form.
func (s *Session) request(call *invoke.Call) (command string, req *Request, err error) {
	env := environment(call.Environ).get
	var c struct {
		Common
		Args struct {
			CNI json.RawMessage `json:"cni"`
		} `json:"args"`
		Valid *[]types.GCAttachment `json:"cni.dev/valid-attachments"`
	}
	if err := json.Unmarshal(call.Stdin, &c); err != nil {
		return "", nil, badValue("", call.Stdin, err)
	}
	req = &Request{
		ID: attachment.ID{
			Network: c.Name, ContainerID: env("CNI_CONTAINERID"), IfName: env("CNI_IFNAME"),
		},
		NetNS: env("CNI_NETNS"), Args: env("CNI_ARGS"),
		Version: c.CNIVersion, Config: call.Stdin, Runtime: c.RuntimeConfig, CNIArgs: c.Args.CNI,
		Limits: call.Terms.Limits, dataRoots: call.Terms.DataRoots, environ: call.Environ,
		path: filepath.SplitList(env("CNI_PATH")), session: s, exec: call.Exec,
	}
	command = env("CNI_COMMAND")
	if command == "GC" {
		if c.Valid == nil {
			return "", nil, types.NewError(types.ErrInvalidNetworkConfig,
				"field cni.dev/valid-attachments: is missing",
				"an empty list is allowed; a missing one is not taken for it")
		}
		req.Valid = attachment.InNetwork(c.Name, *c.Valid)
	}
	if req.PrevResult, err = prevResult(c.CNIVersion, c.PrevResult); err != nil &&
		(command == "ADD" || command == "CHECK") {
		return "", nil, err
	}
	// Nothing else needs it: what it says must not keep anything from being removed.
	return command, req, nil
}

// prevResult reads the key; nil where there is none. A result that names no version, as older
// runtimes and plugins leave it, has the configuration's.
func prevResult(inVersion string, raw json.RawMessage) (*types100.Result, error) {
	if strictjson.Null(raw) {
		return nil, nil
	}
	const what = "field prevResult"
	raw, _, err := versioned(what, inVersion, raw)
	if err != nil {
		return nil, err
	}
	return resultOf(what, inVersion, raw)
}

// versioned returns a result with the version that it names, or else with one that stands in for
// it.
func versioned(what, fallback string, raw []byte) (full []byte, speaks string, err error) {
	result, err := strictjson.Object(raw)
	if err != nil {
		return nil, "", types.NewError(types.ErrDecodingFailure, what+" "+err.Error(), "")
	}
	if !strictjson.Null(result["cniVersion"]) {
		if speaks, err = strictjson.String(result["cniVersion"]); err != nil {
			return nil, "", types.NewError(types.ErrDecodingFailure,
				what+": field cniVersion "+err.Error(), "")
		}
	}
	if speaks != "" {
		return raw, speaks, nil
	}
	result["cniVersion"] = json.RawMessage(strconv.Quote(fallback))
	full, err = json.Marshal(result)
	return full, fallback, err
}

// noNulls refuses lists whose elements are not all there, which nobody who reads a result expects.
func noNulls(raw []byte) error {
	var lists struct {
		Interfaces, IPs, Routes []json.RawMessage
	}
	if err := json.Unmarshal(raw, &lists); err != nil {
		return err
	}
	for name, list := range map[string][]json.RawMessage{
		"interfaces": lists.Interfaces, "ips": lists.IPs, "routes": lists.Routes,
	} {
		if i := slices.IndexFunc(list, strictjson.Null); i >= 0 {
			return fmt.Errorf("field %s[%d]: is null", name, i)
		}
	}
	return nil
}

// resultOf reads a result of a version; what it is, messages say.
func resultOf(what, inVersion string, raw []byte) (*types100.Result, error) {
	if err := noNulls(raw); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, what+": "+err.Error(), "")
	}
	result, err := create.Create(inVersion, raw)
	if err == nil {
		var converted *types100.Result
		if converted, err = types100.NewResultFromResult(result); err == nil {
			return converted, nil
		}
	}
	return nil, types.NewError(types.ErrDecodingFailure, what+": "+err.Error(), "")
}
