package engine

import (
	"bytes"
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

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

func (e *Engine) cacheDir(req *Request) string { return cnicache.Results(e.cniDir(req)) }

// maxFileName is how long the name of a file can be, in bytes.
const maxFileName = 255

// cacheName returns the name of a network by which libcni knows it. It is the network's own, unless
// that makes too long a name for the file of the attachment: then a part of it and a hash.
func cacheName(network, containerID, ifName string) string {
	room := maxFileName - len("--") - len(containerID) - len(ifName)
	if len(network) <= room {
		return network
	}
	sum := sha256.Sum256([]byte(network))
	end := "-" + hex.EncodeToString(sum[:8])
	return network[:room-len(end)] + end
}

// cachePath returns where libcni keeps the entry of an attachment.
func (w *work) cachePath(a *plan.Attachment) string {
	return filepath.Join(w.cacheDir(w.req),
		cacheName(a.Network, w.req.ContainerID, a.IfName)+"-"+w.req.ContainerID+"-"+a.IfName)
}

// clearCache makes way for libcni, which would write through a link that is in the place of the
// entry.
func (w *work) clearCache(a *plan.Attachment) error {
	path := w.cachePath(a)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return w.trace("clear cache "+a.IfName, func() error { return cacheFailed(os.RemoveAll(path)) })
}

// restoreCache sees to it that libcni finds the result of the ADD, which it passes to CHECK and DEL
// as prevResult (CNI 1.1 "DEL"). libcni writes its cache in place and reads a truncated file as "no
// result"; the record has it as well, and counts. Of an ADD that was killed before the result was
// recorded, the entry is all there is; it is only kept from not being a file.
func (w *work) restoreCache(c *chain, a *record.Attachment) error {
	path := w.cachePath(&a.Attachment)
	info, err := os.Lstat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > cnicache.MaxEntry) {
		if err := w.clearCache(&a.Attachment); err != nil {
			return err
		}
	}
	if a.State != record.Added || !hasResult(a) || cached(path, c, a) {
		return nil
	}
	capabilities, err := json.Marshal(c.rt.CapabilityArgs)
	if err != nil {
		return fmt.Errorf("encode capabilities: %w", err)
	}
	entry := cnicache.Entry{
		Kind: libcni.CNICacheV1, ContainerID: c.rt.ContainerID, Config: a.Conf, IfName: a.IfName,
		NetworkName: c.known.Name,
		NetNS:       c.rt.NetNS, CNIArgs: a.Args, CapabilityArgs: capabilities, Result: a.Result,
	}
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encode result cache: %w", err)
	}
	return w.trace("restore cache "+a.IfName, func() error { return replaceCache(path, data) })
}

// hasResult reports whether plugins returned a result. A chain may have none.
func hasResult(a *record.Attachment) bool {
	return len(a.Result) > 0 && string(a.Result) != "null"
}

// cached reports whether libcni's cache has the result that the record has. Of most versions of CNI
// the texts are the same; of the others libcni is asked.
func cached(path string, c *chain, a *record.Attachment) bool {
	var entry struct {
		Kind   string          `json:"kind"`
		Result json.RawMessage `json:"result"`
	}
	data, err := hostfile.Read(path, cnicache.MaxEntry)
	if err != nil || json.Unmarshal(data, &entry) != nil {
		return false
	}
	if entry.Kind == libcni.CNICacheV1 && bytes.Equal(entry.Result, a.Result) {
		return true
	}
	result, err := c.cni.GetNetworkListCachedResult(c.known, c.rt)
	if err != nil || result == nil {
		return false
	}
	data, err = json.Marshal(result)
	return err == nil && bytes.Equal(data, a.Result)
}

// replaceCache writes in place, as libcni does: a file under another name would be an entry of its
// own for libcni.
func replaceCache(path string, data []byte) error {
	return cacheFailed(errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.RemoveAll(path),
		os.WriteFile(path, data, 0o600)))
}

// cacheFailed is the error of a change of libcni's cache; nil for nil.
func cacheFailed(err error) error {
	if err == nil {
		return nil
	}
	return &failure.Error{
		Reason: failure.StateFailed, Field: "cniDir", Err: fmt.Errorf("write result cache: %w", err),
	}
}

// cachedSandbox is what libcni's cache has of a sandbox: what a lost or damaged record can be
// replaced with.
type cachedSandbox struct {
	// attachments are the sandbox's, the default network first.
	attachments []record.Attachment
	// lost are the paths of damaged entries of networks that the node does not remember.
	lost []string
}

// empty reports whether the cache has nothing of the sandbox.
func (c *cachedSandbox) empty() bool { return len(c.attachments)+len(c.lost) == 0 }

// whole reports whether the cache has something of the sandbox, and all of it can be read.
func (c *cachedSandbox) whole() bool { return len(c.attachments) > 0 && len(c.lost) == 0 }

// add adds what an entry of an interface may be: several if it is damaged, or none.
func (c *cachedSandbox) add(path string, found []plan.Attachment) {
	if len(found) == 0 {
		c.lost = append(c.lost, path)
	}
	for _, a := range found {
		at := len(c.attachments)
		if a.Default {
			at = 0
		}
		c.attachments = slices.Insert(c.attachments, at,
			record.Attachment{Attachment: a, State: record.Attempted})
	}
}

// cachedAttachments returns what libcni's cache has of the sandbox. An entry that is damaged still
// says by its name which network it is of; what that is, the node remembers.
func (e *Engine) cachedAttachments(ctx context.Context, req *Request) (*cachedSandbox, error) {
	files, err := os.ReadDir(e.cacheDir(req))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cacheUnread(err)
	}
	cached := &cachedSandbox{}
	for _, file := range files {
		network, ifName, ok := strings.Cut(file.Name(), "-"+req.ContainerID+"-")
		if !ok || utils.ValidateNetworkName(network) != nil ||
			utils.ValidateInterfaceName(ifName) != nil {
			continue
		}
		path := filepath.Join(e.cacheDir(req), file.Name())
		found, err := e.cachedAt(ctx, path, req, plan.Attachment{
			Name: network, Network: network, IfName: ifName, Default: ifName == req.IfName,
		})
		if errors.Is(err, errOther) || errors.Is(err, cnicache.ErrPlanted) {
			continue
		}
		if err != nil {
			return nil, err
		}
		cached.add(path, found)
	}
	return cached, nil
}

// cachedAt returns what the entry at path makes of an attachment that is known by its names alone.
// The error is errOther or ErrPlanted if the entry is not the sandbox's.
func (e *Engine) cachedAt(
	ctx context.Context, path string, req *Request, a plan.Attachment,
) ([]plan.Attachment, error) {
	whole := a
	err := readCached(path, req.ContainerID, &whole)
	if err == nil || errors.Is(err, errOther) || errors.Is(err, cnicache.ErrPlanted) {
		return []plan.Attachment{whole}, err
	}
	e.Log.WarnContext(ctx, "result cache cannot be read", "file", path, "error", err)
	return e.remembered(req.ContainerID, a)
}

// cacheEntries returns the entries of libcni's cache that can be read.
func (e *Engine) cacheEntries(req *Request) ([]cnicache.Entry, error) {
	entries, err := cnicache.Read(e.cniDir(req), nil)
	if err != nil {
		return nil, cacheUnread(err)
	}
	return entries, nil
}

// cacheUnread is the error of a directory of libcni's cache that cannot be listed.
func cacheUnread(err error) error {
	return &failure.Error{
		Reason: failure.StateFailed, Field: "cniDir", Err: fmt.Errorf("read result cache: %w", err),
	}
}

// errOther means that an entry, whole, is of another sandbox, whose ID is in part that of this one.
var errOther = errors.New("it is of another container")

// readCached completes an attachment with its entry. What is not an entry of that very attachment,
// or could not have been made by an ADD, is an error.
func readCached(path, containerID string, a *plan.Attachment) error {
	data, err := cnicache.ReadFile(path)
	if err != nil {
		return err
	}
	var entry cnicache.Entry
	if err := json.Unmarshal(data, &entry); err != nil {
		return err
	}
	if err := checkEntry(&entry, filepath.Base(path), containerID, a); err != nil {
		return err
	}
	list, err := netconf.Libcni(entry.Config)
	if err != nil {
		return err
	}
	if cacheName(list.Name, containerID, a.IfName) != a.Network {
		return fmt.Errorf("its configuration is of network %.80q", list.Name)
	}
	a.Name, a.Network = list.Name, list.Name
	if len(entry.CapabilityArgs) > 0 {
		if err := json.Unmarshal(entry.CapabilityArgs, &a.RuntimeConfig); err != nil {
			return err
		}
	}
	a.Conf, a.Args = entry.Config, entry.CNIArgs
	_, a.DeviceInfo = a.RuntimeConfig[deviceInfoCapability]
	return nil
}

// checkEntry returns an error if an entry, which is in a file of that name, is not of the
// attachment of the container.
func checkEntry(entry *cnicache.Entry, name, containerID string, a *plan.Attachment) error {
	if entry.ContainerID != containerID &&
		entry.NetworkName+"-"+entry.ContainerID+"-"+entry.IfName == name {
		return errOther
	}
	if entry.Kind != libcni.CNICacheV1 || entry.ContainerID != containerID ||
		entry.NetworkName != a.Network || entry.IfName != a.IfName {
		return errors.New("it is of something else than its name says")
	}
	return nil
}

// remembered returns the attachments that a may be, if it is of a network that this node remembers
// and that libcni knows by its name.
func (e *Engine) remembered(containerID string, a plan.Attachment) ([]plan.Attachment, error) {
	networks, err := e.Records.Networks()
	var found []plan.Attachment
	for _, n := range networks {
		if cacheName(n.Network, containerID, a.IfName) == a.Network {
			found = append(found, plan.Attachment{
				Name: n.Name, Network: n.Network, IfName: a.IfName, Default: a.Default, Conf: n.Conf,
				InProcess: n.InProcess,
			})
		}
	}
	if len(found) > 0 {
		err = nil // those that cannot be read are of other networks
	}
	return found, err
}

// gcAttachments converts for libcni.
func gcAttachments(valid map[types.GCAttachment]bool) []types.GCAttachment {
	list := make([]types.GCAttachment, 0, len(valid))
	for a := range valid {
		list = append(list, a)
	}
	return list
}
