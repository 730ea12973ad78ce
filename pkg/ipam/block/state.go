package block

import "github.com/braid-cni/braid/pkg/attachment"

// The local state, below Manager.Dir:
//
//	node                         who this node is, what was done for its blocks, and when
//	held/<hash>                  what one attachment holds or is about to hold; written first
//	blocks/<space>/<shelf>/<ip>  a block that this node owns, or may own
//	full/<hash>                  a range in which an Add found nothing free
//
// A file "new" in any of these directories is one that is, or was, being written.
//
// The locks are flock(2): who changes anything holds that of Manager.Dir itself, who asks the API
// for a space's blocks that of blocks/<space>, and who compares all blocks with their objects
// before an Add that of blocks.
//
// Blocks whose addresses are all in use stand on a shelf of their own, and so do those from which
// nothing may be given, so that what an Add costs does not depend on how much is in use: with
// sixteen full blocks among the others, an Add and a Del took three to eight times as long.
const (
	nodeFile  = "node"
	heldDir   = "held"
	blocksDir = "blocks"
)

// shelf is where a block stands.
type shelf string

const (
	open  shelf = "open"  // something is free
	full  shelf = "full"  // nothing is
	aside shelf = "aside" // nothing may be given
)

func shelves() []shelf { return []shelf{open, full, aside} }

// state is what a node knows of a block of its own.
type state string

const (
	// owned is the only state in which addresses are given.
	owned state = "owned"
	// claiming: the object is about to be created, or was, and the answer is not known.
	claiming state = "claiming"
	// dormant: the block is the node's from before a reboot, and not taken up again yet. Most are
	// given back without that; to take all up at once is one write for each, before the first Add.
	dormant state = "dormant"
	// giving: the block is about to be deleted or shared.
	giving state = "giving"
	// mended: the file could not be read, or was removed in this boot. What is in use is known from
	// what attachments hold; whose the block is, the object must say. It is taken up again.
	mended state = "mended"
	// lost: the block is somebody else's.
	lost state = "lost"
)

// nobody stands for a holder that is not known. Its addresses are given back by a reboot alone.
func nobody() Holder { return Holder{ID: attachment.ID{ContainerID: "?"}} }
