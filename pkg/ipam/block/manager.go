package block

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
)

// Manager assigns the addresses of one node's blocks to its containers. Any number of processes and
// goroutines may have one for the same directory.
type Manager struct {
	Store Store
	Nodes Nodes
	// Dir is where the node's state is: an absolute path on a file system that does not survive a
	// reboot. It is made, with mode 0700, by the first Add.
	Dir string
	// NodeName is the name of the Node object of this machine.
	NodeName string
	// Boot returns a text that no other boot of this machine has, without a slash.
	Boot func() (string, error)
	Log  *slog.Logger
	// Tell raises an event of the type Warning for a pod, "namespace/name"; nil for nobody to tell.
	Tell func(ctx context.Context, pod string, uid types.UID, reason, message string)

	// Now is the clock; if nil, BootClock, which nobody sets.
	Now func() time.Time
	// Wall is the machine's wall clock, which goes on while it is suspended; time.Now if nil.
	Wall func() time.Time
	// Sleep waits until the time has passed or the context is done. It may be set in tests.
	Sleep func(ctx context.Context, d time.Duration) error
	// Locking is called for each directory before its lock is waited for. For tests.
	Locking func(dir string)
	// Rand chooses among blocks; if nil, there is a new one each time.
	Rand *rand.Rand
	// Step is called for each change before it is made, and an error that it returns is that of the
	// change. For tests.
	Step func(change string) error
	// Patience bounds how long an Add waits for a block that it has recalled; 0 means 5 s.
	Patience time.Duration
}

// Holder is the interface of a container, and for people its pod.
type Holder struct {
	attachment.ID
	PodUID types.UID `json:"podUID,omitempty"`
	// Pod is "namespace/name".
	Pod string `json:"pod,omitempty"`
}

// check returns an error unless the holder's parts are valid in CNI and Kubernetes: they have no
// white space.
func (h Holder) check() error {
	for _, part := range [][2]string{
		{"network", h.Network},
		{"container ID", h.ContainerID},
		{"interface", h.IfName},
		{"pod UID", string(h.PodUID)},
		{"pod", h.Pod},
	} {
		if strings.ContainsFunc(part[1], unicode.IsSpace) {
			return fmt.Errorf("%s %.100q has white space", part[0], part[1])
		}
	}
	return nil
}

// Wish is one address that an Add wants.
type Wish struct {
	// Space is a result of SpaceOf.
	Space  string
	Window *alloc.Window
	// Asked is the address to have, one of the window; the zero Addr for any.
	Asked netip.Addr
	// Beside are other spaces in which the same network may have addresses.
	Beside []string
}

func (m *Manager) now() time.Time { return read(m.Now, BootClock) }

func (m *Manager) wall() time.Time { return read(m.Wall, time.Now) }

// read reads a clock, or another one if it is nil.
func read(clock, otherwise func() time.Time) time.Time {
	if clock == nil {
		return otherwise()
	}
	return clock()
}

// BootClock returns the time since the machine was booted, also while it was suspended, as a time
// after 1970.
func BootClock() time.Time {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Now() // no kernel that Go runs on
	}
	return time.Unix(since.Unix())
}

func (m *Manager) sleep(ctx context.Context, d time.Duration) error {
	if m.Sleep != nil {
		return m.Sleep(ctx, d)
	}
	return hostfile.Sleep(ctx, d)
}

// step is called before each change; its error is that of the change.
func (m *Manager) step(change string) error {
	if m.Step == nil {
		return nil
	}
	return m.Step(change)
}

func (m *Manager) rand() *rand.Rand {
	if m.Rand == nil {
		return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return m.Rand
}

// Errors of Add and Status.
var (
	// ErrFull means that no address is free in the window, on any node.
	ErrFull = errors.New("no address is free")
	// ErrTaken means that somebody else has the address that was asked for.
	ErrTaken = errors.New("the address is taken")
	// ErrLater means that trying again a little later may help.
	ErrLater = errors.New("try again")
)
