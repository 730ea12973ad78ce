package manifests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// temporaryFile is where a file is written before it takes its place. There is one for the whole
// directory, used under the lock, so that writers that were killed leave at most this one behind.
const temporaryFile = ".braid.tmp"

// beside names one of Braid's files. Namespaces and pods have no underscore in their names, so that
// no two pods share a file.
func (d *Directory) beside(pod *metav1.ObjectMeta, suffix string) string {
	return filepath.Join(d.dir, pod.Namespace+"_"+pod.Name+suffix)
}

// status reads what was published for this very pod.
func (d *Directory) status(pod *metav1.ObjectMeta) (status string, published bool, err error) {
	owner, err := hostfile.Read(d.beside(pod, uidSuffix), objects.MaxName)
	if missing(err) {
		owner, err = []byte(derivedUID(pod.Namespace, pod.Name)), nil
	}
	if err != nil || string(owner) != string(pod.UID) {
		return "", false, err
	}
	data, err := hostfile.Read(d.beside(pod, statusSuffix), maxStatus)
	if missing(err) {
		return "", false, nil
	}
	return string(data), err == nil, err
}

// hasStatus reports whether the pod of a manifest has the network-status that is among the
// annotations, or has none as they have none. One that cannot be read counts as any: it is going to
// be replaced.
func (d *Directory) hasStatus(pod *metav1.ObjectMeta, annotations map[string]string) bool {
	has, ok := pod.Annotations[nadv1.StatusAnnotation]
	status, published, err := d.status(pod)
	if published {
		has, ok = status, true
	}
	want, wanted := annotations[nadv1.StatusAnnotation]
	return err != nil || has == want && ok == wanted
}

// writeStatus writes the status before it says whose it is. If it is killed in between, the status
// counts for nobody until the runtime has the ADD done again; the other way round, one pod would
// have the addresses of another.
func (d *Directory) writeStatus(pod *metav1.ObjectMeta, annotation string) error {
	if err := d.write(d.beside(pod, statusSuffix), []byte(annotation)); err != nil {
		return err
	}
	if pod.UID != derivedUID(pod.Namespace, pod.Name) {
		return d.write(d.beside(pod, uidSuffix), []byte(pod.UID))
	}
	if err := os.Remove(d.beside(pod, uidSuffix)); err != nil && !missing(err) {
		return fmt.Errorf("remove file: %w", err)
	}
	return nil
}

// appendEvent adds a line to the pod's events and drops the oldest beyond the bound, and lines that
// are no events.
func (d *Directory) appendEvent(pod *metav1.ObjectMeta, ev *objects.Event) error {
	path := d.beside(pod, eventsSuffix)
	data, err := hostfile.Read(path, maxEventsFile)
	if err != nil && !missing(err) {
		return unreadable("events of pod", pod.Namespace, pod.Name, err)
	}
	var lines [][]byte
	for line := range bytes.Lines(data) {
		var old struct {
			Metadata objects.EventMetadata `json:"metadata"`
		}
		if json.Unmarshal(line, &old) != nil {
			continue
		}
		if old.Metadata.Name == ev.Metadata.Name {
			return nil
		}
		lines = append(lines, append(bytes.TrimRight(line, "\n"), '\n'))
	}
	line, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	lines = append(lines, append(line, '\n'))
	return d.write(path, bytes.Join(lines[max(0, len(lines)-maxEvents):], nil))
}

// write puts a file in place, whole or not at all. It is under the lock. What it replaces, a link
// included, is not written through.
func (d *Directory) write(path string, data []byte) error {
	return d.put(path, data, false, d.rename)
}

// put writes a file, to the disk where it has to outlive power, and has place put it in its place
// and take it from where it was.
func (d *Directory) put(
	path string, data []byte, durable bool, place func(from, to string) error,
) error {
	tmp := filepath.Join(d.dir, temporaryFile)
	if err := os.Remove(tmp); err != nil && !missing(err) {
		return fmt.Errorf("remove file: %w", err)
	}
	// Everybody may read it, as the object in a cluster.
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return writeFailed(path, err)
	}
	_, err = f.Write(data)
	if err == nil && durable {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = place(tmp, path)
	}
	if err != nil {
		os.Remove(tmp) //nolint:errcheck // the next writer does it
	}
	if err != nil && !objects.Answered(err) {
		return writeFailed(path, err)
	}
	return err
}

// writeFailed returns the error of a change that was not made. It may be tried again.
func writeFailed(path string, err error) error {
	return &failure.Error{
		Reason: failure.APIUnavailable, Err: fmt.Errorf("write %s: %w", path, err),
		Fix: "give Braid a directory of manifests that it can write to",
	}
}

// locked runs fn while no other process writes to the directory. The lock is an flock on the
// directory: it leaves no file, and the kernel takes it back from whoever is killed.
func (d *Directory) locked(ctx context.Context, fn func() error) error {
	dir, err := os.Open(d.dir)
	if err != nil {
		return invalid(fmt.Errorf("open directory: %w", err), "create the directory, or correct the path")
	}
	defer dir.Close() //nolint:errcheck // releases the lock
	if err := ctx.Err(); err != nil {
		return &failure.Error{
			Reason: failure.TimedOut, Err: fmt.Errorf("lock %s: %w", d.dir, context.Cause(ctx)),
		}
	}
	err = hostfile.Lock(ctx, int(dir.Fd()))
	switch {
	case err == nil:
		return fn()
	case ctx.Err() != nil:
		return &failure.Error{
			Reason: failure.TimedOut,
			Err:    fmt.Errorf("lock %s: another process writes there: %w", d.dir, err),
		}
	default:
		return writeFailed(d.dir, err)
	}
}
