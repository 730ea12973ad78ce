// Package weaken switches single mechanisms of defence off, so that tests can show that an attack
// works without the mechanism and that it is the mechanism that stops it.
//
// Contract: only a build with the tag "weaken" can be weakened, and only scripts of the tests make
// one. In every other build Off is the constant false: the compiler leaves out what depends on it,
// and nothing of this package is in the binary. It is no configuration.
package weaken

// Mechanism is one mechanism, at the place where it holds.
type Mechanism string

// The mechanisms.
const (
	Caller    Mechanism = "caller"     // Braid does not run where Braid is its caller
	Deadline  Mechanism = "deadline"   // an operation ends in time
	Group     Mechanism = "group"      // the children of a binary are killed with it
	Honoured  Mechanism = "honoured"   // a pod starts only with what it asks for
	HostPorts Mechanism = "host-ports" // ports of the node are mapped only if a rule says so
	Isolation Mechanism = "isolation"  // a namespace's NADs are for its own pods
	Links     Mechanism = "links"      // the node's links are neither moved nor taken over
	Listeners Mechanism = "listeners"  // a port that is listened on is mapped to no pod
	Loopback  Mechanism = "loopback"   // no port of loopback addresses is mapped to a pod
	Masters   Mechanism = "masters"    // links of the node are masters only if a rule says so
	Meta      Mechanism = "meta"       // a meta plugin is no plugin of a network
	NodeNS    Mechanism = "node-ns"    // the node's own network namespace is no pod's
	Networks  Mechanism = "networks"   // the networks of a pod have a bound
	Output    Mechanism = "output"     // what a plugin prints has a bound
	// a bridge is changed only for the namespace that it was made for
	Owners Mechanism = "owners"
	// of the cache of libcni only what is this user's alone counts
	Peer       Mechanism = "peer" // the agent does calls of root alone
	Planted    Mechanism = "planted"
	Policy     Mechanism = "policy"      // what a rule does not allow is refused
	Printing   Mechanism = "printing"    // what is not printable is escaped
	Private    Mechanism = "private"     // directories of state are root's alone
	Roots      Mechanism = "roots"       // paths of configurations lie beneath roots
	Routers    Mechanism = "routers"     // secondary networks advertise no default route
	Routes     Mechanism = "routes"      // a gateway covers no route of the node
	Self       Mechanism = "self"        // this program is no plugin of a network under another name
	Size       Mechanism = "size"        // a network's configuration has a bound
	Spoofing   Mechanism = "spoofing"    // a pod on a bridge sends with its own MAC address alone
	StateOwner Mechanism = "state-owner" // state is kept in no directory of another user
	Symlinks   Mechanism = "symlinks"    // no symbolic link leads out of a root
	Taken      Mechanism = "taken"       // a port that an attachment has is mapped to no other
)
