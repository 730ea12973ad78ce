// Package netconf reads and edits CNI network configurations: of NADs, of delegates and of files on
// the node. It keeps every field that it is not asked to change as it was written.
//
// Contract: Parse, OnDisk and FromFile validate all that they return. Errors are *failure.Error and
// name the file, the field and the allowed values. Parse is pure; OnDisk, FromFile, AuxiliaryChain
// and ReadFile read files and write none. A List differs from its source only where a method
// changed it, and in the case of keys that CNI defines.
package netconf

// DefaultVersion is the CNI version of a network that names none.
const DefaultVersion = "1.0.0"
