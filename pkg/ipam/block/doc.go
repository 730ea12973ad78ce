// Package block gives the addresses of cluster-wide spaces to containers, out of blocks that nodes own.
//
// A space is the set of addresses that are unique among themselves. It is cut into aligned blocks of sixteen addresses, wherever in the
// cluster they are used. A block is an object of the API (v1alpha1.IPBlock), and creating the object is claiming the block: of two nodes
// that race for one, the second learns that it exists and takes another. Nobody waits for a lock, and an address belongs to whom the block
// belongs to:
//
//   - A block with an owner. The owner's local state alone says which addresses are in use; giving and taking back an address asks nobody.
//   - A shared block. The object itself says it, and every node changes it by compare-and-swap. Blocks are shared from the start where there
//     are too few of them for the nodes, and become so when another node finds nothing free: it recalls a block, and the owner writes down
//     what is in use, or deletes the block if nothing is. Only the owner does that: nothing is taken from a node because time passed.
//
// Contract: an address is never held by two attachments. An Add that fails has left nothing; what a process that was killed has left is given
// back by the next Add or Del of the same attachment, or by a GC. A Del never succeeds before what the attachment held is free. While the API
// is away, owned blocks go on. What cannot be read is in use.
//
// The local state lies on a file system that does not survive a reboot, as no container does: after one, a node owns its blocks with nothing
// in use. Objects carry the boot's ID, so that state that was lost otherwise is not taken for a reboot: then what is not known to be free
// rests until the next one. They also name the claim, which is noted on the node before it is made: so a claim of which the answer was lost is
// known again, and one by other local state of the same node is not taken for it. A node that has not compared its blocks with their objects
// for ten minutes does so before an Add, if the API answers: a controller may have freed them, Grace after the Node object was deleted or
// made anew. Times are those since the boot, so that no clock that is set counts.
//
// Operations on one attachment do not run at once, nor beside a GC of its network: the runtime sees to that. Changes of local state are under
// one lock and never wait for the API; requests to the API are under a lock of the space.
package block
