// Package ipam holds what IPAM plugins share: the keys for addresses and routes, and the addresses
// that a pod asks for.
//
// Contract: no I/O. What is wrong is an error with its key and value, see plugin.ConfError.
package ipam
