// Package netconf reads and edits CNI network configurations: those of NADs, of delegates and of
// files on the node. It loses and changes no field that it is not asked to.
//
// Contract: Parse, OnDisk and FromFile validate all that they return; errors are *failure.Error and
// name the file, the field and the allowed values. Parse is pure; OnDisk, FromFile, AuxiliaryChain
// and ReadFile read files and write none. A List that went through this package differs from its
// source only in the case of keys that CNI defines, and where a method was called on it.
package netconf

// DefaultVersion is the CNI version of a network that names none.
const DefaultVersion = "1.0.0"
