package engine

import (
	"cmp"
	"path/filepath"
	"slices"

	"github.com/braid-cni/braid/pkg/record"
)

// This file holds the one rule of where an operation looks for plugins and for what plugins left.
// An ADD looks where its request says, and records that. Later operations on the sandbox may have
// another request, since the node was configured anew, or none, since no runtime calls.
//
//	                  with recorded places                    without
//	plugins           recorded, then CNI_PATH, then binDir    CNI_PATH, then binDir
//	exec'd or not     recorded                                braid.exec
//	libcni's cache    recorded                                cniDir
//	device info       recorded                                deviceInfoDir
//	plugins' data     beneath the recorded roots              beneath braid.dataRoots
//
// The plugin that made something is the one to remove it, be it a binary or built in: portmap finds
// no rules of another. So its directory comes first; where it is gone, the node may have moved it.
// Files are only where they were written.

// asAdded returns the work in the namespace netns, with the places of the sandbox's ADD. From now
// on plugins run in this process or not as they did then.
func (w *work) asAdded(netns string) *work {
	added := w.within(netns)
	added.req.places = w.rec.Places
	if w.rec.Places.CNIDir != "" { // they are recorded
		w.sandbox.exec.Force(w.rec.Places.Exec)
	}
	return added
}

// path returns where plugins are looked for.
func (e *Engine) path(r *Request) []string {
	all := slices.Clone(r.places.Path)
	for _, dir := range slices.Concat(r.Path, e.Node.BinDirs) {
		if !slices.Contains(r.places.Path, dir) {
			all = append(all, dir)
		}
	}
	return all
}

// cniDir returns the directory of libcni's cache.
func (e *Engine) cniDir(r *Request) string { return cmp.Or(r.places.CNIDir, e.Node.CNIDir) }

// deviceInfoDir returns the directory of device-info files.
func (e *Engine) deviceInfoDir(r *Request) string {
	return cmp.Or(r.places.DeviceInfoDir, e.Node.DeviceInfoDir)
}

// placesOf returns the places of an ADD. The working directory of its process is none of them.
func (e *Engine) placesOf(r *Request) record.Places {
	places := record.Places{
		Exec: e.Node.Exec, CNIDir: e.cniDir(r), DeviceInfoDir: e.deviceInfoDir(r),
		DataRoots: e.Policy.DataRoots,
	}
	for _, dir := range e.path(r) {
		if abs, err := filepath.Abs(dir); err == nil && !slices.Contains(places.Path, abs) {
			places.Path = append(places.Path, abs)
		}
	}
	return places
}
