package engine

import (
	"fmt"
	"slices"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// namespaceOf returns the path by which the sandbox's network namespace is reached: the runtime's,
// else the recorded one. It is empty if the namespace is gone. A path that leads to another
// namespace than that of the ADD is the path of another sandbox, whose links are not to be touched.
func (e *Engine) namespaceOf(req *Request, rec *record.Record) (string, error) {
	for i, path := range []string{req.NetNS, rec.NetNS} {
		if path == "" || i > 0 && path == req.NetNS {
			continue
		}
		id, err := e.identify(path)
		if err != nil {
			return "", err
		}
		if isRecorded(rec, id) && !e.Namespaces.IsNode(path) {
			return path, nil
		}
	}
	return "", nil
}

// isRecorded reports whether the identity of a namespace, if it has one, is that of the record.
func isRecorded(rec *record.Record, id string) bool {
	return id != "" && (rec.NetNSID == "" || id == rec.NetNSID)
}

// nobodys is an identity that no namespace has.
const nobodys = "-"

// presumed returns the beginning of a record for a sandbox that has lost its own. Its namespace is
// the one that the runtime names, else the one that libcni's cache does, unless that is known to be
// another sandbox's.
func (e *Engine) presumed(req *Request) (*record.Record, error) {
	rec := &record.Record{NetNS: req.NetNS, NetNSID: nobodys}
	if namespace, name, err := podOf(req.Args); err == nil {
		rec.Pod = record.Pod{Namespace: namespace, Name: name, UID: arg(req.Args, "K8S_POD_UID")}
	}
	var err error
	if rec.NetNS == "" {
		rec.NetNS, err = e.cachedNamespace(req)
	}
	if err == nil && rec.NetNS != "" {
		rec.NetNSID, err = e.presumedID(req, rec.NetNS)
	}
	return rec, err
}

// cachedNamespace returns the path of the sandbox's network namespace as libcni's cache has it. It
// is empty if there is none, or if another sandbox has the same path.
func (e *Engine) cachedNamespace(req *Request) (string, error) {
	entries, err := e.cacheEntries(req)
	owners := map[string]string{}
	for _, entry := range entries {
		if id, ok := owners[entry.NetNS]; ok && id != entry.ContainerID {
			entry.ContainerID = "" // of two
		}
		owners[entry.NetNS] = entry.ContainerID
	}
	for path, id := range owners {
		if id == req.ContainerID {
			return path, err
		}
	}
	return "", err
}

// presumedID returns the identity of the namespace at path if that may be the sandbox's. It is
// nobodys if the namespace is gone, is the node's, or is known to be another sandbox's.
func (e *Engine) presumedID(req *Request, path string) (string, error) {
	id, err := e.identify(path)
	if err != nil || id == "" || e.Namespaces.IsNode(path) {
		return nobodys, err
	}
	others, err := e.Records.ReadOthers(req.ContainerID)
	taken := slices.ContainsFunc(others, func(r *record.Record) bool { return r.NetNSID == id })
	// The runtime knows better than records that cannot be read.
	if taken || err != nil && req.NetNS == "" {
		return nobodys, nil
	}
	return id, nil
}

// identify returns the identity of the network namespace at path; empty if there is none.
func (e *Engine) identify(path string) (string, error) {
	id, err := e.Namespaces.Identity(path)
	if err != nil {
		return "", &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "CNI_NETNS",
			Err: fmt.Errorf("identify the sandbox: %w", err),
		}
	}
	return id, nil
}

// notNode refuses to work in the node's own network namespace, by whatever path the runtime names
// it: its links, routes and rules would be taken for a pod's.
func (e *Engine) notNode(path string) error {
	if !e.Namespaces.IsNode(path) {
		return nil
	}
	return &failure.Error{
		Reason: failure.InvalidEnvironment, Field: "CNI_NETNS",
		Err: fmt.Errorf("%s leads to the network namespace of the node", strictjson.Quote(path)),
		Fix: "name the namespace of a pod; a pod with hostNetwork needs no CNI plugin",
	}
}
