// Package nodenet decides about a node's network interfaces beyond its primary one: which NIC is
// that of a network, which addresses it has, and what has to be done now.
//
// Contract: pure. Parse and CheckBlocks read what an operator wrote, and name the key that is wrong
// and what to do. Decide compares what there is to be with what there is, and returns the steps
// from one to the other; pkg/nodenet/keeper takes them. A node takes only an address that an entry
// gives to its name, so that no node has the address of another. A default route is never set. What
// Decide takes away is what the Memory has, which is what was set by it before.
package nodenet
