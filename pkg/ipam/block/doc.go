// Package block assigns addresses of cluster-wide spaces to containers, out of blocks that nodes
// own.
//
// A space is a set of addresses that are unique. It is cut into aligned blocks of sixteen
// addresses. A block is an object of the API (v1alpha1.IPBlock). To create the object is to claim
// the block: of two nodes that race for one, the second learns that it exists and takes another.
// Nobody waits for a lock. There are two kinds of blocks:
//
//   - A block with an owner. The owner's local state alone says which addresses are in use; giving
//     and taking back an address asks nobody.
//   - A shared block. The object itself says it, and every node changes it by compare-and-swap.
//     Blocks are shared from the start in a range of fewer than four, and where the nodes that use
//     blocks of the range outnumber those that nobody has. They become shared when another node
//     finds nothing free: it recalls a block, and the owner writes down what is in use, or deletes
//     the block if nothing is. Only the owner does that: nothing is taken from a node because time
//     passed.
//
// Contract: an address is never held by two attachments. An Add that fails leaves nothing. What a
// killed process left is released by the next Add or Del of the same attachment, or by a GC. A Del
// succeeds only when all that the attachment held is free. While the API is away, owned blocks work
// until the lease ends. What cannot be read is in use.
//
// The local state lies on a file system that does not survive a reboot, as no container does: after
// one, a node owns its blocks with nothing in use. Objects carry the boot's ID, so that state that
// was lost otherwise is not taken for a reboot: then what is not known to be free rests until the
// next one, and what attachments hold of shared blocks is found out from the API before any of them
// is said to hold nothing. Objects also name the claim, which is noted on the node before it is
// made. So a claim whose answer was lost is known again, and one by other local state of the same
// node is not taken for it.
//
// The claim is a fence, too. A block of this boot whose local state was lost is first taken up
// again by a new claim, a write that changes the object's version. Each write that lists what a
// node's containers hold names the version that it was made for, so that those that were sent
// before the loss have taken effect by then, or never do. Two things may still arrive: the claim of
// a new block, which then rests until the next boot, and the address of a shared block that a
// killed Add asked for, which a GC gives back. What was sent under another name of the node, of a
// block that it did not take up in its new name, is freed with that Node object.
//
// A node trusts that its blocks are its own by a lease. It looks at their objects every ten
// minutes, before an Add; a look that fails, for whatever reason, is tried again, and addresses are
// given meanwhile, until the lease ends, two minutes before Grace after the last look that told. A
// controller may free the blocks Grace after the Node object was deleted, was made anew or was
// declared out of service. The time of the lease is counted by the clock since the boot and by the
// wall clock: a machine that was suspended finds the first behind.
//
// Tend does what a node owes the others, after any operation: it shares blocks that they ask for,
// and returns idle ones. Ahead, in a process that lasts, reserves the next block of a range before
// an Add needs it. PROTOCOL.md draws the states of a block.
//
// The runtime runs operations on one attachment one after the other, and none beside a GC of its
// network. Changes of local state are under one lock and never wait for the API. Requests to the
// API are under a lock of the space.
package block
