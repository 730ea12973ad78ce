package nodenet

import (
	"net/netip"
	"time"
)

// NIC is a network interface of the node, as far as it matters here.
type NIC struct {
	Index int
	Name  string
	// MAC is the device's own where it has one, whatever the link's is. PCI is empty where there is no
	// such address.
	MAC, PCI string
	AltNames []string
	// Up is the administrator's wish, Carrier that the other end is there. Port is that the NIC is one
	// of a bridge's, or of a bond's.
	Up, Carrier, Port bool
	Addrs             []netip.Prefix
	// Duplicate are the addresses of Addrs that the kernel found in use elsewhere (IPv6).
	Duplicate []netip.Prefix
}

// System is what there is on a node.
type System struct {
	// NICs are in any order. Others than physical ones are here, too: they are found by name and MAC.
	NICs []NIC
	// Primary are the NICs below the default route, by index; empty if there is none.
	Primary []int
}

// Lease is an address that a DHCP server lent.
type Lease struct {
	Prefix netip.Prefix `json:"prefix"`
	Server netip.Addr   `json:"server"`
	// Renew and Rebind are T1 and T2 of RFC 2131.
	Renew  time.Time `json:"renew"`
	Rebind time.Time `json:"rebind"`
	Ends   time.Time `json:"ends"`
}

// Kept is what is remembered of a network, also over a restart.
type Kept struct {
	// Match is the one that the rest is of.
	Match string `json:"match"`
	// MAC and PCI are those of the NIC that the network had, Link its index.
	MAC  string `json:"mac"`
	PCI  string `json:"pci,omitempty"`
	Link int    `json:"link"`
	// Addrs are the addresses that were set on it, and not there before.
	Addrs []netip.Prefix `json:"addresses,omitempty"`
	Lease *Lease         `json:"lease,omitempty"`
}

// Memory is what is remembered, by network.
type Memory map[string]*Kept

// Trial is what is known of a network as long as the agent runs. The zero value is for nothing yet.
type Trial struct {
	// Link is the index of the NIC that the rest is of.
	Link int
	// Free are addresses that nobody answered for.
	Free map[netip.Prefix]bool
	// Busy is true if an answer is waited for.
	Busy bool
	// Confirm is true if the link was without carrier, so that a lease may be of another network.
	Confirm bool
	// Next is when something that failed is tried again, after a Pause.
	Next  time.Time
	Pause time.Duration
	// Err is the last failure, nil after a success.
	Err error
	// Restored is when an address that somebody took away was put back, and after which pause.
	Restored     time.Time
	RestorePause time.Duration
}

// Bounds of the pauses of a Trial.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	// calm is after how long a repair is the first one again.
	calm = 10 * time.Minute
)

// Failed notes a failure, after which there is a pause.
func (t *Trial) Failed(err error, now time.Time) {
	t.Err, t.Pause = err, min(max(2*t.Pause, firstPause), lastPause)
	t.Next = now.Add(t.Pause)
}

// Succeeded notes the end of failures.
func (t *Trial) Succeeded() { t.Err, t.Pause, t.Next = nil, 0, time.Time{} }

// Condition is how the interface of a network is.
type Condition string

// The conditions.
const (
	Ready     Condition = "Ready"
	Pending   Condition = "Pending"   // it is being worked on
	Absent    Condition = "Absent"    // no NIC matches
	NoCarrier Condition = "NoCarrier" // the NIC is there, its network is not
	Failed    Condition = "Failed"
)

// State is what is to be told of a network.
type State struct {
	Network   string
	Type      Type
	NIC       string
	MAC       string
	Addresses []netip.Prefix
	Condition Condition
	// Err says why the interface is not Ready; it may be nil.
	Err error
}

// Kind is what a Step does.
type Kind string

// The kinds of steps. Those of Probe and Ask take time.
const (
	Up     Kind = "up"
	Add    Kind = "add"    // an address; Restore is that somebody took it away
	Remove Kind = "remove" // an address
	Forget Kind = "forget" // the network
	Probe  Kind = "probe"  // whether anybody has an address
	Ask    Kind = "ask"    // a DHCP server
)

// Asking is the message of a DHCP client, by what it is for.
type Asking string

// The reasons to ask.
const (
	Discover Asking = "discover"
	Confirm  Asking = "confirm"
	Renew    Asking = "renew"
	Rebind   Asking = "rebind"
)

// Step is one thing to do.
type Step struct {
	Kind    Kind
	Network string
	NIC     NIC
	Addr    netip.Prefix
	Restore bool
	Asking  Asking
}

// Decision is what follows from what there is.
type Decision struct {
	Steps []Step
	// States are in the order of the interfaces.
	States []State
	// Found are the NICs of networks. Each is to be remembered when the steps of Remove and Forget are
	// taken, and before the others.
	Found map[string]NIC
	// Wake is when to decide anew if nothing happens; zero for never.
	Wake time.Time
}
