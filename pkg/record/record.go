// Package record is the journal of the node: for each sandbox what Braid is about to make, has
// made, and has still to remove.
//
// Contract: an attachment is in the record, durably, before its first change to the kernel, and
// leaves it only when its removal succeeded; so whatever dies, whenever, the record names
// everything that can be left over. Who acts on a record needs the Sandbox that Store.Lock returns,
// which serialises processes; who only looks calls Store.Read, which takes no lock and writes
// nothing. Records are written to a temporary name and renamed, mode 0600, never synced: they live
// on a tmpfs, since no sandbox survives a reboot. A record that exists but cannot be read is an
// error, never "no record". That a sandbox was removed is remembered for an hour or two
// (Sandbox.Gone), so that a repeated DEL needs to ask nobody.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/weaken"
)

const (
	// maxSize bounds what is read back: a record holds at most some dozens of conflists and results.
	maxSize = 16 << 20
	// maxContainerID keeps the file names made of a container ID, libcni's included, within NAME_MAX.
	maxContainerID = 160
)

// State is how far an attachment has come.
type State string

// An attachment goes from Planned (nothing was changed) through Attempted (its ADD was started, so
// anything may be there) to Added (its ADD succeeded and Result is set). A removed attachment is
// not in the record any more. One that is Owed was added, and its plugins refused for so long to
// remove it that DEL went on without.
const (
	Planned   State = "planned"
	Attempted State = "attempted"
	Added     State = "added"
	Owed      State = "owed"
)

// Record is one sandbox.
type Record struct {
	Version int `json:"version"`
	// OldestReader is the oldest version of the format that a Braid has to know to remove all of
	// the sandbox. 0 is that none older than Version does.
	OldestReader int `json:"oldestReader,omitempty"`

	ContainerID string `json:"containerID"`
	NetNS       string `json:"netns"`
	// NetNSID is the identity of the network namespace that NetNS led to at the ADD; empty in a
	// record that does not know it.
	NetNSID string    `json:"netnsID,omitempty"`
	Pod     Pod       `json:"pod"`
	Created time.Time `json:"created"`
	// Runtime is the name of the program that asked for the ADD, as containerd; empty in a record
	// that does not know it.
	Runtime string `json:"runtime,omitempty"`
	// Complete is true if the ADD of the whole pod succeeded and was published.
	Complete bool `json:"complete"`
	// Unpublished is true if the sandbox is Complete and its network-status is not up to date.
	Unpublished bool `json:"unpublished,omitempty"`
	// Places are the zero value in a record that does not know them.
	Places      Places       `json:"places,omitzero"`
	Attachments []Attachment `json:"attachments"`
}

// Places are the directories of a sandbox's ADD, for later operations on it. Those may be called
// with others by then, or with none.
type Places struct {
	// Path are the absolute directories in which plugins were looked for, in this order.
	Path []string `json:"path,omitempty"`
	// Exec are the types of plugins that were to be exec'd even if they are built in.
	Exec []string `json:"exec,omitempty"`
	// CNIDir is the directory of libcni's cache.
	CNIDir string `json:"cniDir,omitempty"`
	// DeviceInfoDir is the directory of device-info files.
	DeviceInfoDir string `json:"deviceInfoDir,omitempty"`
	// DataRoots are the directories beneath which the plugins' data had to be; nil if they are not
	// known.
	DataRoots []string `json:"dataRoots,omitzero"`
}

// Unfinished reports whether an operation on the sandbox has not come to its end. What is owed
// alone is GC's.
func (r *Record) Unfinished() bool {
	return !r.Complete && (len(r.Attachments) == 0 ||
		slices.ContainsFunc(r.Attachments, func(a Attachment) bool {
			return a.State != Owed
		}))
}

// Owed returns the attachments that are owed.
func (r *Record) Owed() []Attachment {
	return slices.DeleteFunc(slices.Clone(r.Attachments), func(a Attachment) bool {
		return a.State != Owed
	})
}

// Pod identifies the pod for logs and events; empty where the runtime named none.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// String is "namespace/name", or empty.
func (p Pod) String() string {
	if p.Name == "" {
		return ""
	}
	return p.Namespace + "/" + p.Name
}

// Attachment is a planned attachment and what became of it.
type Attachment struct {
	plan.Attachment
	State State `json:"state"`
	// Result is the CNI result of the chain, set in state Added; null where the chain gave none.
	Result json.RawMessage `json:"result,omitempty"`
	// Failure is the plugin's error that ended the ADD of an attachment in state Attempted.
	Failure *types.Error `json:"failure,omitempty"`
	// Index is the index of the attachment's link in the pod, whatever its name is by now; 0 if it is
	// not known.
	Index int `json:"index,omitempty"`
	// Leaving is true if it is being removed from a sandbox that stays. Some of it may be gone.
	Leaving bool `json:"leaving,omitempty"`
	// Refusal is set while plugins refuse to remove the attachment, whose sandbox is gone.
	Refusal *Refusal `json:"refusal,omitempty"`
}

// Refusal records that plugins of a chain refuse their configuration on DEL.
type Refusal struct {
	// Since is when they first refused.
	Since time.Time `json:"since"`
	// Text is their last error.
	Text string `json:"text"`
}

// Store is the directory of all records of the node.
type Store struct {
	dir string
	now func() time.Time
}

// New uses dir, which is made on first use, with mode 0700, and must then belong to this user
// alone.
func New(dir string) *Store { return &Store{dir: dir, now: time.Now} }

func (s *Store) sandboxes() string { return filepath.Join(s.dir, "sandboxes") }

func (s *Store) path(containerID string) string {
	return filepath.Join(s.sandboxes(), containerID+".json")
}

// ensure makes the directories and refuses those that others could write to.
func (s *Store) ensure(dir string) error {
	mode := fs.FileMode(0o700)
	if weaken.Off(weaken.Private) {
		mode = 0o755
	}
	if err := os.MkdirAll(dir, mode); err != nil {
		return stateFailed(fmt.Errorf("make state directory: %w", err))
	}
	for _, d := range []string{s.dir, dir} {
		if weaken.Off(weaken.StateOwner) {
			break
		}
		info, err := os.Lstat(d)
		if err != nil {
			return stateFailed(fmt.Errorf("inspect state directory: %w", err))
		}
		if !isOwnDir(info) {
			return &failure.Error{
				Reason: failure.StateFailed, Field: "braid.stateDir",
				Err: fmt.Errorf("%s is a %v that others can write to or own", d, info.Mode()),
				Fix: "make it a directory of mode 0700 that belongs to root",
			}
		}
	}
	return nil
}

// isOwnDir reports whether a directory is this user's, and no other can write to it.
func isOwnDir(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return info.IsDir() && info.Mode().Perm()&0o022 == 0 && ok && int(owner.Uid) == os.Geteuid()
}

// List returns the container IDs of all records, readable or not, in lexical order.
func (s *Store) List() ([]string, error) {
	entries, err := os.ReadDir(s.sandboxes())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, stateFailed(fmt.Errorf("list records: %w", err))
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// ValidateContainerID reports whether id can name a sandbox, here and for libcni (CNI 1.1
// "Parameters").
func ValidateContainerID(id string) error {
	if err := utils.ValidateContainerID(id); err != nil {
		return &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "CNI_CONTAINERID",
			Err: fmt.Errorf("%.200q: %s", id, err.Msg),
		}
	}
	if len(id) > maxContainerID {
		return &failure.Error{
			Reason: failure.InvalidEnvironment, Field: "CNI_CONTAINERID",
			Err: fmt.Errorf("%.40q... has %d characters, at most %d are allowed",
				id, len(id), maxContainerID),
		}
	}
	return nil
}

// Load reads the record. The error is fs.ErrNotExist where there is none, and of reason
// StateCorrupt where it is not to be trusted: not a regular file, too large, unknown fields,
// another sandbox's; or, with ErrLater, a later Braid's. It is of reason StateFailed where it could
// not be read now.
func (b *Sandbox) Load() (*Record, error) {
	rec, err := b.store.read(b.id)
	b.later, b.absent = errors.Is(err, ErrLater), errors.Is(err, fs.ErrNotExist)
	if b.absent || err == nil {
		b.unfinished = err == nil && rec.Unfinished()
		return rec, err
	}
	err = unreadable(b.store.path(b.id), err)
	b.unfinished = b.later || failure.ReasonOf(err) == failure.StateFailed
	return nil, err
}

// Read returns all records as they are, in the order of their IDs, for those who only look: none is
// locked, so each may be out of date, and nothing is written. The error joins those of records that
// cannot be read; the others are returned all the same.
func (s *Store) Read() (records []*Record, err error) { return s.ReadOthers("") }

// ReadOthers is Read without the record of one sandbox.
func (s *Store) ReadOthers(containerID string) (records []*Record, err error) {
	ids, err := s.List()
	errs := []error{err}
	for _, id := range ids {
		if id == containerID {
			continue
		}
		rec, err := s.read(id)
		switch {
		case err == nil:
			records = append(records, rec)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, unreadable(s.path(id), err))
		}
	}
	return records, errors.Join(errs...)
}

// read reads a record and checks that it is that of the container.
func (s *Store) read(id string) (*Record, error) {
	data, err := hostfile.Read(s.path(id), maxSize)
	if err != nil {
		return nil, err
	}
	rec, err := decode(data)
	if err == nil {
		err = rec.validate(id)
	}
	return rec, err
}

func (r *Record) validate(id string) error {
	if r.Version != formatVersion {
		return fmt.Errorf("format version %d, want %d", r.Version, formatVersion)
	}
	if r.ContainerID != id {
		return fmt.Errorf("it is of container %.80q", r.ContainerID)
	}
	for i, a := range r.Attachments {
		if err := utils.ValidateInterfaceName(a.IfName); err != nil {
			return fmt.Errorf("attachments[%d].ifName: %w", i, asError(err))
		}
		if err := utils.ValidateNetworkName(a.Network); err != nil {
			return fmt.Errorf("attachments[%d].network: %w", i, asError(err))
		}
		if !slices.Contains([]State{Planned, Attempted, Added, Owed}, a.State) {
			return fmt.Errorf("attachments[%d].state %.20q is unknown", i, a.State)
		}
	}
	return nil
}

// asError drops the CNI code of a validation error: of a record, it would be misread as the
// delegate's.
func asError(err *types.Error) error { return errors.New(err.Msg) }

// Save writes the record in place of the one that is there, unless that is a later Braid's.
func (b *Sandbox) Save(rec *Record) error {
	if b.later {
		return nil
	}
	rec.Version, rec.OldestReader, rec.ContainerID = formatVersion, oldestReader, b.id
	data, err := json.Marshal(rec)
	if err != nil {
		return stateFailed(fmt.Errorf("encode record: %w", err))
	}
	if b.absent {
		if err := b.unmarkGone(); err != nil {
			return err
		}
		b.store.keepReserve()
	}
	b.unfinished, b.absent = rec.Unfinished(), false
	return b.write(b.store.path(b.id), data)
}

// Remove removes the record of a sandbox that has nothing left. Gone remembers that, if there is
// room. It is no error if there is no record. A later Braid's record stays: there may be more of
// the sandbox than this one knows, and that one's GC removes it.
func (b *Sandbox) Remove() error {
	err := b.markGone()
	full := IsFull(err)
	if err != nil && !full || b.later {
		return err
	}
	if err := os.Remove(b.store.path(b.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return stateFailed(fmt.Errorf("remove record: %w", err))
	}
	b.unfinished = false
	if full { // the record made room; without the mark, a repeated DEL asks the plugins once more
		if err := b.markGone(); err != nil && !IsFull(err) {
			return err
		}
	}
	return nil
}

// tmp returns where the holder of the lock writes what it then renames; what a killed process left
// there is overwritten.
func (b *Sandbox) tmp() string { return b.store.path(b.id) + ".tmp" }

// write replaces path in one step, or in place where there is no room for a second file.
func (b *Sandbox) write(path string, data []byte) error {
	err := b.replace(path, data)
	if IsFull(err) {
		os.Remove(b.tmp()) //nolint:errcheck // it is what failed
		if overwrite(path, data) == nil {
			return nil
		}
	}
	if err != nil {
		return stateFailed(fmt.Errorf("write %s: %w", path, err))
	}
	return nil
}

// replace replaces path by a rename. The name before that is the lock holder's alone, so that there
// is one file at most. It is not synced: no sandbox survives a reboot.
func (b *Sandbox) replace(path string, data []byte) error {
	f, err := os.OpenFile(b.tmp(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Close()); err != nil {
		return err
	}
	return os.Rename(b.tmp(), path)
}
